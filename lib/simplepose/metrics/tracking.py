"""PoseTrack's scores (Andriluka et al., CVPR 2018), joint by joint: AP, and MOTA with its relatives by TrackEval.

A predicted joint is right within half a head of the annotated one; identities are those of the tracks. Totals are means
over the joints, of switches and fragments sums. The benchmark's own script leaves the last frame of every sequence out;
here all frames with annotated people count.
Sources: Bernardin and Stiefelhagen, 2008 (MOTA, MOTP); Ristani et al., 2016 (IDF1); Luiten et al., 2020 (HOTA).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from simplepose.core.errors import UserError, optional_packages
from simplepose.core.tables import markdown_table
from simplepose.data.posetrack import JOINTS, PeopleOfFrame

MAX_DISTANCE = 0.5  # of the head size
COLUMNS = {
    "Head": ("head_top", "head_bottom", "nose"),
    "Shoulder": ("left_shoulder", "right_shoulder"),
    "Elbow": ("left_elbow", "right_elbow"),
    "Wrist": ("left_wrist", "right_wrist"),
    "Hip": ("left_hip", "right_hip"),
    "Knee": ("left_knee", "right_knee"),
    "Ankle": ("left_ankle", "right_ankle"),
}
SHARES, COUNTS = ("AP", "MOTA", "MOTP", "IDF1", "HOTA"), ("switches", "fragments")

Pair = tuple[PeopleOfFrame, PeopleOfFrame]  # annotated, predicted


def pair_frames(truth: Sequence[PeopleOfFrame], found: Sequence[PeopleOfFrame], where: str) -> list[Pair]:
    """The frames of a sequence with annotated people, and their predictions; joints in ignored regions are left out.

    Frames belong together by the file's name without folder and extension; if no name is common to both, by order.

    Raises:
        UserError: names that do not fit, and another number of frames.
    """
    by_name = {_stem(frame): frame for frame in found}
    common = [frame for frame in truth if _stem(frame) in by_name]
    if not common and len(truth) == len(found):
        pairs = list(zip(truth, found))
    elif common and len(by_name) == len(found):
        nobody = _without_people(truth[0])
        pairs = [(frame, by_name.get(_stem(frame), nobody)) for frame in truth]
    else:
        raise UserError(
            f"{where} holds {len(found)} frames that cannot be told by their names, and {len(truth)} are annotated"
        )
    return [tuple(_outside(frame, right.ignored) for frame in (right, left)) for right, left in pairs if len(right.ids)]


def tracking_metrics(sequences: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """All scores of some sequences as `pair_frames` returns them.

    Returns:
        "MOTA" and "MOTA left_wrist" for the total and each joint, likewise the other `SHARES` in percent and the
        `COUNTS`; and for whole people, by the overlap of boxes, "people MOTA" and so on. NaN where nothing is
        annotated.

    Raises:
        UserError: TrackEval is not installed, or people without a head box.
    """
    table = {name: np.full(len(JOINTS), np.nan) for name in (*SHARES, *COUNTS)}
    matched = [[_Matched(*pair) for pair in pairs] for pairs in sequences]
    for joint in range(len(JOINTS)):
        if not any(frame.truth.known[:, joint].any() for frames in matched for frame in frames):
            continue
        table["AP"][joint] = 100 * _average_precision([frame for frames in matched for frame in frames], joint)
        scores = _track_eval([[frame.joint(joint) for frame in frames] for frames in matched])
        for name, value in scores.items():
            table[name][joint] = value
    metrics = {name: float(np.nanmean(table[name])) for name in SHARES}
    metrics.update({name: float(np.nansum(table[name])) for name in COUNTS})
    metrics.update(people_metrics(sequences))
    for name in (*SHARES, *COUNTS):
        metrics.update({f"{name} {joint}": float(value) for joint, value in zip(JOINTS, table[name])})
    return metrics


def people_metrics(sequences: Sequence[Sequence[Pair]]) -> dict[str, float]:
    """Of `tracking_metrics` only what is scored for whole people: "people MOTA" and so on."""
    scores = _track_eval([[_Matched(*pair).people() for pair in pairs] for pairs in sequences])
    return {f"people {name}": value for name, value in scores.items()}


def tracking_table(metrics: dict[str, float]) -> list[str]:
    """The scores as a Markdown table; what is counted for two or three joints is their mean, of counts their sum."""
    rows = []
    for name in (*SHARES, *COUNTS):
        form, gather = ("{:.0f}", np.nansum) if name in COUNTS else ("{:.1f}", _mean)
        cells = [gather([metrics[f"{name} {joint}"] for joint in joints]) for joints in COLUMNS.values()]
        cells += [metrics[name], metrics.get(f"people {name}", np.nan)]
        rows.append([name, *("-" if np.isnan(cell) else form.format(cell) for cell in cells)])
    return markdown_table(["", *COLUMNS, "Total", "People"], rows)


def above(frame: PeopleOfFrame, min_score: float) -> PeopleOfFrame:
    """The frame without joints below a score, and without people who have no joint left."""
    known = frame.known & (frame.scores >= min_score)
    return _select(replace(frame, known=known), known.any(axis=1))


def _mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else np.nan


def _stem(frame: PeopleOfFrame) -> str:
    return frame.image.replace("\\", "/").rpartition("/")[2].rpartition(".")[0] or frame.image


def _without_people(frame: PeopleOfFrame) -> PeopleOfFrame:
    return _select(frame, np.zeros(len(frame.ids), bool))


def _select(frame: PeopleOfFrame, rows: np.ndarray) -> PeopleOfFrame:
    chosen = {name: getattr(frame, name)[rows] for name in ("ids", "joints", "known", "scores", "head_sizes")}
    return replace(frame, **chosen)


def _outside(frame: PeopleOfFrame, regions: Sequence[np.ndarray]) -> PeopleOfFrame:
    """The frame without joints inside of regions, and without people who have no joint left."""
    known = frame.known.copy()
    for region in regions:
        outline = region.astype(np.float32)
        for row, joint in np.argwhere(known):
            x, y = frame.joints[row, joint].tolist()
            known[row, joint] = cv2.pointPolygonTest(outline, (x, y), False) <= 0
    return _select(replace(frame, known=known), known.any(axis=1))


class _Matched:
    """One frame: which predicted joint is near which annotated one."""

    def __init__(self, truth: PeopleOfFrame, found: PeopleOfFrame):
        if not (truth.head_sizes > 0).all():
            raise UserError(
                f"a person of {truth.image} is annotated without bbox_head, which distances are measured by"
            )
        self.truth, self.found = truth, found
        distances = np.linalg.norm(truth.joints[:, None] - found.joints[None], axis=-1)  # (G, P, 15)
        distances = distances / truth.head_sizes[:, None, None]
        both = truth.known[:, None] & found.known[None]
        self.distances = np.where(both, distances, np.inf)

    def joint(self, joint: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids of the annotated (G,) and predicted joints (P,), and how near they are (G, P), from 0 to 1."""
        right, left = self.truth.known[:, joint], self.found.known[:, joint]
        near = np.maximum(1 - self.distances[right][:, left, joint], 0)
        return self.truth.ids[right], self.found.ids[left], near

    def people(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `joint`, for people: the overlap of the boxes around the joints that both have."""
        both = self.truth.known[:, None] & self.found.known[None]  # (G, P, 15)
        boxes = []
        for joints in (self.truth.joints[:, None], self.found.joints[None]):
            low = np.where(both[..., None], joints, np.inf).min(axis=2)
            high = np.where(both[..., None], joints, -np.inf).max(axis=2)
            boxes.append((low, high))
        (low, high), (other_low, other_high) = boxes
        with np.errstate(invalid="ignore"):
            common = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0).prod(axis=-1)
            union = (high - low).prod(axis=-1) + (other_high - other_low).prod(axis=-1) - common
            overlap = np.where(both.any(axis=2) & (union > 0), common / union, 0)
        return self.truth.ids, self.found.ids, overlap

    def person_of(self) -> np.ndarray:
        """(P,) the annotated person that each predicted one stands for, or -1: whoever shares most joints, one each."""
        shares = (self.distances <= MAX_DISTANCE).sum(axis=2) / np.maximum(self.truth.known.sum(axis=1), 1)[:, None]
        persons = np.full(len(self.found.ids), -1)
        if shares.size:
            best = np.where(np.arange(len(shares))[:, None] == shares.argmax(axis=0), shares, 0)
            for person, row in enumerate(best.argmax(axis=1)):
                if best[person, row] > 0:
                    persons[row] = person
        return persons


def _average_precision(frames: Sequence[_Matched], joint: int) -> float:
    """The area below precision over recall, precision made monotonous (as in VOC since 2010)."""
    scores, right, total = [], [], 0
    for frame in frames:
        total += int(frame.truth.known[:, joint].sum())
        for row, person in enumerate(frame.person_of()):
            if frame.found.known[row, joint]:
                scores.append(frame.found.scores[row, joint])
                right.append(person >= 0 and frame.distances[person, row, joint] <= MAX_DISTANCE)
    hits = np.array(right, dtype=float)[np.argsort(-np.array(scores), kind="stable")]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * hits).sum() / total)


def _track_eval(sequences: Sequence[Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]]) -> dict[str, float]:
    """TrackEval's scores of sequences of frames: ids (G,), ids (P,), similarity (G, P) from 0 to 1, right from 0.5."""
    with optional_packages(), contextlib.redirect_stdout(io.StringIO()):  # it reports on each sequence
        from trackeval.metrics import CLEAR, HOTA, Identity

        data = {str(number): _for_track_eval(frames) for number, frames in enumerate(sequences)}
        parts = []
        for metric in (CLEAR({"PRINT_CONFIG": False}), Identity({"PRINT_CONFIG": False}), HOTA()):
            parts.append(metric.combine_sequences({name: metric.eval_sequence(each) for name, each in data.items()}))
    clear, identity, hota = parts
    return {
        "MOTA": 100 * float(clear["MOTA"]),
        "MOTP": 100 * float(clear["MOTP"]),
        "IDF1": 100 * float(identity["IDF1"]),
        "HOTA": 100 * float(np.mean(hota["HOTA"])),
        "switches": float(clear["IDSW"]),
        "fragments": float(clear["Frag"]),
    }


def _for_track_eval(frames: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, object]:
    """One sequence as TrackEval takes it, ids counted from 0."""
    content: dict[str, object] = {"num_timesteps": len(frames), "similarity_scores": [frame[2] for frame in frames]}
    for name, column in (("gt", 0), ("tracker", 1)):
        ids = [frame[column] for frame in frames]
        known, numbers = np.unique(np.concatenate([np.zeros(0, np.int64), *ids]), return_inverse=True)
        content[f"{name}_ids"] = np.split(numbers, np.cumsum([len(each) for each in ids])[:-1]) if frames else []
        content[f"num_{name}_ids"], content[f"num_{name}_dets"] = len(known), len(numbers)
    return content
