"""PoseTrack's annotations and results: reads the JSON of 2017 and of 2018, which both hold one sequence a file.

2018 is COCO's form with a `track_id` (images, annotations, categories with the joints' names); 2017 is MPII's
(annolist, annorect, annopoints), every value in a list of its own.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import read_json
from simplepose.data.fields import is_id, numbers_of
from simplepose.data.mpii import HEAD_SIZE_FACTOR

# The 15 joints that are scored, in the order of 2017's ids; `neck` and MPII's `upper_neck` are called head_bottom.
JOINTS = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
    "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "head_bottom", "nose", "head_top",
)  # fmt: skip
# The 17 of 2018's files, in order; nobody annotates the ears.
JOINTS_2018 = (
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
SAME_JOINT = {"upper_neck": "head_bottom", "neck": "head_bottom"}


@dataclass(frozen=True)
class PeopleOfFrame:
    """The people of one frame.

    Attributes:
        image: the frame's file name.
        ids: (P,) of their tracks.
        joints: (P, 15, 2) pixels, in the order of `JOINTS`.
        known: (P, 15) bool, annotated or predicted.
        scores: (P, 15).
        head_sizes: (P,) pixels; NaN in results.
        ignored: polygons (V, 2), within which nobody is annotated.
    """

    image: str
    ids: np.ndarray
    joints: np.ndarray
    known: np.ndarray
    scores: np.ndarray
    head_sizes: np.ndarray
    ignored: tuple[np.ndarray, ...] = ()


def read_sequence(path: str | Path) -> list[PeopleOfFrame]:
    """The frames of a sequence, in the file's order.

    Raises:
        UserError: missing file, neither form, or an entry that does not fit.
    """
    content = read_json(path)
    if isinstance(content, dict) and "annolist" in content:
        content = _as_2018(content, path)
    if not (isinstance(content, dict) and all(isinstance(content.get(key), list) for key in ("images", "annotations"))):
        raise UserError(f"{path} is not in PoseTrack's form: expected images and annotations (2018) or annolist (2017)")
    people_of: dict[int, list[int]] = {}
    for row, image in enumerate(content["images"]):
        if not isinstance(image, dict) or not is_id(image.get("id")) or not isinstance(image.get("file_name"), str):
            raise UserError(f"{path}: image {row} is {reprlib.repr(image)}, expected an id and a file_name")
        if image["id"] in people_of:
            raise UserError(f"{path}: image {row} has the id {image['id']} of an earlier one")
        people_of[image["id"]] = []
    people = content["annotations"]
    for row, person in enumerate(people):
        if not isinstance(person, dict) or not is_id(person.get("track_id")):
            raise UserError(f"{path}: annotation {row} has no track_id that is a whole number")
        if not is_id(person.get("image_id")) or person["image_id"] not in people_of:
            raise UserError(
                f"{path}: annotation {row} is of the image {reprlib.repr(person.get('image_id'))}, not listed"
            )
        people_of[person["image_id"]].append(row)
    names = _joint_names(content, path)
    points = numbers_of(people, "keypoints", (3 * len(names),), f"{path}: annotation").reshape(-1, len(names), 3)
    scores = points[..., 2].copy()  # of results that have no scores of their own
    scored = [row for row, person in enumerate(people) if person.get("scores")]
    if scored:
        chosen = [people[row] for row in scored]
        scores[scored] = numbers_of(chosen, "scores", (len(names),), f"{path}: annotation", rows=scored)
    heads = np.full(len(people), np.nan)
    measured = [row for row, person in enumerate(people) if "bbox_head" in person]
    if measured:
        chosen = [people[row] for row in measured]
        boxes = numbers_of(chosen, "bbox_head", (4,), f"{path}: annotation", rows=measured)
        heads[measured] = HEAD_SIZE_FACTOR * np.hypot(boxes[:, 2], boxes[:, 3])
    joints = np.zeros((len(people), len(JOINTS), 3))
    joint_scores = np.zeros((len(people), len(JOINTS)))
    for column, name in enumerate(names):
        if SAME_JOINT.get(name, name) in JOINTS:
            place = JOINTS.index(SAME_JOINT.get(name, name))
            joints[:, place], joint_scores[:, place] = points[:, column], scores[:, column]
    known = (joints != 0).any(axis=-1)  # x = y = visibility = 0: not annotated, or not predicted
    ids = np.array([person["track_id"] for person in people], dtype=np.int64)
    frames = []
    for row, image in enumerate(content["images"]):
        rows = people_of[image["id"]]
        if len(set(ids[rows].tolist())) < len(rows):
            raise UserError(f"{path}: two people of the image {image['file_name']} have one track_id")
        frames.append(
            PeopleOfFrame(
                image["file_name"], ids[rows], joints[rows, :, :2], known[rows], joint_scores[rows], heads[rows],
                _ignored(image, f"{path}: image {row}"),
            )
        )  # fmt: skip
    return frames


def _joint_names(content: dict[str, Any], path: str | Path) -> Sequence[str]:
    try:
        names = content["categories"][0]["keypoints"]
    except (KeyError, IndexError, TypeError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise UserError(f"{path}: categories[0].keypoints must list the names of the joints")
    if not {SAME_JOINT.get(name, name) for name in names}.intersection(JOINTS):
        raise UserError(f"{path}: none of its joints ({', '.join(names)[:200]}) is one of PoseTrack's")
    return names


def _ignored(image: dict[str, Any], where: str) -> tuple[np.ndarray, ...]:
    """The polygons of `ignore_regions_x` and `ignore_regions_y`."""
    sides = image.get("ignore_regions_x") or [], image.get("ignore_regions_y") or []
    try:
        regions = tuple(np.stack([np.array(x, float), np.array(y, float)], axis=1) for x, y in zip(*sides))
    except (TypeError, ValueError):
        regions = None
    if regions is None or len(sides[0]) != len(sides[1]) or not all(np.isfinite(region).all() for region in regions):
        raise UserError(f"{where}: ignore_regions_x and ignore_regions_y must be lists of polygons, lists of numbers")
    return tuple(region for region in regions if len(region) > 2)


def _as_2018(content: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """A file of 2017 in the form of 2018."""
    images, annotations = [], []
    try:
        for number, frame in enumerate(content["annolist"]):
            regions = [region["point"] for region in frame.get("ignore_regions") or []]
            images.append(
                {
                    "id": number,
                    "file_name": _only(frame["image"])["name"],
                    "ignore_regions_x": [[_only(point["x"]) for point in points] for points in regions],
                    "ignore_regions_y": [[_only(point["y"]) for point in points] for points in regions],
                }
            )
            for person in frame.get("annorect") or []:
                points = _only(person.get("annopoints") or [{}]).get("point") or []
                keypoints, scores = np.zeros((len(JOINTS), 3)), np.zeros(len(JOINTS))
                for point in points:
                    joint = _only(point["id"])
                    if not 0 <= joint < len(JOINTS):
                        raise ValueError(f"a joint has the id {joint}")
                    keypoints[joint] = float(_only(point["x"])), float(_only(point["y"])), 1
                    scores[joint] = float(_only(point.get("score", 1)))
                entry = {"image_id": number, "track_id": _only(person["track_id"]), "scores": scores.tolist()}
                if "x1" in person:
                    left, top, right, bottom = (float(_only(person[side])) for side in ("x1", "y1", "x2", "y2"))
                    entry["bbox_head"] = [left, top, right - left, bottom - top]
                annotations.append({**entry, "keypoints": keypoints.ravel().tolist()})
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{path}: annolist[{len(images)}] or the entry before it is not in PoseTrack's form of 2017 ({error})"
        ) from None
    return {"images": images, "annotations": annotations, "categories": [{"keypoints": list(JOINTS)}]}


def _only(value: Any) -> Any:
    """The value itself, or the first of a list."""
    return value[0] if isinstance(value, list) else value
