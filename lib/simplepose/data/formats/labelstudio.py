"""Label Studio's JSON export (not JSON-MIN): keypointlabels and rectanglelabels in percent of the image.

A point belongs to the rectangle that is its parent region, or that a relation ties it to, else to the smallest one
around it; without rectangles the points of an image are one person. A per-region choice "occluded" hides a joint.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

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
    finish,
    number,
    safe_name,
)  # fmt: skip

IMAGES = None  # the tool has them
LOCAL_FILES = "/data/local-files/?d="  # how Label Studio calls images of a folder that it serves itself


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None, annotator: str | None = None) -> Labels:
    """Read an export.

    Args:
        annotator: id or e-mail (`completed_by`) of the one whose annotations are read. None: of several annotations
            of an image the one marked as ground truth is taken, or else the last.
    """
    tasks = read_json(path)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UserError(f"{path} is not Label Studio's JSON export, a list of tasks")
    if tasks and not any("data" in task for task in tasks):
        raise UserError(f"{path} looks like JSON-MIN, which does not say what belongs together; export as JSON")
    left_out: Counter = Counter()
    pictures = []
    for row, task in enumerate(tasks):
        where = f"{path}: task {row}"
        try:
            name = next(value for key, value in task["data"].items() if isinstance(value, str) and value)
            name = task["data"].get("image") or task["data"].get("img") or name
            chosen = _chosen(task.get("annotations") or task.get("predictions") or [], annotator, left_out)
            if chosen is None:
                left_out["images without an annotation"] += 1
                continue
            width, height, persons = _persons(chosen, where, left_out)
            if not width:
                width, height = images.size_wh(name)
            pictures.append(Picture(safe_name(name), width, height, persons))
        except (LookupError, TypeError, ValueError, OverflowError, AttributeError, StopIteration) as error:
            raise UserError(f"{where} is not as Label Studio writes it ({error}): {shown(task)}") from None
    for number_, person in enumerate(person for picture in pictures for person in picture.persons):
        person.row = number_
    return finish(pictures, left_out, skeleton, str(path))


def _chosen(annotations: list[dict], annotator: str | None, left_out: Counter) -> dict | None:
    mine = [entry for entry in annotations if not entry.get("was_cancelled")]
    if annotator is not None:
        mine = [entry for entry in mine if annotator in _names(entry.get("completed_by"))]
    left_out["further annotations of an image"] += max(len(annotations) - 1, 0)
    truths = [entry for entry in mine if entry.get("ground_truth")]
    return (truths or mine or [None])[-1]


def _names(user: Any) -> set[str]:
    return {str(value) for value in (user.values() if isinstance(user, dict) else [user])}


def _persons(annotation: dict, where: str, left_out: Counter) -> tuple[int, int, list[Person]]:
    width, height, boxes, points, parents, hidden = 0, 0, [], [], {}, set()
    for region in annotation["result"]:
        kind, value, key = region.get("type"), region.get("value") or {}, region.get("id")
        if kind == "relation":
            parents.setdefault(region["from_id"], region["to_id"])
            parents.setdefault(region["to_id"], region["from_id"])
        elif kind == "choices" and HIDDEN_WORDS & {str(choice).lower() for choice in value.get("choices", ())}:
            hidden.add(key)
        elif kind in ("keypointlabels", "rectanglelabels"):
            width, height = int(region["original_width"]), int(region["original_height"])
            x, y = number(value["x"], where) * width / 100, number(value["y"], where) * height / 100
            labels = [str(label) for label in value[kind]]
            if kind == "keypointlabels":
                points.append((labels[0], key, (x, y)))
            else:
                left_out["turns of rectangles"] += bool(value.get("rotation"))
                size = number(value["width"], where) * width / 100, number(value["height"], where) * height / 100
                boxes.append((labels[0], key, Person({}, (x, y, *size), labels[0])))
            if region.get("parentID"):
                parents[key] = region["parentID"]
        elif kind != "choices":
            left_out[f"regions of the kind {shown(kind)}"] += 1
    known = {key for _, key, _ in boxes}
    tied = [
        (joint, parents[key] if parents.get(key) in known else None, (*xy, HIDDEN if key in hidden else VISIBLE))
        for joint, key, xy in points
    ]
    persons = assign_points(boxes, tied, left_out)
    for person in persons:
        person.score = annotation.get("score") if "model_version" in annotation else None
    return width, height, persons


def write(
    labels: Labels, folder: Path, image_set: str, predictions: str | None = None, image_url: str = LOCAL_FILES
) -> int:
    """Write <set>.json for Label Studio's import.

    Args:
        predictions: a model's name: the labels become its pre-annotations, which a person then corrects.
        image_url: what goes before an image's name.
    """
    tasks = []
    for picture in labels.pictures:
        if not (picture.width and picture.height):
            raise UserError(f"Label Studio wants percent, and the size of {picture.name} is unknown; give --images")
        result = [region for person in picture.persons for region in _regions(person, picture)]
        scores = [person.score for person in picture.persons if person.score is not None]
        if predictions is None:
            made = {"annotations": [{"result": result}]}
        else:
            score = sum(scores) / len(scores) if scores else 1.0
            made = {"predictions": [{"model_version": predictions, "score": round(score, 4), "result": result}]}
        tasks.append({"data": {"image": image_url + safe_name(picture.name)}, **made})
    (folder / f"{image_set}.json").write_text(json.dumps(tasks, ensure_ascii=False, indent=1), encoding="utf-8")
    return len(labels.persons)


def _regions(person: Person, picture: Picture) -> list[dict]:
    size = {"original_width": picture.width, "original_height": picture.height, "image_rotation": 0}
    regions, parent = [], {}
    if person.box:
        x, y, width, height = person.box
        value = {"x": x / picture.width * 100, "y": y / picture.height * 100, "rotation": 0}
        value.update(width=width / picture.width * 100, height=height / picture.height * 100)
        value["rectanglelabels"] = [person.category]
        regions.append({"type": "rectanglelabels", "from_name": "box", **_region(value, size)})
        parent = {"parentID": regions[0]["id"]}
    for joint, (x, y, visible) in person.points.items():
        if visible:
            value = {
                "x": x / picture.width * 100,
                "y": y / picture.height * 100,
                "width": 0.5,
                "keypointlabels": [joint],
            }
            regions.append({"type": "keypointlabels", "from_name": "joints", **_region(value, size), **parent})
        if visible == HIDDEN:
            hidden = {**regions[-1], "type": "choices", "from_name": "visibility", "value": {"choices": ["occluded"]}}
            regions.append(hidden)
    return regions


def _region(value: dict, size: dict) -> dict:
    return {"id": uuid.uuid4().hex[:10], "to_name": "image", "value": value, **size}
