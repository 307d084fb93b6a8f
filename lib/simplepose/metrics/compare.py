"""Is it luck? Bootstrap intervals over persons, the sign test, and the bootstrap of AP over images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import binomtest

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

DRAWN_TOGETHER = 10**6  # persons; some 30 MB
SAMPLES = 2000  # the ends of a 95 % interval are then known to a twentieth of its width


def bootstrap_intervals(
    hits: np.ndarray, counts: np.ndarray, rng: np.random.Generator, samples: int = SAMPLES
) -> np.ndarray:
    """95 % bootstrap intervals of the percentages hits / counts, for another sample of such persons.

    For the difference of two models on the same persons (paired), `hits` is the difference of their hits.

    Args:
        hits, counts: (N,) or (N, J), of each person; J percentages that are drawn together.
        rng: draws N persons with replacement, `samples` times.

    Returns:
        (J, 2); NaN where all counts are 0.
    """
    hits, counts = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (hits, counts))
    number = len(hits)
    totals = np.full((samples, hits.shape[1]), np.nan)
    together = max(1, DRAWN_TOGETHER // number)
    for start in range(0, samples, together):
        rows = len(totals[start : start + together])
        drawn = rng.integers(number, size=(rows, number)) + number * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)
        count = times @ counts
        np.divide(100 * (times @ hits), count, out=totals[start : start + rows], where=count > 0)
    return _percentiles(totals)


def _percentiles(totals: np.ndarray) -> np.ndarray:
    """The middle 95 % of (samples, J): (J, 2). A sample without any count says nothing."""
    known = ~np.isnan(totals).all(axis=0)
    ends = np.full((totals.shape[1], 2), np.nan)
    ends[known] = np.nanpercentile(totals[:, known], (2.5, 97.5), axis=0).T
    return ends


def sign_test(differences: np.ndarray) -> tuple[int, int, float]:
    """On how many persons the second is better and worse, and how likely so uneven a split is without a difference.

    Args:
        differences: (N,) second minus first, of each person; ties say nothing and are left out.

    Returns:
        better, worse, two-sided p.
    """
    better, worse = int((differences > 0).sum()), int((differences < 0).sum())
    return better, worse, float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


class ApSampler:
    """COCO's AP of an evaluation, for the set as it is and for samples of its images.

    Detections are sorted once; in a sample each counts as often as its image was drawn. With every image once the
    result is pycocotools' own.
    """

    def __init__(self, evaluation: COCOeval):
        params = evaluation.params
        self.recalls = params.recThrs
        self.num_images = len(params.imgIds)
        images = len(params.imgIds)
        self._categories = []
        for start in range(0, len(evaluation.evalImgs), images * len(params.areaRng)):  # the first area, "all"
            entries = [(n, e) for n, e in enumerate(evaluation.evalImgs[start : start + images]) if e is not None]
            persons = np.zeros(images)
            for n, entry in entries:
                persons[n] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
            if not persons.any():
                continue
            most = params.maxDets[-1]
            scores = np.concatenate([entry["dtScores"][:most] for _, entry in entries])
            order = np.argsort(-scores, kind="mergesort")
            image = np.concatenate([np.full(len(entry["dtScores"][:most]), n) for n, entry in entries])[order]
            found, ignored = (
                np.concatenate([entry[key][:, :most] for _, entry in entries], axis=1)[:, order].astype(bool)
                for key in ("dtMatches", "dtIgnore")
            )
            self._categories.append((image.astype(int), found & ~ignored, ~found & ~ignored, persons))

    def by_threshold(self, times: np.ndarray | None = None) -> np.ndarray:
        """AP at each OKS threshold, (T,), from 0 to 1.

        Args:
            times: (I,) how often each image counts; None counts each once.
        """
        times = np.ones(self.num_images) if times is None else times
        values = [self._category(*category, times) for category in self._categories]
        values = [value for value in values if value is not None]
        return np.mean(values, axis=0) if values else np.full(1, np.nan)

    def _category(self, image, right, wrong, persons, times) -> np.ndarray | None:
        total = times @ persons
        if not total:
            return None
        weight = times[image]
        hits, misses = np.cumsum(right * weight, axis=1), np.cumsum(wrong * weight, axis=1)  # (T, D)
        precision = hits / (hits + misses + np.spacing(1))
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # a recall that is never reached
        places = [np.searchsorted(row / total, self.recalls, side="left") for row in hits]
        return np.array([row[place].mean() for row, place in zip(precision, places)])

    def value(self, times: np.ndarray | None = None) -> float:
        """AP: the mean over the thresholds."""
        return float(self.by_threshold(times).mean())


def ap_difference_interval(first: ApSampler, second: ApSampler, rng: np.random.Generator) -> tuple[float, float]:
    """95 % bootstrap interval over images of the second's AP minus the first's, both on the same draws."""
    differences = []
    for _ in range(500):
        times = np.bincount(rng.integers(first.num_images, size=first.num_images), minlength=first.num_images)
        differences.append(second.value(times) - first.value(times))
    low, high = _percentiles(np.array(differences)[:, None])[0]
    return float(low), float(high)


def verdict(difference: float, interval: Sequence[float], unit: str) -> str:
    """A difference with its interval in words; whether it is shown, which it is if the interval leaves 0 out."""
    low, high = interval
    shown = "shown" if low > 0 or high < 0 else "not shown"
    digits = 3 if unit == "AP" else 2
    way = "better" if difference >= 0 else "worse"
    return f"{way} by {abs(difference):.{digits}f} {unit} [{low:+.{digits}f}, {high:+.{digits}f}]: {shown}"
