"""Leeds Sports Pose Extended's joints.mat as MPII's JSON files and gt_valid.mat, as experiments/lspet/ use them.

Images 1 to 8,000 train; of 8,001 to 9,000 those whose neck and head top are labelled validate, and of the rest they are
held out: for a test, on persons that nobody here has looked at.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.skeletons import MPII
from simplepose.data.mat_files import read_mat
from simplepose.data.mpii import HEAD_SIZE_FACTOR, PIXELS_PER_SCALE

EXPECTED = {"train": 8000, "valid": 779}  # persons; the scores in docs/results were made with these
LAST = {"train": 8000, "valid": 9000, "held_out": 10000}  # image, from 1, of each set
ORDER = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]  # MPII's number of each of the 14 joints
MIDDLES = {6: (2, 3), 7: (12, 13)}  # pelvis and thorax: midpoints of hips and of shoulders
NECK, HEAD_TOP = 8, 9
WHAT = "LSPET's annotation, with joints (14, 3, images)"
MARGIN = 1.1  # of the box's longer side, around the labelled joints


def read_joints(path: str | Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[np.ndarray]], Counter]:
    """Read joints.mat: `joints`, (14, 3, images), x, y (from 1) and whether the joint is labelled.

    Returns:
        set (train, valid, held_out) -> its persons in MPII's JSON form; set -> its head boxes (2, 2), two opposite
        corners, but for train; and what was left out.

    Raises:
        UserError: not that file.
    """
    entries: dict[str, list] = {image_set: [] for image_set in LAST}
    head_boxes: dict[str, list] = {"valid": [], "held_out": []}
    left_out: Counter = Counter()
    for number, person in enumerate(read_mat(path, "joints", WHAT, _persons), 1):
        labelled = np.zeros(MPII.num_joints, bool)
        labelled[ORDER] = (person[:, 2] > 0) & np.isfinite(person).all(axis=1)
        joints = np.zeros((MPII.num_joints, 2))
        joints[ORDER] = person[:, :2]
        for middle, sides in MIDDLES.items():
            joints[middle], labelled[middle] = joints[list(sides)].mean(axis=0), labelled[list(sides)].all()
        joints[~labelled] = 0
        image_set = next(image_set for image_set, last in LAST.items() if number <= last)
        if image_set in head_boxes and not labelled[[NECK, HEAD_TOP]].all():
            left_out[f"persons of {image_set} without neck or head top"] += 1
            continue
        if labelled.sum() < 2:
            left_out["persons with less than two labelled joints"] += 1
            continue
        low, high = joints[labelled].min(axis=0), joints[labelled].max(axis=0)
        entries[image_set].append(
            {
                "image": f"im{number:05d}.jpg",
                "center": ((low + high) / 2).tolist(),
                "scale": float((high - low).max() * MARGIN / PIXELS_PER_SCALE),
                "joints": joints.round(3).tolist(),
                "joints_vis": labelled.astype(int).tolist(),
            }
        )
        if image_set in head_boxes:
            head_boxes[image_set].append(head_box(joints[NECK], joints[HEAD_TOP]))
    return entries, head_boxes, left_out


def head_box(neck: np.ndarray, head_top: np.ndarray) -> np.ndarray:
    """The square (2, 2) around the middle of both for which PCKh's head size is their distance."""
    half = np.linalg.norm(head_top - neck) / HEAD_SIZE_FACTOR / np.sqrt(8)
    return (neck + head_top) / 2 + half * np.array([[-1], [1]])


def _persons(joints: Any) -> np.ndarray:
    joints = np.asarray(joints, float)
    if joints.ndim != 3 or joints.shape[:2] != (len(ORDER), 3):
        raise ValueError(f"its joints have the shape {joints.shape}")
    return joints.transpose(2, 0, 1)[: max(LAST.values())]
