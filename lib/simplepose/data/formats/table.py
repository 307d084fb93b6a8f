"""A spreadsheet as CSV: a line a person, `image`, perhaps a box, and <joint>_x, <joint>_y, <joint>_v for each joint.

Box columns are x, y, w, h or box_x, box_y, box_w, box_h; empty cells are not labelled. With <joint>_score in place of
<joint>_v it is what infer.py writes with --format csv, and joints below a score are left out.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from simplepose.core.errors import UserError
from simplepose.core.files import read_text
from simplepose.core.skeletons import Skeleton
from simplepose.data.formats.base import (
    VISIBLE,
    ImageFolder,
    Labels,
    Person,
    Picture,
    finish,
    number,
    plain,
    require_upright,
    safe_name,
)  # fmt: skip

IMAGES = "images"
BOXES = (("x", "y", "w", "h"), ("box_x", "box_y", "box_w", "box_h"))
MIN_SCORE = 0.2  # as infer.py draws


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None) -> Labels:
    """Read a table; sizes of the images are read from their files where these are at hand."""
    rows = _rows(path)
    columns = {name.strip(): place for place, name in enumerate(next(rows, []))}
    joints = [name[:-2] for name in columns if name.endswith("_x") and f"{name[:-2]}_y" in columns and name != "box_x"]
    if "image" not in columns or not joints:
        raise UserError(
            f"{path} needs the columns image and, for each joint, <joint>_x and <joint>_y in its first line"
        )
    box_columns = next((names for names in BOXES if all(name in columns for name in names)), ())
    predicted = any(f"{joint}_score" in columns for joint in joints)
    left_out: Counter = Counter()
    pictures: dict[str, Picture] = {}
    for line, cells in enumerate(rows, 2):
        if not any(cell.strip() for cell in cells):
            continue
        where = f"{path}: line {line}"
        if len(cells) <= max(columns["image"], columns.get("category", 0)):
            raise UserError(f"{where} has {len(cells)} cells, and does not reach the column image or category")

        def cell(name: str, cells: list[str] = cells, where: str = where) -> float | None:
            place = columns.get(name)
            written = cells[place].strip() if place is not None and place < len(cells) else ""
            return number(written, where) if written else None

        name = cells[columns["image"]]
        points = {}
        for joint in joints:
            x, y, v, score = (cell(f"{joint}_{end}") for end in ("x", "y", "v", "score"))
            if x is None or y is None or v == 0:
                continue
            if score is not None and score < MIN_SCORE:
                left_out[f"predicted joints that score less than {MIN_SCORE}"] += 1
                continue
            points[joint] = (x, y, VISIBLE if v is None else int(v))
        box = tuple(cell(name) for name in box_columns)
        category = columns.get("category")
        person = Person(points, box if box and None not in box else None, row=line, score=cell("score"))
        usual = skeleton.name if skeleton else person.category
        person.category = cells[category] if category is not None else usual
        if name not in pictures:
            pictures[name] = Picture(safe_name(name), *images.size_if_there(name))
            if predicted and pictures[name].width:
                require_upright(images.find(name))
        pictures[name].persons.append(person)
    return finish(list(pictures.values()), left_out, skeleton, str(path), joints)


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of each line."""
    text = read_text(path, "CSV")
    head = text.partition("\n")[0]
    rows = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=head.count))
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(f"{path}: line {rows.line_num}: {error}; is a quote not closed?") from None


def write(labels: Labels, folder: Path, image_set: str) -> int:
    """Write <set>.csv beside images/."""
    joints = labels.skeleton.joints
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["image", "category", "x", "y", "w", "h", *(f"{j}_{end}" for j in joints for end in "xyv")])
    for picture in labels.pictures:
        for person in picture.persons:
            cells = [plain(value) for value in person.box or ()] or [""] * 4
            for joint in joints:
                point = person.points.get(joint)
                cells += [plain(value) for value in point] if point and point[2] else ["", "", ""]
            table.writerow([safe_name(picture.name), person.category, *cells])
    (folder / f"{image_set}.csv").write_text(text.getvalue(), encoding="utf-8")
    return len(labels.persons)
