"""ResNet without its classifier (He et al., CVPR 2016): image -> feature map at 1/32 of its size.

Parameter names are torchvision's (`layer1.0.conv1.weight`, ...), so ImageNet weights map one to one.
"""

from __future__ import annotations

import math

from paddle import Tensor, nn

from simplepose.core.errors import UserError

STYLES = ("pytorch", "caffe")
NORM_MOMENTUM, NORM_EPSILON = 0.9, 1e-5


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2D:
    """A convolution without bias that keeps the size at stride 1.

    Initialised U(-b, b) with b = 1/sqrt(fan_in), PyTorch's default. Paddle's own default is wider, and
    from-scratch training then no longer follows the original's curve.
    """
    bound = 1 / math.sqrt(in_channels * kernel * kernel)
    init = nn.initializer.Uniform(-bound, bound)
    padding = kernel // 2
    layer = nn.Conv2D(in_channels, out_channels, kernel, stride, padding, weight_attr=init, bias_attr=False)
    layer.window = (stride, (padding, padding))
    return layer


def batch_norm(channels: int) -> nn.BatchNorm2D:
    """Batch norm with PyTorch's defaults: its momentum 0.1 is the share of the new batch, Paddle's of the old."""
    return nn.BatchNorm2D(channels, NORM_MOMENTUM, NORM_EPSILON)


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, style: str, downsample: nn.Layer | None):
        super().__init__()
        del style  # there is only one place for the stride
        self.conv1 = conv(in_channels, channels, 3, stride)
        self.bn1 = batch_norm(channels)
        self.conv2 = conv(channels, channels, 3)
        self.bn2 = batch_norm(channels)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        return self.relu(x + shortcut)


class Bottleneck(nn.Layer):
    """1x1, 3x3, 1x1 convolutions and a shortcut (ResNet-50 and up).

    The stride sits in the 3x3 convolution (`pytorch`) or in the first 1x1 (`caffe`, as in the first release).
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, style: str, downsample: nn.Layer | None):
        super().__init__()
        stride_1x1, stride_3x3 = (stride, 1) if style == "caffe" else (1, stride)
        self.conv1 = conv(in_channels, channels, 1, stride_1x1)
        self.bn1 = batch_norm(channels)
        self.conv2 = conv(channels, channels, 3, stride_3x3)
        self.bn2 = batch_norm(channels)
        self.conv3 = conv(channels, channels * self.expansion, 1)
        self.bn3 = batch_norm(channels * self.expansion)
        self.relu = nn.ReLU()
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        return self.relu(x + shortcut)


BLOCKS = {  # depth -> block, number of blocks in each of the four stages
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Layer):
    """The convolutional part of a ResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        style: where a bottleneck strides, "pytorch" or "caffe"; "caffe" needs depth 50 or more.

    Raises:
        UserError: for any other depth or style.
    """

    def __init__(self, depth: int, style: str = "pytorch"):
        super().__init__()
        if depth not in BLOCKS:
            raise UserError(f"there is no ResNet-{depth}; MODEL.DEPTH is one of {', '.join(map(str, BLOCKS))}")
        if style not in STYLES:
            raise UserError(f"MODEL.STYLE is {style!r}; it is one of {', '.join(STYLES)}")
        block, counts = BLOCKS[depth]
        if style == "caffe" and block is not Bottleneck:
            raise UserError(
                f"MODEL.STYLE caffe moves a bottleneck's stride, and ResNet-{depth} has none; use 50 or more"
            )

        self.conv1 = conv(3, 64, 7, stride=2)
        self.bn1 = batch_norm(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2D(kernel_size=3, stride=2, padding=1)
        self.out_channels = 64
        self.layer1 = self._stage(block, 64, counts[0], stride=1, style=style)
        self.layer2 = self._stage(block, 128, counts[1], stride=2, style=style)
        self.layer3 = self._stage(block, 256, counts[2], stride=2, style=style)
        self.layer4 = self._stage(block, 512, counts[3], stride=2, style=style)

    def _stage(self, block: type, channels: int, count: int, stride: int, style: str) -> nn.Sequential:
        in_channels, out_channels = self.out_channels, channels * block.expansion
        downsample = None
        if stride != 1 or in_channels != out_channels:
            downsample = nn.Sequential(conv(in_channels, out_channels, 1, stride), batch_norm(out_channels))
        blocks = [block(in_channels, channels, stride, style, downsample)]
        blocks += [block(out_channels, channels, 1, style, None) for _ in range(1, count)]
        self.out_channels = out_channels
        return nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))  # (N, 64, H/2, W/2)
        x = self.maxpool(x)  # (N, 64, H/4, W/4)
        x = self.layer1(x)  # (N, 64 e, H/4, W/4), e = block.expansion
        x = self.layer2(x)  # (N, 128 e, H/8, W/8)
        x = self.layer3(x)  # (N, 256 e, H/16, W/16)
        return self.layer4(x)  # (N, 512 e, H/32, W/32)
