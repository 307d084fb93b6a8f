"""oneDNN's kernels against Paddle's own: each step of the network, whole networks, and what happens without them."""

from __future__ import annotations

import logging
import resource

import numpy as np
import paddle
import pytest
from paddle import nn

from simplepose.inference.network import paddle_network
from simplepose.machine import onednn
from simplepose.models.onednn_inference import FoldedConvolution, InferenceKernels, InferencePass
from simplepose.models.onednn_training import TrainingKernels, TrainingPass
from simplepose.models.pose_resnet import DECONV_PADDING, PoseResNet
from simplepose.models.resnet import BasicBlock, Bottleneck, batch_norm, conv
from simplepose.training.losses import joints_mse_loss
from simplepose.training.optim import build_optimizer, learning_rate

try:
    onednn.load()
except onednn.Unavailable as error:
    pytest.skip(f"no oneDNN here: {error}", allow_module_level=True)


needs_bfloat16 = pytest.mark.skipif(not onednn.load().has_bfloat16, reason="no bfloat16 products on this processor")
in_both_kinds = pytest.mark.parametrize(
    "bfloat16", [False, pytest.param(True, marks=needs_bfloat16)], ids=["float32", "bfloat16"]
)


def relative_error(found, wanted) -> float:
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))


def convolution(inputs, outputs, kernel, stride=1, bias=False):
    layer = conv(inputs, outputs, kernel, stride)
    if bias:
        layer.bias = layer.create_parameter([outputs], default_initializer=nn.initializer.Uniform(-1, 1))
    return layer


def deconvolution(inputs, outputs, kernel, bias=False):
    padding, output_padding = DECONV_PADDING[kernel]
    layer = nn.Conv2DTranspose(inputs, outputs, kernel, 2, padding, output_padding, bias_attr=None if bias else False)
    layer.window = (2, (padding, padding - output_padding))
    return layer


def block(kind, inputs, channels, stride=1, style="pytorch"):
    outputs = channels * kind.expansion
    downsample = None
    if stride != 1 or inputs != outputs:
        downsample = nn.Sequential(conv(inputs, outputs, 1, stride), batch_norm(outputs))
    return kind(inputs, channels, stride, style, downsample)


class Steps(nn.Layer):
    """Steps of a network, as Paddle computes them."""

    def __init__(self, *steps: tuple):
        super().__init__()
        self.steps = steps
        self.layers = nn.LayerList([layer for _, *layers in steps for layer in layers])
        self.pool = nn.MaxPool2D(3, 2, 1)

    def forward(self, x):
        for name, *layers in self.steps:
            if name == "max_pool":
                x = self.pool(x)
                continue
            for layer in layers:
                x = layer(x)
            if name == "unit":
                x = nn.functional.relu(x)
        return x


# The first convolution is there so that a gradient of the second step's input is wanted. It gives 16 channels: with
# fewer, oneDNN 3.6's weight gradient of a 1x1 of stride 2 writes past its own memory on AVX-512. A ResNet's have 64.
FIRST = (5, 16, 1)
CASES = {
    "1x1": lambda: [("final", convolution(16, 6, 1))],
    "1x1 of stride 2": lambda: [("final", convolution(16, 6, 1, 2))],
    "3x3": lambda: [("final", convolution(16, 6, 3))],
    "3x3 with bias": lambda: [("final", convolution(16, 6, 3, bias=True))],
    "3x3 of stride 2": lambda: [("final", convolution(16, 16, 3, 2))],
    "7x7 of stride 2": lambda: [("final", convolution(16, 16, 7, 2))],
    "deconvolution 2x2": lambda: [("final", deconvolution(16, 16, 2))],
    "deconvolution 3x3": lambda: [("final", deconvolution(16, 6, 3))],
    "deconvolution 4x4": lambda: [("final", deconvolution(16, 16, 4))],
    "deconvolution 4x4 with bias": lambda: [("final", deconvolution(16, 16, 4, bias=True))],
    "batch norm": lambda: [("unit", convolution(16, 8, 3), batch_norm(8)), ("final", convolution(8, 6, 1))],
    "max pooling": lambda: [("max_pool",), ("final", convolution(16, 6, 1))],
    "basic block": lambda: [("block", block(BasicBlock, 16, 16)), ("final", convolution(16, 6, 1))],
    "basic block of stride 2": lambda: [("block", block(BasicBlock, 16, 32, 2)), ("final", convolution(32, 6, 1))],
    "bottleneck": lambda: [("block", block(Bottleneck, 16, 4)), ("final", convolution(16, 6, 1))],
    "bottleneck of stride 2": lambda: [("block", block(Bottleneck, 16, 8, 2)), ("final", convolution(32, 6, 1))],
    "caffe's bottleneck": lambda: [("block", block(Bottleneck, 16, 8, 2, "caffe")), ("final", convolution(32, 6, 1))],
}


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 12, 8)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_each_step_gives_what_paddle_gives(case, shape):
    paddle.seed(0)
    batch, height, width = shape
    network = Steps(("final", convolution(*FIRST)), *CASES[case]())
    images = np.random.default_rng(0).standard_normal((batch, 5, height, width))
    training_pass = TrainingPass(network.steps, images.shape, onednn.FLOAT32)
    parameters = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    before = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    found = training_pass.forward(paddle.to_tensor(images, "float32"))
    gradient = np.random.default_rng(1).standard_normal(found.shape)
    gradients = training_pass.backward(paddle.to_tensor(gradient, "float32"), parameters)
    statistics = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}

    network.set_state_dict(before)
    network.to(dtype="float64")
    wanted = network(paddle.to_tensor(images))
    assert found.shape == wanted.shape
    assert relative_error(found, wanted) < 1e-5
    wanted.backward(paddle.to_tensor(gradient))
    for parameter, its_gradient in zip(parameters, gradients):
        assert relative_error(its_gradient, parameter.grad) < 3e-5, parameter.name
    for name, tensor in network.state_dict().items():
        if name.endswith(("_mean", "_variance")):
            assert relative_error(statistics[name], tensor) < 1e-5, name


