"""MPII Human Pose in the JSON form of the original release. Its 1-based coordinates and its 200-pixel unit end here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from simplepose.data.sample import PoseSample
from simplepose.errors import UserError
from simplepose.files import read_json
from simplepose.geometry import BOX_PADDING
from simplepose.skeletons import MPII

PIXELS_PER_SCALE = 200  # MPII's `scale` is a person's height in units of 200 pixels
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
        UserError: missing or malformed file, a joint count that is not 16, no persons.
    """
    path = Path(root) / "annot" / f"{image_set}.json"
    entries = _read_entries(path)
    images = f"{root}/images.zip@" if data_format == "zip" else f"{root}/images/"
    labelled = "test" not in image_set
    samples = []
    for number, entry in enumerate(entries):
        try:
            samples.append(_sample(entry, images, labelled))
        except KeyError as error:
            raise UserError(
                f"{path}: entry {number} has no {error}; expected image, center, scale, joints, joints_vis"
            ) from None
        except (TypeError, ValueError) as error:
            raise UserError(f"{path}: entry {number} is malformed: {error}") from None
    return samples


def _read_entries(path: Path) -> list[Any]:
    if not path.exists():
        raise UserError(
            f"no such annotation file: {path}; DATASET.ROOT should hold annot/ and images/ (see data/README.md)"
        )
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} holds a {type(entries).__name__}, expected a list of persons in MPII's JSON form")
    if not entries:
        raise UserError(f"{path} holds no persons")
    return entries


def _sample(entry: dict[str, Any], images: str, labelled: bool) -> PoseSample:
    center = np.array(entry["center"], dtype=np.float64)
    scale = float(entry["scale"])
    if center.shape != (2,):
        raise ValueError(f"center is {entry['center']!r}, expected [x, y]")
    if not np.isfinite(center).all() or not np.isfinite(scale) or scale <= 0:
        raise ValueError(f"center {entry['center']!r} and scale {entry['scale']!r} give no crop")
    if center[0] != -1:
        center[1] += CENTER_DROP * scale
        scale *= BOX_PADDING
    joints = np.zeros((MPII.num_joints, 2))
    visible = np.zeros(MPII.num_joints, np.float32)
    if labelled:
        joints = np.array(entry["joints"], dtype=np.float64) - 1
        visible = np.array(entry["joints_vis"], dtype=np.float32)
        if joints.shape != (MPII.num_joints, 2) or visible.shape != (MPII.num_joints,):
            raise ValueError(
                f"{len(joints)} joints and {len(visible)} visibilities; the mpii skeleton has {MPII.num_joints} of each"
            )
    return PoseSample(
        image=images + entry["image"],
        center=center - 1,
        size=np.full(2, scale * PIXELS_PER_SCALE),
        joints=joints,
        visible=visible,
    )
