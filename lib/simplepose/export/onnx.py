"""Exports a Paddle network as an ONNX file that describes itself, or in the format of Paddle Inference.

Nothing is downloaded or installed.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplepose.core.errors import UserError, optional_packages
from simplepose.core.files import written_whole
from simplepose.inference.network import PoseNetwork
from simplepose.inference.onnx_network import METADATA_KEY
from simplepose.machine.streams import silenced
from simplepose.weights.network import arrays_of
from simplepose.weights.onnx_files import LAYERS_KEY, NORMS_KEY, pack_norms

if TYPE_CHECKING:
    from onnx import ModelProto
    from paddle import nn

OPSET = 13  # the first with a scale per channel in quantised weights
OPSETS = range(11, 22)  # what paddle2onnx writes such a network in
DESCRIPTION_SUFFIX = ".simplepose.json"  # beside a network in Paddle's format, which has no place for metadata
PROGRAM_SUFFIXES = (".json", ".pdmodel")  # Paddle 3's, Paddle 2's


def export_onnx(
    model: nn.Layer, path: str | os.PathLike, pose: PoseNetwork, metadata: dict[str, Any], opset: int = OPSET
) -> None:
    """Write a network as ONNX; any batch size works.

    Its input is called `image`, its output `heatmaps`, or `keypoints` and `scores`: see `GraphOptions`.

    Args:
        model: it is put into eval mode.
        pose: the network's preprocessing and decoding; `pose.graph` says which of it becomes part of the graph.
            `pose.run` is not used.
        metadata: further entries. Stored with `pose.description()` as JSON in the file's metadata_props,
            under `METADATA_KEY`.
        opset: of ONNX, one of `OPSETS`.

    Raises:
        UserError: a package is missing, the exporter failed, or the folder is not writable.
    """
    onnx, paddle2onnx = require("onnx"), require("paddle2onnx")
    if opset not in OPSETS:
        raise UserError(f"--opset {opset}: paddle2onnx writes opsets {OPSETS[0]} to {OPSETS[-1]}")
    old = paddle2onnx.__version__.startswith("1.")  # goes with Paddle 2
    if old and pose.graph.dynamic_size and pose.graph.flip_test:
        raise UserError(
            f"paddle2onnx {paddle2onnx.__version__} cannot mirror a dynamic width; leave the flip test or the dynamic "
            "size out, or export with Paddle 3 and paddle2onnx 2"
        )
    with written_whole(path) as scratch, tempfile.TemporaryDirectory() as folder:
        program = _save_program(model, pose, Path(folder))
        raw, folded = Path(folder, "raw.onnx"), Path(folder, "folded.onnx")
        # The constant folder of paddle2onnx 2 would install packages.
        arguments = {"verbose": False} if old else {"verbose": False, "optimize_tool": "None"}
        with quiet(1) as said:
            parameters = str(program.with_suffix(".pdiparams"))
            paddle2onnx.export(str(program), parameters, str(raw), opset, **arguments)
        if not raw.is_file():  # the exporter only prints its exceptions
            reason = (said.getvalue().strip().splitlines() or ["it gave no reason"])[-1]
            raise UserError(f"paddle2onnx wrote no file for {path}: {reason}")
        network = onnx.load(str(raw))
        for node in network.graph.node:
            if node.op_type == "Pad":
                del node.input[2:]  # what to pad with: paddle2onnx writes whatever is in memory. ONNX's default is 0
        onnx.save(network, str(raw))
        _fold(raw, folded)
        network = onnx.load(str(folded))
        _name(network, pose)
        layers = {layer.full_name(): name for name, layer in model.named_sublayers() if layer.parameters(False)}
        norms = pack_norms(arrays_of(model), [name for kind, name in layers.items() if kind.startswith("batch_norm")])
        metadata = {**metadata, LAYERS_KEY: layers, NORMS_KEY: norms}  # so that the weights can be read back
        describe(network, {**metadata, **pose.description(), "opset": opset, "precision": "float32"})
        onnx.save(network, str(scratch))


def export_paddle(model: nn.Layer, path: str | os.PathLike, pose: PoseNetwork, metadata: dict[str, Any]) -> list[Path]:
    """Write a network in Paddle Inference's format, and its description beside it. Arguments as `export_onnx`.

    Args:
        path: of the program, whose ending Paddle chooses: .json, or .pdmodel by Paddle 2.

    Returns:
        The files: program, parameters, description.
    """
    path = Path(path)
    if path.suffix not in PROGRAM_SUFFIXES:
        path = path.with_name(f"{path.name}.json")
    described = {**metadata, **pose.description(), "precision": "float32"}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as all_or_none:
        program = _save_program(model, pose, Path(folder))
        content = {file.suffix: file.read_bytes() for file in (program, program.with_suffix(".pdiparams"))}
        content[DESCRIPTION_SUFFIX] = (json.dumps(described, ensure_ascii=False, indent=1) + "\n").encode()
        for suffix, data in content.items():
            all_or_none.enter_context(written_whole(path.with_suffix(suffix))).write_bytes(data)
    return [path.with_suffix(suffix) for suffix in content]


def describe(network: ModelProto, metadata: dict[str, Any]) -> None:
    """Store metadata in an ONNX network, replacing earlier ones."""
    import onnx

    onnx.helper.set_model_props(network, {METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})


def described(network: ModelProto) -> dict[str, Any]:
    """What `describe` stored."""
    return json.loads({entry.key: entry.value for entry in network.metadata_props}[METADATA_KEY])


def require(package: str) -> Any:
    """Import a package that only exporting needs.

    Raises:
        UserError: it is not installed.
    """
    with optional_packages():
        return __import__(package)


def _save_program(model: nn.Layer, pose: PoseNetwork, folder: Path) -> Path:
    """Trace the network with its graph options into Paddle's static form; its parameters are beside it."""
    import paddle

    from simplepose.export.graph import GraphNetwork

    width, height = (None, None) if pose.graph.dynamic_size else pose.codec.image_size_wh
    if pose.graph.preprocess:
        image = paddle.static.InputSpec([None, height, width, 3], "uint8", "image")
    else:
        image = paddle.static.InputSpec([None, 3, height, width], "float32", "image")
    with quiet(1, 2):
        paddle.jit.save(GraphNetwork(model, pose), str(folder / "network"), [image])
    return next(file for file in folder.iterdir() if file.suffix in PROGRAM_SUFFIXES)


