"""COCO's keypoint score: object keypoint similarity (OKS), non-maximum suppression by it, and average precision.

OKS of two poses is the mean over joints of exp(-d^2 / (2 area (2 sigma)^2)), with d the distance in pixels and sigma
the joint's own fall-off. AP itself is computed by pycocotools, so that it is comparable.
Source: https://cocodataset.org/#keypoints-eval, and `oks_iou`, `oks_nms` and `evaluate` of the original.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import written_whole
from simplepose.core.oks import oks, rescore
from simplepose.core.skeletons import Skeleton
from simplepose.core.tables import markdown_table
from simplepose.data.coco import MALFORMED, OTHER_CATEGORY, CocoAnnotations, describe_faults, read_results
from simplepose.data.fields import MAX_PIXELS
from simplepose.data.sample import PoseSample
from simplepose.metrics.collector import PredictionCollector

if TYPE_CHECKING:
    from pycocotools.cocoeval import COCOeval

PRIMARY = "AP"
RESULT_KEYS = ("image_id", "category_id", "keypoints", "score")  # others would make pycocotools read another form
ALL_AREAS = ("all", "medium", "large")
# COCO's ten figures in pycocotools' order; "Ap .5" is the original's spelling.
COLUMNS = ("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")


def oks_nms(
    joints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, threshold: float
) -> np.ndarray:
    """Of poses that are more alike than `threshold`, keep the best.

    Args:
        joints: (N, K, 2) of one image.
        scores, areas: (N,). Two poses are compared on the mean of their areas.

    Returns:
        Rows to keep, best first.
    """
    order = np.argsort(-scores, kind="stable")
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(best)
        similarity = oks(joints[best], joints[rest], (areas[best] + areas[rest]) / 2, sigmas)
        order = rest[similarity <= threshold]
    return np.array(keep, dtype=np.int64)


def soft_oks_nms(
    joints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, threshold: float
) -> np.ndarray:
    """Keep every pose, but lower its score by exp(-OKS^2 / threshold) for each better one.

    Args:
        As in `oks_nms`; a smaller threshold lowers more.

    Returns:
        (N,) scores. Source: Bodla et al., Soft-NMS, ICCV 2017, with OKS for the overlap.
    """
    scores = np.array(scores, dtype=np.float64)
    waiting = np.arange(len(scores))
    while len(waiting):
        first = scores[waiting].argmax()
        best, waiting = waiting[first], np.delete(waiting, first)
        similarity = oks(joints[best], joints[waiting], (areas[best] + areas[waiting]) / 2, sigmas)
        scores[waiting] *= np.exp(-(similarity**2) / threshold)
    return scores


def coco_metrics(truth: CocoAnnotations, results: Sequence[dict[str, Any]], skeleton: Skeleton) -> dict[str, float]:
    """COCO's ten figures, from 0 to 1; NaN where the truth has nothing to find.

    Args:
        truth: the annotations; every image counts, also one without results.
        results: entries with image_id, category_id, keypoints (3K numbers) and score.
        skeleton: its sigmas are used.
    """
    evaluation = keypoint_evaluation(truth, results, skeleton, ALL_AREAS)
    with contextlib.redirect_stdout(io.StringIO()):  # silences its progress and the figures that our table has
        evaluation.accumulate()
        evaluation.summarize()
    # pycocotools gives -1 where no person of that size is annotated
    return {name: float(value) if value >= 0 else float("nan") for name, value in zip(COLUMNS, evaluation.stats)}


def coco_table(arch: str, metrics: dict[str, float]) -> list[str]:
    """The three lines of the original's Markdown table."""
    return markdown_table(["Arch", *COLUMNS], [[arch, *(f"{metrics[name]:.3f}" for name in COLUMNS)]])


def load_results(path: str | Path, truth: CocoAnnotations, skeleton: Skeleton) -> list[dict[str, Any]]:
    """Read keypoint results in COCO's form and check them against the annotations.

    Raises:
        UserError: unreadable, empty, or results that do not belong to these annotations, counted by kind.
    """
    results = read_results(path)
    faults = defaultdict(list)
    for place, result in enumerate(results):
        fault = _result_fault(result, truth, 3 * skeleton.num_joints)
        if fault:
            faults[fault].append(place)
    if faults:
        raise UserError(f"{path}: {describe_faults(faults, results)}; they do not belong to {truth.path}")
    return results


def _result_fault(result: Any, truth: CocoAnnotations, length: int) -> str | None:
    try:
        if result["image_id"] not in truth.images:
            return "for images that are not annotated"
        if result["category_id"] not in truth.category_ids:
            return OTHER_CATEGORY
        if len(result["keypoints"]) != length:
            return f"without {length} keypoint numbers"
        numbers = np.array([*result["keypoints"], result["score"]])
        if numbers.dtype.kind not in "biuf":
            return MALFORMED
        return None if (np.abs(numbers) <= MAX_PIXELS).all() else "with numbers that are not finite or much too large"
    except (KeyError, TypeError, ValueError, OverflowError):
        return MALFORMED


