"""What makes a score on LSPET: the number of labelled persons, or the parts of the recipe, one at a time.

    python benchmarks/recipes.py sizes --data data/lspet --numbers 50 500 3000 8000
    python benchmarks/recipes.py parts --data data/lspet

All trainings are equally long: an epoch is 8,000 crops, and fewer persons are seen more often. The score is PCKh of the
last epoch on the validation persons, whose head boxes are made from neck and head top; intervals are for another sample
of such persons, those of differences on the same persons. Hours on a CPU; what is done already is not run again.
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
runpy.run_path(str(ROOT / "pose_estimation" / "_init_paths.py"))

from simplepose.core.errors import UserError, run_command  # noqa: E402
from simplepose.core.files import read_json  # noqa: E402
from simplepose.core.run_files import LAST_WEIGHTS  # noqa: E402
from simplepose.core.tables import markdown_table  # noqa: E402
from simplepose.metrics.compare import bootstrap_intervals  # noqa: E402
from simplepose.metrics.pckh import load_pckh_ground_truth, load_predictions, pckh_metrics, person_hits  # noqa: E402

CFG = "experiments/lspet/resnet18/128x128_d256x3_unbiased_adamw.yaml"
CROPS = 8000  # of an epoch
PARTS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "another seed": {"TRAIN.SEED": 1},  # what luck alone does
    "a third seed": {"TRAIN.SEED": 2},
    "without unbiased data processing": {"MODEL.EXTRA.UNBIASED": False},
    "decoded by a quarter of a cell": {"TEST.DECODER": "quarter"},
    "targets half as wide": {"MODEL.EXTRA.SIGMA": 1},
    "Adam": {"TRAIN.OPTIMIZER": "adam", "TRAIN.WD": 0.0},
    "an epsilon of 1e-8": {"TRAIN.EPSILON": 1e-8},
    "without warm-up": {"TRAIN.WARMUP_ITERS": 0},
    "without averaged weights": {"TRAIN.EMA": 0.0},
    "a constant learning rate": {"TRAIN.LR_TYPE": "MultiStepDecay", "TRAIN.LR_STEP": []},
    "batches twice as large": {"TRAIN.BATCH_SIZE": 32},
    "turned and scaled more": {"DATASET.ROT_FACTOR": 40, "DATASET.SCALE_FACTOR": 0.35},
    "shifted": {"DATASET.SHIFT_FACTOR": 0.05},
    "half bodies": {"DATASET.PROB_HALF_BODY": 0.15},
    "colours changed": {"DATASET.COLOR_FACTOR": 0.2},
    "partly covered": {"DATASET.PROB_OCCLUSION": 0.3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sizes", "parts"))
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="LSPET in MPII's form")
    parser.add_argument("--output", type=Path, default=Path("output/recipes"), metavar="FOLDER")
    parser.add_argument("--numbers", type=int, nargs="+", default=[50, 500, 3000], metavar="N", help="of persons")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="of each training; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of persons and training; default: 0")
    parser.add_argument("--amp", choices=("O0", "O1"), default="O0", help="TRAIN.AMP of all; default: %(default)s")
    args = parser.parse_args()
    truth = load_pckh_ground_truth(args.data / "annot" / "gt_valid.mat")

    def percent(hits: np.ndarray) -> str:
        low, high = bootstrap_intervals(hits, counts, np.random.default_rng(0), 10000)[0]
        return f"{100 * hits.sum() / counts.sum():.2f} | {low:.2f} to {high:.2f}"

    trainings = PARTS if args.what == "parts" else {f"{number:,}": {"persons": number} for number in args.numbers}
    columns = [args.what, "PCKh@0.5 Mean", "95 % interval", "less or more", "95 % interval", "Mean at 0.1"]
    print(*markdown_table(columns, []), sep="\n")
    first = None
    for name, changes in trainings.items():
        predictions = load_predictions(predict(args, **changes))
        hits, counts = person_hits(predictions, truth)
        first = hits if first is None else first
        fine = pckh_metrics(predictions, truth)["Mean@0.10"]
        print(f"| {name} | {percent(hits)} | {percent(hits - first)} | {fine:.2f} |", flush=True)


def predict(args: argparse.Namespace, persons: int = CROPS, **changes: Any) -> Path:
    """The last epoch's predictions of a training with changes; what changes the test alone needs no other training."""
    test = {key: value for key, value in changes.items() if key.startswith("TEST.")}
    trained = train(args, persons, **{key: value for key, value in changes.items() if key not in test})
    folder = trained
    if test:
        folder = args.output.resolve() / "_".join([trained.name, *(f"{key}={value}" for key, value in test.items())])
        (weights,) = trained.rglob(LAST_WEIGHTS)
        every = {"DATASET.ROOT": trained / "data", "OUTPUT_DIR": folder, "LOG_DIR": folder / "log", **test}
        if run("valid.py", "--model-file", str(weights), **every):
            sys.exit(2)
    (predictions,) = folder.rglob("pred.mat")
    return predictions


def train(args: argparse.Namespace, persons: int, **changes: Any) -> Path:
    """Train once, with changes to the experiment; returns the folder of it all."""
    name = "_".join([str(persons), *(f"{key.rpartition('.')[2]}={value}" for key, value in changes.items())])
    folder = args.output.resolve() / f"{name}_{args.epochs}_{args.seed}_{args.amp}"

    def is_done() -> bool:
        return any(folder.rglob(LAST_WEIGHTS))

    if not is_done():
        data = subset(args.data.resolve(), folder / "data", persons, args.seed)
        every = {"DATASET.ROOT": data, "OUTPUT_DIR": folder, "LOG_DIR": folder / "log", "TRAIN.RESUME": True}
        every.update({"TRAIN.END_EPOCH": args.epochs, "TRAIN.SEED": args.seed, "TRAIN.AMP": args.amp, **changes})
        code = run("train.py", **every)
        if not is_done():  # it has said why, or was asked to stop
            sys.exit(code)
    return folder


def run(script: str, *arguments: str, **changes: Any) -> int:
    line = [sys.executable, str(ROOT / "pose_estimation" / script), "--cfg", CFG, *arguments]
    return subprocess.run([*line, *(f"{key}={value}" for key, value in changes.items())], cwd=ROOT, stdout=2).returncode


def subset(source: Path, folder: Path, size: int, seed: int) -> Path:
    """LSPET with `size` training persons, repeated until they make an epoch; images are linked."""
    (folder / "annot").mkdir(parents=True, exist_ok=True)
    persons = read_json(source / "annot" / "train.json")
    if len(persons) < size:
        raise UserError(f"{source / 'annot' / 'train.json'} holds {len(persons)} persons, not {size}")
    chosen = np.random.default_rng(seed).permutation(len(persons))[:size]
    rows = np.resize(chosen, CROPS)
    (folder / "annot" / "train.json").write_text(json.dumps([persons[row] for row in rows.tolist()]))
    for name in ("valid.json", "gt_valid.mat"):
        (folder / "annot" / name).write_bytes((source / "annot" / name).read_bytes())
    if not (folder / "images").exists():
        (folder / "images").symlink_to(source / "images", target_is_directory=True)
    return folder


if __name__ == "__main__":
    sys.exit(run_command(main))
