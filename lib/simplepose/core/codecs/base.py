"""The interface of a codec: encodes joints as targets for a network, and decodes its output to joints."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Codec(Protocol):
    """Joints <-> heatmaps, in network input pixels.

    Attributes:
        image_size_wh: network input, pixels.
        heatmap_size_wh: network output, cells.
        extent_wh: what a crop's width and height are mapped onto (`geometry.crop_affine`): the number of pixels, or the
            distance from the first pixel to the last, one less.
        mirrors_exactly: a mirrored crop has exactly mirrored heatmaps; otherwise they are about a cell off
            (`flip_heatmaps`).
    """

    image_size_wh: tuple[int, int]
    heatmap_size_wh: tuple[int, int]
    extent_wh: tuple[int, int]
    mirrors_exactly: bool

    @property
    def stride_xy(self) -> np.ndarray:
        """(2,) input pixels per cell."""

    def encode(self, joints: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heatmaps (..., K, h, w) and weights (..., K), float32, of joints (..., K, 2) that are visible (..., K)."""

    def decode(self, heatmaps: np.ndarray, refine: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Joints (..., K, 2) and scores (..., K) of heatmaps (..., K, h, w); `refine`: with sub-cell accuracy."""

    def description(self) -> dict[str, Any]:
        """All parameters as JSON values, to be stored in exported files."""
