"""The accuracy printed while training: predicted against target maxima on the heatmap. A trend, not a score."""

from __future__ import annotations

import numpy as np

from simplepose.core.codecs.gaussian import argmax_cells

THRESHOLD = 0.5  # of a tenth of the map


def heatmap_accuracy(predicted: np.ndarray, target: np.ndarray) -> tuple[float, int]:
    """Share of joints whose maximum is within half a tenth of the map of the target's.

    Args:
        predicted, target: (N, K, h, w).

    Returns:
        accuracy in [0, 1], averaged over the joints that have a target, and how many those are (0 -> accuracy 0).
        Source: `accuracy` of the original, which divides x by the height and y by the width; here each by its
        own, which is the same on square maps and right on the others.
    """
    predicted_cells, _ = argmax_cells(predicted)
    target_cells, _ = argmax_cells(target)
    height, width = target.shape[-2:]
    distance = np.linalg.norm((predicted_cells - target_cells) / (width / 10, height / 10), axis=-1)  # (N, K)
    counted = (target_cells > 1).all(axis=-1)  # a target at (0, 0) means none; the original skips 1 as well
    num_counted = counted.sum(axis=0)  # (K,)
    has_target = num_counted > 0
    if not has_target.any():
        return 0.0, 0
    hits = ((distance < THRESHOLD) & counted).sum(axis=0)
    return float((hits[has_target] / num_counted[has_target]).mean()), int(has_target.sum())
