"""A reproduction report on one page: several seeds of an experiment compared with reference curves.

Everything here works on files that trainings and validations wrote; `commands/reproduce.py` runs those.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.drawing import BACKGROUND_COLOR, draw_pose, draw_text, write_image
from simplepose.core.errors import UserError
from simplepose.core.files import read_text, written_whole
from simplepose.core.geometry import apply_affine, crop_affine
from simplepose.core.skeletons import Skeleton
from simplepose.core.tables import markdown_table
from simplepose.data.sample import PoseSample
from simplepose.metrics.coco_ap import PRIMARY as AP

# Criteria of a reproduction: the training loss of each epoch, without the first two, which depend on the initial
# weights; and the final score.
FIRST_COMPARED_EPOCH = 2
LOSS_TOLERANCE = 0.01  # of the reference's range
SCORE_TOLERANCE = 3.0  # points

# Colours of the seeds' curves, and of the reference's.
COLORS = [f"tab:{name}" for name in ("orange", "blue", "green", "red", "purple", "brown", "pink", "olive", "cyan")]
GRAYS = ("0.35", "0.6", "0.75")

PERSONS_A_ROW = 8
CELL, CAPTION = 160, 24  # pixels
POSES_CAPTION = "Rows: the best, middling and worst validation persons; grey as annotated. Weights of the last epoch"
TRUTH_COLOR = (200, 200, 200)

Entry = dict[str, Any]  # figures of one epoch, as history.json has them


@dataclass(frozen=True)
class Scored:
    """Scores of one of a run's weight files.

    Attributes:
        epoch: after which they were saved.
        metrics: of the evaluator.
        interval: 95 % bootstrap interval of the primary metric over persons; None where there is none.
        folder: where the validation left its predictions.
    """

    epoch: int
    metrics: dict[str, Any]
    interval: tuple[float, float] | None
    folder: Path


@dataclass(frozen=True)
class Run:
    """One seed's training with the code of a commit: what it took, `history` by epoch, its best and last weights."""

    seed: int
    commit: str
    seconds: float
    history: list[Entry]
    best: Scored
    last: Scored


def read_reference(path: str | os.PathLike, primary: str) -> dict[int, list[Entry]]:
    """Curves to compare with: CSV with the columns seed, epoch, train_loss and metrics by name, which may be empty.

    Args:
        primary: the metric that is compared; every seed's last epoch must have it.

    Returns:
        For each seed its epochs in order, epoch 0 first.

    Raises:
        UserError: unreadable, or without a column or an epoch that is needed.
    """
    try:
        rows = list(csv.DictReader(read_text(path, "reference").splitlines()))
    except csv.Error as error:
        raise UserError(f"{path} is no reference: {error}") from None
    if not rows:
        raise UserError(f"{path} holds no epochs; write seed,epoch,train_loss,... and a line an epoch")
    curves: dict[int, list[Entry]] = {}
    try:
        for row in rows:
            figures = {name: float(value) for name, value in row.items() if value and name != "seed"}
            # NaN is no figure: with it, any loss and any score would be within the reference's range.
            entry = {name: figure for name, figure in figures.items() if np.isfinite(figure)}
            entry.update(epoch=int(row["epoch"]), train_loss=entry["train_loss"])
            curves.setdefault(int(row["seed"]), []).append(entry)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no reference: {error!r}; its columns are seed,epoch,train_loss,...") from None
    for seed, entries in curves.items():
        if [entry["epoch"] for entry in entries] != list(range(len(entries))):
            raise UserError(f"{path}: the epochs of seed {seed} are not 0, 1, 2, ...")
        if primary not in entries[-1]:
            raise UserError(f"{path}: the last epoch of seed {seed} has no {primary} to compare with; write it there")
    return curves


@dataclass(frozen=True)
class Check:
    """One criterion of a reproduction, and its outcome."""

    what: str
    found: str
    passed: bool


def checks(runs: Sequence[Run], reference: dict[int, list[Entry]], primary: str) -> list[Check]:
    """Compare every run with the reference's range over its seeds."""
    return [check for run in runs for check in _checks_of(run, reference, primary)]


