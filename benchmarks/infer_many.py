"""How fast infer_many.py is beside infer.py: photographs on this machine, by turns, and the memory of either.

    python benchmarks/infer_many.py --model-file posenet.onnx --detector nanodet_m.onnx --img-file photos/

The photographs are repeated under other names. Starting Ray and its workers takes seconds, whatever the number; so two
numbers of photographs are timed, and their difference gives the rate after the start.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from timing import scratch_folder

COMMANDS = Path(__file__).resolve().parent.parent / "pose_estimation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-file", required=True, help="ONNX file of export.py")
    parser.add_argument("--detector", required=True, help="ONNX file of a person detector")
    parser.add_argument("--img-file", required=True, help="a folder of images")
    parser.add_argument("--counts", type=int, nargs=2, default=[500, 2000], metavar="N", help="photographs")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    photos = sorted(path for path in Path(args.img_file).resolve().iterdir() if path.suffix in (".jpg", ".png"))
    few, many = args.counts
    with scratch_folder() as scratch:
        for count in args.counts:
            folder = Path(scratch, str(count))
            folder.mkdir()
            for number in range(count):
                photo = photos[number % len(photos)]
                os.symlink(photo, folder / f"{number:07}{photo.suffix}")
        ratios = []
        for turn in range(args.rounds):
            rates = []
            for command in ("infer.py", "infer_many.py"):
                seconds = {}
                for count in args.counts:
                    seconds[count], memory = run(command, args, Path(scratch, str(count)), f"{scratch}/{turn}_{count}")
                    print(
                        f"{command}: {count} photographs, {seconds[count]:.1f} s, at most {memory:.0f} MiB", flush=True
                    )
                rates.append((many - few) / (seconds[many] - seconds[few]))
            ratios.append(rates[1] / rates[0])
            print(f"after the start {rates[0]:.2f} and {rates[1]:.2f} photographs/s: {ratios[-1]:.2f}", flush=True)
    print(f"median {statistics.median(ratios):.2f} of infer.py's rate")


def run(command: str, args: argparse.Namespace, photos: Path, output: str) -> tuple[float, float]:
    """Seconds of a run, and the most memory in MiB that all its processes together held, shared pages in parts."""
    line = [sys.executable, COMMANDS / command, "--model-file", args.model_file, "--detector", args.detector]
    if command == "infer.py":
        line += ["--img-file", photos, "--no-draw", "--format", "npz", "--output", f"{output}.npz"]
    else:
        line += ["--input", photos, "--output", f"{output}.parquet"]
    most, begun = [0.0], time.perf_counter()
    with subprocess.Popen(
        list(map(str, line)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:

        def watch() -> None:
            while process.poll() is None:
                most[0] = max(most[0], held_mib(process.pid))
                time.sleep(2)

        watcher = threading.Thread(target=watch)
        watcher.start()
        said = process.communicate()[1]
        watcher.join()
    if process.returncode:
        sys.exit(said)
    return time.perf_counter() - begun, most[0]


def held_mib(pid: int) -> float:
    """The proportional memory of a process and its descendants (Linux)."""
    total, waiting = 0, [pid]
    while waiting:
        folder = Path("/proc", str(waiting.pop()))
        try:
            for children in folder.glob("task/*/children"):
                waiting += map(int, children.read_text().split())
            lines = (folder / "smaps_rollup").read_text().splitlines()
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


if __name__ == "__main__":
    main()
