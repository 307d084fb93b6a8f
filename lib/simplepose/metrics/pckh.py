"""PCKh, MPII's score: the share of joints predicted within a fraction of the head's size (Andriluka et al., 2014).

All coordinates here are 1-based, as MPII publishes them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat, whosmat

from simplepose.core.errors import UserError
from simplepose.core.files import written_whole
from simplepose.core.tables import markdown_table
from simplepose.data.fields import MAX_PIXELS
from simplepose.data.mat_files import require_bounded
from simplepose.data.mpii import HEAD_SIZE_FACTOR
from simplepose.metrics.collector import PredictionCollector

THRESHOLD = 0.5
CURVE_THRESHOLDS = np.arange(0, 0.51, 0.01)

# Columns of the table -> joints as gt_*.mat names them. Pelvis and thorax are in none, and not in the mean.
COLUMNS = {
    "Head": ("head",),
    "Shoulder": ("lsho", "rsho"),
    "Elbow": ("lelb", "relb"),
    "Wrist": ("lwri", "rwri"),
    "Hip": ("lhip", "rhip"),
    "Knee": ("lkne", "rkne"),
    "Ankle": ("lank", "rank"),
}
NOT_IN_MEAN = ("pelv", "thor")
GROUND_TRUTH = ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src")  # arrays of gt_*.mat
MAX_MAT_NUMBERS = 10**7  # in an array; MPII's training set has 0.7 million
PRIMARY = "Mean"


@dataclass(frozen=True)
class PckhGroundTruth:
    """What gt_<set>.mat holds, persons first.

    Attributes:
        joint_names: K short names, as "rank" for the right ankle.
        joints: (N, K, 2).
        labelled: (N, K) bool.
        head_sizes: (N,) pixels; 0.6 x the diagonal of the head box.
    """

    joint_names: tuple[str, ...]
    joints: np.ndarray
    labelled: np.ndarray
    head_sizes: np.ndarray


def load_pckh_ground_truth(path: str | Path) -> PckhGroundTruth:
    """Read gt_<set>.mat of the original release.

    Raises:
        UserError: missing file, not a MATLAB file, or the four arrays are not in it or do not fit together.
    """
    content = _load_mat(path, GROUND_TRUTH)
    missing = [name for name in GROUND_TRUTH if name not in content]
    if missing:
        raise UserError(f"{path} is not an MPII ground truth: no {missing[0]}; expected {', '.join(GROUND_TRUTH)}")
    names = content["dataset_joints"]
    count = names.shape[-1]
    if names.shape != (1, count) or not all(getattr(name, "shape", ()) == (1,) for name in names[0]):
        raise UserError(f"{path}: dataset_joints has shape {names.shape}, expected (1, joints) with a name each")
    names = tuple(str(name[0]) for name in names[0])
    unknown = [name for column in COLUMNS.values() for name in column if name not in names]
    if unknown:
        raise UserError(f"{path}: dataset_joints names no {unknown[0]!r}, found {', '.join(names)[:200]}")
    persons = content["pos_gt_src"].shape[-1]
    shapes = {
        "pos_gt_src": (count, 2, persons),
        "jnt_missing": (count, persons),
        "headboxes_src": (2, 2, persons),
    }
    for name, shape in shapes.items():
        if content[name].shape != shape:
            raise UserError(
                f"{path}: {name} has shape {content[name].shape}, expected {shape} for {count} joints in "
                f"dataset_joints and {persons} persons in pos_gt_src"
            )
    joints, missing, corners = (_finite(content, name, path) for name in shapes)
    head_sizes = HEAD_SIZE_FACTOR * np.linalg.norm(corners[1] - corners[0], axis=0)
    return PckhGroundTruth(names, joints.transpose(2, 0, 1), missing.T == 0, head_sizes)


def load_predictions(path: str | Path) -> np.ndarray:
    """Read `preds` (N, K, 2 or 3) from a .mat file; returns (N, K, 2).

    Raises:
        UserError: missing file, not a MATLAB file, no `preds`, or one of another shape or with NaN.
    """
    content = _load_mat(path, ("preds",))
    if "preds" not in content:
        raise UserError(f"{path} has no array `preds`")
    predictions = content["preds"]
    if predictions.ndim != 3 or predictions.shape[2] not in (2, 3):
        raise UserError(f"{path}: preds has shape {predictions.shape}, expected (persons, joints, 2 or 3)")
    return _finite(content, "preds", path)[..., :2]


def load_scores(path: str | Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The joints' scores (N, K) in a file of predictions: `scores`, as here, or the third number in `preds`.

    Returns:
        None if it has neither, or `scores` of another shape.
    """
    content = _load_mat(path, ("preds", "scores"))
    if getattr(content.get("scores"), "shape", None) == shape:
        return _finite(content, "scores", path)
    return _finite(content, "preds", path)[..., 2] if content["preds"].shape[2] == 3 else None


