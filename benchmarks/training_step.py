"""Seconds a training step takes: forward, backward and Adam of PoseResNet, in Paddle as train.py runs it or in PyTorch.

python benchmarks/training_step.py --runtime paddle --depth 50 --size 256 256 --batch 8
python benchmarks/training_step.py --runtime torch --depth 50 --size 256 256 --batch 8
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

NUM_JOINTS = 16


def paddle_step(args: argparse.Namespace, images: np.ndarray, targets: np.ndarray):
    from simplepose.runtime import start_paddle

    start_paddle()
    import paddle

    from simplepose.losses import joints_mse_loss
    from simplepose.models.pose_resnet import PoseResNet
    from simplepose.optim import build_optimizer

    model = PoseResNet(args.depth, NUM_JOINTS)
    optimizer = build_optimizer("adam", model.parameters(), 1e-3, lambda iteration: 1.0)
    images, targets = paddle.to_tensor(images), paddle.to_tensor(targets)
    weights = paddle.ones([args.batch, NUM_JOINTS])

    def step() -> float:
        loss = joints_mse_loss(model(images), targets, weights)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)

    return step


def torch_step(args: argparse.Namespace, images: np.ndarray, targets: np.ndarray):
    import torch
    from torch_network import PoseResNet

    from simplepose.runtime import available_cores

    torch.set_num_threads(available_cores())
    model = PoseResNet(args.depth, NUM_JOINTS)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    images, targets = torch.from_numpy(images), torch.from_numpy(targets)

    def step() -> float:
        loss = 0.5 * ((model(images) - targets) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


STEPS = {"paddle": paddle_step, "torch": torch_step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=STEPS, default="paddle")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("W", "H"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="timed, after two that are not")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    width, height = args.size
    images = rng.standard_normal((args.batch, 3, height, width)).astype(np.float32)
    targets = rng.random((args.batch, NUM_JOINTS, height // 4, width // 4)).astype(np.float32)
    step = STEPS[args.runtime](args, images, targets)
    seconds = []
    for _ in range(2 + args.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(f"{statistics.median(seconds[2:]):.4f}")


if __name__ == "__main__":
    main()