def _checks_of(run: Run, reference: dict[int, list[Entry]], primary: str) -> list[Check]:
    found = []
    worst, worst_epoch = 0.0, None
    for entry in run.history[FIRST_COMPARED_EPOCH:]:
        losses = [curve[entry["epoch"]]["train_loss"] for curve in reference.values() if entry["epoch"] < len(curve)]
        if not losses:
            continue
        away = relative_distance(entry["train_loss"], min(losses), max(losses))
        if worst_epoch is None or abs(away) > abs(worst):
            worst, worst_epoch = away, entry["epoch"]
    if worst_epoch is not None:
        found.append(
            Check(
                f"seed {run.seed}: training loss within {LOSS_TOLERANCE:.0%} of the reference's range, "
                f"every epoch from {FIRST_COMPARED_EPOCH} on",
                f"{worst:+.2%} at worst (epoch {worst_epoch})" if worst else "inside at every epoch",
                abs(worst) <= LOSS_TOLERANCE,
            )
        )
    finals = [curve[-1][primary] for curve in reference.values() if primary in curve[-1]]
    if finals:
        score = run.last.metrics[primary]
        away = score - min(max(score, min(finals)), max(finals))
        found.append(
            Check(
                f"seed {run.seed}: final {primary} within {SCORE_TOLERANCE:g} points of the reference's range",
                f"{_score(score, primary)}; the reference has {' and '.join(_score(v, primary) for v in finals)}",
                abs(away) <= SCORE_TOLERANCE * _point(primary),
            )
        )
    return found


def best_run(runs: Sequence[Run], primary: str) -> Run:
    """The one whose last weights score highest."""
    return max(runs, key=lambda run: run.last.metrics[primary])


def relative_distance(value: float, low: float, high: float) -> float:
    """How far outside of a range, as a share of the nearer end; 0 inside, negative below."""
    return (value - low) / low if value < low else (value - high) / high if value > high else 0.0


def draw_curves(path: str | os.PathLike, runs: Sequence[Run], reference: dict[int, list[Entry]], primary: str) -> None:
    """Training loss and score by epoch as a picture; the reference dashed.

    Raises:
        UserError: the folder is not writable.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "", "svg.fonttype": "none"})  # same input, same file
    import matplotlib.pyplot as plt

    figure, (losses, scores) = plt.subplots(1, 2, figsize=(10, 3.8), constrained_layout=True)
    for axes, name in ((losses, "train_loss"), (scores, primary)):
        for color, (seed, curve) in zip(cycle(GRAYS), reference.items()):
            axes.plot(_curve(curve, name), "--", color=color, label=f"reference, seed {seed}")
        for color, run in zip(cycle(COLORS), runs):
            axes.plot(_curve(run.history, name), "o-", color=color, ms=3, label=f"here, seed {run.seed}")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    losses.set_title("training loss")
    scores.set_title(f"{primary}, validation")
    scores.legend(loc="lower right", fontsize=8)
    with written_whole(path) as scratch:
        figure.savefig(scratch, format=Path(path).suffix[1:], metadata={"Date": None})
    plt.close(figure)


def _curve(entries: Sequence[Entry], name: str) -> list[float]:
    """A figure by epoch, with gaps where there is none."""
    return [float("nan") if entry.get(name) is None else entry[name] for entry in entries]


def draw_poses(
    path: str | os.PathLike,
    samples: Sequence[PoseSample],
    predictions: np.ndarray,
    hits: np.ndarray,
    counts: np.ndarray,
    skeleton: Skeleton,
) -> None:
    """A sheet of the best, median and worst persons, one row each under its caption: no photograph.

    Args:
        predictions: (N, K, 2) image pixels, 0-based.
        hits, counts: (N,), joints found and labelled.
    """
    persons = np.flatnonzero(counts)
    persons = persons[np.argsort(-hits[persons] / counts[persons], kind="stable")]
    middle = max(0, (len(persons) - PERSONS_A_ROW) // 2)
    chosen = [persons[:PERSONS_A_ROW], persons[middle:][:PERSONS_A_ROW], persons[-PERSONS_A_ROW:]]
    rows = []
    for name, row in zip(("Best", "Median", "Worst"), chosen):
        caption = np.full((CAPTION, CELL * len(row), 3), BACKGROUND_COLOR, np.uint8)
        legend = (
            "joints found of those annotated; grey: annotated, orange: the person's left, blue: right, green: middle"
        )
        draw_text(caption, f"{name}: {legend}", (4, CAPTION - 6))
        cells = []
        for person in row:
            sample = samples[person]
            affine = crop_affine(sample.center, sample.size[0], 0.0, (CELL, CELL))
            cell = np.full((CELL, CELL, 3), BACKGROUND_COLOR, np.uint8)
            truth, found = apply_affine(affine, sample.joints), apply_affine(affine, predictions[person])
            draw_pose(cell, truth, sample.visible, skeleton, color=TRUTH_COLOR)
            draw_pose(cell, found, np.ones(len(found)), skeleton)
            draw_text(cell, f"{hits[person]} of {counts[person]}")
            cells.append(cell)
        rows += [caption, np.hstack(cells)]
    write_image(path, np.vstack(rows))


def notes_of(cfg: str | os.PathLike) -> list[tuple[str, str]]:
    """("note", text) of each comment "# Note: ..." in an experiment file: caveats for readers of its scores."""
    text = Path(cfg).read_text(encoding="utf-8")
    return [("note", note) for note in re.findall(r"^# Note: +(.*)$", text, re.MULTILINE)]


def write_page(
    path: Path,
    cfg: str,
    command: str,
    facts: Sequence[tuple[str, str]],
    runs: Sequence[Run],
    reference: dict[int, list[Entry]],
    primary: str,
    pictures: dict[str, str],
) -> None:
    """The page as Markdown.

    Args:
        cfg: the experiment file.
        facts: (what, value) of the recipe and the machine.
        pictures: file names beside the page, by heading; the first heads the table of epochs.
    """
    lines = [
        f"# {Path(cfg).with_suffix('').as_posix()}",
        "",
        "```bash",
        command,
        "```",
        "",
        *markdown_table(("", ""), facts),
    ]
    if reference:
        rows = [
            (check.what, check.found, "yes" if check.passed else "**no**") for check in checks(runs, reference, primary)
        ]
        lines += ["", "## Held against the reference", "", *markdown_table(("what", "found", "holds"), rows)]
    (heading, curves), *others = pictures.items()
    lines += ["", f"## {heading}", "", f"![{heading}]({curves})", "", *_epochs(runs, reference, primary)]
    lines += ["", "## Scores", "", *_scores(runs, reference, primary)]
    for heading, name in others:
        lines += ["", f"## {heading}", "", f"![{heading}]({name})"]
        lines += ["", f"{POSES_CAPTION} of seed {best_run(runs, primary).seed}."]
    with written_whole(path) as scratch:
        scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _epochs(runs: Sequence[Run], reference: dict[int, list[Entry]], primary: str) -> list[str]:
    """Training loss and score of every epoch, the runs beside the reference's."""
    curves = [(f"seed {run.seed}", run.history) for run in runs]
    curves += [(f"reference, seed {seed}", curve) for seed, curve in reference.items()]
    head = ["epoch", *(f"loss, {name}" for name, _ in curves), *(f"{primary}, {name}" for name, _ in curves)]
    rows = []
    for epoch in range(max(len(history) for _, history in curves)):
        entries = [history[epoch] if epoch < len(history) else {} for _, history in curves]
        losses = [_number(entry.get("train_loss"), 6) for entry in entries]
        rows.append([str(epoch), *losses, *(_score(entry.get(primary), primary) for entry in entries)])
    return markdown_table(head, rows)


