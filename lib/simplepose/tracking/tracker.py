"""PoseTracker: frame after frame in, poses with ids out (section 3.3 and Algorithm 1 of the paper)."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.geometry import as_boxes
from simplepose.core.images import as_image
from simplepose.inference.detectors.base import suppress_overlaps
from simplepose.inference.predictor import Pose, PosePredictor
from simplepose.metrics.coco_ap import oks_nms
from simplepose.tracking.flow import Motion
from simplepose.tracking.matching import (
    NONE,
    box_similarity,
    joint_boxes,
    match_greedily,
    match_optimally,
    pose_similarity,
    sigmas_of,
)

logger = logging.getLogger("simplepose")

SIMILARITIES = ("flow", "pose", "bbox")
BOX_MARGIN = 1.15  # of the box around carried joints (section 3.1)
SAME_POSE = 0.4  # OKS of two poses of one frame that are one person's, found in two boxes


@dataclass(frozen=True)
class TrackingSettings:
    """How people are followed. The thresholds are this project's own; docs/en/tracking.md says how they were
    chosen.

    Attributes:
        propagate: also look where the people of the last frame should be by now (section 3.1).
        similarity: "flow" (OKS of poses carried by optical flow), "pose" (OKS) or "bbox" (overlap of boxes).
        memory: frames that are remembered; who is hidden for fewer comes back with the same id. With "flow", 1 is the
            paper's S_flow and more is S_multiflow.
        hungarian: assign by the largest sum instead of greedily; needs scipy.
        min_similarity: below it a pose is somebody else.
        max_overlap: a carried box that overlaps a detected one by more (intersection over union) is dropped.
        min_score: a pose with a lower `Pose.score` is dropped.
        min_joint_score: joints with a lower score are neither carried nor compared.
    """

    propagate: bool = True
    similarity: str = "flow"
    memory: int = 10
    hungarian: bool = False
    min_similarity: float = 0.1
    max_overlap: float = 0.5
    min_score: float = 0.15
    min_joint_score: float = 0.2

    def __post_init__(self) -> None:
        if self.similarity not in SIMILARITIES:
            raise UserError(f"similarity is {self.similarity!r}; it is one of {', '.join(SIMILARITIES)}")
        if not self.memory >= 1:
            raise UserError(f"memory is {self.memory}; a person is remembered for at least 1 frame")
        for name in ("min_similarity", "max_overlap", "min_score", "min_joint_score"):
            if math.isnan(getattr(self, name)):
                raise UserError(f"{name} is nan; name a number, as 0.2")


@dataclass
class _Seen:
    """The people of one frame: ids (P,), joints (P, K, 2) there and carried to the newest frame, known (P, K), boxes
    (P, 4), box_scores (P,).
    """

    ids: np.ndarray
    joints: np.ndarray
    carried: np.ndarray
    known: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray


class PoseTracker:
    """Follows people through a video.

    tracker = PoseTracker(PosePredictor("posenet.onnx"), "nanodet_m.onnx")
    for frame in video:
        poses = tracker(frame)  # each has a track_id

    An id is never used again. A cut starts new ids; a frame that repeats the last one, and its boxes, costs nothing.

    Args:
        predictor: the pose network.
        detector: as `PosePredictor` takes it; None: the predictor's own, and without one the whole image is a box.
        settings: how people are followed.
        motion: what carries joints from frame to frame; another optical flow is `Motion(flow=...)`.

    Raises:
        UserError: missing or unreadable detector, or a setting that does not exist.
    """

    def __init__(
        self,
        predictor: PosePredictor,
        detector: str | os.PathLike | Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        settings: TrackingSettings | None = None,
        motion: Motion | None = None,
    ):
        if isinstance(detector, (str, os.PathLike)):
            from simplepose.inference.detectors.person import PersonDetector

            detector = PersonDetector(detector)
        self.predictor = predictor
        self.detector = detector or predictor.detector
        self.settings = settings or TrackingSettings()
        self.motion = motion or Motion()
        self._sigmas = sigmas_of(predictor.skeleton)
        self._memory: deque[_Seen] = deque(maxlen=self.settings.memory)  # Q of Algorithm 1, oldest first
        self._moves: dict[int, np.ndarray] = {}  # how far each person moves in a frame, (2,) pixels
        self._last: list[Pose] = []
        self._answered: list | None = None  # boxes and scores of the last frame; None where it failed
        self._next_id = 0
        self._background = ThreadPoolExecutor(1)

    def __call__(
        self,
        image: Any,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> list[Pose]:
        """The people of the next frame; arguments as `PosePredictor` takes them, for one image.

        Returns:
            Poses with a `track_id`, best first. Warnings report people without a pose.

        Raises:
            UserError: not an image, or not boxes.
        """
        poses, lost = self.follow(image, boxes_xywh, box_scores)
        for line in lost:
            logger.warning("%s", line)
        return poses

    def follow(
        self, image: Any, boxes_xywh: Sequence[Sequence[float]] | None, box_scores: Sequence[float] | None
    ) -> tuple[list[Pose], list[str]]:
        """As a call; the messages about people without a pose are returned, too."""
        image = as_image(image)
        asked = [None if given is None else np.asarray(given, object).tolist() for given in (boxes_xywh, box_scores)]
        if not self.motion.see(image) and asked == self._answered:
            return self._last, []
        self._answered = None
        # Carried boxes are needed before the pose network runs, so the flow is computed behind the detector.
        carrying = self._background.submit(self._carry)
        try:
            if boxes_xywh is None:
                height, width = image.shape[:2]
                whole = np.array([[0.0, 0.0, width, height]]), np.ones(1)
                boxes_xywh, box_scores = self.detector(image) if self.detector else whole
        finally:
            carrying.result()
        boxes, scores = self._unified(boxes_xywh, box_scores, image.shape[1::-1])
        crops = self.predictor.crop(image, boxes, scores)
        poses = self._worth_keeping(self.predictor.predict([crops])[0])
        self._last, self._answered = self._identified(poses), asked
        return self._last, crops.lost

    def _carry(self) -> None:
        """Move all that is remembered to the newest frame; after a cut, forget it.

        Where somebody is hidden, flow is that of whoever is in front; who was not found in the last frame therefore
        moves on as before.
        """
        points = [seen.carried.reshape(-1, 2) for seen in self._memory]
        carried = self.motion.carry(np.concatenate([np.zeros((0, 2)), *points]))
        if carried is None:
            self._memory.clear()
            return
        people = carried.reshape(-1, len(self._sigmas), 2)
        there = self._memory[-1].ids if self._memory else []
        for seen in self._memory:
            flowed, people = np.split(people, [len(seen.ids)])
            moved = seen.carried + np.array([self._moves[number] for number in seen.ids.tolist()]).reshape(-1, 1, 2)
            seen.carried = np.where(np.isin(seen.ids, there)[:, None, None], flowed, moved)

    def _unified(
        self, boxes: Sequence[Sequence[float]], scores: Sequence[float] | None, image_size_wh: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Given boxes, and carried ones where there is none of them (`F_NMS` of Algorithm 1)."""
        boxes, _ = as_boxes(boxes, tuple(image_size_wh))
        scores = np.ones(len(boxes)) if scores is None else np.asarray(scores, dtype=np.float64)
        if not (self.settings.propagate and self._memory) or scores.shape != (len(boxes),):
            return boxes, scores  # the predictor refuses a wrong number of scores
        last = self._memory[-1]
        carried = joint_boxes(last.carried, last.known)
        carried[:, :2] -= carried[:, 2:] * (BOX_MARGIN - 1) / 2
        carried[:, 2:] *= BOX_MARGIN
        inside = (carried[:, :2] < image_size_wh) & (carried[:, :2] + carried[:, 2:] > 0) & (carried[:, 2:] >= 1)
        carried, carried_scores = carried[inside.all(axis=1)], last.box_scores[inside.all(axis=1)]
        # Detections first, whatever their scores: carried boxes fill in what the detector missed.
        order = np.concatenate([scores - scores.min(initial=0), carried_scores - carried_scores.max(initial=0) - 1])
        boxes, scores = np.concatenate([boxes, carried]), np.concatenate([scores, carried_scores])
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        keep = suppress_overlaps(corners, order, self.settings.max_overlap)
        return boxes[keep], scores[keep]

    def _worth_keeping(self, poses: list[Pose]) -> list[Pose]:
        """Drop poses with low scores, and of several poses of one person all but the best."""
        poses = [pose for pose in poses if pose.score >= self.settings.min_score]
        if len(poses) < 2:
            return poses
        joints = np.stack([pose.keypoints for pose in poses])
        areas = joint_boxes(joints, np.ones(joints.shape[:2], bool))[:, 2:].prod(axis=1)
        rows = oks_nms(joints, np.array([pose.score for pose in poses]), areas, self._sigmas, SAME_POSE)
        return [poses[row] for row in rows]

    def _identified(self, poses: list[Pose]) -> list[Pose]:
        """Give every pose the id of the tracked person that it matches, or a new one, and remember it."""
        settings = self.settings
        shape = len(poses), len(self._sigmas)
        joints = np.array([pose.keypoints for pose in poses], dtype=np.float64).reshape(*shape, 2)
        known = np.array([pose.scores for pose in poses]).reshape(shape) >= settings.min_joint_score
        boxes = np.array([pose.box for pose in poses], dtype=np.float64).reshape(-1, 4)
        ids = np.full(len(poses), NONE)
        if poses and self._memory:
            tracked, similarity = self._similarity(joints, boxes)
            match = match_optimally if settings.hungarian else match_greedily
            columns = match(similarity, settings.min_similarity)
            ids[columns != NONE] = tracked[columns[columns != NONE]]
        new = ids == NONE
        ids[new] = self._next_id + np.arange(new.sum())
        self._next_id += int(new.sum())
        self._learn_moves(ids, joints)
        scores = np.array([pose.box_score for pose in poses])
        self._memory.append(_Seen(ids, joints, joints, known, boxes, scores))
        return [replace(pose, track_id=int(number)) for pose, number in zip(poses, ids)]

    def _learn_moves(self, ids: np.ndarray, joints: np.ndarray) -> None:
        """How far people move in a frame, by their poses: half of it from the last two frames, half from before."""
        last = dict(zip(self._memory[-1].ids.tolist(), self._memory[-1].joints)) if self._memory else {}
        numbers = np.concatenate([ids, *(seen.ids for seen in self._memory)])
        moves = {number: self._moves.get(number, np.zeros(2)) for number in numbers.tolist()}
        for number, pose in zip(ids.tolist(), joints):
            if number in last:
                moves[number] = (moves[number] + np.median(pose - last[number], axis=0)) / 2
        self._moves = moves

    def _similarity(self, joints: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids (T,) of those who are remembered, and how similar each pose is to the best memory of each, (P, T)."""
        each = []
        for seen in self._memory:
            if self.settings.similarity == "bbox":
                each.append(box_similarity(boxes, seen.boxes))
            else:
                tracked = seen.carried if self.settings.similarity == "flow" else seen.joints
                each.append(pose_similarity(joints, tracked, seen.known, self._sigmas))
        similarity = np.concatenate(each, axis=1)  # (P, M)
        owners = np.concatenate([seen.ids for seen in self._memory])  # (M,)
        ids = np.unique(owners)
        best = [similarity[:, owners == number].max(axis=1) for number in ids]
        return ids, np.stack(best, axis=1) if len(ids) else np.zeros((len(joints), 0))
