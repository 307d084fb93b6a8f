"""Heatmap coordinates: pixel (x, y) of the network input lies in cell (x, y) / stride, and cell [y, x] stands
for the input pixel (x, y) * stride. Encode and decode share this convention.

Everything is numpy on whole batches: the leading axes are free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WINDOW_SIGMAS = 3  # the Gaussian is cut off beyond this
QUARTER = 0.25  # cells; the step from the maximum towards its higher neighbour (paper section 2, from Hourglass)


@dataclass(frozen=True)
class HeatmapCodec:
    """Joints <-> heatmaps.

    Attributes:
        image_size_wh: network input, pixels.
        heatmap_size_wh: network output, cells.
        sigma: of the Gaussian, cells.
    """

    image_size_wh: tuple[int, int]
    heatmap_size_wh: tuple[int, int]
    sigma: float

    @property
    def stride_xy(self) -> np.ndarray:
        """(2,) input pixels per cell."""
        return np.asarray(self.image_size_wh) / np.asarray(self.heatmap_size_wh)

    def encode(self, joints: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the target heatmaps: a Gaussian with peak 1 at the joint's cell, cut to a square window.

        A joint just off the map still draws the part of its window that is inside, or nothing: it teaches
        the network to stay silent. Only a window wholly outside takes the joint out of the loss.

        Args:
            joints: (..., K, 2) network input pixels.
            visible: (..., K) 0 or 1.

        Returns:
            heatmaps (..., K, h, w) float32 and weights (..., K) float32.
            Source: `generate_target` of the original's JointsDataset.
        """
        width, height = self.heatmap_size_wh
        radius = int(self.sigma * WINDOW_SIGMAS)
        cells = np.trunc(np.asarray(joints) / self.stride_xy + 0.5)  # like int(): toward zero
        low, high = cells - radius, cells + radius + 1  # the window is low <= cell < high
        outside = (low >= (width, height)).any(axis=-1) | (high < 0).any(axis=-1)
        weights = np.where(outside, 0, visible).astype(np.float32)

        # exp(-(dx^2 + dy^2) / 2 sigma^2) is a product of a row and a column
        row = self._bell(width, cells[..., 0], radius)  # (..., K, w)
        column = self._bell(height, cells[..., 1], radius)  # (..., K, h)
        column *= (weights > 0.5)[..., None]
        return column[..., :, None] * row[..., None, :], weights

    def _bell(self, length: int, peaks: np.ndarray, radius: int) -> np.ndarray:
        distance = np.arange(length) - peaks[..., None]
        bell = np.exp(-(distance**2) / (2 * self.sigma**2))
        return np.where(np.abs(distance) <= radius, bell, 0).astype(np.float32)

    def decode(self, heatmaps: np.ndarray, refine: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Find the joints: the maximum, then a quarter of a cell towards the higher neighbour on each axis.

        Args:
            heatmaps: (..., K, h, w).
            refine: take the quarter step (TEST.POST_PROCESS).

        Returns:
            joints (..., K, 2) float64 in network input pixels and scores (..., K), the maxima. Where the
            maximum is not positive, the joint is (0, 0). Source: `get_final_preds` of the original.
        """
        cells, scores = argmax_cells(heatmaps)
        if refine:
            cells = cells + QUARTER * self._step(heatmaps, cells.astype(np.int64))
        return cells * self.stride_xy, scores

    def _step(self, heatmaps: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """Sign of the slope at (..., K, 2) cells; 0 within a cell of the border, where the original does not look."""
        height, width = heatmaps.shape[-2:]
        x, y = cells[..., 0], cells[..., 1]
        inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
        x, y = np.where(inside, x, 1), np.where(inside, y, 1)  # anywhere harmless; masked below
        flat = heatmaps.reshape(*heatmaps.shape[:-2], height * width)

        def value(dx: int, dy: int) -> np.ndarray:
            return np.take_along_axis(flat, ((y + dy) * width + x + dx)[..., None], axis=-1)[..., 0]

        slope = np.stack([value(1, 0) - value(-1, 0), value(0, 1) - value(0, -1)], axis=-1)
        return np.sign(slope) * inside[..., None]


def argmax_cells(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest cell of each heatmap.

    Args:
        heatmaps: (..., K, h, w).

    Returns:
        cells (..., K, 2) as float64 (x, y), (0, 0) where nothing is positive, and the maxima (..., K).
    """
    height, width = heatmaps.shape[-2:]
    flat = heatmaps.reshape(*heatmaps.shape[:-2], height * width)
    index = flat.argmax(axis=-1)
    scores = np.take_along_axis(flat, index[..., None], axis=-1)[..., 0]
    cells = np.stack([index % width, index // width], axis=-1).astype(np.float64)
    return np.where((scores > 0)[..., None], cells, 0), scores


def rescore(box_scores: np.ndarray, joint_scores: np.ndarray, threshold: float) -> np.ndarray:
    """A person's score: the box's, times the mean of the joint scores above the threshold (0 if none is).

    Args:
        box_scores: (N,).
        joint_scores: (N, K).
        threshold: TEST.IN_VIS_THRE.

    Returns:
        (N,).
    """
    counted = joint_scores > threshold
    mean = np.where(counted, joint_scores, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
    return box_scores * mean


def flip_heatmaps(heatmaps: np.ndarray, flip_permutation: np.ndarray, shift: bool) -> np.ndarray:
    """Undo a mirror: heatmaps (N, K, h, w) of a mirrored image, as heatmaps of the image.

    Args:
        flip_permutation: (K,), `Skeleton.flip_permutation`.
        shift: move the result one cell to the right, column 0 keeping its value (TEST.SHIFT_HEATMAP). An input
            pixel x lies in cell x / stride, so a mirrored input does not give exactly mirrored cells:
            width - 1 - x falls (stride - 1) / stride of a cell short, about one.
    """
    mirrored = heatmaps[:, flip_permutation, :, ::-1]
    if not shift:
        return mirrored
    return np.concatenate([mirrored[..., :1], mirrored[..., :-1]], axis=-1)
