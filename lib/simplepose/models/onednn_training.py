"""PoseResNet's training passes on oneDNN's CPU kernels: Paddle's numbers within rounding, in a fraction of the time.

A pass is compiled once for a batch's shape: its memory is taken, its kernel calls are prepared, and each iteration
repeats the calls. Parameters are read from, and gradients written to, Paddle's own tensors.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from ctypes import c_float, c_int, c_uint
from typing import Any, NamedTuple, Optional

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from simplepose.machine import onednn
from simplepose.machine.onednn import (
    BFLOAT16,
    FLOAT32,
    Call,
    Description,
    Memory,
    PostOps,
    Primitive,
    Unavailable,
    reorder,
)
from simplepose.machine.tensors import array_of, move_towards
from simplepose.models.onednn_layers import POOLING, Geometry, Pool, chain, max_pooling, steps
from simplepose.models.pose_resnet import PoseResNet
from simplepose.models.resnet import NORM_EPSILON, NORM_MOMENTUM

logger = logging.getLogger("simplepose")

SHAPES_KEPT = 3  # compiled passes, for a last batch that is smaller; each keeps its memory


class Activation(NamedTuple):
    memory: Memory  # (N, C, H, W), in NHWC
    learns: bool  # a parameter before it wants a gradient


# Given the gradient of what a layer gave, prepares the calls that make its input's; None where nobody wants that.
Undo = Callable[[Memory], Optional[Memory]]


def _plain(tensor: Tensor, geometry: Geometry | None) -> Description:
    """A parameter as it lies in Paddle's memory."""
    if geometry is None:
        return Description(tensor.shape)
    return Description(geometry.weight_shape, FLOAT32, geometry.weight_strides)


