"""Crops: a box around a person <-> the network's input, as one 2x3 affine for pixels and joints alike.

Coordinates are (x, y) in pixels, 0-based; sizes are (width, height).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simplepose.core.errors import UserError

BOX_PADDING = 1.25  # keeps limbs inside the crop; the convention of MPII and COCO
MIN_BOX_PX, MAX_BOX_PX = 1e-3, 1e6  # of a box's sides; and of its corner
NO_BOX = "has no area, or a number that is NaN, infinite or beyond a million pixels"


def as_boxes(boxes_xywh: Sequence[Sequence[float]], image_size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Validate boxes from a caller; a single box may come without the outer list.

    Args:
        boxes_xywh: (P, 4) left, top, width, height in pixels.

    Returns:
        boxes (P, 4) float64, and for each whether it overlaps the image (P,).

    Raises:
        UserError: not an array of numbers (P, 4), or a box that is invalid by `is_box`.
    """
    try:
        boxes = np.asarray(boxes_xywh, dtype=np.float64)
    except (TypeError, ValueError):
        raise UserError("boxes must be numbers (P, 4): left, top, width, height in pixels") from None
    boxes = boxes.reshape(-1, 4) if boxes.shape in ((0,), (4,)) else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(f"boxes must be (P, 4): left, top, width, height in pixels; their shape is {boxes.shape}")
    for box in boxes:
        if not is_box(box):
            raise UserError(f"box {box.tolist()} {NO_BOX}")
    return boxes, ((boxes[:, :2] < image_size_wh) & (boxes[:, :2] + boxes[:, 2:] > 0)).all(axis=1)


def is_box(box_xywh: Sequence[float]) -> bool:
    """Whether left, top, width, height form a valid box: positive area, and no NaN, infinite or huge numbers."""
    return bool(np.abs(box_xywh).max() <= MAX_BOX_PX and min(box_xywh[2:]) >= MIN_BOX_PX)  # False for NaN


def overlap(boxes_xywh: np.ndarray, others_xywh: np.ndarray) -> np.ndarray:
    """Intersection over union (...) of boxes (..., 4) and others (..., 4), as left, top, width, height; 0 for a box
    of no size."""
    low = np.maximum(boxes_xywh[..., :2], others_xywh[..., :2])
    high = np.minimum(boxes_xywh[..., :2] + boxes_xywh[..., 2:], others_xywh[..., :2] + others_xywh[..., 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    areas = (np.maximum(boxes[..., 2:], 0).prod(axis=-1) for boxes in (boxes_xywh, others_xywh))
    union = sum(areas) - common
    return common / np.maximum(union, 1e-9)


def box_to_crop(
    box_xywh: np.ndarray, aspect_ratio: float, padding: float = BOX_PADDING
) -> tuple[np.ndarray, np.ndarray]:
    """The crop around a box: enlarged on one side to the network's aspect ratio, then padded.

    Args:
        box_xywh: (..., 4) left, top, width, height in pixels.
        aspect_ratio: width / height of the network's input.

    Returns:
        centre (..., 2) and size (..., 2) of the crop in pixels. Source: `_xywh2cs` of the original's coco.py.
    """
    box = np.asarray(box_xywh, dtype=np.float64)
    width, height = box[..., 2], box[..., 3]
    size = np.stack([np.maximum(width, height * aspect_ratio), np.maximum(height, width / aspect_ratio)], axis=-1)
    return box[..., :2] + box[..., 2:] * 0.5, size * padding


def crop_affine(
    center: np.ndarray, crop_width: float, rotation_deg: float, extent_wh: tuple[float, float], flip: bool = False
) -> np.ndarray:
    """The affine from image pixels to network input pixels.

    The crop's centre goes to the middle of the extent, its width to the extent's width; the scale is
    the same on both axes, so the width alone decides (`get_affine_transform` of the original).

    Args:
        center: (2,) image pixels.
        crop_width: image pixels.
        rotation_deg: of the crop in the image, clockwise on the screen.
        extent_wh: of the network input, `Codec.extent_wh`.
        flip: mirror the image first, and with it the crop. In the original: `image[:, ::-1]`, joints and centre
            at image width - 1 - x; here the same motion is part of the affine, so no pixel is copied for it.

    Returns:
        (2, 3) float64.
    """
    width, height = extent_wh
    scale = width / crop_width
    cos, sin = math.cos(math.radians(rotation_deg)), math.sin(math.radians(rotation_deg))
    linear = scale * np.array([[cos, sin], [-sin, cos]])
    if flip:
        linear[:, 0] *= -1
    shift = np.array([width * 0.5, height * 0.5]) - linear @ np.asarray(center, dtype=np.float64)
    return np.column_stack([linear, shift])


def patch_affine(affine: np.ndarray, left: int, top: int, step: int) -> np.ndarray:
    """The affine from a patch of an image to the crop, (2, 3), given the affine from the image to the crop.

    Patch pixel p is the mean of image pixels `left + step * p` and the `step - 1` that follow; its centre is the
    middle of them.
    """
    middle = (step - 1) / 2
    shift = affine[:, :2] @ (left + middle, top + middle) + affine[:, 2]
    return np.column_stack([affine[:, :2] * step, shift])


def invert_affine(affine: np.ndarray) -> np.ndarray:
    """The inverse of (..., 2, 3) affines, same shape."""
    linear = np.linalg.inv(affine[..., :2])
    shift = -linear @ affine[..., 2:]
    return np.concatenate([linear, shift], axis=-1)


def apply_affine(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move points (..., K, 2) by affines (..., 2, 3)."""
    return points @ np.swapaxes(affine[..., :2], -1, -2) + affine[..., None, :, 2]
