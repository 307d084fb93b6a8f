"""Sub-cell peaks of heatmaps: distribution-aware decoding (DARK; Zhang et al., CVPR 2020).

A target heatmap is a Gaussian, whose logarithm is a parabola: the peak follows from slope and curvature at any cell
near it. A network's heatmap is one only roughly, so it is smoothed first, with the target's own sigma.
"""

from __future__ import annotations

import math

import numpy as np

SMOOTHING_SIGMAS = 2.5  # the smoothing kernel's radius
LOWEST = 1e-10  # before the logarithm
FLAT = 0.005  # over sigma squared: a hundredth of a smoothed target's curvature; what bends less has no peak


def away_from_border(cells: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Where the original refines: cells (..., 2), as (x, y), that are on no border, nor in row or column 1."""
    height, width = size_hw
    x, y = cells[..., 0], cells[..., 1]
    return (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)


def smoothing_matrix(sigma: float) -> np.ndarray:
    """Smooths the 3x3 cells around the middle of a square patch.

    Returns:
        (P * P, 9) float32 for flattened patches of P x P cells. P is odd, and follows from sigma.
    """
    radius = max(1, round(SMOOTHING_SIGMAS * sigma))
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    band = np.zeros((3, 2 * radius + 3))  # one axis: the patch's cells that each of the three is the mean of
    for row in range(3):
        band[row, row : row + 2 * radius + 1] = kernel
    return np.kron(band, band).T.astype(np.float32)


def log_slopes(heatmaps: np.ndarray, cells: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Slope and curvature of the logarithm of the smoothed heatmaps.

    Args:
        heatmaps: (..., K, h, w).
        cells: (..., K, 2) where, as (x, y), whole numbers.
        sigma: of the targets, cells.

    Returns:
        (2, ...) along x and y, and (3, ...): xx, yy and xy.
    """
    height, width = heatmaps.shape[-2:]
    matrix = smoothing_matrix(sigma)
    side = math.isqrt(len(matrix))
    padded = np.pad(heatmaps.reshape(-1, height, width), [(0, 0), (side // 2,) * 2, (side // 2,) * 2])
    x, y = cells.reshape(-1, 2).astype(np.int64).T
    around = np.arange(side)
    maps, rows, columns = np.arange(len(x))[:, None, None], (y[:, None] + around)[:, :, None], x[:, None] + around
    patches = padded[maps, rows, columns[:, None, :]]  # (... x K, side, side)
    # einsum adds up in the same order for any number of maps; a BLAS does not
    smooth = np.einsum("np,pq->nq", patches.reshape(len(x), -1), matrix)
    log = np.log(np.maximum(smooth, LOWEST))
    log = log.T.reshape(9, *cells.shape[:-1])  # of the 3x3 cells around, row by row
    slope = np.stack([log[5] - log[3], log[7] - log[1]]) / 2
    xx, yy = log[5] - 2 * log[4] + log[3], log[7] - 2 * log[4] + log[1]
    return slope, np.stack([xx, yy, (log[8] - log[6] - log[2] + log[0]) / 4])


def taylor_step(heatmaps: np.ndarray, cells: np.ndarray, sigma: float) -> np.ndarray:
    """Newton's step from a cell to the peak of the logarithm of the smoothed heatmap.

    Args:
        heatmaps, cells, sigma: see `log_slopes`; the cells are the maxima.

    Returns:
        (..., K, 2) in cells, at most 1 on each axis. 0 at the border, and where there is no peak: where the logarithm
        does not bend down in every direction.
    """
    (slope_x, slope_y), (xx, yy, xy) = log_slopes(heatmaps, cells, sigma)
    determinant, flat = xx * yy - xy**2, FLAT / sigma**2
    peaked = (determinant > flat**2) & (xx < -flat) & away_from_border(cells, heatmaps.shape[-2:])
    steps = np.stack([xy * slope_y - yy * slope_x, xy * slope_x - xx * slope_y], axis=-1)
    steps = steps / np.where(peaked, determinant, 1)[..., None]
    return np.where(peaked[..., None], np.clip(steps, -1, 1), 0)  # NaN where NaN is masked
