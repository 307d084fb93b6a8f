"""PoseResNet's inference on oneDNN's CPU kernels: batch norm folded into the convolutions, ReLU and shortcuts fused."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Sequence
from ctypes import c_int
from typing import Any

import numpy as np
import paddle
from paddle import nn

from simplepose.machine import onednn
from simplepose.machine.onednn import Call, Description, Memory, PostOps, Unavailable, reorder
from simplepose.models.onednn_layers import Geometry, Pool, chain, max_pooling, steps
from simplepose.models.pose_resnet import PoseResNet
from simplepose.models.resnet import NORM_EPSILON

SHAPES_KEPT = 8  # compiled passes: the people of an image come in all numbers


class FoldedConvolution:
    """A convolution and the batch norm after it as one convolution with a bias."""

    def __init__(self, conv: nn.Layer, norm: nn.Layer | None = None):
        self.geometry = Geometry.of(conv)
        weight, out_axis = conv.weight.numpy(), 1 if self.geometry.transposed else 0
        bias = np.zeros(weight.shape[out_axis]) if conv.bias is None else conv.bias.numpy()
        if norm is not None:
            gain, shift, mean, variance = (
                norm.state_dict()[name].numpy().astype(np.float64) for name in ("weight", "bias", "_mean", "_variance")
            )
            gain /= np.sqrt(variance + NORM_EPSILON)
            weight = weight * gain.reshape(-1, 1, 1) if out_axis else weight * gain.reshape(-1, 1, 1, 1)
            bias = (bias - mean) * gain + shift
        described = Description(self.geometry.weight_shape, onednn.FLOAT32, self.geometry.weight_strides)
        self.weight = Memory(described, np.ascontiguousarray(weight, np.float32))
        self.bias = Memory(Description(bias.shape), np.ascontiguousarray(bias, np.float32))
        self._packed: list[Memory] = []

    def packed(self, kernel: onednn.Primitive) -> Memory:
        """The weights in the layout that the kernel wants, shared by all that want the same."""
        wanted = kernel.wants("weights")
        for memory in (self.weight, *self._packed):
            if memory.is_laid_out(wanted):
                return memory
        memory = Memory(wanted, keep=kernel)
        reorder(self.weight, memory)()
        self._packed.append(memory)
        return memory


class InferencePass:
    """The forward pass for one shape of images.

    Args:
        network: as `steps` gives it, with folded convolutions in place of layers.
        images_shape: (N, 3, H, W).
    """

    def __init__(self, network: Sequence[tuple], images_shape: Sequence[int]):
        self._pool = Pool()
        self._calls: list[Call] = []
        self._images = Memory(Description(images_shape), 0)
        x = self._take(images_shape)
        self._calls.append(reorder(self._images, x))
        for name, *arguments in network:
            x = getattr(self, name)(x, *arguments)
        self.heatmaps_shape = x.description.shape
        self._heatmaps = Memory(Description(self.heatmaps_shape), 0)
        self._calls.append(reorder(x, self._heatmaps))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Heatmaps (N, K, h, w) of images (N, 3, H, W), contiguous float32."""
        heatmaps = np.empty(self.heatmaps_shape, np.float32)
        self._images.move_to(images.ctypes.data)
        self._heatmaps.move_to(heatmaps.ctypes.data)
        for call in self._calls:
            call()
        return heatmaps

    def unit(
        self, x: Memory, conv: FoldedConvolution, relu: bool = True, onto: Memory | None = None, keep: bool = False
    ) -> Memory:
        """Convolution and ReLU; added to what is in `onto`, if given. With `keep`, x is wanted afterwards."""
        shape = conv.geometry.output(x.description.shape)
        result = onto or self._take(shape)
        weights = Description(conv.geometry.weight_shape, onednn.FLOAT32, "any")
        described = [x.description, weights, conv.bias.description, result.description]
        effects = PostOps(add=onto is not None, relu=relu)
        kernel = conv.geometry.kernel("forward", c_int(onednn.INFERENCE), described, effects)
        self._calls.append(kernel.on(src=x, weights=conv.packed(kernel), bias=conv.bias, dst=result))
        if not keep:
            self._pool.give_back(x)
        return result

    def max_pool(self, x: Memory) -> Memory:
        kernel, described = max_pooling(onednn.INFERENCE, x.description)
        result = self._pool.take(described)
        self._calls.append(kernel.on(src=x, dst=result))
        self._pool.give_back(x)
        return result

    def block(
        self, x: Memory, convolutions: Sequence[FoldedConvolution], downsample: FoldedConvolution | None
    ) -> Memory:
        """A chain of convolutions, the last one added to the shortcut in its place."""
        shortcut = x if downsample is None else self.unit(x, downsample, relu=False, keep=True)
        y = x
        for conv in convolutions[:-1]:
            y = self.unit(y, conv, keep=y is x)
        y = self.unit(y, convolutions[-1], onto=shortcut, keep=y is x)
        if shortcut is not x:
            self._pool.give_back(x)
        return y

    def final(self, x: Memory, conv: FoldedConvolution) -> Memory:
        return self.unit(x, conv, relu=False)

    def _take(self, shape: Sequence[int]) -> Memory:
        return self._pool.take(Description(shape, onednn.FLOAT32, "nhwc"))


