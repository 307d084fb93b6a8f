"""PoseResNet: its size, its shapes, and where it strides."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from simplepose.core.errors import UserError
from simplepose.models.pose_resnet import PoseResNet

PARAMETERS = {18: 15_376_464, 34: 25_484_624, 50: 33_999_440, 101: 52_991_568, 152: 68_635_216}


@pytest.mark.parametrize("depth", PARAMETERS)
def test_parameter_counts_are_the_published_networks(depth):
    parameters = [parameter for parameter in PoseResNet(depth, 16).parameters() if parameter.trainable]
    assert sum(parameter.size for parameter in parameters) == PARAMETERS[depth]


@pytest.mark.parametrize(
    ("filters", "kernels", "final_kernel", "bias"),
    [((256, 256, 256), (4, 4, 4), 1, False), ((32, 16), (3, 2), 3, True), ((8, 8, 8, 8), (2, 3, 4, 2), 1, False)],
)
def test_each_deconvolution_doubles(filters, kernels, final_kernel, bias):
    model = PoseResNet(18, 5, "pytorch", filters, kernels, bias, final_kernel)
    model.eval()
    heatmaps = model(paddle.zeros([2, 3, 64, 96]))
    scale = 2 ** len(filters)
    assert heatmaps.shape == [2, 5, 2 * scale, 3 * scale]


def test_caffe_strides_in_the_first_convolution():
    strides = {
        style: [
            (tuple(block[0].conv1._stride), tuple(block[0].conv2._stride))
            for block in (PoseResNet(50, 1, style).backbone.layer2, )
        ]
        for style in ("pytorch", "caffe")
    }  # fmt: skip
    assert strides == {"pytorch": [((1, 1), (2, 2))], "caffe": [((2, 2), (1, 1))]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 51}, "no ResNet-51"),
        ({"depth": 18, "style": "caffe"}, "use 50 or more"),
        ({"depth": 50, "style": "tensorflow"}, "one of pytorch, caffe"),
        ({"depth": 18, "deconv_kernels": (4, 4)}, "one entry per layer"),
        ({"depth": 18, "deconv_kernels": (5, 4, 4)}, "2, 3 or 4"),
        ({"depth": 18, "final_kernel": 2}, "1 or 3"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        PoseResNet(num_joints=16, **arguments)


def test_initialisation_is_the_originals():
    paddle.seed(0)
    model = PoseResNet(18, 16)
    conv = model.backbone.layer3[0].conv1.weight.numpy()  # (256, 128, 3, 3): fan_in 1152
    bound = 1 / np.sqrt(1152)
    assert np.abs(conv).max() <= bound
    assert conv.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)  # uniform
    for head in (model.deconv_layers[0].weight, model.final_layer.weight):
        assert head.numpy().std() == pytest.approx(0.001, rel=0.05)
    assert not model.final_layer.bias.numpy().any()
    assert model.backbone.bn1._epsilon == 1e-5
    assert model.backbone.bn1._momentum == 0.9


def test_batch_norm_statistics_move_by_a_tenth():
    model = PoseResNet(18, 2)
    model.train()
    images = paddle.randn([4, 3, 64, 64])
    first = model.backbone.conv1(images).numpy().mean(axis=(0, 2, 3))
    model(images)
    np.testing.assert_allclose(model.backbone.bn1._mean.numpy(), 0.1 * first, rtol=1e-3, atol=1e-6)
