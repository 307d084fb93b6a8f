"""The error analysis as a page: what a network gets wrong, what that costs, whom it fails, what to do next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from simplepose.core.drawing import BACKGROUND_COLOR, draw_pose, draw_text
from simplepose.core.errors import UserError
from simplepose.core.files import write_json
from simplepose.core.images import crop_image, image_size_wh, read_image
from simplepose.data.fields import image_paths
from simplepose.machine.logs import progress_bar
from simplepose.metrics.analysis import AnalysedSet, Analysis, analyze, compare
from simplepose.metrics.calibration import ECE_BINS
from simplepose.metrics.conditions import FEW_PERSONS
from simplepose.metrics.error_kinds import ERRORS, GOOD, KINDS
from simplepose.metrics.people import People
from simplepose.reports.page import THUMBNAIL_SIDE, Page, Picture, bar_plot, line_plot

SEED = 0  # of the bootstrap, so that a page can be made again
TRUTH_COLOR = (255, 255, 255)
KIND_COLORS = {  # BGR of the rings around joints; as the plots' first four colours
    "jitter": (176, 111, 47), "inversion": (43, 130, 217), "swap": (181, 87, 134), "miss": (60, 68, 200),
}  # fmt: skip
WORST, MEDIAN, BEST, OF_A_KIND, DIFFERENT = 12, 6, 6, 8, 6  # pictures in a gallery
NAMED = 4  # joints of a kind in a caption
MARGIN = 1.3  # of a picture, around truth and prediction

ADVICE = {  # by the kind that costs most
    "jitter": "near, but not near enough: a larger input or finer heatmaps, a better decoding, more training; and look "
    "whether the labels are more precise than the threshold",
    "inversion": "left and right exchanged: check the skeleton's pairs first; then more people seen from behind, and a "
    "deeper backbone, which sees more of the person at once",
    "swap": "the joint of somebody else: tighter boxes, crowded images in training, a lower OKS threshold in the NMS",
    "miss": "nowhere near a joint: look at the gallery whether it is hidden, unusual or labelled wrong; stronger "
    "rotation and half-body augmentation for the first two",
    "no pose": "people without any pose: boxes, not joints; another detector, or a lower threshold for its boxes",
    "nobody there": "poses where nobody is annotated: a higher threshold for boxes or poses",
    "order of scores": "poses are good, their scores are not: rescore, see Confidence",
}


def write_report(
    analysed: AnalysedSet, files: Sequence[str | Path], output: str | Path, images: str | Path | None = None
) -> list[str]:
    """Analyse one file of predictions or compare two; write <output>/index.html and <output>/figures.json.

    Args:
        images: folder of the photographs; without it people are drawn on plain ground.

    Returns:
        The summary, about ten lines.

    Raises:
        UserError: unreadable files, predictions for another set, more than two files, a folder that is not writable.
    """
    if not 1 <= len(files) <= 2:
        raise UserError(f"{len(files)} files of predictions; analyse one, or compare two")
    paths = None if images is None else _photographs(analysed.people, Path(images))
    rng = np.random.default_rng(SEED)
    analyses = [analyze(analysed, analysed.read(file), rng) for file in files]
    if len(analyses) == 2 and analyses[0].figures["name"] == analyses[1].figures["name"]:
        for analysis, file in zip(analyses, files):
            analysis.figures["name"] = Path(file).as_posix()
    comparison = compare(analysed, *analyses, rng) if len(analyses) == 2 else None
    lines = summary(analysed, analyses, comparison)

    page = Page(
        "Errors of " + " and ".join(analysis.figures["name"] for analysis in analyses),
        f"{len(analysed.people)} annotated persons, {int(analysed.people.labelled.sum())} joints",
    )
    page.section("In short")
    page.items(lines)
    if comparison:
        _comparison(page, analysed, analyses, comparison, paths)
    for analysis in analyses:
        _one_file(page, analysed, analysis, paths, f"{analysis.figures['name']}: " if comparison else "")
    _definitions(page, analysed)
    output = Path(output)
    write_json(output / "figures.json", {"files": [a.figures for a in analyses], "comparison": comparison})
    page.write(output / "index.html")
    return lines


def _photographs(people: People, folder: Path) -> list[str]:
    """Each person's photograph. Sizes that the annotations do not tell are filled in from the files' headers."""
    if not folder.is_dir():
        raise UserError(f"no such folder of images: {folder}")
    if not any(people.names):
        raise UserError("which photograph is whose stands in the set's JSON file: name it with --annotations")
    paths = image_paths(people.names, f"{folder}/", str(folder), "the annotations: person")
    if not any(map(os.path.isfile, set(paths))):
        raise UserError(f"none of the annotated photographs is in {folder}, such as {people.names[0]}")
    unknown = np.flatnonzero(~people.image_sizes.all(axis=1))
    sizes: dict[str, tuple[int, int]] = {}
    for row in unknown:
        if paths[row] not in sizes:
            sizes[paths[row]] = (0, 0)
            with suppress(UserError):  # missing, or no image: drawn on plain ground
                sizes[paths[row]] = image_size_wh(paths[row])
        people.image_sizes[row] = sizes[paths[row]]
    return paths


# ---- In words ------------------------------------------------------------------------------------------


def summary(analysed: AnalysedSet, analyses: Sequence[Analysis], comparison: dict[str, Any] | None) -> list[str]:
    """What to remember, about ten lines."""
    if comparison:
        return [
            *(_headline(analysed, analysis) for analysis in analyses),
            f"{comparison['second']} is {comparison['verdict']} (difference, 95 % interval, paired)",
            _sign_line(comparison),
            "Errors, second minus first, % of joints: "
            + _differences([row for row in comparison["by kind"] if row["kind"] != "good"], "kind"),
            "Joints, second minus first, points: "
            + _differences(sorted(comparison["by joint"], key=lambda row: -abs(row["difference"]))[:5], "joint"),
            *(f"{analysis.figures['name']}: {_cost_line(analysed, analysis)}" for analysis in analyses),
        ]
    (analysis,) = analyses
    return [
        _headline(analysed, analysis),
        _cost_line(analysed, analysis),
        *_advice(analysis),
        *_no_size_lines(analysed),
        _joint_line(analysis),
        *_condition_lines(analysis),
        _confidence_line(analysed, analysis),
    ]


def _score(analysed: AnalysedSet, value: float) -> str:
    return f"{value:.3f}" if analysed.unit == "AP" else f"{value:.2f}"


def _headline(analysed: AnalysedSet, analysis: Analysis) -> str:
    figures = analysis.figures
    missed = figures["persons without a pose"]
    lost = f", {missed} of them without a pose" if missed else ""
    good = figures["shares"]["good"]
    return (
        f"{figures['name']}: {analysed.score} {_score(analysed, figures['metrics'][analysed.score])} on "
        f"{figures['persons']} persons{lost}; {good:.1f} % of {figures['joints']} joints are good"
    )


def _cost_line(analysed: AnalysedSet, analysis: Analysis) -> str:
    costs = sorted(analysis.figures["costs"].items(), key=lambda item: -item[1]["cost"])
    parts = [f"{kind} {_score(analysed, cost['cost'])}" for kind, cost in costs if round(cost["cost"], 3) > 0]
    return f"What each kind of error costs in {analysed.score}: {', '.join(parts) or 'nothing'}"


def _advice(analysis: Analysis) -> list[str]:
    costs = analysis.figures["costs"]
    worst = max(costs, key=lambda kind: costs[kind]["cost"], default=None)
    return [f"Start with {worst}: {ADVICE[worst]}"] if worst and costs[worst]["cost"] > 0 else []


def _no_size_lines(analysed: AnalysedSet) -> list[str]:
    number = int((analysed.people.units <= 0).any(axis=1).sum())
    return (
        [f"{number} persons have a {analysed.people.size_of} of 0: no joint of theirs can be right"] if number else []
    )


def _joint_line(analysis: Analysis) -> str:
    rows = sorted(analysis.figures["by joint"], key=lambda row: row["right"])
    parts = [f"{_words(row['joint'])} {row['right']:.1f} %" for row in rows[:4]]
    best = f"{_words(rows[-1]['joint'])} {rows[-1]['right']:.1f} %"
    return f"Joints least often right: {', '.join(parts)}; most often: {best}"


def _condition_lines(analysis: Analysis) -> list[str]:
    """The groups in which the network does worst, of those with enough persons; three at most."""
    found = []
    for name, condition in analysis.figures["conditions"].items():
        groups = [group for group in condition["groups"] if not group["too few persons"]]
        if len(groups) > 1:
            worst, best = (pick(groups, key=lambda group: group["right"]) for pick in (min, max))
            if worst["interval"][1] < best["interval"][0]:
                found.append((best["right"] - worst["right"], name, worst, best))
    found.sort(key=lambda entry: -entry[0])
    return [
        f"{name}: {worst['right']:.1f} % right for {worst['group']} ({worst['persons']} persons), "
        f"{best['right']:.1f} % for {best['group']}"
        for _, name, worst, best in found[:3]
    ]


def _confidence_line(analysed: AnalysedSet, analysis: Analysis) -> str:
    found = analysis.figures["confidence"]
    if not found:
        return "The file has no scores of joints that tell them apart, and so nothing to say about its confidence"
    error = found["expected calibration error"]
    row = next(row for row in found["thresholds"] if row["threshold"] == 0.8)
    held = f"of joints with a score of at least 0.8, {100 * row['right']:.0f} % are right"
    line = (
        f"Confidence: {'no joint has a score of 0.8' if np.isnan(row['right']) else held}; scores are off by "
        f"{100 * error['as it is']:.1f} points on average, {100 * error['calibrated']:.1f} when calibrated"
    )
    if found["score if rescored"] is not None:
        line += f"; {analysed.score} with calibrated scores {_score(analysed, found['score if rescored'])}"
    return line


def _sign_line(comparison: dict[str, Any]) -> str:
    sign = comparison["sign test"]
    return (
        f"{comparison['second']} is better on {sign['better']} persons, worse on {sign['worse']}, equal on "
        f"{sign['equal']} (sign test, p = {sign['p']:.2g})"
    )


def _differences(rows: Sequence[dict[str, Any]], key: str) -> str:
    return ", ".join(
        f"{_words(row[key])} {row['difference']:+.2f} [{row['interval'][0]:+.2f}, {row['interval'][1]:+.2f}]"
        for row in rows
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


# ---- Sections of the page ------------------------------------------------------------------------------


def _one_file(page: Page, analysed: AnalysedSet, analysis: Analysis, paths: list[str] | None, prefix: str) -> None:
    figures = analysis.figures
    page.section(
        f"{prefix}Errors by kind",
        "What a kind costs: how much higher the score would be with its joints where they are annotated.",
    )
    digits = 3 if analysed.unit == "AP" else 2
    score = figures["metrics"][analysed.score]
    page.table(
        ["kind", "% of joints", f"{analysed.score} if mended", "cost"],
        [
            [kind, f"{figures['shares'][kind]:.2f}" if kind in KINDS else None, *figures["costs"][kind].values()]
            for kind in figures["costs"]
        ],
        f"{analysed.score} is {_score(analysed, score)}",
        digits,
    )
    page.table(list(figures["metrics"]), [list(figures["metrics"].values())], "", digits)

    page.section(f"{prefix}Joints")
    joints = figures["by joint"]
    names = [_words(row["joint"]) for row in joints]
    # The same colours everywhere: a kind that does not occur keeps its place.
    errors = ERRORS if figures["persons without a pose"] else ERRORS[:-1]
    curves = {name: (xs, ys if len(analysis.curves) > 1 else 100 * ys) for name, (xs, ys) in analysis.curves.items()}
    of_pckh = len(curves) > 1
    page.plots(
        bar_plot(
            "Errors by joint",
            names,
            {kind: [row["shares"][KINDS.index(kind)] for row in joints] for kind in errors},
            "% of labels",
            stacked=True,
        ),
        line_plot(
            "PCKh over the threshold" if of_pckh else "AP over the OKS from which on a person counts as found",
            curves,
            "head sizes" if of_pckh else "OKS",
            "PCKh (%)" if of_pckh else "AP (%)",
            (0, 100),
        ),
    )
    page.table(
        ["joint", "labels", "right %", "interval", *errors, "distance: median", "75 %", "90 %", "95 %"],
        [
            [
                _words(row["joint"]) + ("" if row["in score"] else " (not in the score)"),
                row["labels"], f"{row['right']:.1f}", _interval(row["interval"]),
                *(f"{row['shares'][KINDS.index(kind)]:.1f}" for kind in errors), *row["distances"],
            ]
            for row in joints
        ],
        f"right: {analysed.right}; interval: 95 %; kinds in % of labels; distances in {analysed.distance}",
        digits=2,
    )  # fmt: skip

    page.section(
        f"{prefix}Conditions", "Whom the network fails. Joints that the score counts, persons with any of them."
    )
    few = [
        f"{name} {group['group']} ({group['persons']})"
        for name, condition in figures["conditions"].items()
        for group in condition["groups"]
        if group["too few persons"]
    ]
    if few:
        page.text(f"Too few persons in this set to say anything about: {', '.join(few)}.")
    for name, condition in figures["conditions"].items():
        page.heading(f"By {name}")
        page.table(
            ["", "persons", "joints", "right %", "interval", *errors, ""],
            [
                [
                    group["group"], group["persons"], group["joints"], group["right"], _interval(group["interval"]),
                    *(float(group["shares"][KINDS.index(kind)]) for kind in errors),
                    f"fewer than {FEW_PERSONS} persons" if group["too few persons"] else "",
                ]
                for group in condition["groups"]
            ],
            condition["meaning"],
        )  # fmt: skip

    page.section(f"{prefix}Confidence")
    _confidence_section(page, analysed, analysis)

    page.section(
        f"{prefix}Persons",
        "White is the annotation; the prediction is orange on the person's left, blue on the right. A ring marks a "
        "joint that is not good: blue a jitter, orange an inversion, purple a swap, red a miss.",
    )
    chosen = _choose(analysis)
    pictures = (
        Picture(picture, _caption(analysed.people, analysis, row), tags)
        for row, tags, picture in _drawn(analysed.people, [analysis], chosen, paths)
    )
    page.gallery(pictures)


def _interval(interval: Sequence[float]) -> str:
    return "{:.1f} to {:.1f}".format(*interval)


def _confidence_section(page: Page, analysed: AnalysedSet, analysis: Analysis) -> None:
    found = analysis.figures["confidence"]
    if not found:
        page.text(_confidence_line(analysed, analysis) + ".")
        return
    calibration = found["calibration"]
    raw, mapped = (analysis.reliabilities[name] for name in ("as it is", "calibrated"))
    page.plots(
        line_plot(
            "Reliability: what scores promise, and what they hold",
            {
                "score as it is": (raw.promised, raw.held),
                "calibrated, on images that the map has not seen": (mapped.promised, mapped.held),
                "a score that keeps its promise": ((0, 1), (0, 1)),
            },
            "score (mean of the bin)", "share right", (0, 1), dashed=["a score that keeps its promise"],
        ),
        line_plot("The map from score to probability", {"probability": (calibration[::2], calibration[1::2])},
            "score", "probability of being right", (0, 1)),
    )  # fmt: skip
    error = found["expected calibration error"]
    lines = [
        f"Expected calibration error: {100 * error['as it is']:.2f} points as it is, "
        f"{100 * error['calibrated']:.2f} calibrated ({ECE_BINS} bins, {found['joints']} joints).",
        "To make --kpt-thr 0.8 mean 80 %: convert.py --calibration figures.json stores the map with the weights, and "
        "export.py takes it over.",
    ]
    if found["score if rescored"] is not None:
        usual = analysis.figures["metrics"][analysed.score]
        rescored = found["score if rescored"]
        lines.append(
            f"{analysed.score} with calibrated scores: {rescored:.3f}; as it is: {usual:.3f} ({rescored - usual:+.3f})."
        )
    page.items(lines)
    page.table(
        ["threshold", "joints kept %", "right among them %", "calibrated: kept %", "right among them %"],
        [[f"{row['threshold']:g}", *(100 * value for value in list(row.values())[1:])] for row in found["thresholds"]],
        "What a threshold on the score keeps",
    )


def _comparison(
    page: Page, analysed: AnalysedSet, analyses: Sequence[Analysis], comparison: dict[str, Any],
    paths: list[str] | None,
) -> None:  # fmt: skip
    first, second = comparison["first"], comparison["second"]
    page.section(
        "The two files",
        f"Differences are {second} minus {first}, with 95 % intervals; an interval that holds 0 shows no difference. "
        "With an interval for each joint, one of twenty without any difference misses 0.",
    )
    names = [analysis.figures["name"] for analysis in analyses]
    digits = 3 if analysed.unit == "AP" else 2
    metrics = [analysis.figures["metrics"] for analysis in analyses]
    page.table(
        ["", *metrics[0]],
        [
            *([name, *values.values()] for name, values in zip(names, metrics)),
            ["difference", *(metrics[1][key] - metrics[0][key] for key in metrics[0])],
        ],
        digits=digits,
    )
    page.plots(
        *(
            bar_plot(
                title,
                [_words(row[key]) for row in comparison[f"by {key}"]],
                {"difference": [row["difference"] for row in comparison[f"by {key}"]]},
                "points",
                intervals=[tuple(row["interval"]) for row in comparison[f"by {key}"]],
            )
            for key, title in (("joint", "Right joints"), ("kind", "Kinds of errors, % of joints"))
        )
    )
    page.heading("Persons on whom they differ most")
    page.text(f"On the left {first}, on the right {second}; white is the annotation.")
    gained = np.nan_to_num(analyses[1].person_scores) - np.nan_to_num(analyses[0].person_scores)
    order = np.argsort(gained, kind="stable")
    chosen = {int(row): ["second better"] for row in order[::-1][:DIFFERENT] if gained[row] > 0}
    chosen.update({int(row): ["second worse"] for row in order[:DIFFERENT] if gained[row] < 0})
    pictures = (
        Picture(picture, f"{_place(analysed.people, row)}: " + _shares_right(analyses, row), tags)
        for row, tags, picture in _drawn(analysed.people, analyses, chosen, paths)
    )
    page.gallery(pictures, side=2 * THUMBNAIL_SIDE)


def _shares_right(analyses: Sequence[Analysis], row: int) -> str:
    return ", then ".join(f"{100 * np.nan_to_num(analysis.person_scores[row]):.0f} %" for analysis in analyses)


def _definitions(page: Page, analysed: AnalysedSet) -> None:
    reach = analysed.people.reach
    page.section("How the figures are defined")
    page.items(
        [
            f"right: {analysed.right}.",
            f"Kinds of errors, after Ronchi and Perona (ICCV 2017), distances in {analysed.distance}: good within "
            f"{reach.good:.3g} of the own joint; otherwise, within {reach.at:.3g} of a joint, the nearest decides: the "
            "own one jitter, the mirrored one inversion, another person's swap; otherwise jitter within "
            f"{reach.near:.3g} of the own joint; otherwise miss. A person to whom no prediction belongs has no pose.",
            "A cost is the score with the joints of that kind where they are annotated, minus the score. Costs of AP "
            "do not add up.",
            "Intervals hold 95 % of bootstrap samples of the persons (AP: of the images); that of a difference draws "
            "the same persons for both. The sign test counts persons on whom one is better, without ties.",
            "Expected calibration error (Guo et al., ICML 2017): the mean difference between score and share right. "
            "The map is isotonic regression; its own figures are from images that it was not fitted on.",
        ]
    )


# ---- Pictures ------------------------------------------------------------------------------------------


def _choose(analysis: Analysis) -> dict[int, list[str]]:
    """The persons to show and why: worst, median and best, and those with most joints of each kind."""
    kinds = analysis.kinds
    labelled = (kinds >= 0).sum(axis=1)
    enough = np.flatnonzero((labelled >= kinds.shape[1] / 4) & np.isfinite(analysis.person_scores))
    order = enough[np.argsort(analysis.person_scores[enough], kind="stable")]
    middle = max(0, len(order) // 2 - MEDIAN // 2)
    chosen: dict[int, list[str]] = {}
    parts = {"worst": order[:WORST], "median": order[middle : middle + MEDIAN], "best": order[::-1][:BEST]}
    for place, kind in enumerate(KINDS):
        if place != GOOD:
            count = (kinds == place).sum(axis=1)
            most = np.argsort(-count, kind="stable")[:OF_A_KIND]
            parts[kind] = most[count[most] > 0]
    for tag, rows in parts.items():
        for row in rows.tolist():
            chosen.setdefault(row, []).append(tag)
    return chosen


def _drawn(
    people: People, analyses: Sequence[Analysis], chosen: dict[int, list[str]], paths: list[str] | None
) -> Iterator[tuple[int, list[str], np.ndarray]]:
    """Rows, tags and pictures of the chosen persons, one panel for each analysis."""
    for row, tags in progress_bar(chosen.items(), len(chosen), "pictures"):
        image = None
        if paths is not None:
            with suppress(UserError):  # a missing photograph only costs its picture the background
                image = read_image(paths[row])
        yield row, tags, np.hstack([_panel(people, analysis, row, image) for analysis in analyses])


def _panel(people: People, analysis: Analysis, row: int, image: np.ndarray | None) -> np.ndarray:
    """Truth and prediction of a person, (side, side, 3)."""
    side = THUMBNAIL_SIDE
    labelled = people.labelled[row]
    truth, predicted = people.joints[row] - people.first_pixel, analysis.predictions.joints[row] - people.first_pixel
    low, high = truth[labelled].min(axis=0), truth[labelled].max(axis=0)
    if analysis.predictions.found[row]:
        reach = max(high - low) / 2 + 1  # of a prediction far away only the direction is shown
        near = np.clip(predicted[labelled], low - reach, high + reach)
        low, high = np.minimum(low, near.min(axis=0)), np.maximum(high, near.max(axis=0))
    scale = side / (MARGIN * max(*(high - low), 16))
    affine = np.array([[scale, 0, 0], [0, scale, 0]])
    affine[:, 2] = side / 2 - scale * (low + high) / 2
    if image is None:
        panel = np.full((side, side, 3), BACKGROUND_COLOR, np.uint8)
    else:
        panel = crop_image(image, affine, (side, side))
    truth, predicted = (points * scale + affine[:, 2] for points in (truth, predicted))
    draw_pose(panel, truth, labelled.astype(float), people.skeleton, 0.5, TRUTH_COLOR)
    if not analysis.predictions.found[row]:
        draw_text(panel, "no pose")
        return panel
    draw_pose(panel, predicted, labelled.astype(float), people.skeleton, 0.5)
    for joint in np.flatnonzero(analysis.kinds[row] > GOOD):
        center = tuple(int(value) for value in np.rint(np.clip(predicted[joint], -999, 9999)))
        cv2.circle(panel, center, 8, KIND_COLORS[KINDS[analysis.kinds[row, joint]]], 2, cv2.LINE_AA)
    return panel


def _place(people: People, row: int) -> str:
    return f"{people.names[row]}, person {row}" if people.names[row] else f"person {row}"


def _caption(people: People, analysis: Analysis, row: int) -> str:
    kinds = analysis.kinds[row]
    parts = [f"{_place(people, row)}: {100 * np.nan_to_num(analysis.person_scores[row]):.0f} %"]
    for place, kind in enumerate(KINDS):
        joints = [_words(people.skeleton.joints[joint]) for joint in np.flatnonzero(kinds == place)]
        if joints and place != GOOD:
            named = ", ".join(joints[:NAMED]) + (f" and {len(joints) - NAMED} more" if len(joints) > NAMED else "")
            parts.append(kind if kind == "no pose" else f"{kind}: {named}")
    return "; ".join(parts)
