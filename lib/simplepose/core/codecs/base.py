"""What every codec promises: joints to a network's targets, and the network's answer back to joints."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class Codec(Protocol):
    """Joints <-> heatmaps, in network input pixels.

    Attributes:
        image_size_wh: network input, pixels.
        heatmap_size_wh: network output, cells.
    """

    image_size_wh: tuple[int, int]
    heatmap_size_wh: tuple[int, int]

    @property
    def stride_xy(self) -> np.ndarray:
        """(2,) input pixels per cell."""

    def encode(self, joints: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heatmaps (..., K, h, w) and weights (..., K), float32, of joints (..., K, 2) that are visible (..., K)."""

    def decode(self, heatmaps: np.ndarray, refine: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Joints (..., K, 2) and scores (..., K) of heatmaps (..., K, h, w); `refine`: finer than a cell."""

    def description(self) -> dict[str, Any]:
        """Everything about it, as JSON takes it: goes into exported files."""
