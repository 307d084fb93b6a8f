"""Seconds and memory that a training step takes: forward, backward and Adam of PoseResNet.

python benchmarks/training_step.py --runtime paddle --depth 50 --size 256 256 --batch 8     as train.py runs it
python benchmarks/training_step.py --runtime torch-channels-last --amp --depth 18 --size 128 128 --batch 32
python benchmarks/training_step.py --runtime matrix             the processor's own rate: float32 matrix products
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
from pathlib import Path

import numpy as np
from timing import once, peak_memory_mib, scratch_folder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from simplepose.core.errors import run_command

NUM_JOINTS = 16
FLOP_PER_MAC = 3 * 2  # forward, gradient of the input, gradient of the weights: each a multiplication and an addition


def multiply_adds(model, image_size_wh: tuple[int, int]) -> int:
    """Of one image's forward pass: convolutions, and deconvolutions, whose every tap meets every input pixel."""
    import paddle
    from paddle import nn

    counts = []

    def count(layer, inputs, output) -> None:
        grid = inputs[0] if isinstance(layer, nn.Conv2DTranspose) else output
        counts.append(layer.weight.size * grid.shape[2] * grid.shape[3])

    kinds = (nn.Conv2D, nn.Conv2DTranspose)
    hooks = [layer.register_forward_post_hook(count) for layer in model.sublayers() if isinstance(layer, kinds)]
    width, height = image_size_wh
    model.eval()
    with paddle.no_grad():
        model(paddle.zeros([1, 3, height, width]))
    for hook in hooks:
        hook.remove()
    return int(sum(counts))


def matrix_product_rate(side: int, repeats: int) -> float:
    """The most FLOP/s in float32 that numpy, or PyTorch if it is there, reach on all cores."""
    factors = np.random.default_rng(0).standard_normal((2, side, side)).astype(np.float32)
    products = [lambda: factors[0] @ factors[1]]
    if importlib.util.find_spec("torch"):
        import torch

        from simplepose.machine.device import available_cores

        torch.set_num_threads(available_cores())
        tensors = torch.from_numpy(factors)
        products.append(lambda: tensors[0] @ tensors[1])
    seconds = [once(product) for product in products for _ in range(1 + repeats)]
    return 2 * side**3 / min(seconds)


def paddle_step(args: argparse.Namespace, images: np.ndarray, targets: np.ndarray):
    from simplepose.machine.paddle_start import start_paddle

    start_paddle()
    import paddle

    from simplepose.models.onednn_training import TrainingKernels
    from simplepose.models.pose_resnet import PoseResNet
    from simplepose.training.losses import joints_mse_loss
    from simplepose.training.optim import build_optimizer, learning_rate

    model = PoseResNet(args.depth, NUM_JOINTS)
    flop = FLOP_PER_MAC * args.batch * multiply_adds(model, args.size)
    model.train()
    if args.runtime == "paddle":
        model.kernels = TrainingKernels(bfloat16=args.amp)
    optimizer = build_optimizer("adam", model.parameters(), learning_rate(1e-3, lambda iteration: 1.0))
    images, targets = paddle.to_tensor(images), paddle.to_tensor(targets)
    weights = paddle.ones([args.batch, NUM_JOINTS])

    def step() -> float:
        loss = joints_mse_loss(model(images), targets, weights)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return step, {"flop": flop}


def torch_step(args: argparse.Namespace, images: np.ndarray, targets: np.ndarray):
    import torch
    from torch_network import PoseResNet

    from simplepose.machine.device import available_cores

    torch.set_num_threads(available_cores())
    layout = torch.contiguous_format if args.runtime == "torch" else torch.channels_last
    model = PoseResNet(args.depth, NUM_JOINTS).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images, targets = torch.from_numpy(images).contiguous(memory_format=layout), torch.from_numpy(targets)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=args.amp):
            heatmaps = model(images)
        loss = 0.5 * ((heatmaps.float() - targets) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, {}


STEPS = {
    "paddle": paddle_step,
    "paddle-own-kernels": paddle_step,
    "torch": torch_step,
    "torch-channels-last": torch_step,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=[*STEPS, "matrix"], default="paddle")
    parser.add_argument("--amp", action="store_true", help="bfloat16 where it pays; TRAIN.AMP O1, PyTorch's autocast")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("W", "H"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="timed, after two that are not; default: %(default)s")
    parser.add_argument("--side", type=int, default=2048, help="of the matrices; default: %(default)s")
    args = parser.parse_args()
    if args.runtime == "matrix":
        print(json.dumps({"flop_per_second": matrix_product_rate(args.side, args.steps)}))
        return
    rng = np.random.default_rng(0)
    width, height = args.size
    images = rng.standard_normal((args.batch, 3, height, width)).astype(np.float32)
    targets = rng.random((args.batch, NUM_JOINTS, height // 4, width // 4)).astype(np.float32)
    with scratch_folder():
        step, known = STEPS[args.runtime](args, images, targets)
        seconds = [once(step) for _ in range(2 + args.steps)]
    found = {"seconds": statistics.median(seconds[2:]), "peak_mib": peak_memory_mib()}
    print(json.dumps({**found, **known}))


if __name__ == "__main__":
    sys.exit(run_command(main))
