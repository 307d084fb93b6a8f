"""Reproduce an experiment: train it with several seeds, score the best and the last weights, write the page of results.

Started again after an interruption, it resumes, and skips what is finished. A run made with other settings is refused:
its scores do not belong to this experiment.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplepose
from simplepose.commands.cli import config_parser, parse_config
from simplepose.core.errors import UserError
from simplepose.core.run_files import BEST_WEIGHTS, HISTORY, LAST_WEIGHTS

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.reports.reproduction import Run
    from simplepose.training.evaluation import Evaluator

EXAMPLES = """examples:
  python pose_estimation/reproduce.py --cfg experiments/lspet/resnet18/128x128_d256x3_adam_lr1e-3.yaml
  python pose_estimation/reproduce.py --cfg ... --seeds 0 1 2 --results output/results DATASET.ROOT=/data/lspet

A curve to compare with is read from <experiment>.reference.csv beside the experiment file, if it is there.
"""
WEIGHTS = {"best": BEST_WEIGHTS, "last": LAST_WEIGHTS}
PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "numpy", "opencv-python", "opencv-python-headless")  # those installed


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1], metavar="N", help="TRAIN.SEED of each; default: 0 1"
    )
    parser.add_argument(
        "--results", default="docs/results", metavar="FOLDER", help="for the page; default: %(default)s"
    )
    args, config = parse_config(parser)
    reproduce(args, config)


def reproduce(args: argparse.Namespace, config: EasyDict) -> None:
    """Every seed's training and validations, then the page."""
    from simplepose.build.data import box_source, build_evaluator, build_valid_samples
    from simplepose.machine.logs import say
    from simplepose.reports import reproduction
    from simplepose.training.run_folder import make_run_folder

    args.seeds = list(dict.fromkeys(args.seeds))  # one training each
    make_run_folder(Path(args.results), "--results")  # fails now if it is not writable, not after hours
    samples = build_valid_samples(config)
    evaluator = build_evaluator(config, samples)  # likewise for missing data
    labelled = any(sample.visible.any() for sample in samples)
    if box_source(config) != "annotated":  # detections carry no joints, but the annotations may
        labelled = bool(evaluator.truth.annotations)
    if not labelled:
        raise UserError(f"{config.DATASET.TEST_SET} has no labels to score against; set DATASET.TEST_SET")
    for seed in args.seeds:
        require_same_recipe(config, run_folder_in(seed_place(config, seed), args, config))
    reference_file = Path(args.cfg).with_suffix(".reference.csv")
    reference = reproduction.read_reference(reference_file, evaluator.primary) if reference_file.exists() else {}

    runs = [run_seed(args, config, seed, evaluator) for seed in args.seeds]
    for check in reproduction.checks(runs, reference, evaluator.primary):
        say(f"=> {'ok' if check.passed else 'NOT OK'}: {check.what}: {check.found}")

    name = page_name(args.cfg)
    page = Path(args.results) / f"{name}.md"
    pictures = {"Curves": f"{name}_curves.svg"}
    reproduction.draw_curves(page.with_name(pictures["Curves"]), runs, reference, evaluator.primary)
    if config.DATASET.DATASET == "mpii":
        pictures["Poses"] = f"{name}_poses.png"
        best = reproduction.best_run(runs, evaluator.primary)
        draw_poses(page.with_name(pictures["Poses"]), config, samples, evaluator, best)
    command = shlex.join(["python", "pose_estimation/reproduce.py", *sys.argv[1:]])
    known = [*facts(config, runs), *reproduction.notes_of(args.cfg)]
    reproduction.write_page(page, args.cfg, command, known, runs, reference, evaluator.primary, pictures)
    say(f"=> results: {page.as_posix()}")


def page_name(cfg: str | os.PathLike) -> str:
    """Of an experiment file: experiments/lspet/resnet18/a.yaml -> lspet_resnet18_a."""
    file = Path(cfg).with_suffix("")
    return "_".join(file.relative_to(file.anchor).parts[-3:])  # of /tmp/a.yaml as well: tmp_a, and not /_tmp_a


