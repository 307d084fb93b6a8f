"""The plain way of doing it: a loop over persons and joints, as the method's first implementations have it.

Written for comparison, and to be fair: no work is done twice, nothing is slower than the plain way has to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from simplepose.core.geometry import crop_affine

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def draw_heatmaps(
    joints: np.ndarray, visible: np.ndarray, image_size_wh: Sequence[int], size_wh: Sequence[int], sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Targets of one person, joint by joint: joints (K, 2), visible (K,) -> (K, h, w), (K,)."""
    width, height = size_wh
    heatmaps, weights = np.zeros((len(joints), height, width), np.float32), visible.astype(np.float32)
    radius = int(sigma * 3)
    offsets = np.arange(2 * radius + 1, dtype=np.float32) - radius
    bell = np.exp(-(offsets[None] ** 2 + offsets[:, None] ** 2) / (2 * sigma**2))
    for k, (x, y) in enumerate(joints):
        column, row = int(x * width / image_size_wh[0] + 0.5), int(y * height / image_size_wh[1] + 0.5)
        left, top, right, bottom = column - radius, row - radius, column + radius + 1, row + radius + 1
        if left >= width or top >= height or right < 0 or bottom < 0:
            weights[k] = 0
            continue
        if weights[k] > 0.5:
            inside = (slice(max(0, top), min(height, bottom)), slice(max(0, left), min(width, right)))
            window = (slice(max(0, -top), min(height, bottom) - top), slice(max(0, -left), min(width, right) - left))
            heatmaps[k][inside] = bell[window]
    return heatmaps, weights


def decode(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, K, h, w) -> cells (N, K, 2) with the quarter step, maxima (N, K): numpy's arg-max, then loops."""
    num, joints, height, width = heatmaps.shape
    flat = heatmaps.reshape(num, joints, -1)
    index, scores = flat.argmax(axis=2), flat.max(axis=2)
    cells = np.stack([index % width, index // width], axis=-1).astype(np.float32)
    cells *= (scores > 0)[..., None]
    for n in range(num):
        for k in range(joints):
            heatmap = heatmaps[n, k]
            x, y = math.floor(cells[n, k, 0] + 0.5), math.floor(cells[n, k, 1] + 0.5)
            if 1 < x < width - 1 and 1 < y < height - 1:
                slope = (heatmap[y, x + 1] - heatmap[y, x - 1], heatmap[y + 1, x] - heatmap[y - 1, x])
                cells[n, k] += np.sign(slope) * 0.25
    return cells, scores


def accuracy(predicted: np.ndarray, target: np.ndarray) -> float:
    """Share of the maxima (N, K, h, w) within half a tenth of the map of the target's, joint by joint."""
    height, width = target.shape[2:]
    cells = []
    for heatmaps in (predicted, target):
        flat = heatmaps.reshape(*heatmaps.shape[:2], -1)
        index, scores = flat.argmax(axis=2), flat.max(axis=2)
        cells.append(np.stack([index % width, index // width], axis=-1) * (scores > 0)[..., None])
    hits = []
    for k in range(target.shape[1]):
        counted = (cells[1][:, k] > 1).all(axis=1)
        if counted.any():
            distances = np.linalg.norm(
                (cells[0][counted, k] - cells[1][counted, k]) / (width / 10, height / 10), axis=1
            )
            hits.append((distances < 0.5).mean())
    return float(np.mean(hits)) if hits else 0.0


def pckh_curve(
    predictions: np.ndarray, truth: np.ndarray, labelled: np.ndarray, head_sizes: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """(T, K): for each threshold, everything compared anew."""
    errors = np.linalg.norm(predictions - truth, axis=2) / head_sizes[:, None]
    errors = errors * labelled
    counts = labelled.sum(axis=0)
    curve = np.zeros((len(thresholds), truth.shape[1]))
    for row, threshold in enumerate(thresholds):
        curve[row] = 100 * ((errors <= threshold) * labelled).sum(axis=0) / counts
    return curve


def oks_nms(joints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, limit: float) -> list[int]:
    """Rows to keep of (N, K, 2), best first; likeness pair by pair."""
    variances = (2 * sigmas) ** 2
    order, keep = list(scores.argsort()[::-1]), []
    while order:
        best = order.pop(0)
        keep.append(best)
        rest = []
        for other in order:
            distances = ((joints[best] - joints[other]) ** 2).sum(axis=1)
            likeness = np.exp(-distances / variances / ((areas[best] + areas[other]) / 2 + np.spacing(1)) / 2).mean()
            if likeness <= limit:
                rest.append(other)
        order = rest
    return keep


def load_sample(
    sample,
    drawn,
    permutation: np.ndarray,
    image_size_wh: tuple[int, int],
    heatmap_size_wh: tuple[int, int],
    sigma: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One training sample: the whole image decoded, mirrored if need be, warped, normalised; targets drawn.

    Args:
        sample, drawn: a PoseSample and its Augmentation.

    Returns:
        image (3, H, W) float32, heatmaps (K, h, w), weights (K,).
    """
    image = cv2.imread(sample.image, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    joints, visible, center = sample.joints.copy(), sample.visible, sample.center.copy()
    if drawn.flip:
        image = cv2.flip(image, 1)
        joints, visible = joints[permutation], visible[permutation]
        joints[:, 0] = image.shape[1] - 1 - joints[:, 0]
        center[0] = image.shape[1] - 1 - center[0]
    affine = crop_affine(center, sample.size[0] * drawn.scale, drawn.rotation_deg, image_size_wh)
    crop = cv2.warpAffine(image, affine, image_size_wh, flags=cv2.INTER_LINEAR)
    for k in range(len(joints)):
        if visible[k] > 0:
            joints[k] = affine[:, :2] @ joints[k] + affine[:, 2]
    pixels = crop.astype(np.float32) / 255
    pixels = ((pixels - MEAN) / STD).transpose(2, 0, 1)
    heatmaps, weights = draw_heatmaps(joints, visible, image_size_wh, heatmap_size_wh, sigma)
    return np.ascontiguousarray(pixels), heatmaps, weights
