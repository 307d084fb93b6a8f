"""How a score grows with the number of labelled persons: trainings on subsets of LSPET, all of the same length.

    python benchmarks/data_sizes.py --data data/lspet --sizes 50 500 3000 8000
    python benchmarks/data_sizes.py --data data/lspet --sizes 50 500 --weights posenet.onnx

The second starts from a network, which should not have seen these persons. An epoch is always 8,000 crops: a small set
is seen more often. The score is PCKh on LSPET's validation persons, whose head boxes are made from neck and head top;
its interval is for another sample of such persons. Hours on a CPU; what is done already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
runpy.run_path(str(ROOT / "pose_estimation" / "_init_paths.py"))

from simplepose.metrics.compare import bootstrap_intervals  # noqa: E402
from simplepose.metrics.pckh import load_pckh_ground_truth, load_predictions, person_hits  # noqa: E402

CFG = "experiments/lspet/resnet18/128x128_d256x3_unbiased_adamw.yaml"
CROPS = 8000  # of an epoch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="LSPET in MPII's form")
    parser.add_argument("--weights", metavar="FILE", help="pose network to start from; default: from scratch")
    parser.add_argument("--output", type=Path, default=Path("output/data_sizes"), metavar="FOLDER")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 3000], metavar="N")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of persons and training; default: 0")
    args = parser.parse_args()
    truth = load_pckh_ground_truth(args.data / "annot" / "gt_valid.mat")
    print("| persons | PCKh@0.5 Mean | 95 % interval |\n|---|---|---|")
    for size in args.sizes:
        hits, counts = person_hits(load_predictions(train(args, size)), truth)
        low, high = bootstrap_intervals(hits, counts, np.random.default_rng(0), 10000)[0]
        print(f"| {size:,} | {100 * hits.sum() / counts.sum():.2f} | {low:.2f} to {high:.2f} |", flush=True)


def train(args: argparse.Namespace, size: int) -> Path:
    """Train on so many persons; returns the last epoch's predictions."""
    start = Path(args.weights).stem if args.weights else "scratch"
    folder = args.output.resolve() / f"{size}_{start}_{args.epochs}_{args.seed}"
    if not list(folder.rglob("final_state.pdparams")):
        data = subset(args.data.resolve(), folder / "data", size, args.seed)
        every = {"DATASET.ROOT": data, "OUTPUT_DIR": folder, "LOG_DIR": folder / "log", "TRAIN.RESUME": True}
        every |= {"TRAIN.END_EPOCH": args.epochs, "TRAIN.SEED": args.seed}
        every["MODEL.PRETRAINED"] = os.path.abspath(args.weights) if args.weights else ""
        line = [sys.executable, str(ROOT / "pose_estimation" / "train.py"), "--cfg", CFG]
        subprocess.run([*line, *(f"{key}={value}" for key, value in every.items())], cwd=ROOT, check=True, stdout=2)
    (predictions,) = folder.rglob("pred.mat")
    return predictions


def subset(source: Path, folder: Path, size: int, seed: int) -> Path:
    """LSPET with `size` training persons, repeated until they make an epoch; images are linked."""
    (folder / "annot").mkdir(parents=True, exist_ok=True)
    persons = json.loads((source / "annot" / "train.json").read_text())
    chosen = np.random.default_rng(seed).permutation(len(persons))[:size]
    rows = np.resize(chosen, CROPS)
    (folder / "annot" / "train.json").write_text(json.dumps([persons[row] for row in rows.tolist()]))
    for name in ("valid.json", "gt_valid.mat"):
        (folder / "annot" / name).write_bytes((source / "annot" / name).read_bytes())
    if not (folder / "images").exists():
        (folder / "images").symlink_to(source / "images", target_is_directory=True)
    return folder


if __name__ == "__main__":
    main()