def untrained(depth=18, **sizes):
    """A PoseResNet whose heatmaps are not all but zero."""
    paddle.seed(0)
    model = PoseResNet(depth, 3, **{"deconv_filters": (8, 16, 8), **sizes})
    for layer in (*model.deconv_layers[::3], model.final_layer):
        layer.weight.set_value(layer.weight * 100)
    return model


NETWORKS = {
    "18": {"depth": 18},
    "34": {"depth": 34, "deconv_kernels": (2, 3, 4), "deconv_bias": True},
    "50": {"depth": 50, "final_kernel": 3},
    "101 caffe": {"depth": 101, "style": "caffe"},
    "152": {"depth": 152},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_gives_what_paddle_gives(name):
    model = untrained(**NETWORKS[name])
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32)
    for _ in range(2):
        model(paddle.to_tensor(images))  # for batch norm's statistics
    wanted = paddle_network(model, "paddle")(images)
    found = paddle_network(model)
    assert isinstance(found, InferenceKernels)
    assert relative_error(found(images), wanted) < 1e-5
    assert relative_error(found(images[:1]), wanted[:1]) < 1e-5


def test_inference_fuses_what_a_step_does():
    paddle.seed(0)
    layers = (convolution(5, 8, 3, bias=True), batch_norm(8))
    layers[1].state_dict()["_mean"].set_value(paddle.rand([8]))
    layers[1].eval()
    images = np.random.default_rng(0).standard_normal((2, 5, 6, 7)).astype(np.float32)
    found = InferencePass([("unit", FoldedConvolution(*layers))], images.shape)(images)
    wanted = nn.functional.relu(layers[1](layers[0](paddle.to_tensor(images))))
    assert relative_error(found, wanted) < 1e-6