def seed_place(config: EasyDict, seed: int) -> Path:
    """OUTPUT_DIR of one seed's training."""
    return Path(config.OUTPUT_DIR) / f"seed{seed}"


def run_folder_in(place: Path, args: argparse.Namespace, config: EasyDict) -> Path:
    """The run folder of this experiment with that OUTPUT_DIR."""
    from simplepose.build.model import run_folder_of

    return run_folder_of(type(config)({**config, "OUTPUT_DIR": str(place)}), args.cfg)


def require_same_recipe(config: EasyDict, folder: Path) -> None:
    """Raises UserError if a run folder holds a training with other settings: its scores are not this experiment's."""
    from simplepose.config.load import disagreements, load_config, recipe

    written = folder / "config.yaml"
    differing = disagreements(config, recipe(load_config(written))) if written.exists() else []
    if differing:
        key, now, before = differing[0]
        raise UserError(
            f"{folder.as_posix()} was trained with {key} {before}, this is {now}; take it away, or set OUTPUT_DIR to "
            "another folder"
        )


def run_seed(args: argparse.Namespace, config: EasyDict, seed: int, evaluator: Evaluator) -> Run:
    """Train and validate with the public commands, and read what they wrote."""
    from simplepose.core.files import read_json
    from simplepose.machine.logs import say
    from simplepose.reports.reproduction import Run, Scored
    from simplepose.weights import read_weights

    gpus = [] if args.gpus is None else ["--gpus", args.gpus]
    settings = [*args.overrides, f"TRAIN.SEED={seed}", f"LOG_DIR={Path(config.LOG_DIR, f'seed{seed}').as_posix()}"]

    def run_in(place: Path, file: str, command: str, *arguments: Any, since: float = 0) -> Path:
        folder = run_folder_in(place, args, config)
        made = folder / file
        if not made.exists() or made.stat().st_mtime < since:
            say(f"=> seed {seed}: {command} in {folder.as_posix()}")
            line = ["--cfg", args.cfg, *gpus, *arguments, *settings, f"OUTPUT_DIR={place.as_posix()}"]
            returned = run_to_its_end(
                [sys.executable, "-m", "simplepose", command.removesuffix(".py"), *map(str, line)]
            )
            if returned or not made.exists():
                how = f"failed with exit code {returned}" if returned else "was stopped"
                raise UserError(f"{command} {how}; the same command resumes it")
        return folder

    place = seed_place(config, seed)
    start = time.monotonic()
    try:
        trained = run_in(place, WEIGHTS["last"], "train.py", "TRAIN.RESUME=true")
    finally:
        seconds = keep_time(run_folder_in(place, args, config) / "seconds.json", time.monotonic() - start)
    scored = {}
    for name, file in WEIGHTS.items():
        weights = trained / file
        written = weights.stat().st_mtime  # older scores belong to an earlier training
        folder = run_in(place / name, "metrics.json", "valid.py", "--model-file", weights, since=written)
        made = read_weights(weights).metadata
        metrics = read_json(folder / "metrics.json")
        scored[name] = Scored(made["epoch"], metrics, interval(config, folder, evaluator), folder)
    history = read_json(trained / HISTORY)
    return Run(seed, made["commit"], seconds, history, scored["best"], scored["last"])


def run_to_its_end(line: list[str]) -> int:
    """Run a command and return its exit code. On SIGTERM, wait until it has finished its step and saved."""
    package = str(Path(simplepose.__file__).parents[1])  # in a checkout, the children must find it as this process did
    paths = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(line, env={**os.environ, "PYTHONPATH": paths})
    before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())  # Ctrl-C reaches both processes anyway
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_time(file: Path, seconds: float) -> float:
    """Add seconds to the total in a file and return it: a training may be interrupted and resumed."""
    from simplepose.core.files import read_json, write_json

    before = read_json(file)["seconds"] if file.exists() else 0
    if file.parent.exists():
        write_json(file, {"seconds": before + seconds})
    return before + seconds