def _finite(content: dict[str, np.ndarray], name: str, path: str | Path) -> np.ndarray:
    """An array of the file as float64."""
    array = content[name]
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: {name} does not hold numbers")
    array = array.astype(np.float64)
    wrong = np.argwhere(~(np.abs(array) <= MAX_PIXELS))
    if len(wrong):
        place = ", ".join(map(str, wrong[0]))
        raise UserError(f"{path}: {name}[{place}] is {array[tuple(wrong[0])]:g}, expected a number up to {MAX_PIXELS}")
    return array


def _load_mat(path: str | Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the named arrays that a MATLAB file holds; their sizes are checked before they are read."""
    require_bounded(path, 8 * MAX_MAT_NUMBERS + 1024)
    try:
        for name, shape, _ in whosmat(str(path), appendmat=False):
            if name in names and math.prod(shape) > MAX_MAT_NUMBERS:
                raise UserError(f"{path}: {name} is too large, its shape is {shape}")
        content = loadmat(str(path), appendmat=False, variable_names=names)
        return {name: content[name] for name in names if isinstance(content.get(name), np.ndarray)}
    except UserError:
        raise
    except Exception as error:  # scipy raises all kinds of exceptions on damaged files
        raise UserError(f"{path} is not a readable MATLAB v5 file: {error}") from None


def normalized_errors(predictions: np.ndarray, truth: PckhGroundTruth) -> np.ndarray:
    """Distances in head sizes, (N, K, 2) -> (N, K)."""
    with np.errstate(divide="ignore", invalid="ignore"):  # head boxes of size zero: no joint is within reach
        x, y = (predictions[..., axis] - truth.joints[..., axis] for axis in (0, 1))
        return np.sqrt(x * x + y * y) / truth.head_sizes[:, None]


def person_hits(predictions: np.ndarray, truth: PckhGroundTruth) -> tuple[np.ndarray, np.ndarray]:
    """For each person, of the joints in `Mean`: how many are within 0.5 and how many are labelled, (N,) each.

    `Mean` is 100 times the sum of the former over the sum of the latter.
    """
    counted = truth.labelled & in_mean(truth)
    hits = counted & (normalized_errors(predictions, truth) <= THRESHOLD)
    return hits.sum(axis=1), counted.sum(axis=1)


def in_mean(truth: PckhGroundTruth) -> np.ndarray:
    return np.array([name not in NOT_IN_MEAN for name in truth.joint_names])


def pckh(predictions: np.ndarray, truth: PckhGroundTruth, thresholds: np.ndarray) -> np.ndarray:
    """Percentage of labelled joints within each threshold.

    Args:
        predictions: (N, K, 2).
        thresholds: (T,) ascending, fractions of the head size; a distance equal to one is within it.

    Returns:
        (T, K); NaN for a joint that is nowhere labelled.
    """
    errors = np.where(truth.labelled, normalized_errors(predictions, truth), np.inf)
    errors = np.sort(errors.T, axis=1)  # (K, N): how many are within a threshold is where it would be inserted
    counts = np.stack([np.searchsorted(joint, thresholds, side="right") for joint in errors], axis=1)  # (T, K)
    with np.errstate(invalid="ignore"):
        return 100 * counts / truth.labelled.sum(axis=0)


def column_curves(predictions: np.ndarray, truth: PckhGroundTruth, thresholds: np.ndarray) -> dict[str, np.ndarray]:
    """`pckh` of the table's columns, (T,) each: the mean of the sides that are labelled; NaN where none is."""
    curve = pckh(predictions, truth, thresholds)
    curves = {}
    for column, names in COLUMNS.items():
        places = [truth.joint_names.index(name) for name in names]
        labelled = [place for place in places if truth.labelled[:, place].any()]
        curves[column] = curve[:, labelled or places].mean(axis=1)
    return curves


def pckh_metrics(predictions: np.ndarray, truth: PckhGroundTruth) -> dict[str, float]:
    """The table's figures: the seven columns and `Mean` at 0.5, and the mean at 0.10 and at 0.11.

    `Mean` weights each joint by how often it is labelled, without pelvis and thorax. What the original, HRNet
    and most ports print as "Mean@0.1" is taken at 0.11; here both carry their own name.

    Raises:
        UserError: predictions for another number of persons or joints than the ground truth's.
    """
    if predictions.shape[:2] != truth.joints.shape[:2]:
        raise UserError(
            f"the predictions are for {predictions.shape[0]} persons x {predictions.shape[1]} joints, the ground "
            f"truth for {truth.joints.shape[0]} x {truth.joints.shape[1]}; they belong to different sets"
        )
    curve = pckh(predictions, truth, CURVE_THRESHOLDS)
    weights = truth.labelled.sum(axis=0) * in_mean(truth)

    def mean(values: np.ndarray) -> float:
        present = weights > 0
        return float(np.average(values[present], weights=weights[present])) if present.any() else float("nan")

    columns = column_curves(predictions, truth, CURVE_THRESHOLDS)
    metrics = {column: float(line[-1]) for column, line in columns.items()}
    metrics[PRIMARY] = mean(curve[-1])
    metrics["Mean@0.10"] = mean(curve[10])
    metrics["Mean@0.11"] = mean(curve[11])
    return metrics


def pckh_table(arch: str, metrics: dict[str, float]) -> list[str]:
    """The three lines of the original's Markdown table; its "Mean@0.1" is the mean at 0.11."""
    printed = {**{name: metrics[name] for name in (*COLUMNS, PRIMARY)}, "Mean@0.1": metrics["Mean@0.11"]}
    return markdown_table(["Arch", *printed], [[arch, *(f"{value:.3f}" for value in printed.values())]])


class PckhEvaluator(PredictionCollector):
    """Collects predictions of a set and scores them.

    Args:
        num_samples: persons in the set.
        truth: None for a set without labels (test): predictions are only saved.
    """

    primary = PRIMARY
    predictions_file = "pred.mat"
    table = staticmethod(pckh_table)

    def __init__(self, num_samples: int, num_joints: int, truth: PckhGroundTruth | None):
        if truth is not None and truth.joints.shape[:2] != (num_samples, num_joints):
            persons, joints = truth.joints.shape[:2]
            raise UserError(
                f"the annotation file has {num_samples} persons of {num_joints} joints, its gt_*.mat {persons} of "
                f"{joints}; they belong to different sets"
            )
        super().__init__(num_samples, num_joints)
        self.truth = truth

    def compute(self) -> dict[str, float]:
        """The metrics; none for a set without labels."""
        self.require_all()
        return {} if self.truth is None else pckh_metrics(self.joints + 1, self.truth)

    def save(self, folder: Path) -> None:
        """Write pred.mat: `preds` (N, K, 2), 1-based, and `scores` (N, K)."""
        with written_whole(folder / self.predictions_file) as scratch:
            savemat(str(scratch), {"preds": self.joints + 1, "scores": self.scores}, appendmat=False)
