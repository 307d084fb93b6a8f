"""COCO's keypoint annotations: <output>/annotations/<set>.json beside images/<set>/."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.errors import UserError, shown
from simplepose.core.files import read_json
from simplepose.core.skeletons import Skeleton
from simplepose.data.coco_files import subset
from simplepose.data.fields import MAX_PIXELS
from simplepose.data.formats.base import (
    ImageFolder,
    Labels,
    Person,
    Picture,
    finish,
    number,
    plain,
    safe_name,
)  # fmt: skip

IMAGES = "images/{set}"


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None) -> Labels:
    """Read an annotation file; joints, limbs and their names are those of its first category with keypoints."""
    content = read_json(path)
    if not (
        isinstance(content, dict)
        and isinstance(content.get("images"), list)
        and isinstance(content.get("annotations", []), (list, type(None)))
    ):
        raise UserError(f"{path} is not in COCO's format: expected images, annotations and categories")
    left_out: Counter = Counter()
    names, joints, limbs = _categories(content.get("categories"), skeleton, path)
    pictures: dict[Any, Picture] = {}
    for row, entry in enumerate(content["images"]):
        try:
            name = _file_name(entry)
            if entry["id"] in pictures:
                raise UserError(f"{path}: image {row} has the id {shown(entry['id'])} of an earlier one")
            size = (int(number(entry.get(side, 0), f"{path}: image {row}")) for side in ("width", "height"))
            pictures[entry["id"]] = Picture(name, *size)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            raise UserError(f"{path}: image {row} is {shown(entry)}, expected id, file_name, width, height") from None
    for row, entry in enumerate(content.get("annotations") or ()):
        where = f"{path}: annotation {row}"
        try:
            picture, category = pictures.get(entry["image_id"]), names.get(entry["category_id"])
            if category is None or picture is None:
                left_out["annotations of other categories or of images that are not listed"] += 1
                continue
            left_out["outlines (segmentation)"] += bool(entry.get("segmentation"))
            picture.persons.append(_person(entry, joints, category, row, where))
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{where} is {shown(entry)}, expected image_id, category_id, bbox and keypoints") from None
    return finish(list(pictures.values()), +left_out, skeleton, str(path), joints, limbs)


def _file_name(image: dict) -> str:
    """As the entry says, otherwise as COCO numbers its files."""
    return str(image.get("file_name") or f"{image['id']:012d}.jpg")


def _categories(categories: Any, skeleton: Skeleton | None, path: Path) -> tuple[dict, list[str], list[list[str]]]:
    """Names by id of the categories that are read, their joints and limbs."""
    try:
        named = [entry for entry in categories if entry.get("keypoints")]
        if not named:
            if skeleton is None:
                raise UserError(f"{path}: no category names its keypoints; describe them with --skeleton FILE")
            return {entry["id"]: str(entry.get("name")) for entry in categories[:1]}, list(skeleton.joints), []
        joints = [str(name) for name in named[0]["keypoints"]]
        limbs = [
            [joints[a - 1], joints[b - 1]] for a, b in named[0].get("skeleton") or () if 0 < a <= len(joints) >= b > 0
        ]
        names = {entry["id"]: str(entry.get("name")) for entry in named if entry["keypoints"] == named[0]["keypoints"]}
        return names, joints, [limb for limb in limbs if limb[0] != limb[1]]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: categories must be entries with id, name and keypoints") from None


def _person(entry: dict, joints: list[str], category: str, row: int, where: str) -> Person:
    flat = entry.get("keypoints") or []
    if flat and len(flat) != 3 * len(joints):
        raise UserError(f"{where} has {len(flat)} keypoint numbers; {len(joints)} joints take {3 * len(joints)}")
    values = [number(value, where) for value in flat]
    points = {
        joint: (values[3 * k], values[3 * k + 1], int(values[3 * k + 2]))
        for k, joint in enumerate(joints[: len(flat) // 3])
        if any(values[3 * k : 3 * k + 3])
    }
    box = tuple(number(value, where) for value in entry["bbox"]) if entry.get("bbox") else None
    if box is not None and len(box) != 4:
        raise UserError(f"{where}: bbox is {shown(entry['bbox'])}, expected left, top, width, height")
    area = number(entry["area"], where, MAX_PIXELS**2) if "area" in entry else None
    score = number(entry["score"], where) if entry.get("score") is not None else None
    return Person(points, box, category, area, bool(entry.get("iscrowd")), score, row)


def write(labels: Labels, folder: Path, image_set: str) -> int:
    """Write annotations/<set>.json; persons without a box get the one around their joints."""
    skeleton = labels.skeleton
    categories = list(dict.fromkeys(person.category for person in labels.persons)) or [skeleton.name]
    content: dict[str, list] = {
        "images": [],
        "annotations": [],
        "categories": [
            {
                "id": number,
                "name": name,
                "keypoints": list(skeleton.joints),
                "skeleton": [[a + 1, b + 1] for a, b in skeleton.limb_indices],
            }
            for number, name in enumerate(categories, 1)
        ],
    }
    for image_id, picture in enumerate(labels.pictures, 1):
        size = {"width": picture.width, "height": picture.height}
        content["images"].append({"id": image_id, "file_name": safe_name(picture.name), **size})
        for person in picture.persons:
            box = person.box or box_around(person, picture)
            points = [person.points.get(joint, (0, 0, 0)) for joint in skeleton.joints]
            entry = {
                "id": len(content["annotations"]) + 1,
                "image_id": image_id,
                "category_id": categories.index(person.category) + 1,
                "bbox": [plain(value) for value in box],
                "area": plain(box[2] * box[3] if person.area is None else person.area),
                "iscrowd": int(person.crowd),
                "keypoints": [plain(value) for point in points for value in point],
                "num_keypoints": sum(v > 0 for *_, v in points),
            }
            content["annotations"].append(entry if person.score is None else {**entry, "score": person.score})
    path = folder / "annotations" / f"{image_set}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return len(labels.persons)


def box_around(person: Person, picture: Picture) -> tuple[float, float, float, float]:
    """The box of a person who has none: around the labelled joints with a margin of a tenth of their longer side, at
    least 2 pixels, as far as the image allows."""
    labelled = np.array([point[:2] for point in person.points.values() if point[2] > 0]).reshape(-1, 2)
    if not len(labelled):
        return 0, 0, 0, 0
    low, high = labelled.min(axis=0), labelled.max(axis=0)
    margin = max(0.1 * (high - low).max(), 2)
    limit = (picture.width or np.inf, picture.height or np.inf)
    low, high = np.maximum(low - margin, 0), np.minimum(high + margin, limit)
    return (*low.tolist(), *np.maximum(high - low, 0).tolist())


def part_of(path: Path, names: set[str], target: Path) -> dict[str, Any]:
    """The file's own content for the images of these names, with its ids and every field."""
    content = read_json(path)
    return subset(content, [image["id"] for image in content["images"] if _file_name(image) in names])
