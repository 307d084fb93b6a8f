"""The simplest baseline: predict the mean training pose for every person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simplepose.data.sample import PoseSample


def mean_pose(samples: Sequence[PoseSample]) -> np.ndarray:
    """Mean of the labelled joints, (K, 2), each person measured from the crop's centre in crop widths."""
    joints = np.stack([sample.joints for sample in samples])  # (N, K, 2)
    centers = np.stack([sample.center for sample in samples])[:, None]  # (N, 1, 2)
    widths = np.array([sample.size[0] for sample in samples])[:, None, None]  # (N, 1, 1)
    labelled = np.stack([sample.visible > 0 for sample in samples])[..., None]  # (N, K, 1)
    total = np.where(labelled, (joints - centers) / widths, 0).sum(axis=0)
    return total / np.maximum(labelled.sum(axis=0), 1)


def place_pose(pose: np.ndarray, samples: Sequence[PoseSample]) -> np.ndarray:
    """The pose (K, 2) in each sample's crop: (N, K, 2) image pixels."""
    centers = np.stack([sample.center for sample in samples])[:, None]
    widths = np.array([sample.size[0] for sample in samples])[:, None, None]
    return pose * widths + centers
