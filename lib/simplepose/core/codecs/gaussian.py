"""Heatmap coordinates: pixel (x, y) of the network input lies in cell (x, y) / stride, and cell [y, x] stands
for the input pixel (x, y) * stride. Encode and decode share this convention.

Everything is vectorised numpy: any number of leading axes is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from simplepose.core.description import ABOVE_ZERO, MAX_SIGMA, number_in, sizes_of

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

    def description(self) -> dict[str, Any]:
        """See `Codec`."""
        return {"image_size_wh": self.image_size_wh, "heatmap_size_wh": self.heatmap_size_wh, "sigma": self.sigma}

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> HeatmapCodec:
        """The inverse of `description`. Raises KeyError or ValueError if the description is invalid."""
        image_size_wh, heatmap_size_wh = sizes_of(described["image_size_wh"], described["heatmap_size_wh"])
        return cls(image_size_wh, heatmap_size_wh, number_in(described["sigma"], "sigma", ABOVE_ZERO, MAX_SIGMA))

    def encode(self, joints: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the target heatmaps: a Gaussian with peak 1 at the joint's cell, cut to a square window.

        A joint just off the map still draws the part of its window that is inside, which may be nothing: the network
        learns to output zeros there. Only a window wholly outside takes the joint out of the loss.

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

        # Every joint's window is the same Gaussian, pasted at its cell: only non-zero cells are written.
        offsets = np.arange(-radius, radius + 1)
        bell = np.exp(-(offsets**2) / (2 * self.sigma**2)).astype(np.float32)
        drawn = np.flatnonzero(weights > 0.5)  # rows of (... x K, h, w)
        center = cells.reshape(-1, 2)[drawn].astype(np.int64)
        x, y = center[:, :1] + offsets, center[:, 1:] + offsets  # (drawn, window)
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        index = ((drawn * height)[:, None] + y)[:, :, None] * width + x[:, None, :]  # (drawn, window, window)
        size = weights.size * height * width
        flat = np.zeros(size + 1, np.float32)  # the extra last element receives what falls outside
        flat[np.where(inside, index, size)] = bell[:, None] * bell
        return flat[:size].reshape(*weights.shape, height, width), weights

    def decode(self, heatmaps: np.ndarray, refine: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Find the joints: the maximum, then a quarter of a cell towards the higher neighbour on each axis.

        Args:
            heatmaps: (..., K, h, w).
            refine: take the quarter step (TEST.POST_PROCESS).

        Returns:
            joints (..., K, 2) float64 in network input pixels and scores (..., K), the maxima. Where the
            maximum is not positive, the joint is (0, 0). Source: `get_final_preds` of the original.
        """
        flat, index, cells, scores = _maxima(heatmaps)
        if refine:
            cells = cells + QUARTER * _slope_sign(flat, index, cells, heatmaps.shape[-2:])
        return cells * self.stride_xy, scores


def argmax_cells(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest cell of each heatmap.

    Args:
        heatmaps: (..., K, h, w).

    Returns:
        cells (..., K, 2) as float64 (x, y), (0, 0) where nothing is positive, and the maxima (..., K).
    """
    _, _, cells, scores = _maxima(heatmaps)
    return cells, scores


def _maxima(heatmaps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The flattened values, the indices of the maxima in them (..., K), their cells (..., K, 2) and values (..., K)."""
    *shape, height, width = heatmaps.shape
    flat = np.ascontiguousarray(heatmaps).reshape(-1)
    best = flat.reshape(-1, height * width).argmax(axis=-1)  # (... x K,)
    index = best + np.arange(len(best)) * (height * width)
    scores = flat[index]
    cells = np.stack([best % width, best // width], axis=-1).astype(np.float64)
    cells[~(scores > 0)] = 0
    return flat, index.reshape(shape), cells.reshape(*shape, 2), scores.reshape(shape)


def _slope_sign(flat: np.ndarray, index: np.ndarray, cells: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Sign of the slope at the maxima; 0 within a cell of the border, where the original does not refine."""
    height, width = size_hw
    x, y = cells[..., 0], cells[..., 1]
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    index = np.where(inside, index, width)  # any index with neighbours; masked below
    slope = [flat[index + 1] - flat[index - 1], flat[index + width] - flat[index - width]]
    return np.where(inside[..., None], np.sign(np.stack(slope, axis=-1)), 0)  # masked ones may be another's NaN


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