class TrainingPass:
    """Forward and backward pass in training mode, for one shape of images.

    Batch norm goes by its layer's own mode: that of a frozen backbone keeps to its running statistics.

    Args:
        network: as `steps` gives it.
        images_shape: (N, 3, H, W).
        kind: of activations and their gradients, FLOAT32 or BFLOAT16; all else is float32.

    Raises:
        Unavailable: this processor has no such kernel.
    """

    def __init__(self, network: Iterable[tuple], images_shape: Sequence[int], kind: int):
        self.kind = kind
        self.turn = 0  # forward passes so far: a backward pass belongs to the last one, whose activations are there
        self._pool = Pool()  # of gradients and packed weights; activations wait for the backward pass
        self._forward: list[Call] = []
        self._backward: list[Call] = []
        self._read: dict[int, tuple[Tensor, Memory]] = {}  # parameters and running statistics, by id
        self._written: dict[int, Memory] = {}  # gradients, by the parameter's id
        self._statistics: list[tuple[Tensor, Memory]] = []  # running ones, and those of the batch

        self._images = Memory(Description(images_shape), 0)
        start = self._new(images_shape)
        self._forward.append(reorder(self._images, start))
        x, undos = Activation(start, False), []
        for name, *layers in network:
            x, undo = getattr(self, name)(x, *layers)
            undos.append(undo)
        result = x.memory
        self.heatmaps_shape = result.description.shape
        self._heatmaps = Memory(Description(self.heatmaps_shape), 0)
        self._forward.append(reorder(result, self._heatmaps))

        self._gradient = Memory(Description(self.heatmaps_shape), 0)
        gradient: Memory | None = self._take(self.heatmaps_shape)
        self._backward.append(reorder(self._gradient, gradient))
        for undo in reversed(undos):
            if gradient is not None:  # the rest is frozen
                gradient = undo(gradient)

    def forward(self, images: Tensor) -> Tensor:
        """Heatmaps (N, K, h, w) of images (N, 3, H, W); batch norm's running statistics follow the batch's."""
        self.turn += 1
        heatmaps = paddle.empty(self.heatmaps_shape, "float32")
        self._images.move_to(images.data_ptr())
        self._heatmaps.move_to(heatmaps.data_ptr())
        for tensor, memory in self._read.values():
            memory.move_to(tensor.data_ptr())
        for call in self._forward:
            call()
        finite = True
        for running, memory in self._statistics:
            of_batch = memory.floats()
            move_towards(array_of(running), of_batch, 1 - NORM_MOMENTUM)
            finite = finite and np.isfinite(of_batch).all()
        if not finite:  # oneDNN's ReLU makes 0 of NaN
            array_of(heatmaps).fill(np.nan)
        return heatmaps

    def backward(self, gradient: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        """The gradients of the parameters, from that of the heatmaps of the last forward pass."""
        gradients = [paddle.empty(parameter.shape, "float32") for parameter in parameters]
        self._gradient.move_to(gradient.data_ptr())
        for parameter, its_gradient in zip(parameters, gradients):
            self._written[id(parameter)].move_to(its_gradient.data_ptr())
        for call in self._backward:
            call()
        return gradients

    # What `steps` names: each prepares the calls of its forward pass, and says how to prepare its backward ones.

    def unit(
        self, x: Activation, conv: nn.Layer, norm: nn.Layer, relu: bool = True, keep_gradient: bool = False
    ) -> tuple[Activation, Undo]:
        """Convolution, batch norm, ReLU."""
        z, undo_convolution = self._convolve(x, conv)
        y, undo_norm = self._normalize(z, norm, relu, keep_gradient)
        return y, lambda gradient: undo_convolution(undo_norm(gradient))

    def max_pool(self, x: Activation) -> tuple[Activation, Undo]:
        source = x.memory
        forward, described = max_pooling(onednn.FORWARD, source.description)
        result, workspace = Memory(described), Memory(forward.wants("workspace"))  # which holds where the maxima were
        self._forward.append(forward.on(src=source, dst=result, workspace=workspace))

        def undo(gradient: Memory) -> Memory | None:
            if not x.learns:
                return None
            into = self._take(source.description.shape)
            described = (c_int(onednn.MAX_POOLING), into.description, gradient.description)
            backward = Primitive("pooling_backward", *described, *POOLING, forward.descriptor, None)
            self._backward.append(backward.on(diff_src=into, diff_dst=gradient, workspace=workspace))
            self._pool.give_back(gradient)
            return into

        return Activation(result, x.learns), undo

    def block(self, x: Activation, block: nn.Layer) -> tuple[Activation, Undo]:
        """ReLU of a chain of units and a shortcut."""
        y, undos, pairs = x, [], chain(block)
        for conv, norm in pairs:
            last = conv is pairs[-1][0]
            y, undo = self.unit(y, conv, norm, relu=not last, keep_gradient=last)
            undos.append(undo)
        shortcut, undo_shortcut = x, None
        if block.downsample is not None:
            shortcut, undo_shortcut = self.unit(x, *block.downsample, relu=False)
        described = y.memory.description
        add = Primitive("binary", c_int(onednn.ADD), described, described, described, PostOps(relu=True))
        self._forward.append(add.on(src=y.memory, src_1=shortcut.memory, dst=y.memory))

        def undo(gradient: Memory) -> Memory | None:
            self._backward.append(self._relu_gradient(y.memory, gradient))
            inner: Memory | None = gradient
            for undo in reversed(undos):
                inner = undo(inner)
            outer = undo_shortcut(gradient) if undo_shortcut else gradient
            if inner is None or outer is None:
                return None
            described = inner.description
            add = Primitive("binary", c_int(onednn.ADD), described, described, described, None)
            self._backward.append(add.on(src=inner, src_1=outer, dst=inner))
            self._pool.give_back(outer)
            return inner

        return Activation(y.memory, y.learns or shortcut.learns), undo

    def final(self, x: Activation, layer: nn.Layer) -> tuple[Activation, Undo]:
        return self._convolve(x, layer, FLOAT32)

    # Their parts.

    def _convolve(self, x: Activation, layer: nn.Layer, kind: int | None = None) -> tuple[Activation, Undo]:
        geometry, source = Geometry.of(layer), x.memory
        result = self._new(geometry.output(source.description.shape), kind)
        weights = self._parameter(layer.weight, geometry)
        bias = {} if layer.bias is None else {"bias": self._parameter(layer.bias)}
        of_bias = bias["bias"].description if bias else None
        of_weights = Description(geometry.weight_shape, self.kind, "any")
        forward = geometry.kernel(
            "forward", c_int(onednn.FORWARD), [source.description, of_weights, of_bias, result.description], None
        )
        packed = self._as_wanted(weights, forward, "weights", self._forward)
        self._forward.append(forward.on(src=source, weights=packed, dst=result, **bias))
        self._done_with(packed, weights)
        learns = not layer.weight.stop_gradient

        def undo(gradient: Memory) -> Memory | None:
            if learns:
                self._weights_gradient(layer, geometry, source, gradient, forward)
            if not x.learns:
                return None
            into = self._take(source.description.shape)
            described = [into.description, of_weights, gradient.description]
            kernel = geometry.kernel("backward_data", None, described, forward.descriptor, None)
            packed = self._as_wanted(weights, kernel, "weights", self._backward)
            self._backward.append(kernel.on(diff_src=into, weights=packed, diff_dst=gradient))
            self._done_with(packed, weights)
            self._pool.give_back(gradient)
            return into

        return Activation(result, x.learns or learns), undo

    def _weights_gradient(
        self, layer: nn.Layer, geometry: Geometry, source: Memory, gradient: Memory, forward: Primitive
    ) -> None:
        """The gradients of a convolution's weights and bias, from its input and the gradient of its result."""
        of_weights, of_bias = Description(geometry.weight_shape, FLOAT32, "any"), None
        biased = {} if layer.bias is None else {"diff_bias": self._gradient_of(layer.bias)}
        if biased:
            of_bias = biased["diff_bias"].description
        # Of a deconvolution this kernel is faster, on AVX2 by 40 %, in the layout it chooses itself.
        layout = "any" if geometry.transposed else "nhwc"
        of_source, of_result = (Description(m.description.shape, self.kind, layout) for m in (source, gradient))
        described = [of_source, of_weights, of_bias, of_result]
        kernel = geometry.kernel("backward_weights", None, described, forward.descriptor, None)
        src = self._as_wanted(source, kernel, "src", self._backward)
        diff_dst = self._as_wanted(gradient, kernel, "diff_dst", self._backward)
        packed, plain = self._pool.take(kernel.wants("diff_weights"), kernel), self._gradient_of(layer.weight, geometry)
        self._backward += [
            kernel.on(src=src, diff_dst=diff_dst, diff_weights=packed, **biased),
            reorder(packed, plain),
        ]
        self._done_with(src, source)
        self._done_with(diff_dst, gradient)
        self._pool.give_back(packed)

    def _normalize(self, x: Activation, norm: nn.Layer, relu: bool, keep_gradient: bool) -> tuple[Activation, Undo]:
        """Batch norm, and ReLU. With `keep_gradient` the gradient it is given is left as it is."""
        source, result, described = x.memory, self._new(x.memory.description.shape), x.memory.description
        flags = onednn.USE_SCALE | onednn.USE_SHIFT
        flags |= onednn.FUSE_RELU if relu else 0
        flags |= 0 if norm.training else onednn.USE_GLOBAL_STATS
        settings = (c_float(NORM_EPSILON), c_uint(flags))
        forward = Primitive("batch_normalization_forward", c_int(onednn.FORWARD), described, described, *settings, None)
        state = norm.state_dict()
        running = state["_mean"], state["_variance"]
        if norm.training:
            mean, variance = (Memory(Description(tensor.shape)) for tensor in running)
            self._statistics += [(running[0], mean), (running[1], variance)]
        else:
            mean, variance = map(self._parameter, running)
        shared = {"src": source, "mean": mean, "variance": variance, "scale": self._parameter(norm.weight)}
        if relu:
            shared["workspace"] = Memory(forward.wants("workspace"))  # where ReLU let through
        self._forward.append(forward.on(dst=result, shift=self._parameter(norm.bias), **shared))

        def undo(gradient: Memory) -> Memory:
            into = self._take(described.shape) if keep_gradient else gradient
            backward = Primitive(
                "batch_normalization_backward", c_int(onednn.BACKWARD), described, described, described, *settings,
                forward.descriptor, None,
            )  # fmt: skip
            its = {"diff_scale": self._gradient_of(norm.weight), "diff_shift": self._gradient_of(norm.bias)}
            self._backward.append(backward.on(diff_dst=gradient, diff_src=into, **shared, **its))
            return into

        return Activation(result, x.learns or not norm.weight.stop_gradient), undo

    def _relu_gradient(self, y: Memory, gradient: Memory) -> Call:
        """Set the gradient to zero where y is."""
        described, line = y.description, (c_float(0), c_float(0))
        algorithm = c_int(onednn.RELU_FROM_OUTPUT)
        forward = Primitive("eltwise_forward", c_int(onednn.FORWARD), algorithm, described, described, *line, None)
        backward = Primitive(
            "eltwise_backward", algorithm, described, described, described, *line, forward.descriptor, None
        )
        return backward.on(dst=y, diff_dst=gradient, diff_src=gradient)

    def _new(self, shape: Sequence[int], kind: int | None = None) -> Memory:
        return Memory(Description(shape, kind or self.kind, "nhwc"))

    def _take(self, shape: Sequence[int]) -> Memory:
        return self._pool.take(Description(shape, self.kind, "nhwc"))

    def _parameter(self, tensor: Tensor, geometry: Geometry | None = None) -> Memory:
        if id(tensor) not in self._read:
            self._read[id(tensor)] = (tensor, Memory(_plain(tensor, geometry), 0))
        return self._read[id(tensor)][1]

    def _gradient_of(self, tensor: Tensor, geometry: Geometry | None = None) -> Memory:
        described = _plain(tensor, geometry)
        self._written[id(tensor)] = Memory(described, None if tensor.stop_gradient else 0)
        return self._written[id(tensor)]

    def _as_wanted(self, memory: Memory, kernel: Primitive, argument: str, calls: list[Call]) -> Memory:
        """An argument in the layout that the kernel wants: by a call before it, if that is not what it has."""
        wanted = kernel.wants(argument)
        if memory.is_laid_out(wanted):
            return memory
        packed = self._pool.take(wanted, kernel)
        calls.append(reorder(memory, packed))
        return packed

    def _done_with(self, packed: Memory, original: Memory) -> None:
        """Later calls may overwrite what `_as_wanted` made of the original."""
        if packed is not original:
            self._pool.give_back(packed)


class TrainingKernels:
    """`PoseResNet.forward` in training mode, with gradients as usual; `PoseResNet.kernels` holds one.

    A kernel that this processor has not is said once, and Paddle's own take its place.

    Args:
        bfloat16: of activations and their gradients; parameters and statistics are float32 always.

    Raises:
        Unavailable: oneDNN cannot be used here, or not for bfloat16.
    """

    def __init__(self, bfloat16: bool = False):
        self.library = onednn.load()
        if bfloat16 and not self.library.has_bfloat16:
            raise Unavailable("this processor has no bfloat16 products (AVX512_BF16 or AMX)")
        self.kind = BFLOAT16 if bfloat16 else FLOAT32
        self._passes: OrderedDict[tuple, TrainingPass] = OrderedDict()

    def __str__(self) -> str:
        return f"{self.library}, {'bfloat16' if self.kind == BFLOAT16 else 'float32'}"

    def __call__(self, model: PoseResNet, images: Tensor) -> Tensor:
        parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
        key = (tuple(images.shape), len(parameters), model.backbone.training)
        try:
            if key not in self._passes:
                self._passes[key] = TrainingPass(steps(model), images.shape, self.kind)
        except Unavailable as error:
            logger.warning("=> %s: on with Paddle's own kernels", error)
            model.kernels = None
            return model(images)
        self._passes.move_to_end(key)
        if len(self._passes) > SHAPES_KEPT:
            self._passes.popitem(last=False)
        return _Pass.apply(self._passes[key], images, *parameters)


class _Pass(PyLayer):
    @staticmethod
    def forward(ctx: Any, training_pass: TrainingPass, images: Tensor, *parameters: Tensor) -> Tensor:
        heatmaps = training_pass.forward(images)
        ctx.training_pass, ctx.turn, ctx.parameters = training_pass, training_pass.turn, parameters
        return heatmaps

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        if ctx.turn != ctx.training_pass.turn:
            raise RuntimeError("a backward pass must follow its forward pass before the next one of that shape")
        return (None, *ctx.training_pass.backward(gradient, ctx.parameters))