@contextlib.contextmanager
def quiet(*descriptors: int) -> Iterator[io.StringIO]:
    """Suppress what exporters print, from Python and from C++ (file descriptors 1 and 2).

    Yields the captured Python output. An exporter that aborts the process gives the reason on descriptor 2.
    """
    said = io.StringIO()
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with silenced(*descriptors), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield said
    finally:
        logging.disable(previous)


def _fold(path: Path, folded: Path) -> None:
    """Compute what is constant and merge batch norms into convolutions, in standard ONNX operators.

    Older OpenCV and the quantiser require it; other runtimes would do it at every start.
    """
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _name(network: ModelProto, pose: PoseNetwork) -> None:
    """Give inputs, outputs and nodes stable names, and outputs their shapes; the exporter only numbers them."""
    graph, options = network.graph, pose.graph
    joints, (width, height) = pose.skeleton.num_joints, pose.codec.heatmap_size_wh
    if options.decode:
        outputs = {"keypoints": ["batch", joints, 2], "scores": ["batch", joints]}
    elif options.dynamic_size:
        outputs = {"heatmaps": ["batch", joints, "heatmap_height", "heatmap_width"]}
    else:
        outputs = {"heatmaps": ["batch", joints, height, width]}
    image = graph.input[0].type.tensor_type.shape
    names = ("batch", "height", "width", "channels") if options.preprocess else ("batch", "channels", "height", "width")
    for size, name in zip(image.dim, names):
        if not size.dim_value:
            size.dim_param = name

    renamed = {}
    for output, (name, shape) in zip(graph.output, outputs.items()):
        renamed[output.name] = output.name = name
        del output.type.tensor_type.shape.dim[:]
        for size in shape:
            kind = "dim_param" if isinstance(size, str) else "dim_value"
            output.type.tensor_type.shape.dim.add(**{kind: size})
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    used = {node.domain for node in graph.node}
    for entry in [entry for entry in network.opset_import if entry.domain not in used]:
        network.opset_import.remove(entry)  # ONNX Runtime lists every domain it knows
    del graph.value_info[:]  # shapes under the old names; every runtime infers them
