"""Reads the weights back from an ONNX file that `export_onnx` wrote, in float32 or float16.

The exporter folds batch norms into the convolutions before them. What that loses, scales and statistics, stands in the
metadata, so that the network can be trained on. Older files lack that: their batch norms come back as ones that only
add a bias, the same function, good for running and exporting.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simplepose.core.errors import UserError, optional_packages

LAYERS_KEY = "layers"  # of the metadata: Paddle's name of a layer, as "conv2d_5" -> ours, as "backbone.conv1"
NORMS_KEY = "batch_norms"  # of the metadata: what folding loses, see `pack_norms`
METADATA_KEY = "simplepose"  # as in inference/onnx_network.py
_NORM_EPSILON = 1e-5  # of models/resnet.py, which needs Paddle
_LAYER = re.compile(r"(conv2d\w*)\.w_0$")  # Paddle's name of a convolution at the end of its weight's
_LOST = ("weight", "_mean", "_variance")  # of a batch norm; the bias is the convolution's
FOLDED = "batch norms are folded into the convolutions: to run and export, not to train on"


def pack_norms(state: Mapping[str, np.ndarray], names: Sequence[str]) -> str:
    """Scale, mean and variance of batch norms, one after the other, as float32 in base 64."""
    values = np.concatenate([state[f"{name}.{part}"] for name in names for part in _LOST])
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def read_onnx(path: str) -> tuple[dict[str, np.ndarray], str, list[str]]:
    """Tensors by this project's names, the metadata as JSON text, and a note where one should not train on them.

    Raises:
        UserError: not such a file, damaged, or in 8 bits; or the package onnx is missing.
    """
    from simplepose.core.files import parse_json

    with optional_packages():
        import onnx
    try:
        network = onnx.load(path, load_external_data=False)
        text = {entry.key: entry.value for entry in network.metadata_props}.get(METADATA_KEY, "")
        tensors = {
            tensor.name: onnx.numpy_helper.to_array(tensor)
            for tensor in network.graph.initializer
            if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
            and tensor.data_location == onnx.TensorProto.DEFAULT  # a stranger's file opens no others
        }
    except Exception as error:  # protobuf's own classes, ValueError, TypeError
        raise UserError(f"{path} is not an ONNX file, or a damaged one: {' '.join(str(error).split())[:200]}") from None
    metadata = parse_json(text, f"the description in {path}") if text else {}
    layers, packed = (
        metadata.pop(key, None) if isinstance(metadata, dict) else None for key in (LAYERS_KEY, NORMS_KEY)
    )
    if not isinstance(layers, dict) or not all(isinstance(name, str) for name in layers.values()):
        raise UserError(f"{path} does not say which weights are which; export it anew with pose_estimation/export.py")

    names = list(layers.items())  # in the network's order: a batch norm follows its convolution
    norms = {name: after for (_, name), (kind, after) in zip(names, names[1:]) if kind.startswith("batch_norm")}
    state: dict[str, np.ndarray] = {}
    axes = {}  # convolution -> where its weight has the output channels
    for node in network.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        found = _LAYER.search(node.input[1]) if len(node.input) > 1 else None
        name = layers.get(found[1]) if found else None
        if name is None or not all(tensor in tensors for tensor in node.input[1:]):
            raise UserError(f"{path} is in 8 bits, or not of export.py: its weights cannot be read; it only runs")
        state[f"{name}.weight"], axes[name] = tensors[node.input[1]], int(node.op_type == "ConvTranspose")
        if len(node.input) > 2:
            state[f"{norms.get(name, name)}.bias"] = tensors[node.input[2]]
    try:
        _unfold(state, {name: norm for name, norm in norms.items() if f"{norm}.bias" in state}, axes, packed)
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} has damaged batch norms; export it anew with pose_estimation/export.py") from None
    return state, json.dumps(metadata, ensure_ascii=False), [] if packed else [FOLDED]


def _unfold(state: dict[str, np.ndarray], norms: Mapping[str, str], axes: Mapping[str, int], packed: Any) -> None:
    """Take batch norms out of the convolutions before them, in place; `norms` is convolution -> batch norm.

    Raises:
        KeyError: a batch norm without its convolution.
        TypeError, ValueError: `packed` is not what `pack_norms` makes of these norms.
    """
    sizes = [len(state[f"{norm}.bias"]) for norm in norms.values()]
    if packed is None:
        values = np.concatenate([np.repeat(np.float32([1, 0, 1 - _NORM_EPSILON]), size) for size in sizes])
    else:
        values = np.frombuffer(base64.b64decode(packed, validate=True), "<f4")
    if len(values) != len(_LOST) * sum(sizes) or not np.isfinite(values).all():
        raise ValueError
    each = np.split(values, len(_LOST) * np.cumsum(sizes)[:-1])
    for (name, norm), (scale, mean, variance) in zip(norms.items(), (part.reshape(len(_LOST), -1) for part in each)):
        if (variance < 0).any():
            raise ValueError
        factor = scale / np.sqrt(variance + np.float32(_NORM_EPSILON))
        weight = np.moveaxis(state[f"{name}.weight"], axes[name], -1).astype(np.float32)
        weight = np.divide(weight, factor, out=np.zeros_like(weight), where=factor != 0)
        state[f"{name}.weight"] = np.moveaxis(weight, -1, axes[name])
        state[f"{norm}.bias"] = state[f"{norm}.bias"] + mean * factor
        state.update(zip([f"{norm}.{part}" for part in _LOST], (scale, mean, variance)))
