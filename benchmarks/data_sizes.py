"""How a score grows with the number of labelled persons: trainings on subsets of LSPET, from scratch and fine-tuned.

    python benchmarks/data_sizes.py --data ../shared/data/lspet --weights best.pdparams --output output/data_sizes

Every size and seed draws its persons anew; the score is PCKh on LSPET's 779 validation persons, whose head boxes are
made from neck and head top. Hours on a CPU; what is done already is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
CFG = "experiments/lspet/resnet18/128x128_d256x3_small_data.yaml"
STEPS = 3000  # of 32 persons, whatever the size: small sets are seen more often


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="LSPET in MPII's form")
    parser.add_argument("--weights", metavar="FILE", help="pose network to start from; default: from scratch only")
    parser.add_argument("--output", type=Path, default=Path("output/data_sizes"), metavar="FOLDER")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 500, 3000], metavar="N")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    args = parser.parse_args()
    starts = {"from scratch": "", **({"fine-tuned": os.path.abspath(args.weights)} if args.weights else {})}
    print("| persons | start | Mean of each seed | mean and 95 % interval |\n|---|---|---|---|")
    for size, (start, weights) in product(args.sizes, starts.items()):
        scores = np.array([score(args, size, seed, start, weights) for seed in range(args.seeds)])
        half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else float("nan")
        each = " ".join(f"{one:.2f}" for one in scores)
        print(f"| {size} | {start} | {each} | {scores.mean():.2f} ± {half:.2f} |", flush=True)


def score(args: argparse.Namespace, size: int, seed: int, start: str, weights: str) -> float:
    """The best Mean of one training."""
    folder = args.output.resolve() / f"{size}_{start.replace(' ', '_')}_{seed}"
    history = list(folder.rglob("history.json"))
    if not history:
        data = subset(args.data.resolve(), folder / "data", size, seed)
        epochs = max(1, round(STEPS * 32 / size))
        every = [f"DATASET.ROOT={data.as_posix()}", f"OUTPUT_DIR={folder.as_posix()}", f"LOG_DIR={folder.as_posix()}"]
        steps = [f"TRAIN.END_EPOCH={epochs}", f"TRAIN.SEED={seed}", f"MODEL.PRETRAINED={weights}"]
        line = [sys.executable, str(ROOT / "pose_estimation/train.py"), "--cfg", CFG, *every, *steps]
        subprocess.run(line, cwd=ROOT, check=True, stdout=sys.stderr)
        history = list(folder.rglob("history.json"))
    return max(epoch["Mean"] for epoch in json.loads(history[0].read_text()))


def subset(source: Path, folder: Path, size: int, seed: int) -> Path:
    """LSPET with `size` training persons; images are linked."""
    (folder / "annot").mkdir(parents=True, exist_ok=True)
    persons = json.loads((source / "annot/train.json").read_text())
    rows = np.random.default_rng(seed).choice(len(persons), size, replace=False)
    (folder / "annot/train.json").write_text(json.dumps([persons[row] for row in sorted(rows.tolist())]))
    for name in ("valid.json", "gt_valid.mat"):
        (folder / "annot" / name).write_bytes((source / "annot" / name).read_bytes())
    if not (folder / "images").exists():
        (folder / "images").symlink_to(source / "images", target_is_directory=True)
    return folder


if __name__ == "__main__":
    main()
