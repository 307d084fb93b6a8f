"""The same network as in PyTorch: equal outputs, equal gradients, equal training, from one weight file.

PyTorch comes with the extra `parity` (Python 3.11 on Linux); without it these tests are skipped, and say so. The
PyTorch network below is written for this test alone, from the paper and torchvision's parameter names.
"""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from simplepose.models.pose_resnet import PoseResNet
from simplepose.training.losses import joints_mse_loss
from simplepose.training.optim import build_optimizer, learning_rate
from simplepose.weights import read_weights
from simplepose.weights.network import load_weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed (tests/requirements-parity.txt)")
pytestmark = pytest.mark.parity

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
NETWORKS = [(18, "pytorch"), (50, "pytorch"), (101, "pytorch"), (50, "caffe"), (101, "caffe")]
JOINTS = 16


class TorchBlock(torch.nn.Module):
    """A basic block for kernels (3, 3), a bottleneck for (1, 3, 1)."""

    def __init__(self, channels_in, channels, kernels, strides):
        super().__init__()
        widths = [channels_in] + [channels] * len(kernels)
        if len(kernels) == 3:
            widths[-1] *= 4
        self.count = len(kernels)
        for i, (kernel, stride) in enumerate(zip(kernels, strides)):
            conv = torch.nn.Conv2d(widths[i], widths[i + 1], kernel, stride, kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", conv)
            self.add_module(f"bn{i + 1}", torch.nn.BatchNorm2d(widths[i + 1]))
        self.downsample = None
        stride = max(strides)
        if stride > 1 or channels_in != widths[-1]:
            shortcut = torch.nn.Conv2d(channels_in, widths[-1], 1, stride, bias=False)
            self.downsample = torch.nn.Sequential(shortcut, torch.nn.BatchNorm2d(widths[-1]))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = torch.relu(y) if i < self.count else y
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchPoseResNet(torch.nn.Module):
    def __init__(self, depth, style, joints=JOINTS, filters=256):
        super().__init__()
        bottleneck = depth >= 50
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        self.conv1 = torch.nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(64)
        channels_in = 64
        for stage, count in enumerate(BLOCKS[depth]):
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                strides = (stride, 1, 1) if style == "caffe" or not bottleneck else (1, stride, 1)
                blocks.append(TorchBlock(channels_in, 64 << stage, kernels, strides[: len(kernels)]))
                channels_in = (64 << stage) * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", torch.nn.Sequential(*blocks))
        head = []
        for _ in range(3):
            deconv = torch.nn.ConvTranspose2d(channels_in, filters, 4, 2, 1, bias=False)
            head += [deconv, torch.nn.BatchNorm2d(filters), torch.nn.ReLU()]
            channels_in = filters
        self.deconv_layers = torch.nn.Sequential(*head)
        self.final_layer = torch.nn.Conv2d(filters, joints, 1)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.final_layer(self.deconv_layers(x))


def random_network(depth, style, **sizes):
    """A PyTorch network with random weights and random batch-norm statistics, none at a default."""
    torch.manual_seed(depth)
    network = TorchPoseResNet(depth, style, **sizes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # keeps signals from fading with depth
    torch.nn.init.uniform_(network.final_layer.bias, -0.2, 0.2)
    return network


def in_paddle(network, depth, style, path, **sizes):
    """The same network in Paddle, by way of a file that torch.save wrote."""
    torch.save(network.state_dict(), str(path))
    model = PoseResNet(depth, sizes.get("joints", JOINTS), style, (sizes.get("filters", 256),) * 3)
    load_weights(model, path)
    return model


def relative_error(found, wanted):
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def torch_loss(heatmaps, target):
    """The original's loss: half the mean squared error of each joint's map, averaged over joints."""
    return 0.5 * ((heatmaps - target) ** 2).mean(dim=(0, 2, 3)).mean()


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "style"), NETWORKS)
def test_heatmaps_and_gradients_agree(tmp_path, depth, style):
    theirs = random_network(depth, style).eval()
    ours = in_paddle(theirs, depth, style, tmp_path / "w.pth")
    ours.eval()
    torch.save(theirs.state_dict(), str(tmp_path / "legacy.pth"), _use_new_zipfile_serialization=False)
    legacy = read_weights(tmp_path / "legacy.pth").state
    for name, tensor in ours.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), legacy[name])

    rng = np.random.default_rng(depth)
    images = rng.standard_normal((2, 3, 256, 192)).astype(np.float32)
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(images)).numpy()
    heatmap_error = np.abs(ours(paddle.to_tensor(images)).numpy() - wanted).max() / np.abs(wanted).max()

    # In float64: a rounded activation on the other side of a ReLU's corner would have another gradient altogether.
    theirs, images = theirs.double(), images[:, :, ::2, ::2].astype(np.float64)
    ours.to(dtype="float64")
    target = rng.random((2, JOINTS, 32, 24))
    torch_loss(theirs(torch.from_numpy(images)), torch.from_numpy(target)).backward()
    joints_mse_loss(ours(paddle.to_tensor(images)), paddle.to_tensor(target), None).backward()
    gradients = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    errors = {
        name: relative_error(p.grad.numpy(), gradients[name.replace("backbone.", "")])
        for name, p in ours.named_parameters()
        if not p.stop_gradient  # batch-norm statistics
    }
    assert len(errors) == len(gradients)
    worst = max(errors, key=errors.get)
    print(f"\nPoseResNet-{depth} {style}: heatmaps {heatmap_error:.1e}, gradients {errors[worst]:.1e} ({worst})")
    assert heatmap_error < 1e-4
    assert errors[worst] < 1e-9, worst


