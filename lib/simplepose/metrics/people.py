"""The annotated people of a set as arrays, and predictions for them: what an error analysis starts from.

A distance is measured in units: MPII's head size, or for COCO the distance at which a joint's similarity is 1/e, so
that its object keypoint similarity is exp(-d^2) with d in units.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.skeletons import MPII, Skeleton
from simplepose.data.coco import CocoAnnotations, image_name
from simplepose.data.fields import MAX_PIXELS, numbers_of
from simplepose.data.mpii import read_entries
from simplepose.data.mpii_mat import JOINT_NAMES
from simplepose.metrics.coco_ap import keypoint_evaluation
from simplepose.metrics.pckh import PckhGroundTruth, in_mean

MATCH_OKS = 0.1  # a prediction belongs to a person from here on; Ronchi and Perona's


@dataclass(frozen=True)
class Reach:
    """How near a prediction must be, in units.

    Attributes:
        good: of its own joint, for no error at all.
        at: of any joint, to be taken for that joint; of its own one, to be right.
        near: of its own joint, for a jitter.
    """

    good: float
    at: float
    near: float


# PCKh counts what is within 0.5 head sizes. An error of up to twice that is still next to the joint.
PCKH_REACH = Reach(good=0.5, at=0.5, near=1.0)
# Similarities of 0.85 and 0.5 (Ronchi and Perona, ICCV 2017, section 3), as distances.
OKS_REACH = Reach(good=math.sqrt(-math.log(0.85)), at=math.sqrt(-math.log(0.5)), near=math.sqrt(-math.log(0.5)))


@dataclass(frozen=True)
class People:
    """N annotated persons of K joints; coordinates in pixels, as the set's score takes them.

    Attributes:
        skeleton: of the joints.
        joints, labelled: (N, K, 2), (N, K) bool.
        units: (N, K) pixels.
        reach: in units.
        sizes: (N,) pixels; what that is of, `size_of` says.
        image_of: (N,) number of the person's image; two persons with the same number are in one image.
        in_score: (K,) bool, the joints that the score counts.
        first_pixel: its coordinate: 1 for MPII, 0 for COCO.
        names: (N,) the image's file, "" if unknown.
        image_sizes: (N, 2) width and height, 0 if unknown.
        occluded: (N, K) bool, labelled though hidden; None where a set does not tell.
    """

    skeleton: Skeleton
    joints: np.ndarray
    labelled: np.ndarray
    units: np.ndarray
    reach: Reach
    sizes: np.ndarray
    size_of: str
    image_of: np.ndarray
    in_score: np.ndarray
    first_pixel: int
    names: list[str]
    image_sizes: np.ndarray
    occluded: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.joints)

    def distances(self, predicted: np.ndarray) -> np.ndarray:
        """Of predictions (N, K, 2) from their own joints, in units; infinite for joints without a label: (N, K)."""
        return np.where(self.labelled, distance(predicted, self.joints, self.units), np.inf)

    def companies(self) -> list[np.ndarray]:
        """Rows of the persons in one image, for each image with several."""
        rows_of = defaultdict(list)
        for row, image in enumerate(self.image_of.tolist()):
            rows_of[image].append(row)
        return [np.array(rows) for rows in rows_of.values() if len(rows) > 1]


def distance(predicted: np.ndarray, joints: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Distances (..., K) in units of points (..., K, 2); infinite for a unit of 0."""
    x, y = (predicted[..., axis] - joints[..., axis] for axis in (0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.sqrt(x * x + y * y) / units
    return np.where(np.isfinite(found), found, np.inf)


@dataclass(frozen=True)
class Predictions:
    """A file's predictions for the people of a set.

    Attributes:
        name: of the file.
        joints: (N, K, 2) pixels, as in `People`.
        scores: (N, K) of the joints, or None.
        found: (N,) bool, False for a person to whom no prediction belongs.
    """

    name: str
    joints: np.ndarray
    scores: np.ndarray | None
    found: np.ndarray


@dataclass(frozen=True)
class CocoPredictions(Predictions):
    """Predictions that keep the file's results, with those that belong to nobody.

    Attributes:
        results: entries of the file.
        matched: (N,) place of each person's result, -1 for none.
    """

    results: Sequence[dict[str, Any]]
    matched: np.ndarray


def mpii_people(truth: PckhGroundTruth, annotations: Path | None) -> People:
    """The people of gt_<set>.mat.

    Args:
        annotations: <set>.json of the same persons, which tells who is in one image; without it nobody is.

    Raises:
        UserError: other joints than MPII's 16, or annotations of another set.
    """
    if truth.joint_names != JOINT_NAMES:
        found = ", ".join(truth.joint_names)[:200]
        raise UserError(f"the ground truth has the joints {found}; an analysis is of MPII's 16 in their order")
    names, image_of = [""] * len(truth.joints), np.arange(len(truth.joints))
    if annotations is not None:
        names = [str(entry.get("image", "")) if isinstance(entry, dict) else "" for entry in read_entries(annotations)]
        if len(names) != len(image_of):
            raise UserError(
                f"{annotations} has {len(names)} persons, the ground truth {len(image_of)}; they belong to different "
                "sets"
            )
        if all(names):
            image_of = np.unique(names, return_inverse=True)[1]
    return People(
        skeleton=MPII,
        joints=truth.joints,
        labelled=truth.labelled,
        units=np.repeat(truth.head_sizes[:, None], MPII.num_joints, axis=1),
        reach=PCKH_REACH,
        sizes=truth.head_sizes,
        size_of="head size",
        image_of=image_of,
        in_score=in_mean(truth),
        first_pixel=1,
        names=names,
        image_sizes=np.zeros((len(names), 2)),
    )


def coco_people(truth: CocoAnnotations, skeleton: Skeleton) -> tuple[People, np.ndarray]:
    """The persons that COCO scores: no crowds, and nobody without keypoints.

    Returns:
        Them, and their places in `truth.annotations`.
    """
    rows = [
        row
        for row, annotation in enumerate(truth.annotations)
        if not annotation["iscrowd"] and annotation["num_keypoints"] > 0 and truth.keypoints[row, :, 2].any()
    ]
    chosen = [truth.annotations[row] for row in rows]
    areas = numbers_of(chosen, "area", (), f"{truth.path}: annotation", low=0, high=MAX_PIXELS**2)
    images = [truth.images[annotation["image_id"]] for annotation in chosen]
    order = {image_id: number for number, image_id in enumerate(truth.images)}
    keypoints = truth.keypoints[rows]
    widths = 2 * np.asarray(skeleton.sigmas)
    people = People(
        skeleton=skeleton,
        joints=keypoints[..., :2],
        labelled=keypoints[..., 2] > 0,
        units=np.sqrt(2 * (areas[:, None] + np.spacing(1))) * widths,
        reach=OKS_REACH,
        sizes=np.sqrt(areas),
        size_of="square root of the area",
        image_of=np.array([order[annotation["image_id"]] for annotation in chosen], dtype=np.int64),
        in_score=np.ones(skeleton.num_joints, bool),
        first_pixel=0,
        names=[image_name(image) for image in images],
        image_sizes=np.array([_size_of(image) for image in images]).reshape(-1, 2),
        occluded=keypoints[..., 2] == 1,
    )
    return people, np.array(rows, dtype=np.int64)


def _size_of(image: dict[str, Any]) -> tuple[float, float]:
    sides = image.get("width"), image.get("height")
    known = all(type(side) in (int, float) and 0 < side <= MAX_PIXELS for side in sides)
    return sides if known else (0.0, 0.0)


def match_results(
    truth: CocoAnnotations, rows: np.ndarray, results: Sequence[dict[str, Any]], skeleton: Skeleton
) -> np.ndarray:
    """Which result belongs to which person, as COCO matches them, from an OKS of 0.1 on.

    Args:
        rows: (N,) places of the persons in `truth.annotations`, from `coco_people`.

    Returns:
        (N,) the place of each person's result, -1 for none.
    """
    evaluation = keypoint_evaluation(truth, results, skeleton, oks_thresholds=[MATCH_OKS])
    owner = defaultdict(lambda: -1)
    for image in filter(None, evaluation.evalImgs):  # ids count from 1 there
        for result_id, annotation_id in zip(image["dtIds"], image["dtMatches"][0]):
            if annotation_id:
                owner[int(annotation_id) - 1] = result_id - 1
    return np.array([owner[row] for row in rows.tolist()], dtype=np.int64)


def coco_predictions(
    name: str, results: Sequence[dict[str, Any]], matched: np.ndarray, num_joints: int
) -> CocoPredictions:
    """The results of each person; `matched` is from `match_results`."""
    found = matched >= 0
    keypoints = np.zeros((len(matched), num_joints, 3))
    for row in np.flatnonzero(found):
        keypoints[row] = np.reshape(results[matched[row]]["keypoints"], (num_joints, 3))
    return CocoPredictions(name, keypoints[..., :2], keypoints[..., 2], found, results, matched)
