"""Reads the weights back from an ONNX file that `export_onnx` wrote, in float32 or float16.

The exporter folds batch norms into the convolutions before them. They come back as batch norms that only add their
bias: the same function, good for running and exporting; what they knew of the training data is lost.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from simplepose.core.errors import UserError, optional_packages

LAYERS_KEY = "layers"  # of the metadata: Paddle's name of a layer, as "conv2d_5" -> ours, as "backbone.conv1"
METADATA_KEY = "simplepose"  # as in inference/onnx_network.py
_NORM_EPSILON = 1e-5  # of models/resnet.py, which needs Paddle
_LAYER = re.compile(r"(conv2d\w*)\.w_0$")  # Paddle's name of a convolution at the end of its weight's
NOTE = "batch norms are folded into the convolutions: to run and export, not to train on"


def read_onnx(path: str) -> tuple[dict[str, np.ndarray], str]:
    """Tensors by this project's names, and the metadata as JSON text.

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
        }
    except Exception as error:  # protobuf's own classes, ValueError, TypeError
        raise UserError(f"{path} is not an ONNX file, or a damaged one: {' '.join(str(error).split())[:200]}") from None
    layers = (parse_json(text, f"the description in {path}") if text else {}).get(LAYERS_KEY)
    if not isinstance(layers, dict) or not all(isinstance(name, str) for name in layers.values()):
        raise UserError(f"{path} does not say which weights are which; export it anew with pose_estimation/export.py")

    names = list(layers.items())  # in the network's order: a batch norm follows its convolution
    norms = {name: after for (_, name), (kind, after) in zip(names, names[1:]) if kind.startswith("batch_norm")}
    state: dict[str, Any] = {}
    for node in network.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        found = _LAYER.search(node.input[1])
        name = layers.get(found[1]) if found else None
        if name is None or not all(tensor in tensors for tensor in node.input[1:]):
            raise UserError(f"{path} is in 8 bits, or not of export.py: its weights cannot be read; it only runs")
        state[f"{name}.weight"] = tensors[node.input[1]]
        if len(node.input) < 3:
            continue
        bias, norm = tensors[node.input[2]], norms.get(name)
        if norm is None:
            state[f"{name}.bias"] = bias
        else:
            ones = np.ones(len(bias), np.float32)
            state[f"{norm}.weight"], state[f"{norm}.bias"] = ones, bias
            state[f"{norm}._mean"], state[f"{norm}._variance"] = 0 * ones, ones - np.float32(_NORM_EPSILON)
    return state, text
