"""PoseResNet in PyTorch, to time it beside ours."""

from __future__ import annotations

from torch import Tensor, nn

BLOCKS = {18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3))}


class Block(nn.Module):
    """A residual block: a chain of convolutions, and a shortcut."""

    def __init__(self, kind: str, in_channels: int, width: int, stride: int):
        super().__init__()
        if kind == "basic":
            layers = [(in_channels, width, 3, stride), (width, width, 3, 1)]
        else:
            layers = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        chain: list[nn.Module] = []
        for inputs, outputs, kernel, step in layers:
            chain += [nn.Conv2d(inputs, outputs, kernel, step, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
            chain += [nn.ReLU(inplace=True)]
        self.chain = nn.Sequential(*chain[:-1])
        self.out_channels = layers[-1][1]
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != self.out_channels:
            projection = nn.Conv2d(in_channels, self.out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(self.out_channels))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.chain(x) + self.shortcut(x))


class PoseResNet(nn.Sequential):
    """(N, 3, H, W) -> (N, K, H/4, W/4)."""

    def __init__(self, depth: int, num_joints: int):
        kind, counts = BLOCKS[depth]
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(3, 2, 1))
        channels = 64
        for stage, count in enumerate(counts):
            for number in range(count):
                block = Block(kind, channels, 64 * 2**stage, 2 if stage and not number else 1)
                layers.append(block)
                channels = block.out_channels
        for _ in range(3):
            layers += [nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False), nn.BatchNorm2d(256)]
            layers.append(nn.ReLU(inplace=True))
            channels = 256
        super().__init__(*layers, nn.Conv2d(channels, num_joints, 1))
