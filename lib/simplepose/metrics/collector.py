"""Collects the predictions of a set by row, for every evaluator."""

from __future__ import annotations

import numpy as np


class PredictionCollector:
    """Predictions of N samples with K joints; a row that is added twice counts once. The first `add` after a scoring
    begins a new round, such as the next epoch's."""

    def __init__(self, num_samples: int, num_joints: int):
        self.joints = np.zeros((num_samples, num_joints, 2))
        self.scores = np.zeros((num_samples, num_joints))
        self.seen = np.zeros(num_samples, bool)
        self._complete = False

    def add(self, indices: np.ndarray, joints: np.ndarray, scores: np.ndarray) -> None:
        """Store predictions by row: joints (n, K, 2) in 0-based image pixels, scores (n, K)."""
        if self._complete:
            self.seen[:] = self._complete = False
        self.joints[indices] = joints
        self.scores[indices] = scores
        self.seen[indices] = True

    def require_all(self) -> None:
        """To be called before scoring; raises RuntimeError if a row was not added, which is a bug of the caller."""
        if not self.seen.all():
            raise RuntimeError(f"{(~self.seen).sum()} of {len(self.seen)} persons were never predicted")
        self._complete = True