def train(model, steps=3, kernels=None, images=None, dtype="float32"):
    """Losses of a few steps of Adam on the same batches, and the gradients of the first step."""
    model.kernels = kernels
    model.train()
    rng = np.random.default_rng(0)
    optimizer = build_optimizer("adam", model.parameters(), learning_rate(1e-3, lambda iteration: 1.0))
    losses, gradients = [], {}
    for _ in range(steps):
        batch = rng.standard_normal((4, 3, 64, 64)) if images is None else images
        target = rng.random((len(batch), 3, batch.shape[2] // 4, batch.shape[3] // 4))
        loss = joints_mse_loss(model(paddle.to_tensor(batch, dtype)), paddle.to_tensor(target, dtype), None)
        loss.backward()
        if not losses:
            gradients = {n: p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    return losses, gradients


def same_start(model, **sizes):
    other = untrained(**sizes)
    other.set_state_dict(model.state_dict())
    return other


def distance(a, b):
    """Of two sets of arrays, relative to the second."""
    return np.sqrt(sum(((a[n] - b[n]) ** 2).sum() for n in b) / sum((b[n] ** 2).sum() for n in b))


@pytest.mark.parametrize("name", ["18", "34", pytest.param("50", marks=pytest.mark.slow)])
def test_a_whole_network_trains_as_in_float64(name):
    """The losses are equal. Of the gradients a hundredth is left to rounding: it decides on which side of ReLU's corner
    a value lies, and one that changes sides moves them by that much (Paddle's float32 as well)."""
    sizes = NETWORKS[name]
    exact = untrained(**sizes)
    ours = same_start(exact, **sizes)
    exact.to(dtype="float64")
    wanted_losses, wanted = train(exact, 1, dtype="float64")
    losses, gradients = train(ours, 1, TrainingKernels())
    assert relative_error(losses, wanted_losses) < 1e-5
    assert distance(gradients, wanted) < 0.05
    assert set(gradients) == set(wanted)


@pytest.mark.slow
def test_twenty_steps_stay_in_lockstep_with_paddle():
    """The bound is what rounding does to Paddle itself: its distance from float64, over the way that training goes."""
    exact = untrained()
    start = {name: tensor.numpy().astype(np.float64) for name, tensor in exact.state_dict().items()}
    ours, paddles = same_start(exact), same_start(exact)
    exact.to(dtype="float64")
    train(exact, 20, dtype="float64")
    train(ours, 20, TrainingKernels())
    train(paddles, 20)

    def way(model):
        return {n: p.numpy() - start[n] for n, p in model.named_parameters() if not p.stop_gradient}

    observed, bound = distance(way(ours), way(exact)), distance(way(paddles), way(exact))
    print(f"\n20 steps: {observed:.1e} of the way apart, Paddle {bound:.1e}")
    assert observed < 2 * bound


@in_both_kinds
def test_two_runs_are_equal_to_the_last_bit(bfloat16):
    runs = []
    for _ in range(2):
        model = untrained()
        losses, gradients = train(model, kernels=TrainingKernels(bfloat16))
        runs.append((losses, gradients, {name: tensor.numpy() for name, tensor in model.state_dict().items()}))
    assert runs[0][0] == runs[1][0]
    for kind in (1, 2):
        for name, array in runs[0][kind].items():
            np.testing.assert_array_equal(array, runs[1][kind][name], name)


def test_a_frozen_backbone_keeps_weights_and_statistics():
    frozen, paddles = untrained(), untrained()
    for model in (frozen, paddles):
        model.train()
        model.freeze_backbone(True).eval()
    before = {name: tensor.numpy().copy() for name, tensor in frozen.backbone.state_dict().items()}
    images, target = paddle.randn([2, 3, 64, 64]), paddle.rand([2, 3, 16, 16])
    frozen.kernels = TrainingKernels()
    for model in (frozen, paddles):
        joints_mse_loss(model(images), target, None).backward()
    for name, tensor in frozen.backbone.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), before[name], name)
        assert tensor.grad is None
    for (name, ours), (_, wanted) in zip(frozen.named_parameters(), paddles.named_parameters()):
        if not ours.stop_gradient:
            assert relative_error(ours.grad, wanted.grad) < 1e-3, name

    frozen.freeze_backbone(False)
    frozen.train()
    joints_mse_loss(frozen(images), target, None).backward()
    assert frozen.backbone.conv1.weight.grad is not None


def test_gradients_of_several_iterations_add_up():
    model = untrained()
    model.train()
    model.kernels = TrainingKernels()
    images, target = paddle.randn([2, 3, 64, 64]), paddle.rand([2, 3, 16, 16])
    weight = model.final_layer.weight

    def gradient(times):
        for _ in range(times):
            joints_mse_loss(model(images), target, None).backward()
        found = weight.grad.numpy().copy()
        model.clear_gradients()
        return found

    np.testing.assert_allclose(gradient(2), 2 * gradient(1), rtol=1e-5)


def test_a_backward_pass_belongs_to_the_last_forward_pass():
    model = untrained()
    model.train()
    model.kernels = TrainingKernels()
    images = paddle.randn([2, 3, 64, 64])
    first, second = model(images).sum(), model(images).sum()
    with pytest.raises(OSError, match="must follow its forward pass"):  # what Paddle makes of a RuntimeError
        first.backward()
    second.backward()


@in_both_kinds
def test_nan_comes_out_of_training_as_nan(bfloat16):
    model = untrained()
    model.kernels = TrainingKernels(bfloat16)
    model.train()
    assert model(photograph_with_nan()).isnan().any()


def test_nan_comes_out_of_inference_as_nan():
    heatmaps = paddle_network(untrained())(photograph_with_nan().numpy())
    assert np.isnan(heatmaps[1]).all() and np.isfinite(heatmaps[0]).all()


def photograph_with_nan():
    images = paddle.randn([2, 3, 64, 64])
    images[1, 0, 5, 5] = float("nan")
    return images


def test_nan_weights_give_nan():
    model = untrained()
    model.backbone.conv1.weight.set_value(model.backbone.conv1.weight * float("nan"))
    assert np.isnan(paddle_network(model)(np.zeros((1, 3, 64, 64), np.float32))).all()


def test_inference_follows_weights_that_change():
    model = untrained()
    images = np.ones((1, 3, 64, 64), np.float32)
    network = paddle_network(model)
    before = network(images)
    model.final_layer.bias.set_value(model.final_layer.bias + 1)
    np.testing.assert_allclose(network(images), before + 1, rtol=1e-5)
    train(model, 1)
    model.eval()
    assert relative_error(network(images), paddle_network(model, "paddle")(images)) < 1e-5


@pytest.mark.slow
def test_memory_does_not_grow():
    model, kernels = untrained(), TrainingKernels()
    images = np.ones((2, 3, 32, 32))
    train(model, 20, kernels, images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    train(model, 200, kernels, images)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB


class Pretender:
    """The library, but for some functions."""

    def __init__(self, functions, missing=(), **others):
        self.functions, self.missing, self.others = functions, missing, others

    def __getattr__(self, name):
        if name in self.missing:
            raise AttributeError(name)
        return self.others.get(name) or getattr(self.functions, name)


@pytest.fixture
def without(monkeypatch):
    """Make the library absent, old, or lacking a function, for one test."""
    functions = onednn.load().functions
    onednn.load.cache_clear()

    def change(how):
        if how == "absent":
            monkeypatch.setattr(onednn, "LIBRARIES", ("libnothing.so",))
        elif how == "old":
            monkeypatch.setattr(onednn, "VERSION", 4)
        else:
            monkeypatch.setattr(onednn.ctypes, "CDLL", lambda path: Pretender(functions, (how,)))

    yield change
    onednn.load.cache_clear()


@pytest.mark.parametrize(
    "how", ["absent", "old", "dnnl_version", "dnnl_engine_create", "dnnl_convolution_forward_primitive_desc_create"]
)
def test_paddles_own_kernels_take_over(how, without, caplog):
    without(how)
    images = np.ones((1, 3, 64, 64), np.float32)
    with caplog.at_level(logging.INFO, "simplepose"):
        assert not isinstance(paddle_network(untrained()), InferenceKernels)
        assert paddle_network(untrained())(images).shape == (1, 3, 16, 16)
    assert "Paddle's own kernels" in caplog.text

    model = untrained()
    model.train()
    if how.startswith("dnnl_convolution"):  # found only when a pass is compiled
        model.kernels = TrainingKernels()
        assert model(paddle.to_tensor(images)).shape == [1, 3, 16, 16]
        assert model.kernels is None
    else:
        with pytest.raises(onednn.Unavailable):
            TrainingKernels()


def test_bfloat16_is_refused_where_the_processor_has_none(monkeypatch):
    monkeypatch.setattr(onednn.Library, "has_bfloat16", False)
    with pytest.raises(onednn.Unavailable, match="bfloat16"):
        TrainingKernels(bfloat16=True)


@needs_bfloat16
@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 12, 8)], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_each_step_in_bfloat16_gives_what_float32_gives(case, shape):
    batch, height, width = shape
    images = np.random.default_rng(0).standard_normal((batch, 5, height, width))
    results = []
    for kind in (onednn.FLOAT32, onednn.BFLOAT16):
        paddle.seed(0)
        network = Steps(("unit", convolution(*FIRST), batch_norm(FIRST[1])), *CASES[case]())
        training_pass = TrainingPass(network.steps, images.shape, kind)
        parameters = {n: p for n, p in network.named_parameters() if not p.stop_gradient}
        heatmaps = training_pass.forward(paddle.to_tensor(images, "float32"))
        gradient = paddle.to_tensor(np.random.default_rng(1).standard_normal(heatmaps.shape), "float32")
        gradients = training_pass.backward(gradient, list(parameters.values()))
        results.append((heatmaps.numpy(), dict(zip(parameters, map(paddle.Tensor.numpy, gradients)))))
    (wanted, wanted_gradients), (found, gradients) = results
    print(
        "D",
        distance({"": found}, {"": wanted}),
        distance(gradients, wanted_gradients),
        {n: distance({n: gradients[n]}, {n: wanted_gradients[n]}) for n in gradients},
    )
    assert 0 < distance({"": found}, {"": wanted}) < 0.02
    assert distance(gradients, wanted_gradients) < 0.2  # a value on the other side of ReLU's corner moves them most


@needs_bfloat16
def test_bfloat16_trains_like_float32():
    model = untrained()
    other = same_start(model)
    losses, gradients = train(model, kernels=TrainingKernels())
    low_losses, low_gradients = train(other, kernels=TrainingKernels(bfloat16=True))
    assert relative_error(low_losses, losses) < 0.05
    assert distance(low_gradients, gradients) < 0.5