STEPS = 20
LR = 2**-10  # a float32 holds it exactly
# Sums run over up to n = 512 * 3 * 3 products; in another order they differ by about sqrt(n) * 2^-53 < 2^-46 of
# their largest terms.
ROUNDING = 2**-46


def train_in_torch(network, images, target, perturbed=False):
    """20 steps of Adam; `perturbed` moves every gradient by ROUNDING of the largest one of its tensor."""
    random = torch.Generator().manual_seed(1)
    adam = torch.optim.Adam(network.parameters(), lr=LR)
    losses = []
    for step in range(STEPS):
        loss = torch_loss(network(torch.from_numpy(images[step])), torch.from_numpy(target[step]))
        adam.zero_grad()
        loss.backward()
        if perturbed:
            for p in network.parameters():
                p.grad += ROUNDING * p.grad.abs().max() * torch.randn(p.shape, generator=random, dtype=p.dtype)
        adam.step()
        losses.append(float(loss.detach()))
    return losses, {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


@pytest.mark.slow
def test_training_stays_in_lockstep(tmp_path):
    """Identical weights, identical batches, 20 steps of Adam, batch norm in training mode, in float64.

    Adam divides each gradient by its own size, so that rounding errors grow from step to step, and no bound from the
    machine's precision alone holds. The bound is therefore what rounding does to PyTorch itself: its distance from
    a second run in which every gradient is off by a rounding error, in every step.
    """
    sizes = {"joints": 3, "filters": 16}
    rng = np.random.default_rng(0)
    images = rng.standard_normal((STEPS, 4, 3, 48, 48))  # smaller, batch norm over 4 values would make it chaotic
    target = rng.random((STEPS, 4, 3, 16, 16))  # 48 / 32 is 2 rounded up, and doubled three times

    def start():
        return random_network(18, "pytorch", **sizes)

    ours = in_paddle(start(), 18, "pytorch", tmp_path / "w.pth", **sizes)
    ours.to(dtype="float64")
    ours.train()
    optimizer = build_optimizer("adam", ours.parameters(), learning_rate(LR, lambda i: 1.0))
    losses = []
    for step in range(STEPS):
        loss = joints_mse_loss(ours(paddle.to_tensor(images[step])), paddle.to_tensor(target[step]), None)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    before = {name: tensor.double().numpy() for name, tensor in start().state_dict().items()}
    wanted_losses, wanted = train_in_torch(start().double(), images, target)
    _, other = train_in_torch(start().double(), images, target, perturbed=True)

    trained = [name for name, _ in start().named_parameters()]
    found = {name.replace("backbone.", ""): tensor.numpy() for name, tensor in ours.state_dict().items()}

    def distance(a, b):
        return np.sqrt(sum(((a[name] - b[name]) ** 2).sum() for name in trained))

    way = distance(before, wanted)  # how far training has moved the weights
    observed, bound = distance(found, wanted) / way, distance(other, wanted) / way
    loss_error = relative_error(np.array(losses), np.array(wanted_losses))
    print(f"\n{STEPS} steps: {observed:.1e} of the way apart, bound {bound:.1e}; losses {loss_error:.1e}")
    assert bound < 1e-6  # it means something
    assert observed < bound and loss_error < bound

    # The running mean is the same. The running variance takes up a tenth of the batch's variance in each step: with
    # n - 1 below in PyTorch, with n in Paddle. bn1 sees n = 4 x 24 x 24 values of each channel. Paddle holds its
    # momentum in float32.
    np.testing.assert_allclose(found["bn1._mean"], wanted["bn1.running_mean"], rtol=1e-6, atol=1e-7)
    n, left = 4 * 24 * 24, 0.9**STEPS * before["bn1.running_var"]
    taken_up = (wanted["bn1.running_var"] - left) * (n - 1) / n
    np.testing.assert_allclose(found["bn1._variance"] - left, taken_up, rtol=1e-6)
