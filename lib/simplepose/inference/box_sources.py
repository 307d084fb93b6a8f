"""Person boxes from the command line, from a file, from a detector, from the pose network, or the whole image.

A box source takes a `Frame` and returns boxes (P, 4) as left, top, width, height in pixels, and scores (P,).
"""

from __future__ import annotations

import csv
import os
import reprlib
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import parse_json, read_text
from simplepose.core.geometry import NO_BOX, is_box
from simplepose.inference.predictor import PosePredictor
from simplepose.inference.sources import Frame

BoxSource = Callable[[Frame], tuple[np.ndarray, np.ndarray]]

PERSON_CATEGORY = 1  # of COCO's results
CSV_COLUMNS = ("image", "x", "y", "w", "h")  # and "score", if it is there


def whole_image(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """The image itself as the only box."""
    height, width = frame.image.shape[:2]
    return np.array([[0.0, 0.0, width, height]]), np.ones(1)


def fixed_boxes(texts: Sequence[str]) -> BoxSource:
    """The boxes of --bbox, the same in every image.

    Raises:
        UserError: not four numbers, or not a valid box.
    """
    boxes = np.array([_parse_box(text) for text in texts])
    return lambda frame: (boxes, np.ones(len(boxes)))


def boxes_of_file(path: str | os.PathLike, min_score: float = 0.0) -> BoxSource:
    """The boxes of --bbox-file.

    Args:
        path: COCO's results form (a JSON list of image_id, category_id, bbox, score; only persons are used), or CSV
            with columns image,x,y,w,h and perhaps score. `image_id` and `image` are a file name with or without its
            extension, a number that the file name spells (139 for 000000000139.jpg), or a video's frame number,
            from 0.
        min_score: boxes with a lower score are skipped.

    Raises:
        UserError: unreadable file or entry.
    """
    path = Path(path)
    text = read_text(path, "box")
    rows = _rows_of_json(text, path) if text.lstrip()[:1] in ("[", "{") else _rows_of_csv(text, path)
    table = defaultdict(list)
    for number, image, box, score in rows:
        try:
            values = [float(value) for value in (*box, score)]
            if len(values) != 5 or not np.isfinite(values).all():
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            found = f"the box {reprlib.repr(box)} and score {reprlib.repr(score)}"
            raise UserError(f"{path}: entry {number} has {found}; write numbers") from None
        if not is_box(values[:4]):
            raise UserError(f"{path}: entry {number} has the box {reprlib.repr(box)}; the box {NO_BOX}")
        if values[4] >= min_score:
            table[str(image)].append(values)

    def source(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        found = next((table[key] for key in image_keys(frame) if key in table), [])
        rows = np.array(found, dtype=np.float64).reshape(-1, 5)
        return rows[:, :4], rows[:, 4]

    return source


def detected_boxes(path: str | os.PathLike, kind: str | None = None, min_score: float | None = None) -> BoxSource:
    """The boxes of a person detector; arguments as `PersonDetector` takes them."""
    from simplepose.inference.detectors.base import MIN_SCORE
    from simplepose.inference.detectors.person import PersonDetector

    detector = PersonDetector(path, kind, MIN_SCORE if min_score is None else min_score)
    last, found = None, None

    def source(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        nonlocal last, found
        digest = zlib.crc32(frame.image) if frame.is_video else frame.name
        if digest != last:  # a video may repeat its frames
            found = detector(frame.image)
            last = digest
        return found

    return source


def found_person(predictor: PosePredictor) -> BoxSource:
    """The one person that the pose network finds by itself, in a video near where it was in the frame before."""
    box, video = None, ""

    def source(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        nonlocal box, video
        near = box if frame.is_video and frame.index and frame.name == video else None
        box, video = predictor.find_person(frame.image, near), frame.name
        return box[None], np.ones(1)

    return source


def image_keys(frame: Frame) -> list[str]:
    """What a box file may call this image, best first."""
    file = Path(frame.name)
    if frame.is_video:
        return [str(frame.index)]
    number = [str(int(file.stem))] if file.stem.isdecimal() else []
    return [frame.name, file.name, file.stem, *number]


def _parse_box(text: str) -> list[float]:
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--bbox is {text!r}; write left,top,width,height in pixels, as --bbox 35,20,180,400") from None
    if not is_box((x, y, w, h)):
        raise UserError(f"--bbox {text} {NO_BOX}")
    return [x, y, w, h]


def _rows_of_json(text: str, path: Path) -> list[tuple]:
    entries = parse_json(text, path)
    if not isinstance(entries, list):
        raise UserError(f"{path} is not in COCO's results form, a list of image_id, category_id, bbox and score")
    rows = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("image_id"), (int, str)) or "bbox" not in entry:
            raise UserError(f"{path}: entry {number} is {reprlib.repr(entry)}; it lacks image_id or bbox")
        category = entry.get("category_id", PERSON_CATEGORY)
        if not isinstance(category, int):
            raise UserError(f"{path}: entry {number} has the category_id {reprlib.repr(category)}, expected a number")
        if category == PERSON_CATEGORY:
            rows.append((number, entry["image_id"], entry["bbox"], entry.get("score", 1.0)))
    return rows


def _rows_of_csv(text: str, path: Path) -> list[tuple]:
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    try:
        missing = [column for column in CSV_COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]}; its first line should be {','.join(CSV_COLUMNS)},score"
            )
        return [
            (number, row["image"], [row[column] for column in CSV_COLUMNS[1:]], row.get("score") or 1.0)
            for number, row in enumerate(reader)
        ]
    except csv.Error as error:
        raise UserError(f"{path} is not CSV: {error}") from None
