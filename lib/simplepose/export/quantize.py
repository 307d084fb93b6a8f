"""Converts an exported float32 network to float16 (half the size) or int8 (the ResNet in 8 bits).

Only the network itself is converted. Normalisation in front of it and decoding behind it stay float32: a pixel
coordinate needs more digits than float16 has.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import written_whole
from simplepose.export.onnx import describe, described, quiet, require
from simplepose.export.parity import Parity
from simplepose.weights.onnx_files import NORMS_KEY

if TYPE_CHECKING:
    from onnx import ModelProto

FLOAT16_MAX_RELATIVE_DIFFERENCE = 1e-2  # of heatmaps, relative to the highest value; float16 has three digits
CALIBRATION_BATCH = 8  # crops
FLOAT16_SUFFIX = "_float16"  # of a tensor's name
TRUNK_OPS = ("Conv", "ConvTranspose", "Relu", "Add", "MaxPool")
INT8_OPSET = 13  # of ONNX; the first with a scale per channel in weights


def write_float16(source: Path, path: str | os.PathLike, measure: Callable[[Path], Parity]) -> tuple[Parity, list[str]]:
    """Write a float32 ONNX network as float16; the types of its inputs and outputs do not change.

    Where that changes the heatmaps too much, parts go back to float32: the last layer, then the whole head, then the
    first layer too.

    Args:
        source: an exported float32 file.
        measure: compares a file with the original.

    Returns:
        Its parity, and the names of the layers that stayed float32.
    """
    onnx = require("onnx")
    with written_whole(path) as scratch, tempfile.TemporaryDirectory() as folder:
        attempt = Path(folder, "float16.onnx")
        for kept in _float16_fallbacks(onnx.load(str(source))):
            network = onnx.load(str(source))
            _to_float16(network, {node.name for node in _trunk(network)} - set(kept))
            describe(network, {**described(network), "precision": "float16", "float32_layers": kept})
            onnx.save(network, str(attempt))
            parity = measure(attempt)
            if parity.max_relative_difference <= FLOAT16_MAX_RELATIVE_DIFFERENCE:
                break
        scratch.write_bytes(attempt.read_bytes())
    return parity, kept


def write_int8(source: Path, path: str | os.PathLike, images: np.ndarray, calibrated_on: str) -> list[str]:
    """Write a float32 ONNX network with its ResNet in 8 bits and its head, all from the deconvolutions on, in float32.

    Weights have a scale per channel and use seven of the eight bits: processors without VNNI add two products in 16
    bits, which eight bits would overflow. Activations have the range that they take on `images`.

    Args:
        source: an exported float32 file.
        images: (N, ...), N >= 1, as the network takes them.
        calibrated_on: the images' origin, for the metadata.

    Returns:
        The names of the layers that stayed float32.
    """
    onnx, _ = require("onnx"), require("ml_dtypes")  # the quantiser imports ml_dtypes without depending on it
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    network = onnx.load(str(source))
    metadata = described(network)
    if metadata["opset"] < INT8_OPSET:
        raise UserError(f"int8 needs --opset {INT8_OPSET} or later, not {metadata['opset']}")
    metadata.pop(NORMS_KEY, None)  # no weights can be read back from 8 bits
    layers = _trunk(network)
    head = next(index for index, node in enumerate(layers) if node.op_type == "ConvTranspose")
    kept = [node.name for node in layers[head:] if node.op_type in ("Conv", "ConvTranspose")]
    with written_whole(path) as scratch, tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder, "int8.onnx")
        with quiet(1, 2):
            quantize_static(
                str(source), str(quantized), _reader(network.graph.input[0].name, images),
                quant_format=QuantFormat.QDQ, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
                per_channel=True, reduce_range=True, calibrate_method=CalibrationMethod.MinMax,
                nodes_to_quantize=[node.name for node in layers[:head]],
            )  # fmt: skip
        network = onnx.load(str(quantized))
        calibration = {"crops": len(images), "of": calibrated_on}
        describe(network, {**metadata, "precision": "int8", "float32_layers": kept, "calibration": calibration})
        onnx.save(network, str(scratch))
    return kept


def _trunk(network: ModelProto) -> list[Any]:
    """The nodes from the first convolution to the last: what was trained, without the arithmetic around it."""
    nodes = list(network.graph.node)
    convolutions = [index for index, node in enumerate(nodes) if node.op_type in ("Conv", "ConvTranspose")]
    return [node for node in nodes[convolutions[0] : convolutions[-1] + 1] if node.op_type in TRUNK_OPS]


def _to_float16(network: ModelProto, inside: set[str]) -> None:
    """Convert the nodes of these names in place. A tensor that both sides need exists twice, with a cast between."""
    import onnx

    graph = network.graph
    weights = {array.name: array for array in graph.initializer}
    whole = {value.name for value in graph.input}  # tensors that exist in their original type
    half: set[str] = set()  # tensors that exist in float16
    nodes = []

    def cast(name: str, to_half: bool) -> None:
        source, target = (name, name + FLOAT16_SUFFIX) if to_half else (name + FLOAT16_SUFFIX, name)
        kind = onnx.TensorProto.FLOAT16 if to_half else onnx.TensorProto.FLOAT
        nodes.append(onnx.helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=kind))
        (half if to_half else whole).add(name)

    for node in graph.node:
        to_half = node.name in inside
        for position, name in enumerate(node.input):
            if to_half and name in weights:
                values = onnx.numpy_helper.to_array(weights[name])
                with np.errstate(over="ignore"):  # an overflow shows in the parity
                    values = values.astype(np.float16)
                weights[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
                continue
            if name in (half | whole) and name not in (half if to_half else whole):
                cast(name, to_half)
            if to_half:
                node.input[position] = name + FLOAT16_SUFFIX
        (half if to_half else whole).update(node.output)
        if to_half:
            node.output[:] = [name + FLOAT16_SUFFIX for name in node.output]
        nodes.append(node)
    for value in graph.output:
        if value.name not in whole:
            cast(value.name, to_half=False)
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)


def _float16_fallbacks(network: ModelProto) -> list[list[str]]:
    """Layers to leave in float32, attempt by attempt."""
    layers = [node for node in _trunk(network) if node.op_type in ("Conv", "ConvTranspose")]
    names = [node.name for node in layers]
    head = next(index for index, node in enumerate(layers) if node.op_type == "ConvTranspose")
    return [[], names[-1:], names[head:], names[:1] + names[head:]]


def _reader(input_name: str, images: np.ndarray) -> Any:
    """The images as ONNX Runtime's calibration asks for them, in whole batches."""
    from onnxruntime.quantization import CalibrationDataReader

    size = min(CALIBRATION_BATCH, len(images))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = (images[start : start + size] for start in range(0, len(images) - size + 1, size))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {input_name: batch}

    return Reader()