def keypoint_evaluation(
    truth: CocoAnnotations,
    results: Sequence[dict[str, Any]],
    skeleton: Skeleton,
    areas: Sequence[str] = ("all",),
    oks_thresholds: Sequence[float] | None = None,
) -> COCOeval:
    """pycocotools' evaluation: every result matched, image by image; nothing summed up yet.

    Args:
        areas: of "all", "medium" and "large".
        oks_thresholds: to match at; None for COCO's ten.

    Returns:
        Its ids count from 1: id n is `truth.annotations[n - 1]`, and `results[n - 1]`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # silences its progress
        ground_truth = COCO()
        ground_truth.dataset = {
            "images": list(truth.images.values()),
            "categories": truth.categories,
            # A match is stored as the annotation's id, and an id of 0 reads as no match: count them from 1.
            "annotations": [{**annotation, "id": number} for number, annotation in enumerate(truth.annotations, 1)],
        }
        ground_truth.createIndex()
        plain = [{key: result[key] for key in RESULT_KEYS} for result in results]
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(plain), "keypoints")
        params = evaluation.params
        params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        ranges = dict(zip(params.areaRngLbl, params.areaRng))
        params.areaRngLbl, params.areaRng = list(areas), [ranges[area] for area in areas]
        if oks_thresholds is not None:
            params.iouThrs = np.array(oks_thresholds)
        evaluation.evaluate()
    return evaluation


class CocoEvaluator(PredictionCollector):
    """Collects the poses of a set, writes COCO's results file and scores it.

    Args:
        samples: the persons, annotated or detected.
        truth: the annotations; without any (test sets) the results are only written.
        image_set: names the results file.
        in_vis_threshold, oks_threshold: TEST.IN_VIS_THRE and TEST.OKS_THRE.
        soft_nms: lower the scores of similar poses instead of dropping them.
    """

    primary = PRIMARY
    table = staticmethod(coco_table)

    def __init__(
        self,
        samples: Sequence[PoseSample],
        truth: CocoAnnotations,
        skeleton: Skeleton,
        image_set: str,
        in_vis_threshold: float,
        oks_threshold: float,
        soft_nms: bool = False,
    ):
        super().__init__(len(samples), skeleton.num_joints)
        self.samples = samples
        self.truth = truth
        self.skeleton = skeleton
        self.in_vis_threshold = in_vis_threshold
        self.oks_threshold = oks_threshold
        self.soft_nms = soft_nms
        self.predictions_file = f"results/keypoints_{image_set}_results.json"
        self._results: list[dict[str, Any]] | None = None  # computed once, for scoring and saving

    def add(self, indices: np.ndarray, joints: np.ndarray, scores: np.ndarray) -> None:
        super().add(indices, joints, scores)
        self._results = None

    def compute(self) -> dict[str, float]:
        """COCO's ten figures; none for a set without labels."""
        self.require_all()
        return coco_metrics(self.truth, self.results(), self.skeleton) if self.truth.annotations else {}

    def save(self, folder: Path) -> None:
        """Write COCO's results file."""
        with written_whole(folder / self.predictions_file) as scratch:
            scratch.write_text(json.dumps(self.results()), encoding="utf-8")

    def results(self) -> list[dict[str, Any]]:
        """Entries of COCO's results file: rescored, and after OKS NMS in each image."""
        if self._results is None:
            self._results = self._rescored_and_thinned_out()
        return self._results

    def _rescored_and_thinned_out(self) -> list[dict[str, Any]]:
        scores = rescore(np.array([s.box_score for s in self.samples]), self.scores, self.in_vis_threshold)
        # Similar poses are judged on the padded crop, as in the original, not on the person's outline.
        areas = np.array([sample.size.prod() for sample in self.samples])
        sigmas = np.array(self.skeleton.sigmas)
        rows_of = defaultdict(list)
        for row, sample in enumerate(self.samples):
            rows_of[sample.image_id, sample.category_id].append(row)
        kept: list[int] = []
        for rows in map(np.array, rows_of.values()):
            people = self.joints[rows], scores[rows], areas[rows], sigmas, self.oks_threshold
            if self.soft_nms:
                scores[rows] = soft_oks_nms(*people)
            else:
                rows = rows[oks_nms(*people)]
            kept.extend(rows.tolist())
        keypoints = np.concatenate([self.joints, self.scores[..., None]], axis=-1).reshape(len(scores), -1)  # (N, 3K)
        keypoints = keypoints.round(3)  # a thousandth of a pixel; half the file
        return [
            {
                "image_id": self.samples[row].image_id,
                "category_id": self.samples[row].category_id,
                "keypoints": keypoints[row].tolist(),
                "score": float(scores[row]),
            }
            for row in kept
        ]