def _scores(runs: Sequence[Run], reference: dict[int, list[Entry]], primary: str) -> list[str]:
    """Best and last weights of every run, and the reference's last, with the bootstrap intervals."""
    # The evaluator's metrics come first; after them the loss, which is absent with detected boxes, and the recipe.
    columns = list(takewhile(lambda name: name not in ("valid_loss", "test_set"), runs[0].last.metrics))
    rows = []
    for run in runs:
        for name, scored in (("best", run.best), ("last", run.last)):
            values = [_score(scored.metrics.get(column), primary) for column in columns]
            interval = "{:.2f} to {:.2f}".format(*scored.interval) if scored.interval else ""
            rows.append([f"seed {run.seed}, {name} (epoch {scored.epoch})", *values, interval])
    for seed, curve in reference.items():
        values = [_score(curve[-1].get(column), primary) for column in columns]
        rows.append([f"reference, seed {seed}, last (epoch {len(curve) - 1})", *values, ""])
    lines = markdown_table(("", *columns, f"95 % of {primary}"), rows)
    if len(runs) > 1:
        finals = [run.last.metrics[primary] for run in runs]
        points = (max(finals) - min(finals)) / _point(primary)
        spread = f"The final {primary} of our seeds spreads over {points:.2f} points."
        lines += ["", f"{spread} The last column is the bootstrap interval over persons, one network each."]
    return lines


def _point(primary: str) -> float:
    """A point of a score: AP ends at 1, PCKh at 100."""
    return 0.01 if primary == AP else 1.0


def _score(value: float | None, primary: str) -> str:
    return _number(value, 3 if primary == AP else 2)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.{digits}f}"
