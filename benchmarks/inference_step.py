"""Seconds a forward pass of PoseResNet takes in one of several runtimes, with as many threads as there are cores.

    python benchmarks/inference_step.py --runtime ours --depth 50 --size 192 256 --batch 1

`ours` is what PosePredictor runs for an exported file, arrays in and out; `onnxruntime` the bare session. The network
is exported to a temporary folder unless --model-file names one that --export wrote.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from timing import scratch_folder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

NUM_JOINTS = 17
WARM_UP = 3


def export(args: argparse.Namespace) -> None:
    """An untrained network as an ONNX file."""
    from simplepose.machine.paddle_start import start_paddle

    start_paddle()
    from simplepose.build.model import build_model, build_pose_network
    from simplepose.config.load import load_config
    from simplepose.export.onnx import export_onnx

    width, height = args.size
    config = load_config(
        None, ["DATASET.DATASET=coco", f"MODEL.DEPTH={args.depth}", f"MODEL.IMAGE_SIZE=[{width},{height}]"]
    )
    model = build_model(config)
    export_onnx(model, args.export, build_pose_network(config, model), {})


def ours(args: argparse.Namespace):
    from simplepose.inference.onnx_network import OnnxNetwork, open_session

    return OnnxNetwork(open_session(args.model_file))


def bare_onnxruntime(args: argparse.Namespace):
    import onnxruntime

    from simplepose.machine.device import available_cores

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(args.model_file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def torch_eager(args: argparse.Namespace):
    import torch
    from torch_network import PoseResNet

    from simplepose.machine.device import available_cores

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
    parser.add_argument("--model-file", metavar="FILE", help="ONNX file to time; default: exported for this run")
    parser.add_argument("--export", metavar="FILE", help="write the ONNX file, and time nothing")
    args = parser.parse_args()
    with scratch_folder() as folder:
        if args.export:
            export(args)
            return
        if args.model_file is None and not args.runtime.startswith("torch"):
            # In a process of its own: the one that is timed runs without Paddle.
            args.model_file = str(Path(folder, "network.onnx"))
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--export", args.model_file], check=True)
        print(json.dumps({"seconds": seconds_a_step(args)}))


def seconds_a_step(args: argparse.Namespace) -> float:
    width, height = args.size
    images = np.random.default_rng(0).standard_normal((args.batch, 3, height, width)).astype(np.float32)
    network = RUNTIMES[args.runtime](args)
    seconds = []
    for _ in range(WARM_UP + args.steps):
        start = time.perf_counter()
        network(images)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])


if __name__ == "__main__":
    main()
