"""What a score promises: from a heatmap's maximum to the probability that the joint is right.

The map is isotonic regression (pool adjacent violators), on bins of equal counts so that it stays small: a higher
score never means a lower probability. Whether it holds is the reliability diagram and the expected calibration error
(Guo et al., On Calibration of Modern Neural Networks, ICML 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_POINTS = 40  # of a map
MIN_IN_BIN = 25  # joints; their share right is then known to 20 points or better
ECE_BINS = 15


@dataclass(frozen=True)
class Calibration:
    """A monotone map from scores to probabilities: linear between its points, constant beyond them.

    Attributes:
        scores, probabilities: P numbers each, ascending; a probability may repeat.
    """

    scores: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities of scores, of the same shape and type."""
        return np.interp(scores, self.scores, self.probabilities).astype(np.asarray(scores).dtype)

    def pairs(self) -> list[float]:
        """score, probability, score, probability, ...: as a configuration and a description hold it."""
        return [value for pair in zip(self.scores, self.probabilities) for value in pair]

    @classmethod
    def from_pairs(cls, pairs: Any) -> Calibration | None:
        """The inverse of `pairs`, for untrusted input; None for an empty list.

        Raises:
            ValueError: not such a list.
        """
        if not isinstance(pairs, (list, tuple)) or len(pairs) % 2 or len(pairs) > 2 * MAX_POINTS:
            raise ValueError(f"a calibration is a list of score, probability, ..., of at most {2 * MAX_POINTS} numbers")
        if not all(type(value) in (int, float) and abs(value) < 1e6 for value in pairs):
            raise ValueError("a calibration holds numbers")
        scores, probabilities = tuple(map(float, pairs[::2])), tuple(map(float, pairs[1::2]))
        if any(a >= b for a, b in zip(scores, scores[1:])) or sorted(probabilities) != list(probabilities):
            raise ValueError("scores and probabilities of a calibration ascend")
        if pairs and not (probabilities[0] >= 0 and probabilities[-1] <= 1):
            raise ValueError("probabilities of a calibration are from 0 to 1")
        return cls(scores, probabilities) if pairs else None


def fit_calibration(scores: np.ndarray, right: np.ndarray) -> Calibration:
    """The map for joints with these scores (M,), of which `right` (M,) were right. M must not be 0."""
    from scipy.optimize import isotonic_regression  # here, as a map is used without scipy, too

    order = np.argsort(scores, kind="stable")
    scores, right = np.asarray(scores, np.float64)[order], np.asarray(right, np.float64)[order]
    bins = int(np.clip(len(scores) // MIN_IN_BIN, 1, MAX_POINTS))
    # A bin starts where the score changes: joints of the same score cannot be told apart.
    starts = np.unique(np.searchsorted(scores, scores[np.arange(bins) * len(scores) // bins]))
    counts = np.diff([*starts, len(scores)])
    places, shares = (np.add.reduceat(values, starts) / counts for values in (scores, right))
    return Calibration(tuple(places.tolist()), tuple(isotonic_regression(shares, weights=counts).x.tolist()))


def calibrations_by_halves(scores: np.ndarray, right: np.ndarray, image_of: np.ndarray) -> list[Calibration]:
    """Maps that have not seen the images which they are for: the first, for even image numbers, is fitted on the odd
    ones, the second the other way round. With one half alone both are fitted on that.

    Args:
        scores, right, image_of: (M,) of each joint.
    """
    odd = np.asarray(image_of) % 2 == 1
    halves = [half if half.any() else ~half for half in (odd, ~odd)]
    return [fit_calibration(scores[half], right[half]) for half in halves]


@dataclass(frozen=True)
class Reliability:
    """What scores promise and what they hold, in bins of equal width from 0 to 1; a score above 1 counts as 1.

    Attributes:
        promised, held: (B,) mean score and share right; NaN in an empty bin.
        counts: (B,).
        error: expected calibration error: the mean over joints of the difference, from 0 to 1.
    """

    promised: np.ndarray
    held: np.ndarray
    counts: np.ndarray
    error: float


def reliability(scores: np.ndarray, right: np.ndarray) -> Reliability:
    """The reliability of scores (M,), of which `right` (M,) were right."""
    scores = np.clip(np.asarray(scores, np.float64), 0, 1)
    place = np.minimum((scores * ECE_BINS).astype(int), ECE_BINS - 1)
    counts = np.bincount(place, minlength=ECE_BINS)
    with np.errstate(invalid="ignore"):
        promised = np.bincount(place, scores, ECE_BINS) / counts
        held = np.bincount(place, right, ECE_BINS) / counts
    full = counts > 0
    error = float((np.abs(promised - held)[full] * counts[full]).sum() / counts.sum()) if full.any() else float("nan")
    return Reliability(promised, held, counts, error)


def share_right_above(scores: np.ndarray, right: np.ndarray, thresholds: Sequence[float]) -> list[tuple[float, float]]:
    """For each threshold: the share of joints kept, and the share right among them (NaN for none)."""
    made = []
    for threshold in thresholds:
        kept = scores >= threshold
        made.append((float(kept.mean()), float(right[kept].mean()) if kept.any() else float("nan")))
    return made
