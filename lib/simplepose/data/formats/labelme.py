"""labelme's folder: a JSON file beside each image; points and rectangles of one group_id are one person.

Points without a group go to the smallest rectangle around them; without rectangles they are one person. A flag
"occluded" of a point hides its joint.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from simplepose.core.errors import UserError, shown
from simplepose.core.files import read_json
from simplepose.core.skeletons import Skeleton
from simplepose.data.formats.base import (
    HIDDEN,
    HIDDEN_WORDS,
    VISIBLE,
    ImageFolder,
    Labels,
    Person,
    Picture,
    assign_points,
    box_of_corners,
    finish,
    new_label_file,
    number,
    plain,
    safe_name,
)  # fmt: skip

IMAGES = ""
FILE_BYTES = 1 << 28  # with the image inside, as labelme saves it unless told otherwise


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None) -> Labels:
    """Read every JSON file of a folder and of the folders below."""
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} holds no JSON file of labelme's")
    left_out: Counter = Counter()
    pictures = []
    for file in files:
        content = read_json(file, FILE_BYTES)
        try:
            name = Path(str(content["imagePath"]).replace("\\", "/")).name
            folder = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
            name = name if folder == "." else f"{folder}/{name}"
            boxes, points = [], []
            for shape in content["shapes"]:
                corners = [(number(x, str(file)), number(y, str(file))) for x, y in shape["points"]]
                label, kind, group = str(shape["label"]), shape.get("shape_type"), shape.get("group_id")
                if kind == "rectangle":
                    boxes.append((label, group, Person({}, box_of_corners(corners), label)))
                elif kind == "point":
                    flags = {word.lower() for word, is_set in (shape.get("flags") or {}).items() if is_set}
                    points.append((label, group, (*corners[0], HIDDEN if flags & HIDDEN_WORDS else VISIBLE)))
                else:
                    left_out[f"shapes of the kind {shown(kind)}"] += 1
            size = content.get("imageWidth"), content.get("imageHeight")
            width, height = map(int, size) if all(size) else images.size_wh(name)
            pictures.append(Picture(safe_name(name), width, height, assign_points(boxes, points, left_out)))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
            raise UserError(f"{file} is not as labelme writes it ({type(error).__name__}: {error})") from None
    for row, person in enumerate(person for picture in pictures for person in picture.persons):
        person.row = row
    return finish(pictures, left_out, skeleton, str(path))


def write(labels: Labels, folder: Path, image_set: str) -> int:
    """Write a JSON file beside each image."""
    for picture in labels.pictures:
        shapes = []
        for group, person in enumerate(picture.persons):
            if person.box:
                x, y, w, h = map(plain, person.box)
                shapes.append(_shape(person.category, [[x, y], [plain(x + w), plain(y + h)]], group, "rectangle", 0))
            for joint, (x, y, v) in person.points.items():
                if v:
                    shapes.append(_shape(joint, [[plain(x), plain(y)]], group, "point", v))
        name = safe_name(picture.name)
        content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": Path(name).name, "imageData": None}
        content.update(imageHeight=picture.height, imageWidth=picture.width)
        path = new_label_file(folder, name, ".json")
        path.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")
    return len(labels.persons)


def _shape(label: str, points: list, group: int, kind: str, visible: int) -> dict:
    flags = {"occluded": True} if visible == HIDDEN else {}
    return {"label": label, "points": points, "group_id": group, "description": "", "shape_type": kind, "flags": flags}
