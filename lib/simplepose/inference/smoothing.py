"""The one-euro filter: steady when a joint rests, quick when it moves.

Source: Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012. Equations 1 to 5 there.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from simplepose.inference.predictor import Pose

MIN_CUTOFF_HZ = 1.0  # of a joint at rest: lower is steadier
SPEED_COEFFICIENT = 10.0  # Hz per body height a second: higher follows quick motion with less lag
SPEED_CUTOFF_HZ = 1.0


class OneEuroFilter:
    """Smooths the points of one person over a video.

    Args:
        fps: frames a second.
        min_cutoff_hz, speed_coefficient: see above.
    """

    def __init__(self, fps: float, min_cutoff_hz: float = MIN_CUTOFF_HZ, speed_coefficient: float = SPEED_COEFFICIENT):
        self.fps = fps
        self.min_cutoff_hz = min_cutoff_hz
        self.speed_coefficient = speed_coefficient
        self._points: np.ndarray | None = None
        self._speeds: np.ndarray | None = None

    def __call__(self, points: np.ndarray, known: np.ndarray, body_size: float = 1.0) -> np.ndarray:
        """The next frame.

        Args:
            points: (K, 2).
            known: (K,) bool; an unknown joint is returned unchanged, and its filter restarts when it is known again.
            body_size: unit of the speeds, in the points' unit, so that the resolution of the video does not matter.

        Returns:
            (K, 2) smoothed.
        """
        if self._points is None:
            self._points = np.full_like(points, np.nan, dtype=np.float64)
            self._speeds = np.zeros_like(self._points)
        going_on = known & np.isfinite(self._points).all(axis=1)
        step = np.where(going_on[:, None], points - self._points, 0)
        speeds = self._speeds + self._weight(SPEED_CUTOFF_HZ) * (step * self.fps / body_size - self._speeds)
        self._speeds = np.where(going_on[:, None], speeds, 0)
        cutoff = self.min_cutoff_hz + self.speed_coefficient * np.linalg.norm(self._speeds, axis=1, keepdims=True)
        smoothed = np.where(going_on[:, None], self._points + self._weight(cutoff) * step, points)
        self._points = np.where(known[:, None], smoothed, np.nan)
        return smoothed

    def _weight(self, cutoff_hz: float | np.ndarray) -> float | np.ndarray:
        """The weight of the newest value in a first-order low-pass filter."""
        return 1 / (1 + self.fps / (2 * math.pi * cutoff_hz))


class PoseSmoother:
    """`OneEuroFilter` on the poses of a video: one for each tracked person, or for the only one. Frames with several
    people who are not tracked pass unchanged.

    Attributes:
        skipped: number of frames with several people, which would need tracking.
    """

    def __init__(self, fps: float, min_score: float):
        self.fps = fps
        self.min_score = min_score
        self.skipped = 0
        self._filters: dict[int | None, OneEuroFilter] = {}  # by track; of the people of the last frame

    def __call__(self, poses: list[Pose]) -> list[Pose]:
        tracks = [pose.track_id for pose in poses]
        if len(set(tracks)) < len(tracks):
            self.skipped += 1
            self._filters = {}
            return poses
        self._filters = {track: self._filters.get(track) or OneEuroFilter(self.fps) for track in tracks}
        smoothed = []
        for pose in poses:
            points = self._filters[pose.track_id](
                pose.keypoints, pose.scores >= self.min_score, max(float(pose.box[3]), 1.0)
            )
            smoothed.append(replace(pose, keypoints=points))
        return smoothed
