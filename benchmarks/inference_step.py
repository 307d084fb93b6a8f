"""Seconds a forward pass of PoseResNet takes in one of several runtimes, with as many threads as there are cores.

    python benchmarks/inference_step.py --runtime ours --depth 50 --size 192 256 --batch 1

`ours` is what PosePredictor runs for an exported file, arrays in and out; `onnxruntime` the bare session.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

NUM_JOINTS = 17
WARM_UP = 3


def exported(args: argparse.Namespace) -> str:
    """An untrained network as an ONNX file; exported once for each depth and size."""
    width, height = args.size
    path = Path(tempfile.gettempdir()) / f"simplepose_bench_{args.depth}_{width}x{height}.onnx"
    if not path.exists():
        from simplepose.runtime import start_paddle

        start_paddle()
        from simplepose.export import export_onnx
        from simplepose.models.pose_resnet import PoseResNet

        export_onnx(PoseResNet(args.depth, NUM_JOINTS), path, {}, (width, height))
    return str(path)


def ours(args: argparse.Namespace):
    from simplepose.onnx_runtime import OnnxNetwork, open_session

    return OnnxNetwork(open_session(exported(args)))


def bare_onnxruntime(args: argparse.Namespace):
    import onnxruntime

    from simplepose.runtime import available_cores

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exported(args), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def torch_eager(args: argparse.Namespace):
    import torch
    from torch_network import PoseResNet

    from simplepose.runtime import available_cores

    torch.set_num_threads(available_cores())
    model = PoseResNet(args.depth, NUM_JOINTS).eval()
    if args.runtime == "torch-compiled":
        model = torch.compile(model)

    def network(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(images)).numpy()

    return network


RUNTIMES = {"ours": ours, "onnxruntime": bare_onnxruntime, "torch": torch_eager, "torch-compiled": torch_eager}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=RUNTIMES, default="ours")
    parser.add_argument("--depth", type=int, default=50)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256), metavar=("W", "H"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    width, height = args.size
    images = np.random.default_rng(0).standard_normal((args.batch, 3, height, width)).astype(np.float32)
    network = RUNTIMES[args.runtime](args)
    seconds = []
    for _ in range(WARM_UP + args.steps):
        start = time.perf_counter()
        network(images)
        seconds.append(time.perf_counter() - start)
    print(f"{statistics.median(seconds[WARM_UP:]):.5f}")


if __name__ == "__main__":
    main()
