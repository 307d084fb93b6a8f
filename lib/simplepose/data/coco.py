"""Reads keypoints in COCO's format, of persons or of custom joints, with annotated or detected boxes.

COCO's coordinates are 0-based pixels already, so nothing is shifted here.
"""

from __future__ import annotations

import logging
import math
import reprlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import read_json
from simplepose.core.geometry import box_to_crop
from simplepose.core.skeletons import Skeleton
from simplepose.data.fields import MAX_PIXELS, image_paths, is_id, numbers_of
from simplepose.data.sample import PoseSample, is_test_set

logger = logging.getLogger("simplepose")

# What can be wrong with a detection; such detections are counted and left out.
MALFORMED = "malformed"
OTHER_CATEGORY = "of another category"
UNKNOWN_IMAGE = "for an image that the annotation file does not list"
NO_SIZE = "with a box of no size"
BAD_SCORE = "with a score that is not a number"


@dataclass(frozen=True)
class CocoAnnotations:
    """An annotation file, checked.

    Attributes:
        path: of the file.
        images: id -> entry, in the file's order.
        categories: those that carry the skeleton's keypoints; just "person" in COCO.
        annotations: of these categories and images, crowds and persons without keypoints included: scoring needs
            them. Each has at least image_id, category_id, bbox, area, iscrowd, keypoints and num_keypoints.
        keypoints, boxes: the same A annotations as arrays, (A, K, 3) and (A, 4).
    """

    path: Path
    images: dict[int, dict[str, Any]]
    categories: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    keypoints: np.ndarray
    boxes: np.ndarray

    @property
    def category_ids(self) -> list[int]:
        return [category["id"] for category in self.categories]


def load_coco(
    root: str | Path,
    image_set: str,
    skeleton: Skeleton,
    aspect_ratio: float,
    data_format: str = "jpg",
    bbox_file: str | Path | None = None,
    score_threshold: float = 0.0,
) -> list[PoseSample]:
    """Read the persons of a set in COCO's format.

    Args:
        root: folder with `annotations/` and `images/`.
        image_set: as "val2017"; names the annotation file (see `annotation_file`) and the images' folder.
        skeleton: whose keypoints the annotations hold.
        aspect_ratio: width / height of the network's input; crops are enlarged to it.
        data_format: "jpg" for files in images/<image_set>/, "zip" for members of images/<image_set>.zip.
        bbox_file: detections in COCO's results form; None takes the annotated boxes.
        score_threshold: detections that score less are left out (TEST.IMAGE_THRE).

    Returns:
        With annotated boxes, every person that is not a crowd and has a keypoint, image by image. With detected boxes,
        one sample per box in the file's order, its joints unlabelled.

    Raises:
        UserError: missing or malformed file, another skeleton's annotations, no persons.
    """
    root = root or "."
    truth = read_coco(annotation_file(root, image_set), skeleton)
    folder = image_set.replace("test-dev", "test")  # test-dev2017 is a list of images of test2017
    folder = f"{root}/images/{folder}.zip@" if data_format == "zip" else f"{root}/images/{folder}/"
    names = [image_name(entry, image_set) for entry in truth.images.values()]
    paths = dict(zip(truth.images, image_paths(names, folder, str(root), f"{truth.path}: image")))
    if bbox_file is None:
        return _annotated_persons(truth, paths, aspect_ratio)
    return _detected_persons(truth, paths, skeleton, aspect_ratio, Path(bbox_file), score_threshold)


