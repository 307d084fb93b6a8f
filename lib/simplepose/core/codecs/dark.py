"""Sub-cell peaks of heatmaps: distribution-aware decoding (DARK; Zhang et al., CVPR 2020).

A target heatmap is a Gaussian, whose logarithm is a parabola: the peak follows from slope and curvature at any cell
near it. A network's heatmap is one only roughly, so it is smoothed first, with the target's own sigma.
"""

from __future__ import annotations

import numpy as np

SMOOTHING_SIGMAS = 2.5  # the smoothing kernel's radius
LOWEST = 1e-10  # before the logarithm


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


def taylor_step(heatmaps: np.ndarray, cells: np.ndarray, sigma: float) -> np.ndarray:
    """Newton's step from a cell to the peak of the logarithm of the smoothed heatmap.

    Args:
        heatmaps: (..., K, h, w).
        cells: (..., K, 2) their maxima as (x, y), whole numbers.
        sigma: of the targets, cells.

    Returns:
        (..., K, 2) in cells, at most 1 on each axis. 0 at the border, and where there is no peak: the curvature is not
        negative in every direction.
    """
    size_hw = height, width = heatmaps.shape[-2:]
    matrix = smoothing_matrix(sigma)
    side = int(np.sqrt(len(matrix)))
    padded = np.pad(heatmaps.reshape(-1, height, width), [(0, 0), (side // 2,) * 2, (side // 2,) * 2])
    x, y = cells.reshape(-1, 2).astype(np.int64).T
    around = np.arange(side)
    maps, rows, columns = np.arange(len(x))[:, None, None], (y[:, None] + around)[:, :, None], x[:, None] + around
    patches = padded[maps, rows, columns[:, None, :]]  # (... x K, side, side)
    log = np.log(np.maximum(patches.reshape(len(x), -1) @ matrix, LOWEST)).T  # 9 x (... x K), row by row
    slope_x, slope_y = (log[5] - log[3]) / 2, (log[7] - log[1]) / 2
    curve_xx, curve_yy = log[5] - 2 * log[4] + log[3], log[7] - 2 * log[4] + log[1]
    curve_xy = (log[8] - log[6] - log[2] + log[0]) / 4
    determinant = curve_xx * curve_yy - curve_xy**2
    peaked = (determinant > 0) & (curve_xx < 0) & away_from_border(cells, size_hw).ravel()
    determinant = np.where(peaked, determinant, 1)
    step_x = (curve_xy * slope_y - curve_yy * slope_x) / determinant
    step_y = (curve_xy * slope_x - curve_xx * slope_y) / determinant
    steps = np.where(peaked[:, None], np.clip(np.stack([step_x, step_y], axis=1), -1, 1), 0)  # masked: maybe NaN
    return steps.reshape(cells.shape)
