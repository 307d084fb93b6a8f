"""The smallest experiment that trains, two epochs of the bundled set in a second or two, and the smallest network."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
from paddle import nn

from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.inference.network import PoseNetwork
from simplepose.inference.onnx_network import METADATA_KEY
from simplepose.training.loop import Average, Iteration, Watcher
from simplepose.training.optim import build_optimizer, learning_rate
from simplepose.training.state import Progress, TrainingState

EXPERIMENT: dict[str, Any] = {
    "WORKERS": 1,
    "PRINT_FREQ": 1,
    "DATASET": {"DATASET": "mpii", "ROOT": "data", "ROT_FACTOR": 30},
    "MODEL": {"DEPTH": 18, "IMAGE_SIZE": 32, "EXTRA": {"SIGMA": 1, "NUM_DECONV_FILTERS": [8, 8, 8]}},
    "TRAIN": {"BATCH_SIZE": 4, "END_EPOCH": 2, "LR_STEP": [1], "OPTIMIZER": "sgd"},
    "TEST": {"BATCH_SIZE": 4},
}


def experiment(test_batch_size: int = 4, **train: Any) -> dict[str, Any]:
    """The experiment as a dictionary, with other values in TRAIN."""
    made = copy.deepcopy(EXPERIMENT)
    made["TRAIN"].update(train)
    made["TEST"]["BATCH_SIZE"] = test_batch_size
    return made


def training_state(
    model: nn.Layer,
    kind: str = "sgd",
    lr: float = 0.1,
    schedule: Callable[[int], float] = lambda iteration: 1.0,
    progress: Progress | None = None,
    **options: Any,
) -> TrainingState:
    """A training of this network, at its start."""
    rate = learning_rate(lr, schedule)
    state = TrainingState(model, build_optimizer(kind, model.parameters(), rate, **options), rate)
    state.progress = progress or state.progress
    return state


def seen(batch: Any, heatmaps: Any, loss: float, index: int, loss_scale: float = 1.0) -> Iteration:
    """An iteration of epoch 0 as watchers see it before its step."""
    losses = Average()
    losses.add(loss)
    return Iteration(0, index, 100, batch, heatmaps, 0.1, loss_scale, losses, Average(), Average(), Average())


class AfterStep(Watcher):
    """Calls a function after each step that was looked at."""

    def __init__(self, call: Callable[[int], None]):
        self.after_step = call


def write_tiny_onnx(path: Path, description: Any, joints: int = 16) -> None:
    """An ONNX network of one convolution from 64x96 images to heatmaps of 16x24 cells, with any description at all."""
    import onnx
    from onnx import TensorProto, helper

    kernel = np.random.default_rng(0).random((joints, 3, 4, 4), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel"], ["heatmaps"], strides=[4, 4])],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 96, 64])],
        [helper.make_tensor_value_info("heatmaps", TensorProto.FLOAT, ["n", joints, 24, 16])],
        [onnx.numpy_helper.from_array(kernel, "kernel")],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    text = description if isinstance(description, str) else json.dumps(description)
    helper.set_model_props(network, {METADATA_KEY: text})
    onnx.save(network, str(path))


def tiny_description() -> dict[str, Any]:
    """What such a network is to say of itself."""
    codec = HeatmapCodec((64, 96), (16, 24), 1)
    return json.loads(json.dumps(PoseNetwork(None, MPII, codec, INPUT_FORMATS["bgr"]).description()))
