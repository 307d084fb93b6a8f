"""Shared by all detectors: preprocessing, mapping boxes back to the image, non-maximum suppression."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import cv2
import numpy as np

from simplepose.core.geometry import MIN_BOX_PX

PERSON = 0
NUM_CLASSES = 80
MIN_SCORE = 0.3  # of a box, by default
LETTERBOX_GREY = 114

Boxes = tuple[np.ndarray, np.ndarray]  # (P, 4) left, top, right, bottom in image pixels; (P,) person scores


@dataclass(frozen=True)
class Scaling:
    """How an image was brought to the detector's input: input pixel = image pixel * scale + offset."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float] = (0.0, 0.0)

    def to_image(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes (P, 4) from input pixels to image pixels."""
        return (boxes_xyxy - np.tile(self.offset_xy, 2)) / np.tile(self.scale_xy, 2)


def clean_boxes(
    boxes_xyxy: np.ndarray, scores: np.ndarray, image_size_wh: Sequence[int], min_score: float, max_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Drop low scores, clip to the image, drop boxes of no size then, suppress overlaps.

    Args:
        boxes_xyxy: (P, 4) pixels.
        scores: (P,).

    Returns:
        boxes (Q, 4) as left, top, width, height and scores (Q,), best first.
    """
    enough = scores >= min_score
    boxes, scores = boxes_xyxy[enough].astype(np.float64), scores[enough].astype(np.float64)
    limits = np.tile(np.asarray(image_size_wh, dtype=np.float64), 2)
    boxes = np.clip(boxes, 0, limits)
    there = (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_PX).all(axis=1)  # false for NaN as well
    boxes, scores = boxes[there], scores[there]
    keep = suppress_overlaps(boxes, scores, max_overlap)
    boxes = boxes[keep]
    boxes[:, 2:] -= boxes[:, :2]
    return boxes, scores[keep]


def suppress_overlaps(boxes_xyxy: np.ndarray, scores: np.ndarray, max_overlap: float) -> np.ndarray:
    """Non-maximum suppression: rows to keep of boxes (P, 4), best first."""
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(best)
        top_left = np.maximum(boxes_xyxy[best, :2], boxes_xyxy[rest, :2])
        bottom_right = np.minimum(boxes_xyxy[best, 2:], boxes_xyxy[rest, 2:])
        common = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
        order = rest[common <= max_overlap * (areas[best] + areas[rest] - common)]
    return np.array(keep, dtype=np.int64)


# --- preprocessing: prepare(path, size_wh) -> image -> ({input name: array}, Scaling) ---------------------------

Feed = Callable[[np.ndarray], tuple[dict[str, np.ndarray], Scaling]]


def _blob(image: np.ndarray, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32, mean and deviation in the channels' order and in pixel values."""
    blob = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel in range(3):  # channel by channel: numpy is slow over an innermost axis of 3
        np.multiply(image[..., channel], np.float32(1 / std[channel]), out=blob[0, channel])
        if mean[channel]:
            blob[0, channel] -= np.float32(mean[channel] / std[channel])
    return blob


def _letterbox(
    image: np.ndarray,
    size_wh: tuple[int, int],
    fill: int,
    centered: bool = False,
    interpolation: int = cv2.INTER_LINEAR,
) -> tuple[np.ndarray, Scaling]:
    """Fit an image into a size without changing its aspect ratio; the rest is one grey."""
    height, width = image.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    fitted_w, fitted_h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = ((size_wh[0] - fitted_w) // 2, (size_wh[1] - fitted_h) // 2) if centered else (0, 0)
    box = np.full((size_wh[1], size_wh[0], 3), fill, np.uint8)
    box[top : top + fitted_h, left : left + fitted_w] = cv2.resize(
        image, (fitted_w, fitted_h), interpolation=interpolation
    )
    return box, Scaling((fitted_w / width, fitted_h / height), (left, top))


def _stretch(image: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, Scaling]:
    """Resize an image to a size, whatever its aspect ratio."""
    height, width = image.shape[:2]
    return cv2.resize(image, size_wh), Scaling((size_wh[0] / width, size_wh[1] / height))


# --- decoding of raw outputs: decode(outputs, input shape (1, 3, H, W), Scaling) -> Boxes -------------------------


def _grid(width: int, height: int) -> np.ndarray:
    """(height * width, 2) cell indices (x, y), row by row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@dataclass(frozen=True)
class Family:
    """A kind of detector."""

    prepare: Callable[[str | os.PathLike, tuple[int, int]], Feed]
    decode: Callable[[Sequence[np.ndarray], Sequence[int], Scaling], Boxes]
    default_size_wh: tuple[int, int]  # where the file does not fix it
    max_overlap: float
