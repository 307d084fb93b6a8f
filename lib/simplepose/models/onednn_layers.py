"""What a PoseResNet asks of oneDNN, for training and inference alike: its steps in order, its convolutions, its memory.

Activations stay in NHWC from the first convolution to the last; only images and heatmaps are Paddle's NCHW.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ctypes import c_int
from typing import Any, NamedTuple

import numpy as np
from paddle import nn

from simplepose.machine import onednn
from simplepose.machine.onednn import Description, Memory, Primitive
from simplepose.models.pose_resnet import PoseResNet
from simplepose.models.resnet import BasicBlock

# A ResNet's max pooling: strides, kernel, dilation, padding before and after.
POOLING = tuple(onednn.sizes(size, size) for size in (2, 3, 0, 1, 1))


def steps(model: PoseResNet) -> Iterator[tuple]:
    """What a PoseResNet does, in order: the name of a step, and the layers it takes."""
    backbone = model.backbone
    yield "unit", backbone.conv1, backbone.bn1
    yield ("max_pool",)
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4):
        for block in stage:
            yield "block", block
    head = list(model.deconv_layers)
    for deconv, norm in zip(head[::3], head[1::3]):
        yield "unit", deconv, norm
    yield "final", model.final_layer


def chain(block: nn.Layer) -> list[tuple[nn.Layer, nn.Layer]]:
    """The convolutions of a residual block, each with its batch norm."""
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    return pairs if isinstance(block, BasicBlock) else [*pairs, (block.conv3, block.bn3)]


class Geometry(NamedTuple):
    """What a convolution or deconvolution does to sizes, and how its weights lie in Paddle's memory."""

    transposed: bool
    weight_shape: tuple[int, int, int, int]  # (out, in, kh, kw)
    weight_strides: tuple[int, int, int, int]  # of Paddle's (out, in, kh, kw), or (in, out, kh, kw) if transposed
    stride: int
    padding: tuple[int, int]  # top and left, bottom and right

    @classmethod
    def of(cls, layer: nn.Layer) -> Geometry:
        transposed = isinstance(layer, nn.Conv2DTranspose)
        first, second, height, width = layer.weight.shape
        outer, inner = second * height * width, height * width
        if transposed:
            return cls(True, (second, first, height, width), (inner, outer, width, 1), *layer.window)
        return cls(False, (first, second, height, width), (outer, inner, width, 1), *layer.window)

    def output(self, shape: Sequence[int]) -> tuple[int, int, int, int]:
        """(N, C, H, W) of the result of an input of this shape."""
        kernel, padded = self.weight_shape[2], sum(self.padding)
        if self.transposed:
            sizes = [(size - 1) * self.stride + kernel - padded for size in shape[2:]]
        else:
            sizes = [(size + padded - kernel) // self.stride + 1 for size in shape[2:]]
        return (shape[0], self.weight_shape[0], *sizes)

    def kernel(self, direction: str, propagation: Any, described: Sequence[Any], *more: Any) -> Primitive:
        """The kernel "forward", "backward_data" or "backward_weights" of these descriptions, and what follows them."""
        name = "deconvolution" if self.transposed else "convolution"
        algorithm = c_int(onednn.DECONVOLUTION if self.transposed else onednn.CONVOLUTION)
        window = [onednn.sizes(size, size) for size in (self.stride, 0, *self.padding)]
        first = () if propagation is None else (propagation,)
        return Primitive(f"{name}_{direction}", *first, algorithm, *described, *window, *more)


def max_pooling(propagation: int, x: Description) -> tuple[Primitive, Description]:
    """A ResNet's max pooling of x, and the description of its result."""
    n, c, h, w = x.shape
    y = Description((n, c, (h + 1) // 2, (w + 1) // 2), x.kind, "nhwc")
    kernel = Primitive("pooling_forward", c_int(propagation), c_int(onednn.MAX_POOLING), x, y, *POOLING, None)
    return kernel, y


class Pool:
    """Blocks of memory, each lent to one array at a time."""

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []

    def take(self, description: Any, keep: Primitive | None = None) -> Memory:
        """An array of this description; see `Memory`."""
        size = onednn.size_of(description)
        fitting = [block for block in self._free if block.nbytes >= size]
        block = min(fitting, key=lambda free: free.nbytes, default=None)
        self._free = [free for free in self._free if free is not block]
        return Memory(description, np.empty(size, np.uint8) if block is None else block, keep)

    def give_back(self, memory: Memory) -> None:
        self._free.append(memory.block)
