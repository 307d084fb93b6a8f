"""The original's debug pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simplepose.core.codecs.base import Codec
from simplepose.core.codecs.gaussian import argmax_cells
from simplepose.core.drawing import draw_crops, draw_heatmaps, write_image
from simplepose.core.files import write_or_warn
from simplepose.core.images import InputFormat, denormalize
from simplepose.core.skeletons import Skeleton
from simplepose.data.dataset import Batch


@dataclass(frozen=True)
class DebugPictures:
    """The original's debug pictures (section DEBUG): crops with joints and heatmaps, target and predicted."""

    folder: Path
    skeleton: Skeleton
    codec: Codec
    input_format: InputFormat
    images_gt: bool
    images_pred: bool
    heatmaps_gt: bool
    heatmaps_pred: bool

    def save(self, prefix: str, batch: Batch, heatmaps: np.ndarray) -> None:
        """Write <folder>/<prefix>_{gt,pred,hm_gt,hm_pred}.jpg as far as configured; only warns if the disk is full."""
        crops = denormalize(batch.images, self.input_format)
        for name, wanted, maps in (("gt", self.images_gt, batch.heatmaps), ("pred", self.images_pred, heatmaps)):
            if wanted:
                picture = self.draw(crops, maps, batch.weights)
                write_or_warn(write_image, self.folder / f"{prefix}_{name}.jpg", picture)
        for name, wanted, maps in (("gt", self.heatmaps_gt, batch.heatmaps), ("pred", self.heatmaps_pred, heatmaps)):
            if wanted:
                write_or_warn(write_image, self.folder / f"{prefix}_hm_{name}.jpg", draw_heatmaps(crops, maps))

    def draw(self, crops: np.ndarray, heatmaps: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Crops (N, H, W, 3) with the maxima of heatmaps (N, K, h, w) where weights (N, K) are positive."""
        cells, _ = argmax_cells(heatmaps)
        return draw_crops(crops, cells * self.codec.stride_xy, weights, self.skeleton)
