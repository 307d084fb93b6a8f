"""Subsets and merges files in COCO's format, keeping images and annotations consistent.

Every function takes parsed JSON and returns new lists; the entries themselves are shared, not copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from simplepose.core.errors import UserError

Content = dict[str, Any]  # images, annotations, categories, and whatever else a file carries


def subset(content: Content, image_ids: Collection[int]) -> Content:
    """The file of some images: their entries and their annotations, everything else as it is.

    Raises:
        UserError: an id that the file does not have.
    """
    wanted = set(image_ids)
    missing = wanted - {image["id"] for image in content["images"]}
    if missing:
        raise UserError(f"{len(missing)} of the {len(wanted)} images are not in the file, such as id {min(missing)}")
    kept = {**content, "images": [image for image in content["images"] if image["id"] in wanted]}
    if "annotations" in content:
        kept["annotations"] = [entry for entry in content["annotations"] or () if entry["image_id"] in wanted]
    return kept


def draw_images(content: Content, count: int, seed: int = 0) -> list[int]:
    """Ids of `count` images drawn at random; the same seed draws the same.

    Raises:
        UserError: more images than the file has.
    """
    ids = [image["id"] for image in content["images"]]
    if not 0 < count <= len(ids):
        raise UserError(f"cannot draw {count} images of {len(ids)}")
    rows = np.random.default_rng(seed).choice(len(ids), count, replace=False)
    return [ids[row] for row in sorted(rows)]


def keep_category(content: Content, name: str = "person") -> Content:
    """Annotations of one category and the images that show it; without segmentations, which are most of a file's bytes.

    Raises:
        UserError: a category that the file does not have.
    """
    category_id = category_id_of(content, name)
    annotations = [
        {key: value for key, value in entry.items() if key != "segmentation"}
        for entry in content["annotations"]
        if entry["category_id"] == category_id
    ]
    shown = {entry["image_id"] for entry in annotations}
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in shown],
        "annotations": annotations,
        "categories": [category for category in content["categories"] if category["id"] == category_id],
    }


def category_id_of(content: Content, name: str) -> int:
    """The id of a category.

    Raises:
        UserError: a category that the file does not have.
    """
    ids = {str(category.get("name")): category["id"] for category in content["categories"]}
    if name not in ids:
        raise UserError(f"no category {name!r}; the file has {', '.join(map(str, list(ids)[:5]))}")
    return ids[name]


def merge_detections(files: Iterable[Sequence[dict[str, Any]]]) -> tuple[list[dict[str, Any]], int]:
    """The entries of several detection files, each once.

    Returns:
        The entries in the files' order, and how many duplicates were dropped: entries whose image, category and box
        had occurred before, with whatever score. The first one is kept.
    """
    merged, repeated = {}, 0
    for entries in files:
        for entry in entries:
            key = (entry["image_id"], entry["category_id"], tuple(entry["bbox"]))
            repeated += key in merged
            merged.setdefault(key, entry)
    return list(merged.values()), repeated


def summarize_detections(detections: Sequence[dict[str, Any]], image_ids: Collection[int] | None) -> list[str]:
    """Lines about usable detections: how many, on how many images, and how they score."""
    if not detections:
        return ["no usable detection"]
    counts = Counter(entry["image_id"] for entry in detections)
    scores = np.array([entry["score"] for entry in detections], dtype=np.float64)
    lines = [
        f"{len(detections)} usable detections on {len(counts)} images, at most {max(counts.values())} on one",
        f"scores from {scores.min():.3f} to {scores.max():.3f}, median {np.median(scores):.3f}",
    ]
    if image_ids is not None:
        lines.append(f"{len(set(image_ids) - set(counts))} images of the annotation file have none")
    return lines
