"""What an exported network costs at batch 1: graph options, precisions and runtimes beside the bare network.

    python benchmarks/export_speed.py                        PoseResNet-50 with 17 joints, 256x192, random weights
    python benchmarks/export_speed.py --model-file best.pdparams --rounds 50
    python benchmarks/export_speed.py --quick                PoseResNet-18, 64x64, one round

Each candidate alternates with the bare network, because a shared machine is never equally busy for long; the median
of the ratios counts. `bare` is `session.run` on the plain file, threads as there are cores. The peer is the way of
the earlier Paddle port: paddle2onnx's own export, run by OpenCV.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from timing import once, scratch_folder

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "pose_estimation")]

from simplepose.core.errors import run_command  # noqa: E402

DEFAULTS = ("DATASET.DATASET=coco", "MODEL.DEPTH=50", "MODEL.IMAGE_SIZE=[192,256]")
QUICK = ("DATASET.DATASET=coco", "MODEL.DEPTH=18", "MODEL.IMAGE_SIZE=[64,64]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-file", help="weights; default: random ones")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="everything once, small: that it runs, not how fast")
    args = parser.parse_args()

    from simplepose.machine.device import available_cores
    from simplepose.machine.paddle_start import start_paddle

    start_paddle()
    from simplepose.build.model import build_model, build_pose_network, load_config_and_weights, load_model
    from simplepose.config.load import load_config

    if args.model_file:
        config, weights, _ = load_config_and_weights(None, [], {"TEST.MODEL_FILE": args.model_file})
        model = load_model(config, weights)
    else:
        config = load_config(None, QUICK if args.quick else DEFAULTS)
        model = build_model(config)
    pose = build_pose_network(config, model)
    width, height = pose.codec.image_size_wh
    with scratch_folder() as folder:
        candidates, bare = make_candidates(model, pose, Path(folder))
        print(f"PoseResNet-{config.MODEL.DEPTH}, {height}x{width}, batch 1, {available_cores()} threads")
        print(f"{'':44}  median  against bare: median (least, most)")
        for name, run in candidates.items():
            tell(name, run, bare, 1 if args.quick else args.rounds)


def make_candidates(model, pose, folder: Path):
    """Functions without arguments that run one crop through one way of doing it, by name; and the bare network's."""
    import paddle
    import paddle2onnx

    import deploy
    from simplepose.build.predictor import load_pose_network
    from simplepose.export.onnx import export_onnx, export_paddle, quiet
    from simplepose.export.parity import compare
    from simplepose.export.quantize import write_float16, write_int8
    from simplepose.inference.network import GraphOptions, InferenceSettings
    from simplepose.inference.onnx_network import open_session

    width, height = pose.codec.image_size_wh
    crops = np.random.default_rng(0).integers(0, 256, (8, height, width, 3)).astype(np.uint8)
    crop, image = crops[:1], pose.prepare(crops[:1])
    settings = InferenceSettings()
    graphs = {
        "plain": GraphOptions(),
        "--with-preprocess": GraphOptions(preprocess=True),
        "--with-decode": GraphOptions(decode=True),
        "--with-preprocess --with-decode": GraphOptions(preprocess=True, decode=True),
        "all, flip test included": GraphOptions(preprocess=True, flip_test=True, decode=True),
    }
    files = {name: folder / f"{number}.onnx" for number, name in enumerate(graphs)}
    for name, graph in graphs.items():
        export_onnx(model, files[name], replace(pose, graph=graph), {})
    session = open_session(files["plain"])
    candidates = {"ONNX Runtime, the same once more": lambda: session.run(None, {"image": image})}

    networks = {name: load_pose_network(file) for name, file in files.items()}
    plain = networks["plain"]
    candidates["simplepose, network alone"] = lambda: plain.run(image)
    candidates["simplepose, crop to keypoints"] = lambda: plain.predict(plain.prepare(crop), settings)
    for name, network in list(networks.items())[1:]:
        fed = network.prepare(crop)
        candidates[f"export {name}"] = lambda network=network, fed=fed: network.run(fed)
    write_float16(
        files["plain"], folder / "fp16.onnx", lambda file: compare(pose, load_pose_network(file), crops, settings)
    )
    write_int8(files["plain"], folder / "int8.onnx", pose.prepare(crops), "noise")
    for name in ("fp16", "int8"):
        network = load_pose_network(folder / f"{name}.onnx")
        candidates[f"export --precision {name}"] = lambda network=network: network.run(image)

    program = export_paddle(model, folder / "paddle" / "net", pose, {})[0]
    for runtime in deploy.RUNTIMES:
        try:
            run = deploy.open_runtime(runtime, program if runtime == "Paddle" else files["plain"])
        except deploy.DeployError as error:
            print(f"left out: {error}")
            continue
        candidates[f"deploy.py --type {runtime}, network alone"] = lambda run=run: run(image)
    peer = folder / "peer.onnx"
    spec = paddle.static.InputSpec([1, 3, height, width], "float32", "image")
    with quiet(1, 2):
        paddle2onnx.dygraph2onnx(model, str(peer), [spec], 13)
    if peer.is_file():
        run = deploy.open_runtime("OpenCV", peer)
        candidates["peer: paddle2onnx and OpenCV"] = lambda: run(image)
    return candidates, lambda: session.run(None, {"image": image})


def tell(name: str, run, bare, rounds: int) -> None:
    """Time a candidate in turns with the bare network, and print."""
    run(), bare()
    times, ratios = [], []
    for _ in range(rounds):
        alone = once(bare)
        times.append(once(run))
        ratios.append(times[-1] / alone)
    ratio = f"{statistics.median(ratios):.3f} ({min(ratios):.3f}, {max(ratios):.3f})"
    print(f"{name:44}  {statistics.median(times) * 1e3:5.1f} ms  {ratio}")


if __name__ == "__main__":
    sys.exit(run_command(main))