def annotation_file(root: str | Path, image_set: str) -> Path:
    """The set's annotation file: image_info_<set>.json for COCO's test sets, person_keypoints_<set>.json for the
    others, or plainly <set>.json for data of your own. The first is returned if none is there.
    """
    prefixes = ("image_info_", "person_keypoints_") if is_test_set(image_set) else ("person_keypoints_",)
    candidates = [Path(root) / "annotations" / f"{prefix}{image_set}.json" for prefix in (*prefixes, "")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def image_name(image: dict[str, Any], image_set: str = "") -> Any:
    """An image's file: as its entry says, otherwise as COCO numbers its files."""
    if "file_name" in image:
        return image["file_name"]
    return f"COCO_{image_set}_{image['id']:012d}.jpg" if "2014" in image_set else f"{image['id']:012d}.jpg"


# ---- The annotation file -------------------------------------------------------------------------------


def read_coco(path: str | Path, skeleton: Skeleton) -> CocoAnnotations:
    """Read and check an annotation file. The last file read is cached.

    Raises:
        UserError: missing, not JSON, or not keypoints of this skeleton in COCO's format.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError:
        raise UserError(
            f"no such annotation file: {path}; DATASET.ROOT should hold annotations/ and images/, and "
            "DATASET.TRAIN_SET and DATASET.TEST_SET name the sets (see data/README.md)"
        ) from None
    return _read_coco(path, skeleton, (status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=1)  # shared by samples and evaluator of a set; one entry, so that train2017 is not kept
def _read_coco(path: Path, skeleton: Skeleton, version: tuple[int, int]) -> CocoAnnotations:
    del version  # only part of the cache key: a file that was rewritten is read again
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(f"{path} is not in COCO's format: expected images, annotations and categories")
    for number, image in enumerate(content["images"]):
        if not isinstance(image, dict) or not is_id(image.get("id")):
            raise UserError(f"{path}: image {number} is {reprlib.repr(image)}, expected an entry whose id is a number")
    images = {image["id"]: image for image in content["images"]}
    if len(images) != len(content["images"]):
        counts = Counter(image["id"] for image in content["images"])
        image_id, count = counts.most_common(1)[0]
        raise UserError(f"{path}: {count} images have the id {image_id}; each image needs its own")
    categories = _keypoint_categories(content.get("categories"), skeleton, path)
    checked = _check_annotations(content.get("annotations", []), images, categories, skeleton, path)
    return CocoAnnotations(path, images, categories, *checked)


def _keypoint_categories(categories: Any, skeleton: Skeleton, path: Path) -> list[dict[str, Any]]:
    """The categories whose keypoints are the skeleton's; the first of all if the file names no keypoints."""
    if not isinstance(categories, list) or not categories:
        raise UserError(f"{path}: categories must be a list of entries with an id, such as person")
    for number, category in enumerate(categories):
        if not isinstance(category, dict) or not is_id(category.get("id")):
            raise UserError(f"{path}: category {number} is {reprlib.repr(category)}, expected an entry with an id")
        keypoints = category.get("keypoints") or []
        if not isinstance(keypoints, list) or not all(isinstance(name, str) for name in keypoints):
            found = reprlib.repr(keypoints)
            raise UserError(f"{path}: category {number} has the keypoints {found}, expected a list of names")
    named = [category for category in categories if category.get("keypoints")]
    if not named:  # as COCO's image_info_*.json
        return categories[:1]
    matching = [category for category in named if _plain_names(category["keypoints"]) == _plain_names(skeleton.joints)]
    if matching:
        return matching
    name, found = reprlib.repr(named[0].get("name")), named[0]["keypoints"]
    if len(found) != skeleton.num_joints:
        difference = f"has {len(found)} keypoints and the {skeleton.name} skeleton {skeleton.num_joints} joints"
    else:
        ours, theirs = next(
            pair for pair in zip(skeleton.joints, found) if _plain_names(pair[:1]) != _plain_names(pair[1:])
        )
        difference = f"has {theirs!r} where the {skeleton.name} skeleton has {ours!r}"
    raise UserError(f"{path}: the category {name} {difference}; describe its joints in a DATASET.SKELETON file")


def _plain_names(names: Sequence[str]) -> list[str]:
    return [str(name).lower().replace(" ", "_").replace("-", "_") for name in names]


def _check_annotations(
    annotations: Any, images: dict, categories: list[dict], skeleton: Skeleton, path: Path
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """`CocoAnnotations.annotations`, `keypoints` and `boxes`."""
    if not isinstance(annotations, list):
        raise UserError(f"{path}: annotations is a {type(annotations).__name__}, expected a list")
    category_ids = {category["id"] for category in categories}
    length = 3 * skeleton.num_joints  # x, y, visibility
    where = f"{path}: annotation"
    checked, rows, strangers = [], [], 0
    for number, annotation in enumerate(annotations):
        try:
            category_id, image_id = annotation["category_id"], annotation["image_id"]
            if not (type(image_id) is type(category_id) is int):
                found = reprlib.repr((image_id, category_id))
                raise UserError(f"{where} {number}: image_id and category_id must be whole numbers, found {found}")
            if category_id not in category_ids:
                continue
            if image_id not in images:
                strangers += 1
                continue
            if len(annotation["keypoints"]) != length:
                raise UserError(
                    f"{where} {number} has {len(annotation['keypoints'])} keypoint numbers; the "
                    f"{skeleton.num_joints} joints of the {skeleton.name} skeleton take {length} (x, y, visibility of "
                    "each)"
                )
            if annotation.setdefault("iscrowd", 0) not in (0, 1):
                raise UserError(f"{where} {number}: iscrowd is {reprlib.repr(annotation['iscrowd'])}, expected 0 or 1")
        except KeyError as error:
            raise UserError(
                f"{where} {number} has no {error}; expected image_id, category_id, bbox, area, keypoints"
            ) from None
        except TypeError as error:
            raise UserError(f"{where} {number} is {reprlib.repr(annotation)}: {error}") from None
        annotation.pop("segmentation", None)  # most of the file; poses need none of it
        checked.append(annotation)
        rows.append(number)
    if strangers:
        logger.warning("=> %s: skipped %d annotations of images that it does not list", path, strangers)
    boxes = numbers_of(checked, "bbox", (4,), where, rows=rows)
    numbers_of(checked, "area", (), where, low=0, high=MAX_PIXELS**2, rows=rows)
    keypoints = numbers_of(checked, "keypoints", (length,), where, rows=rows)
    for annotation, count in zip(checked, (keypoints[:, 2::3] > 0).sum(axis=1).tolist()):
        annotation.setdefault("num_keypoints", count)
    numbers_of(checked, "num_keypoints", (), where, low=0, rows=rows)
    return checked, keypoints.reshape(-1, skeleton.num_joints, 3), boxes


# ---- Persons -------------------------------------------------------------------------------------------


def _annotated_persons(truth: CocoAnnotations, paths: dict[int, str], aspect_ratio: float) -> list[PoseSample]:
    """Annotated boxes, clipped to the image as `_load_coco_keypoint_annotation_kernal` of the original does."""
    order = {image_id: row for row, image_id in enumerate(truth.images)}
    labelled = truth.keypoints.any(axis=(1, 2)).tolist()
    rows = [n for n, a in enumerate(truth.annotations) if labelled[n] and not a["iscrowd"]]
    rows.sort(key=lambda row: order[truth.annotations[row]["image_id"]])
    if not rows:
        raise UserError(f"{truth.path} has no person with keypoints" + _without_labels(truth))
    persons = [truth.annotations[row] for row in rows]
    images = list(truth.images.values())
    sides = [numbers_of(images, side, (), f"{truth.path}: image", low=1) for side in ("width", "height")]
    image_size = np.stack(sides, axis=1)[[order[person["image_id"]] for person in persons]]
    keypoints, box = truth.keypoints[rows], truth.boxes[rows]
    low = np.maximum(box[:, :2], 0)  # left, top
    high = np.minimum(image_size - 1, low + np.maximum(box[:, 2:] - 1, 0))
    centers, sizes = box_to_crop(np.concatenate([low, high - low], axis=1), aspect_ratio)
    inside = (high >= low).all(axis=1) & (sizes > 0).all(axis=1) & np.array([person["area"] > 0 for person in persons])
    if not inside.all():
        logger.warning(
            "=> %s: skipped %d persons whose box is not in the image or whose area is 0", truth.path, (~inside).sum()
        )
    if not inside.any():
        raise UserError(f"{truth.path} has no person whose box is in its image and whose area is above 0")
    joints, visible = keypoints[..., :2], keypoints[..., 2].clip(0, 1).astype(np.float32)
    return [
        PoseSample(paths[person["image_id"]], *crop_and_joints, person["image_id"], person["category_id"])
        for person, kept, *crop_and_joints in zip(persons, inside, centers, sizes, joints, visible)
        if kept
    ]


def _without_labels(truth: CocoAnnotations) -> str:
    return "" if truth.annotations else "; it has no labels at all: use detected boxes (--use-detect-bbox)"


def _detected_persons(
    truth: CocoAnnotations,
    paths: dict[int, str],
    skeleton: Skeleton,
    aspect_ratio: float,
    path: Path,
    score_threshold: float,
) -> list[PoseSample]:
    """Detected boxes as they are, even where they leave the image; as `_load_coco_person_detection_results` does."""
    entries = read_results(path)
    kept, faults = sort_detections(entries, truth.images, truth.category_ids)
    if faults:
        logger.warning("=> %s: skipped %s", path, describe_faults(faults, entries))
    detections = [entry for entry in kept if entry["score"] >= score_threshold]
    logger.info("=> %d of %d detections score %g or more", len(detections), len(kept), score_threshold)
    if not detections:
        raise UserError(f"{path} has no usable detection for the images of {truth.path} ({len(entries)} in the file)")
    centers, sizes = box_to_crop(np.array([entry["bbox"] for entry in detections], np.float64), aspect_ratio)
    joints, visible = np.zeros((skeleton.num_joints, 2)), np.zeros(skeleton.num_joints, np.float32)
    return [
        PoseSample(
            paths[entry["image_id"]], centers[n], sizes[n], joints, visible,
            entry["image_id"], entry["category_id"], float(entry["score"]),
        )
        for n, entry in enumerate(detections)
    ]  # fmt: skip


def read_results(path: str | Path) -> list[Any]:
    """The entries of a file in COCO's results form, detections or keypoints, unchecked.

    Raises:
        UserError: unreadable, not a list, or empty.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(
            f"{path} holds a {type(entries).__name__}, expected COCO's results form: a list of entries with image_id, "
            "category_id, score, and bbox or keypoints"
        )
    if not entries:
        raise UserError(f"{path} is an empty list")
    return entries


def sort_detections(
    entries: Sequence[Any], image_ids: Collection[int] | None, category_ids: Collection[int]
) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """Separate usable detections from faulty ones.

    Args:
        image_ids: of the set; None accepts every image.
        category_ids: wanted categories.

    Returns:
        The usable entries, and the indices of the others by kind of fault.
    """
    kept, faults = [], defaultdict(list)
    for place, entry in enumerate(entries):
        fault = _detection_fault(entry, image_ids, category_ids)
        if fault is None:
            kept.append(entry)
        else:
            faults[fault].append(place)
    return kept, faults


def _detection_fault(entry: Any, image_ids: Collection[int] | None, category_ids: Collection[int]) -> str | None:
    try:
        if entry["category_id"] not in category_ids:
            return OTHER_CATEGORY
        if image_ids is None and not is_id(entry["image_id"]):
            return MALFORMED
        if image_ids is not None and entry["image_id"] not in image_ids:
            return UNKNOWN_IMAGE
        x, y, width, height = entry["bbox"]
        if not (abs(x) <= MAX_PIXELS and abs(y) <= MAX_PIXELS and width <= MAX_PIXELS and height <= MAX_PIXELS):
            return MALFORMED
        if width <= 0 or height <= 0:
            return NO_SIZE
        return None if math.isfinite(entry["score"]) else BAD_SCORE
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        return MALFORMED


def describe_faults(faults: dict[str, list[int]], entries: Sequence[Any]) -> str:
    """As "7 of another category, 2 with a box of no size, of 99 entries; entry 3 is {...}", most frequent first.

    The entry shown is the first one with a fault other than another category, if there is any.
    """
    kinds = sorted(faults, key=lambda kind: -len(faults[kind]))
    told = f"{', '.join(f'{len(faults[kind])} {kind}' for kind in kinds)}, of {len(entries)} entries"
    first = min((faults[kind][0] for kind in kinds if kind != OTHER_CATEGORY), default=None)
    return told if first is None else f"{told}; entry {first} is {reprlib.repr(entries[first])}"
