"""Heatmap coordinates: pixel (x, y) of the network input lies in cell (x, y) / stride, and cell [y, x] stands
for the input pixel (x, y) * stride. Encode and decode share this convention.

The original measures sizes as numbers of pixels and cells: the stride is image size / heatmap size. Then the last cell
stands for a pixel short of the last one, and a mirrored crop has heatmaps that are about a cell off. Unbiased data
processing (Huang et al., CVPR 2020) measures sizes from the first pixel to the last, one less: first and last cells
stand for first and last pixels, and mirroring is exact.

Everything is vectorised numpy: any number of leading axes is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simplepose.core.codecs.dark import away_from_border, taylor_step
from simplepose.core.description import ABOVE_ZERO, MAX_SIGMA, number_in, sizes_of
from simplepose.core.errors import shown

WINDOW_SIGMAS = 3  # the Gaussian is cut off beyond this
DECODERS = ("quarter", "dark")  # see `HeatmapCodec.decode`
QUARTER = 0.25  # cells; the step from the maximum towards its higher neighbour (paper section 2, from Hourglass)


@dataclass(frozen=True)
class HeatmapCodec:
    """Joints <-> heatmaps.

    Attributes:
        image_size_wh: network input, pixels.
        heatmap_size_wh: network output, cells.
        sigma: of the Gaussian, cells.
        unbiased: sizes are measured from the first pixel to the last (UDP), and the Gaussian's centre is the joint
            instead of the joint's cell.
        decoder: one of `DECODERS`.
    """

    image_size_wh: tuple[int, int]
    heatmap_size_wh: tuple[int, int]
    sigma: float
    unbiased: bool = False
    decoder: str = "quarter"

    @property
    def extent_wh(self) -> tuple[int, int]:
        """See `Codec`."""
        return self.image_size_wh[0] - self.unbiased, self.image_size_wh[1] - self.unbiased

    @property
    def mirrors_exactly(self) -> bool:
        """See `Codec`."""
        return self.unbiased

    @property
    def stride_xy(self) -> np.ndarray:
        """(2,) input pixels per cell."""
        return np.asarray(self.extent_wh) / (np.asarray(self.heatmap_size_wh) - self.unbiased)

    def description(self) -> dict[str, Any]:
        """See `Codec`."""
        return asdict(self)

    @classmethod
    def from_description(cls, described: Mapping[str, Any]) -> HeatmapCodec:
        """The inverse of `description`. Raises KeyError or ValueError if the description is invalid."""
        image_size_wh, heatmap_size_wh = sizes_of(described["image_size_wh"], described["heatmap_size_wh"])
        sigma = number_in(described["sigma"], "sigma", ABOVE_ZERO, MAX_SIGMA)
        unbiased, decoder = described.get("unbiased", False), described.get("decoder", "quarter")  # new since format 1
        if not isinstance(unbiased, bool):
            raise ValueError(f"unbiased is true or false, found {shown(unbiased)}")
        if decoder not in DECODERS:
            raise ValueError(f"decoder is one of {', '.join(DECODERS)}, found {shown(decoder)}")
        return cls(image_size_wh, heatmap_size_wh, sigma, unbiased, decoder)

    def encode(self, joints: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw the target heatmaps: a Gaussian with peak 1 at the joint's cell, cut to a square window around it.

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

        # Only the non-zero cells are written: a Gaussian, the product of one per axis, pasted at its joint's cell.
        offsets = np.arange(-radius, radius + 1)
        drawn = np.flatnonzero(weights > 0.5)  # rows of (... x K, h, w)
        center = cells.reshape(-1, 2)[drawn].astype(np.int64)
        within = np.zeros(center.shape)  # (drawn, 2) of the Gaussian's centre from the cell's, at most half a cell
        if self.unbiased:
            within = (np.asarray(joints) / self.stride_xy).reshape(-1, 2)[drawn] - center
        distances = offsets - within[..., None]  # (drawn, 2, window)
        bell_x, bell_y = np.exp(-(distances**2) / (2 * self.sigma**2)).astype(np.float32).transpose(1, 0, 2)
        x, y = center[:, :1] + offsets, center[:, 1:] + offsets  # (drawn, window)
        inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
        index = ((drawn * height)[:, None] + y)[:, :, None] * width + x[:, None, :]  # (drawn, window, window)
        size = weights.size * height * width
        flat = np.zeros(size + 1, np.float32)  # the extra last element receives what falls outside
        flat[np.where(inside, index, size)] = bell_y[:, :, None] * bell_x[:, None, :]
        return flat[:size].reshape(*weights.shape, height, width), weights

    def decode(self, heatmaps: np.ndarray, refine: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Find the joints: the maximum, then a step to where the peak between the cells is.

        Decoder "quarter" steps a quarter of a cell towards the higher neighbour on each axis, as the original;
        "dark" to the peak of the Gaussian that fits best (`codecs.dark`).

        Args:
            heatmaps: (..., K, h, w).
            refine: take the step (TEST.POST_PROCESS).

        Returns:
            joints (..., K, 2) float64 in network input pixels and scores (..., K), the maxima. Where the
            maximum is not positive, the joint is (0, 0). Source: `get_final_preds` of the original.
        """
        flat, index, cells, scores = _maxima(heatmaps)
        if refine and self.decoder == "dark":
            cells = cells + taylor_step(heatmaps, cells, self.sigma)
        elif refine:
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
    width = size_hw[1]
    inside = away_from_border(cells, size_hw)
    index = np.where(inside, index, width)  # any index with neighbours; masked below
    slope = [flat[index + 1] - flat[index - 1], flat[index + width] - flat[index - width]]
    return np.where(inside[..., None], np.sign(np.stack(slope, axis=-1)), 0)  # masked ones may be another's NaN


def flip_heatmaps(heatmaps: np.ndarray, flip_permutation: np.ndarray, shift: bool) -> np.ndarray:
    """Undo a mirror: heatmaps (N, K, h, w) of a mirrored image, as heatmaps of the image.

    Args:
        flip_permutation: (K,), `Skeleton.flip_permutation`.
        shift: move the result one cell to the right, column 0 keeping its value (TEST.SHIFT_HEATMAP). An input
            pixel x lies in cell x / stride, so a mirrored input does not give exactly mirrored cells:
            width - 1 - x falls (stride - 1) / stride of a cell short, about one. Not for a codec that
            `mirrors_exactly`.
    """
    mirrored = heatmaps[:, flip_permutation, :, ::-1]
    if not shift:
        return mirrored
    return np.concatenate([mirrored[..., :1], mirrored[..., :-1]], axis=-1)