def interval(config: EasyDict, folder: Path, evaluator: Evaluator) -> tuple[float, float] | None:
    """The bootstrap interval of the score over the validation persons, for PCKh; None for other scores."""
    if config.DATASET.DATASET != "mpii":
        return None
    import numpy as np

    from simplepose.metrics.compare import bootstrap_intervals
    from simplepose.metrics.pckh import load_predictions, person_hits

    hits, counts = person_hits(load_predictions(folder / evaluator.predictions_file), evaluator.truth)
    return tuple(bootstrap_intervals(hits, counts, np.random.default_rng(0), 10000)[0].tolist())


def draw_poses(path: Path, config: EasyDict, samples: list, evaluator: Evaluator, run: Run) -> None:
    """A sheet of the last weights' best, median and worst persons."""
    from simplepose.build.model import build_skeleton
    from simplepose.metrics.pckh import load_predictions, person_hits
    from simplepose.reports import reproduction

    predictions = load_predictions(run.last.folder / evaluator.predictions_file)
    hits, counts = person_hits(predictions, evaluator.truth)
    reproduction.draw_poses(path, samples, predictions - 1, hits, counts, build_skeleton(config))


def facts(config: EasyDict, runs: list[Run]) -> list[tuple[str, str]]:
    """The recipe, the machine and the versions, for the report."""
    import platform
    from datetime import timedelta
    from importlib import metadata

    from simplepose.config.load import arch_name
    from simplepose.machine.provenance import machine

    train, dataset, extra = config.TRAIN, config.DATASET, config.MODEL.EXTRA
    by_epoch = f", x {train.LR_FACTOR} at epochs {train.LR_STEP}" if train.LR_TYPE == "MultiStepDecay" else ""
    recipe = [f"{train.OPTIMIZER}, {train.LR}, {train.LR_TYPE}{by_epoch}"]
    if train.OPTIMIZER != "sgd":
        recipe.append(f"epsilon {train.EPSILON:g}")
    if train.WARMUP_ITERS:
        recipe.append(f"warm-up {train.WARMUP_ITERS} iterations")
    if train.EMA:
        recipe.append(f"averaged weights {train.EMA}")
    recipe.append(f"batch {train.BATCH_SIZE}, {train.END_EPOCH} epochs")
    if train.AMP != "O0":
        recipe.append(f"mixed precision {train.AMP}")
    augmentation = [f"flip {dataset.FLIP}, rotation {dataset.ROT_FACTOR}, scale {dataset.SCALE_FACTOR}"]
    for key in ("SHIFT_FACTOR", "PROB_HALF_BODY", "COLOR_FACTOR", "PROB_OCCLUSION"):
        augmentation += [f"{key.lower()} {dataset[key]}"] if dataset[key] else []
    unbiased = ", unbiased data processing" if extra.UNBIASED else ""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions.append(f"{name} {metadata.version(name)}")
    times = [f"seed {run.seed} {timedelta(seconds=round(run.seconds))}" for run in runs]
    return [
        ("network", f"{arch_name(config)}, from {config.MODEL.PRETRAINED or 'scratch'}"),
        ("data", f"{dataset.TRAIN_SET} and {dataset.TEST_SET} of `{dataset.ROOT}`"),
        ("targets", f"sigma {extra.SIGMA} on {extra.HEATMAP_SIZE[0]}x{extra.HEATMAP_SIZE[1]}{unbiased}"),
        ("optimiser", "; ".join(recipe)),
        ("augmentation", ", ".join(augmentation)),
        ("flip test", f"{str(config.TEST.FLIP_TEST).lower()}; decoder {config.TEST.DECODER}"),
        ("commit", "; ".join(f"seed {run.seed} {run.commit}" for run in runs)),
        ("versions", ", ".join(versions)),
        ("machine", machine()),
        ("time, validation included", "; ".join(times)),
    ]
