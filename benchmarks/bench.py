"""Everything that should be fast, beside its peer, in one table.

    python benchmarks/bench.py                      all rows; ten minutes and more
    python benchmarks/bench.py --only decode nms    some of them
    make bench                                      the same, with PyTorch to compare with

Rows whose peer is not installed show our own time alone. The figures go to benchmarks/results/<machine>.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import peers
from timing import Row, by_turns, duration, once, table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def heatmap_targets(rounds: int) -> list[Row]:
    from simplepose.heatmaps import HeatmapCodec

    rng = np.random.default_rng(0)
    codec = HeatmapCodec((256, 256), (64, 64), 2)
    joints, visible = rng.uniform(-10, 266, (32, 16, 2)), np.ones((32, 16))

    def plain() -> np.ndarray:
        drawn = [peers.draw_heatmaps(*person, (256, 256), (64, 64), 2) for person in zip(joints, visible)]
        return np.stack([heatmaps for heatmaps, _ in drawn])

    weights = codec.encode(joints, visible)[1]
    np.testing.assert_allclose(codec.encode(joints, visible)[0], plain() * weights[..., None, None], atol=1e-6)
    times = by_turns(lambda: codec.encode(joints, visible), plain, rounds)
    return [Row("heatmap targets, 32 x 16 joints x 64x64", *times, 4.0, "loop")]


def decoding(rounds: int) -> list[Row]:
    from simplepose.heatmaps import HeatmapCodec

    heatmaps = np.random.default_rng(0).random((256, 17, 64, 48), dtype=np.float32)
    codec = HeatmapCodec((192, 256), (48, 64), 2)
    np.testing.assert_allclose(codec.decode(heatmaps)[0] / 4, peers.decode(heatmaps)[0])
    times = by_turns(lambda: codec.decode(heatmaps), lambda: peers.decode(heatmaps), rounds)
    return [Row("decoding, 256 x 17 joints x 64x48", *times, 8.0, "loop", 34e-3)]


def pckh_scores(rounds: int) -> list[Row]:
    from simplepose.metrics import pckh

    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 500, (2958, 16, 2))
    truth = pckh.PckhGroundTruth(("a",) * 16, joints, rng.random((2958, 16)) < 0.9, rng.uniform(20, 90, 2958))
    predictions = joints + rng.normal(0, 15, joints.shape)
    arguments = (predictions, joints, truth.labelled, truth.head_sizes, pckh.CURVE_THRESHOLDS)
    np.testing.assert_allclose(pckh.pckh(predictions, truth, pckh.CURVE_THRESHOLDS), peers.pckh_curve(*arguments))
    times = by_turns(
        lambda: pckh.pckh(predictions, truth, pckh.CURVE_THRESHOLDS), lambda: peers.pckh_curve(*arguments), rounds
    )
    return [Row("PCKh, 2,958 persons, 51 thresholds", *times, 3.0, "a pass a threshold", 6.3e-3)]


def oks_nms(rounds: int) -> list[Row]:
    from simplepose.metrics.coco_ap import oks_nms
    from simplepose.skeletons import COCO

    rng = np.random.default_rng(0)
    sigmas = np.array(COCO.sigmas)
    # Groups of ten look-alikes, as a detector without suppression leaves them.
    poses = rng.uniform(0, 600, (100, 10, 1, 17, 2)) + rng.normal(size=(100, 10, 10, 17, 2)) * 4
    poses = poses.reshape(100, 100, 17, 2)
    scores, areas = rng.random(poses.shape[:2]), rng.uniform(5e3, 5e4, poses.shape[:2])

    def run(suppress) -> list:
        return [list(suppress(*image, sigmas, 0.9)) for image in zip(poses, scores, areas)]

    assert run(oks_nms) == run(peers.oks_nms)
    times = by_turns(lambda: run(oks_nms), lambda: run(peers.oks_nms), min(rounds, 3))
    return [Row("OKS-NMS, 100 images x 100 people", *times, 10.0, "loop")]


def data_loading(rounds: int) -> list[Row]:
    from data_pipeline import bench

    return bench(min(rounds, 5))


def training_step(rounds: int) -> list[Row]:
    rows = []
    for depth, size, batch, bound, figure in ((50, 256, 8, 1.15, 3.05), (18, 128, 32, 1.0, 1.23)):
        what = ("--depth", depth, "--size", size, size, "--batch", batch, "--steps", 5)
        ours, peer = in_processes("training_step.py", what, ("paddle", "torch"), min(rounds, 3))
        name = f"training step, ResNet-{depth}, {size}x{size}, batch {batch}"
        rows.append(Row(name, ours, peer, bound, "PyTorch", figure))
    return rows


def inference(rounds: int) -> list[Row]:
    rows = []
    for batch in (1, 16):
        what = ("--depth", 50, "--size", 192, 256, "--batch", batch, "--steps", 5)
        runtimes = ("ours", "torch", "torch-compiled", "onnxruntime")
        seconds = dict(zip(runtimes, in_processes("inference_step.py", what, runtimes, min(rounds, 3))))
        ours = seconds.pop("ours")
        fastest = min((name for name in seconds if seconds[name]), key=lambda name: min(seconds[name]), default=None)
        note = ", ".join(f"{name} {duration(min(times))}" for name, times in seconds.items() if times)
        name = f"inference, ResNet-50, 256x192, batch {batch}"
        peer = seconds[fastest] if fastest else []
        rows.append(Row(name, ours, peer, 1.0, fastest or "", 54e-3 * batch, f"best of each: {note}"))
    return rows


def in_processes(script: str, what: tuple, runtimes: tuple[str, ...], rounds: int) -> list[list[float]]:
    """Seconds a step of each runtime, a process each, by turns; [] for one that is not installed."""
    times: dict[str, list[float]] = {runtime: [] for runtime in runtimes}
    for _ in range(rounds):
        for runtime in runtimes:
            line = [sys.executable, str(HERE / script), "--runtime", runtime, *map(str, what)]
            finished = subprocess.run(line, capture_output=True, text=True)
            if finished.returncode == 0:
                times[runtime].append(float(finished.stdout.split()[-1]))
            elif "No module named" not in finished.stderr:
                raise SystemExit(finished.stderr)
    return list(times.values())


def help_texts(rounds: int) -> list[Row]:
    commands = sorted(path.name for path in (ROOT / "pose_estimation").glob("[a-z]*.py"))
    slowest: dict[str, list[float]] = {}
    for command in commands:
        line = [sys.executable, str(ROOT / "pose_estimation" / command), "--help"]
        slowest[command] = [process_seconds(line) for _ in range(min(rounds, 5))]
    name = max(commands, key=lambda command: float(np.median(slowest[command])))
    return [Row("--help of the slowest command", slowest[name], note=f"{name}; wanted: under 0.4 s")]


def imports(rounds: int) -> list[Row]:
    line = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'lib')!r}); import simplepose"]
    seconds = [process_seconds(line) for _ in range(min(rounds, 5))]
    return [Row("import simplepose, the process included", seconds)]


def process_seconds(line: list[str]) -> float:
    return once(lambda: subprocess.run(line, check=True, capture_output=True))


ROWS = {
    "targets": heatmap_targets,
    "decode": decoding,
    "pckh": pckh_scores,
    "nms": oks_nms,
    "data": data_loading,
    "help": help_texts,
    "import": imports,
    "inference": inference,
    "training": training_step,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each; default: %(default)s")
    parser.add_argument("--json", metavar="FILE", help="default: benchmarks/results/<machine>.json")
    args = parser.parse_args()

    from simplepose.runtime import git_commit, machine

    rows = []
    for name in args.only:
        print(f"=> {name}", file=sys.stderr, flush=True)
        rows += ROWS[name](args.rounds)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f} at the end\n" if hasattr(os, "getloadavg") else f"{machine()}\n")
    print(table(rows))
    path = Path(args.json or HERE / "results" / f"{re.sub(r'[^a-z0-9]+', '_', machine().lower()).strip('_')}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "commit": git_commit(), "rows": [vars(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"\nfigures: {path}")


if __name__ == "__main__":
    main()
