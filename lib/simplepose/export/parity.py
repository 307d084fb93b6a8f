"""Parity: does an exported network give the same heatmaps and keypoints as the original? Compared crop by crop.

A keypoint is the maximum of its heatmap. Where two cells are nearly equal, or a slope nearly flat, the last bit of a
float decides, and no two libraries agree on that bit: such keypoints are listed, but do not count as wrong.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from simplepose.core.codecs.base import Codec
from simplepose.core.codecs.dark import log_slopes
from simplepose.core.codecs.gaussian import HeatmapCodec, argmax_cells
from simplepose.core.errors import UserError
from simplepose.core.geometry import apply_affine, as_boxes, invert_affine
from simplepose.core.tables import markdown_table
from simplepose.inference.network import InferenceSettings, PoseNetwork
from simplepose.inference.predictor import cut_out

if TYPE_CHECKING:
    from simplepose.data.dataset import PoseDataset
    from simplepose.inference.box_sources import BoxSource
    from simplepose.inference.sources import ImageFiles
    from simplepose.training.evaluation import Evaluator

MAX_RELATIVE_DIFFERENCE = 1e-3  # of float32 heatmaps, relative to the highest heatmap value
MOVED_PX = 0.1  # a keypoint further away than this, in input pixels, has moved
BATCH_SIZE = 16
MOST_LINES = 10  # of keypoints that moved
KEPT = 16  # times as many crops as are wanted are in memory at most, however many images there are


@dataclass(frozen=True)
class MovedKeypoint:
    """A keypoint that the two networks place differently.

    Attributes:
        crop, joint: index of the crop and name of the joint.
        distance_px: between the two, in input pixels.
        margin: by how much the original's heatmap favours its own place.
    """

    crop: int
    joint: str
    distance_px: float
    margin: float


@dataclass(frozen=True)
class Parity:
    """How far an exported network is from the original on some crops.

    Attributes:
        crops, keypoints: how many were compared.
        compared: "heatmaps", or "scores", the heatmaps' maxima, if the exported network decodes.
        max_difference, mean_difference: of these.
        max_relative_difference: the largest of them, relative to the original's highest value.
        mean_shift_px, max_shift_px: between keypoints, in input pixels.
        near_ties: keypoints moved by more than `MOVED_PX` whose margin is at most `max_difference`.
        moved: the other keypoints moved by more than `MOVED_PX`.
    """

    crops: int
    keypoints: int
    compared: str
    max_difference: float
    mean_difference: float
    max_relative_difference: float
    mean_shift_px: float
    max_shift_px: float
    near_ties: tuple[MovedKeypoint, ...]
    moved: tuple[MovedKeypoint, ...]

    @property
    def passed(self) -> bool:
        """Whether two float32 networks count as the same."""
        return self.max_relative_difference <= MAX_RELATIVE_DIFFERENCE and not self.moved  # NaN does not pass

    def record(self) -> dict[str, Any]:
        """All figures as JSON values."""
        return {**asdict(self), "passed": self.passed}


@dataclass(frozen=True)
class Answer:
    """A network's output on N crops: heatmaps (N, K, h, w) or None, joints (N, K, 2) in input pixels, scores (N, K)."""

    heatmaps: np.ndarray | None
    joints: np.ndarray
    scores: np.ndarray


def ask(network: PoseNetwork, crops: np.ndarray, settings: InferenceSettings) -> Answer:
    """Run a network on crops (N, H, W, 3) uint8 BGR."""
    images = network.prepare(crops)
    if network.graph.decode:
        return Answer(None, *network.run(images))
    heatmaps = network.heatmaps(images, settings)
    return Answer(heatmaps, *network.codec.decode(heatmaps, settings.post_process))


