"""Runs ONNX files with ONNX Runtime: sessions, the description stored in an exported file, networks.

Nothing here imports Paddle.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simplepose.core.errors import UserError, optional_packages
from simplepose.core.files import DATA_BYTES, parse_json, require_regular
from simplepose.machine.device import available_cores

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from simplepose.inference.network import PoseNetwork

METADATA_KEY = "simplepose"  # of the model's metadata_props; its value is JSON text


def open_session(path: str | os.PathLike, device: str | None = None) -> InferenceSession:
    """Open an ONNX file, with one thread per available core.

    Args:
        device: "cpu", which is the default, "gpu" or "gpu:1" for CUDA, or an execution provider of ONNX Runtime.

    Raises:
        UserError: missing or unreadable file, ONNX Runtime is not installed, or it has no such device.
    """
    path = Path(path)
    with optional_packages():
        import onnxruntime
    require_regular(path, "ONNX", DATA_BYTES)  # the format's own limit
    providers = _providers(device or "cpu", onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 3  # errors only; third-party detectors cause hundreds of warnings
    # Threads of one network that wait by spinning take the core that the other network and the decoder need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own classes are not public
        raise UserError(f"{path} is not an ONNX file that ONNX Runtime can load: {_first_line(error)}") from None
    if session.get_providers()[0] != providers[0][0]:  # it falls back to another one if libraries are missing
        raise UserError(f"ONNX Runtime cannot start its {providers[0][0]} here; use another device, as cpu")
    return session


def _providers(device: str, available: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """The execution providers to run a network on, best first, each with its options."""
    cpu = ("CPUExecutionProvider", {})
    kind, _, number = device.partition(":")
    if device == "cpu":
        return [cpu]
    if kind == "gpu" and (number or "0").isdecimal():
        wanted = ("CUDAExecutionProvider", {"device_id": int(number or 0)})
    else:
        wanted = (device, {})
    if wanted[0] not in available:
        raise UserError(
            f"device is {device!r}, and this ONNX Runtime has {', '.join(available)}; for CUDA: "
            "python -m pip install onnxruntime-gpu in place of onnxruntime"
        )
    return [wanted] if wanted == cpu else [wanted, cpu]


def read_metadata(session: InferenceSession, path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that `export_onnx` stored in the file.

    Raises:
        UserError: the file has no simplepose metadata.
    """
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "")
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise UserError(f"{path} does not describe its joints and input; export it with pose_estimation/export.py")
    metadata = parse_json(text, f"the description in {path}")
    if not isinstance(metadata, dict):
        raise UserError(f"the description in {path} is not a table; export it again")
    return metadata


def check_shapes(session: InferenceSession, network: PoseNetwork, path: str | os.PathLike) -> None:
    """Raise if inputs and outputs of a graph do not match its description.

    Raises:
        UserError: a different number of them, or different sizes; sizes that the graph leaves open match any.
    """
    (width, height), joints, graph = network.codec.image_size_wh, network.skeleton.num_joints, network.graph
    if graph.dynamic_size:
        width = height = None
    heatmap_wh = (None, None) if graph.dynamic_size else network.codec.heatmap_size_wh
    if graph.decode:
        outputs = [[None, joints, 2], [None, joints]]
    else:
        outputs = [[None, joints, *heatmap_wh[::-1]]]
    inputs = [[None, height, width, 3] if graph.preprocess else [None, 3, height, width]]
    for kind, described, found in (("input", inputs, session.get_inputs()), ("output", outputs, session.get_outputs())):
        shapes = [value.shape or [] for value in found]
        if len(shapes) != len(described) or not all(map(_fits, shapes, described)):
            raise UserError(
                f"{path} describes another network than its graph is: an {kind} of {described} is described, "
                f"the graph has {shapes}; export it again"
            )
    pixel_type = "tensor(uint8)" if graph.preprocess else "tensor(float)"
    if session.get_inputs()[0].type != pixel_type:
        raise UserError(
            f"{path} describes another network than its graph is: its input is {session.get_inputs()[0].type} "
            f"instead of {pixel_type}; export it again"
        )


def _fits(shape: list[Any], described: list[int | None]) -> bool:
    """Whether a shape can be the described one: a size that is not a number matches any, an empty shape is unknown."""
    if not shape:
        return True
    return len(shape) == len(described) and all(
        size is None or not isinstance(found, int) or found == size for found, size in zip(shape, described)
    )


class OnnxNetwork:
    """An ONNX session as a `Network`: its output, or all of them if there are several."""

    def __init__(self, session: InferenceSession):
        self.session = session
        self.input_name = session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray | list[np.ndarray]:
        try:
            outputs = self.session.run(None, {self.input_name: images})
        except Exception as error:  # ONNX Runtime has a dozen of its own
            raise UserError(
                f"the network does not run on {images.shape}: {_first_line(error)}; export it again"
            ) from None
        return outputs[0] if len(outputs) == 1 else outputs


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
