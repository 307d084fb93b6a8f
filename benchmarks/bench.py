"""Everything that should be fast, beside its peer, in one table.

    python benchmarks/bench.py                      all rows; half an hour
    python benchmarks/bench.py --only decode nms    some of them
    python benchmarks/bench.py --quick              each of them once, small: that they run, not how fast
    make bench                                      all rows, with PyTorch to compare with

Rows whose peer is not installed show our own time alone. The figures of all rows go to
benchmarks/results/<machine>.json, those of some or of --quick only where --json says.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import peers
from timing import Row, by_turns, duration, once, table

from simplepose.machine.provenance import git_commit, machine, processor_flags

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def heatmap_targets(rounds: int, quick: bool) -> list[Row]:
    from simplepose.core.codecs.gaussian import HeatmapCodec

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


def decoding(rounds: int, quick: bool) -> list[Row]:
    from simplepose.core.codecs.gaussian import HeatmapCodec

    heatmaps = np.random.default_rng(0).random((256, 17, 64, 48), dtype=np.float32)
    codec = HeatmapCodec((192, 256), (48, 64), 2)
    np.testing.assert_allclose(codec.decode(heatmaps)[0] / 4, peers.decode(heatmaps)[0])
    times = by_turns(lambda: codec.decode(heatmaps), lambda: peers.decode(heatmaps), rounds)
    return [Row("decoding, 256 x 17 joints x 64x48", *times, 8.0, "loop", 34e-3)]


def pckh_scores(rounds: int, quick: bool) -> list[Row]:
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


def oks_nms(rounds: int, quick: bool) -> list[Row]:
    from simplepose.core.skeletons import COCO
    from simplepose.metrics.coco_ap import oks_nms

    rng = np.random.default_rng(0)
    sigmas = np.array(COCO.sigmas)
    # Groups of ten look-alikes, as a detector without suppression leaves them.
    images = 2 if quick else 100
    poses = rng.uniform(0, 600, (images, 10, 1, 17, 2)) + rng.normal(size=(images, 10, 10, 17, 2)) * 4
    poses = poses.reshape(images, 100, 17, 2)
    scores, areas = rng.random(poses.shape[:2]), rng.uniform(5e3, 5e4, poses.shape[:2])

    def run(suppress) -> list:
        return [list(suppress(*image, sigmas, 0.9)) for image in zip(poses, scores, areas)]

    assert run(oks_nms) == run(peers.oks_nms)
    times = by_turns(lambda: run(oks_nms), lambda: run(peers.oks_nms), min(rounds, 3))
    return [Row(f"OKS-NMS, {images} images x 100 people", *times, 10.0, "loop")]


def data_loading(rounds: int, quick: bool) -> list[Row]:
    from data_pipeline import bench

    return bench(min(rounds, 5), persons=32 if quick else 128)


def training_step(rounds: int, quick: bool) -> list[Row]:
    rows = []
    for depth, size, batch, figure in ((18, 64, 2, None),) if quick else ((50, 256, 8, 3.05), (18, 128, 32, 1.23)):
        what = ("--depth", depth, "--size", size, size, "--batch", batch, "--steps", 1 if quick else 5)
        runtimes = {
            "ours": ("--runtime", "paddle"),
            "PyTorch": ("--runtime", "torch"),
            "PyTorch, channels-last": ("--runtime", "torch-channels-last"),
            "Paddle's own kernels": ("--runtime", "paddle-own-kernels"),
            "matrix": ("--runtime", "matrix", "--side", 256 if quick else 2048),
        }
        if faster := bfloat16_speed():
            runtimes["ours, bfloat16"] = ("--runtime", "paddle", "--amp")
            runtimes["PyTorch's autocast, channels-last"] = ("--runtime", "torch-channels-last", "--amp")
        runs, refused = in_processes("training_step.py", what, runtimes, min(rounds, 3))
        seconds = {name: [run["seconds"] for run in runs[name]] for name in runtimes if name != "matrix"}
        notes = {name: memory_note(runs[name]) for name in seconds}

        flop, rates = runs["ours"][0]["flop"], [run["flop_per_second"] for run in runs["matrix"]]
        reached = np.median([flop / its / rate for its, rate in zip(seconds["ours"], rates)])
        notes["ours"] += f", {reached:.2f} of the {np.median(rates) / 1e9:.0f} GFLOP/s of a float32 matrix product"

        name = f"training step, ResNet-{depth}, {size}x{size}, batch {batch}"
        peers_of = (
            ("PyTorch", 1.2, figure),
            ("PyTorch, channels-last", 1.2, None),
            ("Paddle's own kernels", None, None),
        )
        for peer, bound, its_figure in peers_of:
            note = f"{notes['ours']}; {peer} {notes[peer]}" if seconds[peer] else notes["ours"]
            rows.append(Row(name, seconds["ours"], seconds[peer], bound, peer, its_figure, note))
        name += ", bfloat16"
        if not faster:
            rows.append(Row(name, [], note="left out: this processor has neither avx512_bf16 nor AMX"))
        elif "ours, bfloat16" in refused:
            rows.append(Row(name, [], note=f"left out: {refused['ours, bfloat16']}"))
        else:
            ours, peer = "ours, bfloat16", "PyTorch's autocast, channels-last"
            note = f"{notes[ours]}; {peer} {notes[peer]}" if seconds[peer] else notes[ours]
            rows.append(Row(name, seconds[ours], seconds[peer], 1.0, peer, note=note))
            rows.append(Row(name, seconds[ours], seconds["ours"], faster, "float32"))
    return rows


def bfloat16_speed() -> float | None:
    """How many times as fast as float32 bfloat16 should be on this processor; None without instructions for it."""
    flags = processor_flags()
    return 2.5 if "amx_bf16" in flags else 1.5 if "avx512_bf16" in flags else None


def memory_note(runs: list[dict]) -> str:
    peaks = [run["peak_mib"] for run in runs if run["peak_mib"]]
    return f"{np.median(peaks):.0f} MiB at the most" if peaks else ""


def training_epoch(rounds: int, quick: bool, persons: int = 800) -> list[Row]:
    from training_epoch import lspet

    persons = 32 if quick else persons
    name = f"an epoch of LSPET, {persons:,} persons, validation included"
    if not lspet().is_dir():
        return [Row(name, [], note=f"left out: no data at {lspet()}; set POSE_REAL_DATA")]
    in_kinds = {"": (("paddle",), ("torch",))}
    if bfloat16_speed():
        in_kinds[", bfloat16"] = (("paddle", "--amp"), ("torch-channels-last", "--amp"))
    rows = []
    for kind, (ours, peer) in in_kinds.items():
        runtimes = {"ours": ("--runtime", *ours), "peer": ("--runtime", *peer)}
        runs, _ = in_processes("training_epoch.py", ("--persons", persons), runtimes, min(rounds, 3))
        seconds = {name: [run["seconds"] for run in runs[name]] for name in runtimes}
        what = f"the original's loop in PyTorch{', channels-last' if kind else ''}"
        rows.append(Row(name + kind, seconds["ours"], seconds["peer"], 1.0, what, note=memory_note(runs["ours"])))
    return rows


def inference(rounds: int, quick: bool) -> list[Row]:
    rows = []
    depth, width, height, batches = (18, 64, 64, (1,)) if quick else (50, 192, 256, (1, 16))
    network = ("--depth", depth, "--size", width, height)
    names = ["ours", "torch", "onnxruntime"]
    if not quick:
        names.append("torch-compiled")  # compiling takes a minute
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "network.onnx"))
        in_processes("inference_step.py", network, {"export": ("--export", file)}, 1)
        for batch in batches:
            what = (*network, "--model-file", file, "--batch", batch, "--steps", 1 if quick else 5)
            runs, _ = in_processes(
                "inference_step.py", what, {name: ("--runtime", name) for name in names}, min(rounds, 3)
            )
            seconds = {name: [run["seconds"] for run in its_runs] for name, its_runs in runs.items()}
            ours = seconds.pop("ours")
            fastest = min(
                (name for name in seconds if seconds[name]), key=lambda name: min(seconds[name]), default=None
            )
            note = ", ".join(f"{name} {duration(min(times))}" for name, times in seconds.items() if times)
            name = f"inference, ResNet-{depth}, {height}x{width}, batch {batch}"
            peer, figure = seconds[fastest] if fastest else [], None if quick else 54e-3 * batch
            rows.append(Row(name, ours, peer, 1.0, fastest or "", figure, f"best of each: {note}"))
    return rows


def in_processes(
    script: str, what: tuple, runtimes: dict[str, tuple], rounds: int
) -> tuple[dict[str, list[dict]], dict[str, str]]:
    """Run a script for each runtime, a process each, by turns; `runtimes` are the flags by name.

    Returns:
        what they printed by runtime, [] for one that is not installed or refused --amp; why it refused.
    """
    runs: dict[str, list[dict]] = {name: [] for name in runtimes}
    refused: dict[str, str] = {}
    for _ in range(rounds):
        for name, flags in runtimes.items():
            line = [sys.executable, str(HERE / script), *map(str, (*flags, *what))]
            finished = subprocess.run(line, capture_output=True, text=True)
            if finished.returncode == 0:
                runs[name].append(json.loads(finished.stdout.splitlines()[-1]) if finished.stdout else {})
            elif "--amp" in flags and (said := finished.stderr.strip().splitlines()[-1]).startswith("error: "):
                refused[name] = said.removeprefix("error: ")
            elif not re.search("No module named '(torch|onnxruntime)'", finished.stderr):
                raise SystemExit(f"{' '.join(line)}\n{finished.stderr}")
    return runs, refused


def help_texts(rounds: int, quick: bool) -> list[Row]:
    commands = sorted(path.name for path in (ROOT / "pose_estimation").glob("[a-z]*.py"))
    slowest: dict[str, list[float]] = {}
    for command in commands:
        line = [sys.executable, str(ROOT / "pose_estimation" / command), "--help"]
        slowest[command] = [process_seconds(line) for _ in range(min(rounds, 5))]
    name = max(commands, key=lambda command: float(np.median(slowest[command])))
    return [Row("--help of the slowest command", slowest[name], note=f"{name}; wanted: under 0.4 s")]


def imports(rounds: int, quick: bool) -> list[Row]:
    line = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT / 'lib')!r}); import simplepose"]
    seconds = [process_seconds(line) for _ in range(min(rounds, 5))]
    return [Row("import simplepose, the process included", seconds)]


def process_seconds(line: list[str]) -> float:
    return once(lambda: subprocess.run(line, check=True, capture_output=True))


ROWS: dict[str, Callable[..., list[Row]]] = {
    "targets": heatmap_targets,
    "decode": decoding,
    "pckh": pckh_scores,
    "nms": oks_nms,
    "data": data_loading,
    "help": help_texts,
    "import": imports,
    "inference": inference,
    "training": training_step,
    "epoch": training_epoch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one turn of each, small")
    parser.add_argument(
        "--persons", type=int, default=800, metavar="N", help="of the epoch, 8,000 are all; default: %(default)s"
    )
    parser.add_argument("--json", metavar="FILE", help="where the figures go")
    args = parser.parse_args()

    rows = []
    for name in args.only:
        print(f"=> {name}", file=sys.stderr, flush=True)
        more = {"persons": args.persons} if name == "epoch" else {}
        rows += ROWS[name](1 if args.quick else args.rounds, args.quick, **more)
    print(f"{machine()}, load {os.getloadavg()[0]:.1f} at the end\n" if hasattr(os, "getloadavg") else f"{machine()}\n")
    print(table(rows))
    path = args.json and Path(args.json)
    if not path and not args.quick and set(args.only) == set(ROWS):
        path = HERE / "results" / f"{re.sub(r'[^a-z0-9]+', '_', machine().lower()).strip('_')}.json"
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": machine(), "commit": git_commit(), "rows": [vars(row) for row in rows]}
        path.write_text(json.dumps(content, indent=1) + "\n")
        print(f"\nfigures: {path}")


if __name__ == "__main__":
    main()
