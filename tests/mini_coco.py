"""A drawn data set in COCO's format: the figures of simplepose.data.mini with joints of any skeleton."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from simplepose.core.skeletons import COCO, MPII, Skeleton
from simplepose.data.synthetic import draw_scene

# COCO's joints by MPII's; the head top stands for the nose, and nobody has eyes or ears.
COCO_FROM_MPII = [MPII.joints.index({"nose": "head_top"}.get(n, n)) if n == "nose" or n in MPII.joints else -1
                  for n in COCO.joints]  # fmt: skip


def write_mini_coco(
    root: Path, skeleton: Skeleton, from_mpii: Sequence[int], image_sets: dict[str, int], category: str = "person"
) -> None:
    """Draw root/images/<set>/*.jpg and write root/annotations/<set>.json with 1-2 people an image.

    Args:
        from_mpii: K places in MPII's 16 joints, -1 for a joint that is never labelled.
        image_sets: set -> number of images.
    """
    (root / "annotations").mkdir(parents=True)
    for seed, (image_set, count) in enumerate(image_sets.items()):
        (root / "images" / image_set).mkdir(parents=True)
        images, annotations = [], []
        for image_id in range(1, count + 1):
            picture, people = draw_scene(np.random.default_rng([seed, image_id]), 1 + image_id % 2)
            height, width = picture.shape[:2]
            name = f"picture_{image_id}.jpg"
            cv2.imwrite(str(root / "images" / image_set / name), picture)
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for person in people:
                annotations.append(_annotation(len(annotations), image_id, person, from_mpii))
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": category, "keypoints": list(skeleton.joints)}],
        }
        (root / "annotations" / f"{image_set}.json").write_text(json.dumps(content))


def _annotation(number: int, image_id: int, person: dict, from_mpii: Sequence[int]) -> dict:
    low, high = person["joints"].min(axis=0), person["joints"].max(axis=0)
    low, high = low - 8, high + 8
    keypoints = []
    for place in from_mpii:
        seen = place >= 0 and bool(person["visible"][place])
        keypoints += [*np.round(person["joints"][place], 2).tolist(), 2] if seen else [0, 0, 0]
    return {
        "id": number,  # from 0, which pycocotools would take for "no match"
        "image_id": image_id,
        "category_id": 1,
        "bbox": [*low.tolist(), *(high - low).tolist()],
        "area": float((high - low).prod() * 0.6),
        "keypoints": keypoints,
    }


def detections_of(annotation_file: Path, scores: Sequence[float] = (0.9,)) -> list[dict]:
    """The annotated boxes of a file as a detector's, once for each score and a little apart."""
    entries = json.loads(annotation_file.read_text())["annotations"]
    return [
        {
            "image_id": entry["image_id"],
            "category_id": 1,
            "bbox": [v + 2 * k for v in entry["bbox"][:2]] + entry["bbox"][2:],
            "score": s,
        }
        for entry in entries
        for k, s in enumerate(scores)
    ]
