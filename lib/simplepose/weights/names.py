"""Tensor names: literal rules from other sources' names to this project's and back.

Names here:  backbone.conv1.weight  backbone.layer1.0.bn1._mean  deconv_layers.0.weight  final_layer.weight

| source        | backbone             | head                                          | batch norm         |
| ------------- | -------------------- | --------------------------------------------- | ------------------ |
| simplepose    | backbone.*           | deconv_layers.*, final_layer.*                | _mean, _variance   |
| humanposebl   | as simplepose: the earlier Paddle port, CuberrChen/HumanPoseBL-Paddle                    |
| microsoft     | conv1..., layer1...  | deconv_layers.*, final_layer.*                | running_mean, _var |
| hrnet         | as microsoft: `pose_resnet` of the HRNet repository                                      |
| torchvision   | conv1..., layer1...  | fc.*, dropped                                 | running_mean, _var |
| mmpose-0.x    | backbone.*           | keypoint_head.deconv_layers.*, .final_layer.* | running_mean, _var |
| mmpose-1.x    | backbone.*           | head.deconv_layers.*, head.final_layer.*      | running_mean, _var |
| paddle-vision | conv1..., layer1...  | fc.*, dropped                                 | _mean, _variance   |

Layouts are equal everywhere: convolutions (out, in, kh, kw), transposed convolutions (in, out, kh, kw).
Nothing is transposed; only `fc`, which is, is dropped. Whether a bottleneck strides in its 1x1 (caffe style)
or its 3x3 convolution leaves no trace in names or shapes: only the configuration says so (MODEL.STYLE).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SOURCES = (
    "simplepose",
    "humanposebl",
    "microsoft",
    "hrnet",
    "torchvision",
    "mmpose-0.x",
    "mmpose-1.x",
    "paddle-vision",
)

#: How the pixels reached the network when these weights were trained; the names are
#: `core.images.INPUT_FORMATS`. microsoft: OpenCV's BGR, normalised as if it were RGB. hrnet: its ResNet
#: configurations say COLOR_RGB: false, so the same (a model trained with COLOR_RGB: true needs "rgb").
#: humanposebl: BGR without the division by 255. mmpose (to_rgb): RGB. A backbone alone decides nothing: the
#: original trains its pose networks on BGR from torchvision's RGB backbone.
INPUT_FORMATS = {
    "humanposebl": "humanposebl",
    "microsoft": "bgr",
    "hrnet": "bgr",
    "mmpose-0.x": "rgb",
    "mmpose-1.x": "rgb",
}

_BATCH_NORM = {"running_mean": "_mean", "running_var": "_variance"}
_BATCH_NORM_BACK = {ours: theirs for theirs, ours in _BATCH_NORM.items()}
_COUNTER = "num_batches_tracked"
_STEM = re.compile(r"(conv1|bn1|layer[1-4])\.")
_IGNORED = re.compile(r"(fc|data_preprocessor|img_norm_cfg)\.")

#: (3, 4, 6, 3) blocks with a third convolution in each, and so on.
_DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


@dataclass
class Renamed:
    """A state dict in this project's names.

    Attributes:
        state: name -> array.
        counters: batch norm (`backbone.bn1`) -> its `num_batches_tracked`, which Paddle has no place for.
        dropped: the source's names that have no counterpart here, such as a classifier.
    """

    state: dict[str, np.ndarray]
    counters: dict[str, int] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)


def strip_module(names: Iterable[str]) -> dict[str, str]:
    """name -> name without the `module.` that data-parallel training puts before every one."""
    names = list(names)
    shared = min((re.match(r"(?:module\.){0,9}", name).end() for name in names), default=0)
    return {name: name[shared:] for name in names}


def recognise_source(names: Iterable[str]) -> str | None:
    """One of `SOURCES` by the names alone, or None.

    Two pairs share their names. "simplepose" stands for humanposebl as well (`read_weights` tells them apart
    by this project's metadata), and "microsoft" for hrnet.
    """
    names = set(strip_module(names).values())
    paddle_style = any(name.endswith("bn1._mean") for name in names)
    torch_style = any(name.endswith("bn1.running_mean") for name in names)
    head = any(name.startswith(("deconv_layers.", "final_layer.")) for name in names)
    if "backbone.conv1.weight" in names:
        if paddle_style and not torch_style:
            return "simplepose"
        if any(name.startswith("keypoint_head.") for name in names):
            return "mmpose-0.x"
        if torch_style and not head:
            return "mmpose-1.x"
    if "conv1.weight" in names and "layer1.0.conv1.weight" in names:
        if torch_style:
            return "microsoft" if head else "torchvision"
        if paddle_style:
            return "paddle-vision"
    return None


def to_project(state: Mapping[str, np.ndarray], source: str) -> Renamed:
    """Rename a state dict of `source` (one of `SOURCES`); the arrays are passed through untouched.

    Names that this project has no counterpart for are dropped and listed if they are known to be harmless (a
    classifier, a preprocessor's buffers); any other name is kept, so that strict loading reports it.
    """
    renamed = Renamed({})
    for full_name, name in strip_module(state).items():
        if _IGNORED.match(name) or not isinstance(state[full_name], np.ndarray):
            renamed.dropped.append(full_name)
            continue
        if source == "mmpose-0.x" and name.startswith("keypoint_head."):
            name = name[len("keypoint_head.") :]
        elif source == "mmpose-1.x" and name.startswith("head."):
            name = name[len("head.") :]
        elif _STEM.match(name):
            name = f"backbone.{name}"
        module, dot, last = name.rpartition(".")
        if last == _COUNTER and state[full_name].size == 1 and state[full_name].dtype.kind in "iu":
            renamed.counters[module] = int(state[full_name].item())
            continue
        renamed.state[f"{module}{dot}{_BATCH_NORM.get(last, last)}"] = state[full_name]
    return renamed


def from_project(state: Mapping[str, np.ndarray], counters: Mapping[str, int] | None = None) -> dict[str, np.ndarray]:
    """This project's names -> the PyTorch original's, in PyTorch's order, ready for `load_state_dict`.

    Args:
        state: name -> array in this project's names; a backbone alone gives torchvision's names without `fc`.
        counters: batch norm -> `num_batches_tracked`, as `Renamed.counters` has them. None stands for zeros;
            with a mapping, a batch norm that it does not list gets no counter.
    """
    renamed: dict[str, np.ndarray] = {}
    for name, array in state.items():
        module, dot, last = name.rpartition(".")
        module = module[len("backbone.") :] if module.startswith("backbone.") else module
        renamed[f"{module}{dot}{_BATCH_NORM_BACK.get(last, last)}"] = array
        # PyTorch lists a batch norm as weight, bias, running_mean, running_var, num_batches_tracked.
        if last == "_variance":
            batch_norm = name[: -len("._variance")]
            if counters is None or batch_norm in counters:
                count = 0 if counters is None else counters[batch_norm]
                renamed[f"{module}.{_COUNTER}"] = np.array(count, dtype=np.int64)
    return renamed


def infer_depth(names: Iterable[str]) -> int | None:
    """18, 34, 50, 101 or 152 from the blocks that this project's names list, or None."""
    blocks: list[set[int]] = [set(), set(), set(), set()]
    bottleneck = False
    for name in names:
        match = re.match(r"backbone\.layer([1-4])\.(\d{1,3})\.(conv3)?", name)
        if match:
            blocks[int(match.group(1)) - 1].add(int(match.group(2)))
            bottleneck = bottleneck or match.group(3) is not None
    return _DEPTHS.get((tuple(len(stage) for stage in blocks), bottleneck))


def infer_joints(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Number of joints from the last layer's (K, C, kh, kw) kernel, or None."""
    shape = shapes.get("final_layer.weight")
    return int(shape[0]) if shape is not None and len(shape) == 4 else None


def deconv_kernels(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Shapes (in, out, kh, kw) of the transposed convolutions, in order.

    deconv_layers holds (deconvolution, batch norm, ReLU) for each.
    """
    names = [f"deconv_layers.{index}.weight" for index in range(0, 3 * len(shapes), 3)]
    return [shapes[name] for name in names if len(shapes.get(name, ())) == 4]


def describe_network(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What this project's names and shapes show of a PoseResNet: configuration key -> value.

    Empty without a pose head. They do not show MODEL.STYLE, MODEL.IMAGE_SIZE or MODEL.INPUT_FORMAT.
    """
    joints, kernels = infer_joints(shapes), deconv_kernels(shapes)
    if joints is None or not kernels:
        return {}
    described: dict[str, Any] = {
        "MODEL.EXTRA.NUM_DECONV_LAYERS": len(kernels),
        "MODEL.EXTRA.NUM_DECONV_FILTERS": [shape[1] for shape in kernels],
        "MODEL.EXTRA.NUM_DECONV_KERNELS": [shape[2] for shape in kernels],
        "MODEL.EXTRA.DECONV_WITH_BIAS": "deconv_layers.0.bias" in shapes,
        "MODEL.EXTRA.FINAL_CONV_KERNEL": shapes["final_layer.weight"][2],
    }
    depth = infer_depth(shapes)
    if depth is not None:
        described["MODEL.DEPTH"] = depth
    return described
