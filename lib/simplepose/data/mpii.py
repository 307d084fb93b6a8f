"""Reads MPII Human Pose in the JSON form of the original release; converts its 1-based coordinates and 200-px unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import read_json
from simplepose.core.geometry import BOX_PADDING
from simplepose.core.skeletons import MPII
from simplepose.data.fields import MAX_PIXELS, image_paths, numbers_of
from simplepose.data.sample import PoseSample, is_test_set

PIXELS_PER_SCALE = 200  # MPII's `scale` is a person's height in units of 200 pixels
MIN_SCALE = 1e-3  # a fifth of a pixel: anything smaller is not a person
HEAD_SIZE_FACTOR = 0.6  # of the head box's diagonal: the length that PCKh counts in; MPII's evaluation: SC_BIAS
CENTER_DROP = 15  # pixels per scale: the annotated centre sits high, this keeps feet in the crop


def load_mpii(root: str | Path, image_set: str, data_format: str = "jpg") -> list[PoseSample]:
    """Read <root>/annot/<image_set>.json.

    Args:
        root: folder with `annot/` and `images/` (or `images.zip`).
        image_set: train, valid, trainval or test. Sets named `test...` carry no joints: all are marked unlabelled.
        data_format: "jpg" for files in images/, "zip" for members of images.zip.

    Returns:
        One sample per annotated person, in the file's order (that of gt_<image_set>.mat).

    Raises:
        UserError: missing or malformed file, a joint count that is not 16, a value that is not a number, no persons.
    """
    root = root or "."
    path = Path(root) / "annot" / f"{image_set}.json"
    entries = read_entries(path)
    where = f"{path}: entry"
    center = numbers_of(entries, "center", (2,), where)
    scale = numbers_of(entries, "scale", (), where, low=MIN_SCALE, high=MAX_PIXELS / PIXELS_PER_SCALE)
    known = center[:, 0] != -1
    center[known, 1] += CENTER_DROP * scale[known]
    scale[known] *= BOX_PADDING
    sizes = np.repeat(scale[:, None] * PIXELS_PER_SCALE, 2, axis=1)
    joints = np.zeros((len(entries), MPII.num_joints, 2))
    visible = np.zeros((len(entries), MPII.num_joints), np.float32)
    if not is_test_set(image_set):
        joints = numbers_of(entries, "joints", (MPII.num_joints, 2), where) - 1
        visible = numbers_of(entries, "joints_vis", (MPII.num_joints,), where, low=0, high=1).astype(np.float32)
    folder = f"{root}/images.zip@" if data_format == "zip" else f"{root}/images/"
    images = image_paths((entry.get("image") for entry in entries), folder, str(root), where)
    return [PoseSample(*person) for person in zip(images, center - 1, sizes, joints, visible)]


def read_entries(path: Path) -> list[Any]:
    """The persons of an annotation file as they stand there; at least one."""
    if not path.exists():
        raise UserError(
            f"no such annotation file: {path}; DATASET.ROOT should hold annot/ and images/, and DATASET.TRAIN_SET and "
            "DATASET.TEST_SET name the sets (see data/README.md)"
        )
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} holds a {type(entries).__name__}, expected a list of persons in MPII's JSON form")
    if not entries:
        raise UserError(f"{path} holds no persons")
    return entries
