"""The error analysis of predictions: which figures there are, and which function defines each.

`PckhSet` and `OksSet` answer the same questions for the two scores; `analyze` and `compare` ask them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.oks import oks, rescore
from simplepose.core.skeletons import COCO, Skeleton
from simplepose.data.coco import CocoAnnotations, read_coco
from simplepose.machine.logs import progress_bar
from simplepose.metrics import pckh
from simplepose.metrics.calibration import (
    Calibration,
    Reliability,
    calibrations_by_halves,
    fit_calibration,
    reliability,
    share_right_above,
)
from simplepose.metrics.coco_ap import coco_metrics, keypoint_evaluation, load_results
from simplepose.metrics.compare import ApSampler, ap_difference_interval, bootstrap_intervals, sign_test, verdict
from simplepose.metrics.conditions import conditions, group_figures
from simplepose.metrics.error_kinds import (
    GOOD,
    KINDS,
    MISS,
    joint_kinds,
    kind_shares,
    mended,
    right_joints,
)
from simplepose.metrics.people import (
    CocoPredictions,
    People,
    Predictions,
    coco_people,
    coco_predictions,
    match_results,
    mpii_people,
)

QUANTILES = (0.5, 0.75, 0.9, 0.95)
THRESHOLDS = (0.2, 0.5, 0.8, 0.9)  # of --kpt-thr, to show what they keep
MIN_JOINTS = 100  # to speak of a confidence at all


class PckhSet:
    """MPII's ground truth, gt_<set>.mat; the annotations <set>.json beside it tell who shares an image."""

    score = pckh.PRIMARY  # the primary figure's name
    unit = "points"  # what a difference of it is counted in
    right = "within 0.5 head sizes"  # what counts as right
    distance = "head sizes"  # what a distance is measured in

    def __init__(self, path: str | Path, annotations: str | Path | None = None):
        self.truth = pckh.load_pckh_ground_truth(path)
        beside = Path(path).with_name(Path(path).stem.removeprefix("gt_") + ".json")
        if annotations is None and beside.is_file():
            annotations = beside
        self.people = mpii_people(self.truth, None if annotations is None else Path(annotations))
        if not (self.people.labelled & self.people.in_score).any():
            raise UserError(f"{path} holds no labelled joints to compare with")

    def read(self, path: str | Path) -> Predictions:
        """The predictions of a .mat file."""
        joints = pckh.load_predictions(path)
        pckh.pckh_metrics(joints, self.truth)  # raises for another set's
        scores = pckh.load_scores(path, joints.shape[:2])
        return Predictions(Path(path).stem, joints, scores, np.ones(len(joints), bool))

    def metrics(self, predictions: Predictions) -> dict[str, float]:
        return pckh.pckh_metrics(predictions.joints, self.truth)

    def mended_scores(self, predictions: Predictions, kinds: np.ndarray) -> dict[str, float]:
        """Mean if all joints of a kind were where they are annotated."""
        scores = {}
        for place, kind in enumerate(KINDS):
            if place != GOOD and (kinds == place).any():
                moved = mended(predictions, self.people, kinds == place)
                scores[kind] = pckh.pckh_metrics(moved, self.truth)[pckh.PRIMARY]
        return scores

    def curves(self, predictions: Predictions) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """PCKh over the threshold, a line for each column of the table: each column's distribution of distances."""
        thresholds = np.arange(0, 1.005, 0.01)
        lines = pckh.column_curves(predictions.joints, self.truth, thresholds)
        return {column: (thresholds, line) for column, line in lines.items()}

    def person_scores(self, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
        """Right joints and labelled joints of each person, (N,) each; of those that Mean counts."""
        return pckh.person_hits(predictions.joints, self.truth)

    def rescored(self, predictions: Predictions, halves: Sequence[Calibration]) -> float | None:
        """PCKh does not look at scores."""
        return None

    def difference(
        self, first: Predictions, second: Predictions, rng: np.random.Generator
    ) -> tuple[float, Sequence[float]]:
        """Second minus first in points of Mean, and its paired interval over persons."""
        (a, counts), (b, _) = self.person_scores(first), self.person_scores(second)
        return 100 * (b - a).sum() / counts.sum(), bootstrap_intervals(b - a, counts, rng, 10000)[0]


class OksSet:
    """Annotations in COCO's format."""

    score = "AP"
    unit = "AP"
    right = "object keypoint similarity of the joint at least 0.5"
    distance = "d, of which the similarity is exp(-d²)"

    def __init__(self, path: str | Path, skeleton: Skeleton = COCO):
        self.truth: CocoAnnotations = read_coco(path, skeleton)
        self.skeleton = skeleton
        self.people, self.rows = coco_people(self.truth, skeleton)
        if not len(self.people):
            raise UserError(f"{path} holds no annotated persons to compare with")

    def read(self, path: str | Path) -> CocoPredictions:
        """The results of a file in COCO's form."""
        results = load_results(path, self.truth, self.skeleton)
        matched = match_results(self.truth, self.rows, results, self.skeleton)
        return coco_predictions(Path(path).stem, results, matched, self.skeleton.num_joints)

    def metrics(self, predictions: CocoPredictions) -> dict[str, float]:
        return coco_metrics(self.truth, predictions.results, self.skeleton)

    def sampler(self, results: Sequence[dict[str, Any]]) -> ApSampler:
        return ApSampler(keypoint_evaluation(self.truth, results, self.skeleton))

    def mended_scores(self, predictions: CocoPredictions, kinds: np.ndarray) -> dict[str, float]:
        """AP if all joints of a kind were where they are annotated; if nobody were missed; if nobody were found who is
        not there; if the scores sorted the results by their OKS."""
        people, matched, results = self.people, predictions.matched, predictions.results
        owners = np.flatnonzero(predictions.found)
        changes: dict[str, list[dict[str, Any]]] = {}
        for place, kind in enumerate(KINDS[: MISS + 1]):
            if place == GOOD or not (kinds == place).any():
                continue
            moved = mended(predictions, people, kinds == place)
            changes[kind] = list(results)
            for row in owners[(kinds == place).any(axis=1)[owners]]:
                numbers = np.column_stack([moved[row], np.zeros(len(moved[row]))])
                changes[kind][matched[row]] = {**results[matched[row]], "keypoints": numbers.ravel().tolist()}
        lost = np.flatnonzero(~predictions.found)
        if len(lost):
            best = max(result["score"] for result in results) + 1
            changes["no pose"] = [*results, *(self._annotated(row, best) for row in lost)]
        kept = [results[place] for place in sorted(matched[owners].tolist())]
        if 0 < len(kept) < len(results):
            changes["nobody there"] = kept
        similarity = np.zeros(len(results))
        similarity[matched[owners]] = self.person_scores(predictions)[0][owners]
        changes["order of scores"] = [{**r, "score": float(s)} for r, s in zip(results, similarity)]
        evaluations = progress_bar(changes.items(), len(changes), "costs")
        return {name: self.sampler(changed).value() for name, changed in evaluations}

    def _annotated(self, row: int, score: float) -> dict[str, Any]:
        annotation = self.truth.annotations[self.rows[row]]
        return {
            "image_id": annotation["image_id"],
            "category_id": annotation["category_id"],
            "keypoints": self.truth.keypoints[self.rows[row]].ravel().tolist(),
            "score": score,
        }

    def curves(self, predictions: CocoPredictions) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """AP over the OKS from which on a person counts as found."""
        thresholds = np.arange(0.5, 0.96, 0.05)
        return {"AP": (thresholds, self.sampler(predictions.results).by_threshold())}

    def person_scores(self, predictions: Predictions) -> tuple[np.ndarray, np.ndarray]:
        """OKS of each person, 0 without a pose; and ones: (N,) each."""
        people = self.people
        similarity = oks(
            predictions.joints, people.joints, people.sizes**2, np.array(self.skeleton.sigmas), people.labelled
        )
        return np.where(predictions.found, similarity, 0.0), np.ones(len(people))

    def rescored(self, predictions: CocoPredictions, halves: Sequence[Calibration]) -> float:
        """AP with calibrated scores: what the heatmaps give to a person's score, the mean of its joint scores, becomes
        the mean of their probabilities. Each image is scored by the map that has not seen it."""
        order = {image_id: number for number, image_id in enumerate(self.truth.images)}
        changed = []
        for result in predictions.results:
            scores = np.array(result["keypoints"][2::3], np.float64)
            mean = float(rescore(np.ones(1), scores[None], 0.0)[0])
            probability = float(halves[order[result["image_id"]] % 2](scores).mean())
            changed.append({**result, "score": result["score"] / mean * probability if mean > 0 else 0.0})
        return self.sampler(changed).value()

    def difference(
        self, first: CocoPredictions, second: CocoPredictions, rng: np.random.Generator
    ) -> tuple[float, Sequence[float]]:
        """Second minus first in AP, and its paired interval over images."""
        a, b = (self.sampler(predictions.results) for predictions in (first, second))
        return b.value() - a.value(), ap_difference_interval(a, b, rng)


AnalysedSet = Union[PckhSet, OksSet]


# ---- One file ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Analysis:
    """What there is to say about a file's predictions.

    Attributes:
        kinds, right: (N, K), from `error_kinds`.
        person_scores: (N,) from 0 to 1; what persons are sorted by.
        figures: JSON values.
        reliabilities: of scores as they are, and calibrated; empty without scores.
    """

    predictions: Predictions
    kinds: np.ndarray
    right: np.ndarray
    person_scores: np.ndarray
    figures: dict[str, Any]
    reliabilities: dict[str, Reliability]
    curves: dict[str, tuple[np.ndarray, np.ndarray]]


def analyze(analysed: AnalysedSet, predictions: Predictions, rng: np.random.Generator) -> Analysis:
    """All figures of one file; `rng` draws the bootstrap samples."""
    people = analysed.people
    kinds, right = joint_kinds(predictions, people), right_joints(predictions, people)
    counted = people.labelled & people.in_score
    metrics = analysed.metrics(predictions)
    score = metrics[analysed.score]
    shares = kind_shares(np.where(counted, kinds, -1))
    hits, counts = analysed.person_scores(predictions)
    with np.errstate(invalid="ignore"):
        person_scores = hits / counts
    costs = {
        kind: {"if mended": mended_score, "cost": mended_score - score}
        for kind, mended_score in analysed.mended_scores(predictions, np.where(counted, kinds, -1)).items()
    }
    confidence, reliabilities = _confidence(analysed, predictions, right)
    figures = {
        "name": predictions.name,
        "metrics": metrics,
        "persons": len(people),
        "persons without a pose": int((~predictions.found).sum()),
        "joints": int(counted.sum()),
        "shares": dict(zip(KINDS, shares)),
        "costs": costs,
        "by joint": _by_joint(people, predictions, kinds, right, rng),
        "conditions": {
            condition.name: {
                "meaning": condition.meaning,
                "groups": group_figures(condition, kinds, right, counted, rng),
            }
            for condition in conditions(people)
        },
        "confidence": confidence,
    }
    return Analysis(predictions, kinds, right, person_scores, figures, reliabilities, analysed.curves(predictions))


def _by_joint(
    people: People, predictions: Predictions, kinds: np.ndarray, right: np.ndarray, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """For each joint: labels, percentage right with its interval, shares of the kinds, quantiles of the distance."""
    counts = people.labelled & (kinds >= 0)
    intervals = bootstrap_intervals(right & counts, counts, rng)
    distances = people.distances(predictions.joints)
    rows = []
    for place, name in enumerate(people.skeleton.joints):
        chosen = counts[:, place]
        if not chosen.any():
            continue
        measured = distances[chosen & predictions.found, place]
        rows.append(
            {
                "joint": name,
                "labels": int(chosen.sum()),
                "right": 100 * float(right[chosen, place].mean()),
                "interval": intervals[place],
                "shares": kind_shares(kinds[:, place]),
                "distances": np.quantile(measured, QUANTILES) if len(measured) else np.full(len(QUANTILES), np.nan),
                "in score": bool(people.in_score[place]),
            }
        )
    return rows


def _confidence(
    analysed: AnalysedSet, predictions: Predictions, right: np.ndarray
) -> tuple[dict[str, Any] | None, dict[str, Reliability]]:
    """What the joints' scores promise and hold, and the map that makes probabilities of them."""
    people = analysed.people
    known = people.labelled & predictions.found[:, None]
    if predictions.scores is None or known.sum() < MIN_JOINTS or np.ptp(predictions.scores[known]) == 0:
        return None, {}
    scores, hit = predictions.scores[known], right[known]
    image_of = np.broadcast_to(people.image_of[:, None], known.shape)[known]
    halves = calibrations_by_halves(scores, hit, image_of)
    calibrated = np.where(image_of % 2 == 1, halves[1](scores), halves[0](scores))
    reliabilities = {"as it is": reliability(scores, hit), "calibrated": reliability(calibrated, hit)}
    figures = {
        "joints": int(known.sum()),
        "right": float(hit.mean()),
        "expected calibration error": {name: found.error for name, found in reliabilities.items()},
        "thresholds": [
            {
                "threshold": threshold,
                "kept": raw[0],
                "right": raw[1],
                "kept calibrated": own[0],
                "right calibrated": own[1],
            }
            for threshold, raw, own in zip(
                THRESHOLDS, share_right_above(scores, hit, THRESHOLDS), share_right_above(calibrated, hit, THRESHOLDS)
            )
        ],
        "calibration": fit_calibration(scores, hit).pairs(),
        "score if rescored": analysed.rescored(predictions, halves),
    }
    return figures, reliabilities


# ---- Two files -----------------------------------------------------------------------------------------


def compare(analysed: AnalysedSet, first: Analysis, second: Analysis, rng: np.random.Generator) -> dict[str, Any]:
    """The second file against the first, on the same persons: differences are second minus first."""
    people = analysed.people
    counted = people.labelled & people.in_score
    difference, interval = analysed.difference(first.predictions, second.predictions, rng)
    gained = second.right.astype(int) - first.right
    joints = bootstrap_intervals(gained * people.labelled, people.labelled, rng)
    totals = people.labelled.sum(axis=0)
    kinds = np.stack(
        [((second.kinds == place).astype(int) - (first.kinds == place)) * counted for place in range(len(KINDS))],
        axis=-1,
    ).sum(axis=1)  # (N, kinds)
    counts = np.repeat(counted.sum(axis=1)[:, None], len(KINDS), axis=1)
    kind_intervals = bootstrap_intervals(kinds, counts, rng)
    better, worse, p = sign_test(np.nan_to_num(second.person_scores) - np.nan_to_num(first.person_scores))
    return {
        "first": first.predictions.name,
        "second": second.predictions.name,
        "difference": difference,
        "interval": interval,
        "verdict": verdict(difference, interval, analysed.unit),
        "sign test": {"better": better, "worse": worse, "equal": len(people) - better - worse, "p": p},
        "by joint": [
            {
                "joint": name,
                "difference": 100 * (gained * people.labelled)[:, place].sum() / totals[place],
                "interval": joints[place],
            }
            for place, name in enumerate(people.skeleton.joints)
            if totals[place]
        ],
        "by kind": [
            {
                "kind": kind,
                "difference": 100 * kinds[:, place].sum() / counts[:, place].sum(),
                "interval": kind_intervals[place],
            }
            for place, kind in enumerate(KINDS)
            if first.figures["shares"][kind] or second.figures["shares"][kind]
        ],
    }