class InferenceKernels:
    """A PoseResNet in eval mode: images (N, 3, H, W) to heatmaps (N, K, h, w).

    Weights that have changed since the last call are folded anew. Paddle does not tell of changes, so the first numbers
    of every kernel and of the last bias are compared, which a step of training and new weights change.

    Raises:
        Unavailable: oneDNN, or a kernel of it, cannot be used here.
    """

    def __init__(self, model: PoseResNet):
        if model.final_layer.weight.dtype != paddle.float32:
            raise Unavailable("the network is not float32")
        self._model = model
        self._compared = [tensor for tensor in model.parameters() if tensor.ndim == 4] + [model.final_layer.bias]
        self._lock = threading.Lock()  # a pass has one set of memory
        self._fold()
        InferencePass(self._network, (1, 3, 32, 32))  # what is missing shows now

    def _fold(self) -> None:
        self._folded = self._first_numbers()
        # ReLU makes 0 of NaN, in oneDNN as in Paddle: what is not finite must be seen before.
        self._is_finite = all(bool(tensor.isfinite().all()) for tensor in self._model.state_dict().values())
        self._network = [folded(name, layers) for name, *layers in steps(self._model)]
        self._passes: OrderedDict[tuple, InferencePass] = OrderedDict()

    def _first_numbers(self) -> bytes:
        return b"".join([ctypes.string_at(tensor.data_ptr(), 4) for tensor in self._compared])

    def __call__(self, images: np.ndarray) -> np.ndarray:
        images = np.ascontiguousarray(images, np.float32)
        with self._lock:
            if self._first_numbers() != self._folded:
                self._fold()
            if images.shape not in self._passes:
                self._passes[images.shape] = InferencePass(self._network, images.shape)
            self._passes.move_to_end(images.shape)
            if len(self._passes) > SHAPES_KEPT:
                self._passes.popitem(last=False)
            heatmaps = self._passes[images.shape](images)
        heatmaps[~(self._is_finite & np.isfinite(images.sum(axis=(1, 2, 3))))] = np.nan
        return heatmaps


def folded(name: str, layers: Sequence[nn.Layer]) -> tuple[Any, ...]:
    """A step of the network with its convolutions folded."""
    if name == "block":
        (block,) = layers
        downsample = None if block.downsample is None else FoldedConvolution(*block.downsample)
        return name, [FoldedConvolution(*pair) for pair in chain(block)], downsample
    return (name, FoldedConvolution(*layers)) if layers else (name,)
