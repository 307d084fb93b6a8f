"""Object keypoint similarity and the rescoring that goes with it (COCO)."""

from __future__ import annotations

import numpy as np


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


def oks(
    joints: np.ndarray, others: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, labelled: np.ndarray | None = None
) -> np.ndarray:
    """Object keypoint similarity.

    Args:
        joints, others: (..., K, 2) pixels; they broadcast.
        areas: (...), square pixels, the scale on which a distance is judged.
        sigmas: (K,).
        labelled: (..., K), joints that count where they are not 0; None counts all.

    Returns:
        (...), from 0 to 1; 0 where no joint counts.
    """
    x, y = (joints[..., axis] - others[..., axis] for axis in (0, 1))  # (..., K)
    variances = (2 * np.asarray(sigmas)) ** 2
    areas = np.asarray(areas, dtype=np.float64)[..., None] + np.spacing(1)  # no division by zero, as pycocotools
    similarity = np.exp(-(x * x + y * y) / (2 * variances * areas))
    if labelled is None:
        return similarity.sum(axis=-1) / similarity.shape[-1]  # `mean` takes longer for a few numbers
    counted = np.asarray(labelled) != 0
    return (similarity * counted).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)
