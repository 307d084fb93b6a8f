"""The page of `data_tools.py check`: every finding with its worst examples drawn, and what the sets are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from simplepose.core.drawing import draw_pose
from simplepose.core.errors import UserError
from simplepose.core.images import crop_image, read_image
from simplepose.core.skeletons import Skeleton
from simplepose.data.checks import Example, Finding, LabelledSet, score_interval
from simplepose.data.formats.base import Picture as Labelled
from simplepose.data.formats.base import keypoints_of
from simplepose.reports.page import Page, Picture, bar_plot

SHOWN = 30  # examples of each finding
SAMPLES = 10  # persons of each set that are drawn in any case
SIDE = 240  # pixels of a drawn example
BLANK = 200  # grey of what is not in the image, or cannot be read
ANSWER_COLOR = (60, 60, 230)  # BGR, red: the network's joints


def write_page(path: str | Path, title: str, sets: Sequence[LabelledSet], found: dict[str, list[Finding]]) -> None:
    """Write the page.

    Args:
        found: name of a set -> findings; those about several sets are with the last one.
    """
    page = Page(title, ", ".join(f"{one.name}: {one.images.root}" for one in sets))
    rows = [(name, finding) for name, findings in found.items() for finding in findings]
    page.section("What was found", "" if rows else "Nothing: all checks passed.")
    if rows:
        page.text("In the pictures the person's left is orange, its right blue, the box white, a network's answer red.")
        page.table(
            ["set", "finding", "", "count", "of", ""],
            [(name, one.title, "wrong" if one.wrong else "look", one.count, one.total, one.unit) for name, one in rows],
        )
    for finding_set in sets:
        for finding in found[finding_set.name]:
            page.section(
                f"{finding_set.name}: {finding.title}",
                f"{finding.count} of {finding.total} {finding.unit}. {finding.advice}",
            )
            page.gallery(_pictures(finding, finding_set, sets), SIDE)
            more = len(finding.examples) - SHOWN
            if more > 0:
                page.text(f"And {more} more.")
    page.section("The sets")
    page.table(
        ["set", "images", "persons", "median box", "labelled joints", "a score is known to"],
        [_row(one) for one in sets],
    )
    shares = {one.name: (100 * one.labelled.mean(axis=0)).tolist() for one in sets if len(one.persons)}
    page.plots(bar_plot("How many persons have each joint labelled", sets[0].skeleton.joints, shares, "%"))
    for one in sets:
        page.heading(f"{one.name}: are the joints where they belong, and left and right on their sides?")
        step = max(1, len(one.persons) // SAMPLES)
        rows = range(0, len(one.persons), step)[:SAMPLES]
        page.gallery((Picture(draw_example(e, one), e.picture.name) for e in (one.example(r, "") for r in rows)), SIDE)
    page.write(path)


def _row(checked: LabelledSet) -> tuple:
    count = len(checked.persons)
    boxes = checked.boxes[np.isfinite(checked.boxes).all(axis=1)]
    box = "{:.0f} x {:.0f} px".format(*np.median(boxes[:, 2:], axis=0)) if len(boxes) else "none"
    joints = f"{checked.labelled.sum(axis=1).mean():.1f} of {checked.skeleton.num_joints}" if count else "none"
    return checked.name, len(checked.labels.pictures), count, box, joints, f"±{score_interval(count):.1f} points"


def _pictures(finding: Finding, checked: LabelledSet, sets: Sequence[LabelledSet]) -> Iterator[Picture]:
    by_name = {one.name: one for one in sets}
    for example in finding.examples[:SHOWN]:
        image = draw_example(example, checked)
        if example.other:  # both side by side
            name, picture = example.other
            beside = draw_example(Example(picture, ""), by_name[name])
            image = np.hstack([image, np.full((SIDE, 4, 3), 255, np.uint8), beside])
        entry = f", entry {example.person.row}" if example.person else ""
        first = example.text.partition(" (")[0].replace(":", ",").partition(", ")[0]  # a joint, pair or limb
        tags = [first] if example.person and not first.startswith("box") and len(first) < 40 else []
        yield Picture(image, f"{example.picture.name}{entry}: {example.text}", tags)


def draw_example(example: Example, checked: LabelledSet) -> np.ndarray:
    """A square around the person with its labels, thin and red a network's answer; without a person the whole image."""
    image = _image(example.picture, checked)
    height, width = image.shape[:2]
    low, size = np.zeros(2), np.array([width, height], float)
    keypoints = keypoints_of([example.person], checked.skeleton)[0] if example.person else None
    if keypoints is not None:
        points = keypoints[keypoints[:, 2] > 0, :2]
        points = points if len(points) else keypoints[:, :2]
        if example.person.box:
            corner = np.array(example.person.box[:2])
            points = np.vstack([points, corner, corner + example.person.box[2:]])
        # A joint far away would make the person a dot: look at twice the image at most.
        points = np.clip(points, -0.5 * size, 1.5 * size)
        low, high = points.min(axis=0), points.max(axis=0)
        size = np.maximum(high - low, 8)
        low, size = low - 0.1 * size.max(), size + 0.2 * size.max()
    scale = SIDE / size.max()
    shift = SIDE / 2 - scale * (low + size / 2)
    affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    drawn = crop_image(image, affine, (SIDE, SIDE))
    if keypoints is not None:
        _draw(drawn, keypoints, affine, checked.skeleton, None)
        if example.person.box:
            corners = np.array([example.person.box[:2], np.add(example.person.box[:2], example.person.box[2:])])
            (x0, y0), (x1, y1) = np.rint(np.clip(corners * scale + shift, -9999, 9999)).astype(int).tolist()
            cv2.rectangle(drawn, (x0, y0), (x1, y1), (255, 255, 255), 1, cv2.LINE_AA)
    if example.answer is not None:
        _draw(drawn, np.nan_to_num(example.answer), affine, checked.skeleton, ANSWER_COLOR)
    return drawn


def _draw(
    image: np.ndarray, keypoints: np.ndarray, affine: np.ndarray, skeleton: Skeleton, color: tuple[int, int, int] | None
) -> None:
    points = keypoints[:, :2] * affine[0, 0] + affine[:, 2]
    shown = (keypoints[:, 2] > 0).astype(float)
    if color is None:
        draw_pose(image, points, shown, skeleton, min_score=0.5)
        return
    for start, end in skeleton.limb_indices:
        if shown[start] and shown[end]:
            ends = (tuple(np.rint(points[k]).astype(int).tolist()) for k in (start, end))
            cv2.line(image, *ends, color, 1, cv2.LINE_AA)


def _image(picture: Labelled, checked: LabelledSet) -> np.ndarray:
    """The image, or a grey one of its size where it cannot be read."""
    path = checked.images.find(picture.name)
    try:
        if path is not None:
            return read_image(path)
    except UserError:
        pass
    size = max(picture.height, 1), max(picture.width, 1)
    return np.full((*(size if max(size) < 10_000 else (SIDE, SIDE)), 3), BLANK, np.uint8)