class ParityMeter:
    """Accumulates the differences between the outputs of the original and of an exported network."""

    def __init__(self, codec: HeatmapCodec, joint_names: Sequence[str]):
        self.codec = codec
        self.joint_names = joint_names
        self.crops = 0
        self.compared = "heatmaps"
        self._sum = self._count = self._max = self._highest = 0.0
        self._shifts: list[np.ndarray] = []
        self._moved: list[MovedKeypoint] = []

    def add(self, original: Answer, exported: Answer) -> None:
        """Add the outputs of both networks on the same crops."""
        if exported.heatmaps is None:
            self.compared = "scores"
            difference = np.abs(exported.scores - original.scores)
        else:
            difference = np.abs(exported.heatmaps - original.heatmaps)
        self._sum += float(difference.sum())
        self._count += difference.size
        self._max = float(np.maximum(self._max, difference.max()))  # keeps NaN
        self._highest = max(self._highest, float(np.abs(original.heatmaps).max()))
        shifts = np.linalg.norm(exported.joints - original.joints, axis=-1)  # (N, K)
        for crop, joint in np.argwhere(~(shifts <= MOVED_PX)):
            one = crop, joint
            margin = deciding_margin(
                self.codec, original.heatmaps[one], original.joints[one], exported.joints[one], exported.scores[one]
            )
            name = self.joint_names[joint]
            self._moved.append(MovedKeypoint(self.crops + int(crop), name, float(shifts[one]), margin))
        self._shifts.append(shifts)
        self.crops += len(shifts)

    def result(self) -> Parity:
        """The comparison so far."""
        shifts = np.concatenate(self._shifts)
        return Parity(
            crops=self.crops,
            keypoints=shifts.size,
            compared=self.compared,
            max_difference=self._max,
            mean_difference=self._sum / self._count,
            max_relative_difference=self._max / self._highest if self._highest else self._max,
            mean_shift_px=float(shifts.mean()),
            max_shift_px=float(shifts.max()),
            near_ties=tuple(moved for moved in self._moved if moved.margin <= self._max),
            moved=tuple(moved for moved in self._moved if not moved.margin <= self._max),
        )


def deciding_margin(
    codec: HeatmapCodec, heatmap: np.ndarray, joint: np.ndarray, other: np.ndarray, other_score: float
) -> float:
    """By how much a heatmap (h, w) favours its joint (2,) over the position `other` (2,), both in input pixels.

    If the two lie in different cells, the difference of these cells; in the same cell, the slope that decided the
    quarter step, or that moved the Taylor step so far; if only one of the two has a positive maximum at all, this
    maximum.
    """
    height, width = heatmap.shape
    if (heatmap.max() > 0) != (other_score > 0):
        return float(abs(heatmap.max()))
    cell, other_cell = (np.rint(place / codec.stride_xy) for place in (joint, other))
    if not np.isfinite(other_cell).all():
        return float("inf")
    x, y = np.clip(other_cell, 0, (width - 1, height - 1)).astype(int)
    if codec.decoder == "dark":  # both lie within a cell of their maxima
        shift = (other - joint) / codec.stride_xy
        if np.abs(shift).max() > 2:
            return float(heatmap.max() - heatmap[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].max())
        _, (xx, yy, xy) = log_slopes(heatmap, argmax_cells(heatmap)[0], codec.sigma)
        return float(heatmap.max() * np.abs([[xx, xy], [xy, yy]] @ shift).max())
    if (cell != other_cell).any():
        return float(heatmap.max() - heatmap[y, x])
    slopes = [0.0, 0.0]
    if 0 < x < width - 1 and 0 < y < height - 1:
        slopes = abs(heatmap[y, x + 1] - heatmap[y, x - 1]), abs(heatmap[y + 1, x] - heatmap[y - 1, x])
    steps_differ = np.abs(joint - other) > MOVED_PX / 2
    return float(max((slope for slope, differs in zip(slopes, steps_differ) if differs), default=np.inf))


def compare(original: PoseNetwork, exported: PoseNetwork, crops: np.ndarray, settings: InferenceSettings) -> Parity:
    """Compare an exported network with the original on crops (N, H, W, 3) uint8 BGR.

    Args:
        settings: for both. If the exported graph contains the flip test, the original does it, too.
    """
    settings = same_settings(exported, settings)
    meter = ParityMeter(original.codec, original.skeleton.joints)
    for start in range(0, len(crops), BATCH_SIZE):
        batch = crops[start : start + BATCH_SIZE]
        meter.add(ask(original, batch, settings), ask(exported, batch, settings))
    return meter.result()


def same_settings(exported: PoseNetwork, settings: InferenceSettings) -> InferenceSettings:
    """The settings, with those that are fixed in the exported graph."""
    return replace(settings, **exported.graph.fixed())


def crops_of_images(images: ImageFiles, boxes: BoxSource, codec: Codec, most: int) -> np.ndarray:
    """Crops (N, H, W, 3) uint8 BGR of the people in images, spread evenly if there are more than `most`.

    Raises:
        UserError: no image could be read.
    """
    if images.is_live:
        raise UserError(f"camera {images.name} never ends; name images or a video to compare on")
    crops, count, step, failure = [], 0, 1, "no people in it"
    for frame in images:
        if frame.image is None:
            failure = frame.failure
            continue
        people, inside = as_boxes(boxes(frame)[0], frame.image.shape[1::-1])
        for crop in cut_out(frame.image, people[inside], codec)[0]:
            if count % step == 0:
                crops.append(crop.copy())  # without the others of its image
            count += 1
        if len(crops) > KEPT * most:
            crops, step = crops[::2], 2 * step
    if not crops:
        raise UserError(f"{images.name} gives no crop to compare on: {failure}")
    return np.stack(spread(crops, most))


def crops_of_dataset(dataset: PoseDataset, most: int) -> np.ndarray:
    """Crops (N, H, W, 3) uint8 BGR of a data set's people, spread evenly if there are more than `most`."""
    return np.stack([dataset.load_crop(row)[0] for row in spread(range(len(dataset)), most)])


def spread(items: Sequence, most: int) -> list:
    """At most `most` of the items, evenly spread."""
    rows = np.linspace(0, len(items) - 1, min(most, len(items)))
    return [items[row] for row in np.rint(rows).astype(int)]


def score_networks(
    original: PoseNetwork,
    exported: dict[str, PoseNetwork],
    dataset: PoseDataset,
    new_evaluator: Callable[[], Evaluator],
    settings: InferenceSettings,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[dict[InferenceSettings, dict[str, float]], dict[str, tuple[Parity, dict[str, float]]]]:
    """Score every network on a whole data set, with the same crops and the same kind of evaluator.

    Args:
        exported: by name.
        new_evaluator: makes an evaluator of the set.
        settings: for all networks; those fixed in a graph take precedence for that network.

    Returns:
        The original's metrics, by settings: the given ones, and others that are fixed in graphs. And for each exported
        network its parity and its metrics.
    """
    own = {name: same_settings(network, settings) for name, network in exported.items()}
    original_scorers = {wanted: new_evaluator() for wanted in (settings, *own.values())}
    scorers = {name: new_evaluator() for name in exported}
    meters = {name: ParityMeter(original.codec, original.skeleton.joints) for name in exported}
    for start in progress(range(0, len(dataset), BATCH_SIZE)):
        rows = np.arange(start, min(start + BATCH_SIZE, len(dataset)))
        crops, _, _, affines = zip(*(dataset.load_crop(row) for row in rows))
        crops, to_image = np.stack(crops), invert_affine(np.stack(affines))
        answers = {wanted: ask(original, crops, wanted) for wanted in original_scorers}
        for wanted, answer in answers.items():
            original_scorers[wanted].add(rows, apply_affine(to_image, answer.joints), answer.scores)
        for name, network in exported.items():
            answer = ask(network, crops, own[name])
            meters[name].add(answers[own[name]], answer)
            scorers[name].add(rows, apply_affine(to_image, answer.joints), answer.scores)
    originals = {wanted: scorer.compute() for wanted, scorer in original_scorers.items()}
    return originals, {name: (meters[name].result(), scorers[name].compute()) for name in exported}


def latency_ratio(
    slower: Callable[[np.ndarray], Any], faster: Callable[[np.ndarray], Any], images: np.ndarray
) -> float:
    """The time of `faster` divided by that of `slower` on the images: the median of alternating runs."""
    ratios = []
    for _ in range(15):
        start = time.perf_counter()
        slower(images)
        between = time.perf_counter()
        faster(images)
        ratios.append((time.perf_counter() - between) / (between - start))
    return median(ratios[3:])  # the first runs allocate memory


def parity_table(results: dict[str, Parity], more: dict[str, dict[str, str]] | None = None) -> list[str]:
    """A Markdown table, one row per network; `more` columns by name and network."""
    more = more or {}
    columns = (
        "crops", "difference, max", "mean", "relative", "moved > 0.1 px", "of them near-ties", "mean shift px", *more,
    )  # fmt: skip
    rows = []
    for name, parity in results.items():
        cells = (
            str(parity.crops), f"{parity.max_difference:.1e}", f"{parity.mean_difference:.1e}",
            f"{parity.max_relative_difference:.1e}", f"{len(parity.moved + parity.near_ties)} of {parity.keypoints}",
            str(len(parity.near_ties)), f"{parity.mean_shift_px:.4f}", *(column[name] for column in more.values()),
        )  # fmt: skip
        rows.append([name, *cells])
    return markdown_table(["network", *columns], rows)


def moved_lines(parity: Parity) -> list[str]:
    """The keypoints that moved, as text; near-ties first."""
    listed = [(moved, f"near-tie, margin {moved.margin:.1e}") for moved in parity.near_ties]
    listed += [(moved, f"margin {moved.margin:.1e}") for moved in parity.moved]
    lines = [
        f"   crop {moved.crop}, {moved.joint}: {moved.distance_px:.2f} px, {why}" for moved, why in listed[:MOST_LINES]
    ]
    more = len(listed) - len(lines)
    return lines + ([f"   ... and {more} more, in the report"] if more else [])
