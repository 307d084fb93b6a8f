"""Tracking a whole source as a pipeline: decoding, the detector, and flow with the pose network overlap."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np

from simplepose.inference.box_sources import BoxSource
from simplepose.inference.pipeline import ahead, or_failure
from simplepose.inference.predictor import Pose
from simplepose.inference.sources import Frame
from simplepose.tracking.tracker import PoseTracker

Found = tuple[np.ndarray, np.ndarray]  # boxes (P, 4) and scores (P,)


def follow_people(
    frames: Iterable[Frame], boxes: BoxSource, tracker: PoseTracker, live: bool = False
) -> Iterator[tuple[Frame, list[Pose]]]:
    """As `find_poses`, with a tracker in the predictor's place: frame after frame, each pose with a track.

    A failed frame is left out by the tracker, which then goes on from the one before it.
    """
    if live:
        yield from _follow(_boxed(frames, boxes), tracker)
        return
    with contextlib.ExitStack() as stages:  # the last one ends first: nothing is read from `frames` afterwards
        read = stages.enter_context(contextlib.closing(ahead(frames)))
        boxed = stages.enter_context(contextlib.closing(ahead(_boxed(read, boxes))))
        yield from stages.enter_context(contextlib.closing(ahead(_follow(boxed, tracker))))


def _boxed(frames: Iterable[Frame], boxes: BoxSource) -> Iterator[tuple[Frame, Found | None]]:
    for frame in frames:
        yield frame, None if frame.failure else or_failure(frame, boxes, frame)


def _follow(boxed: Iterable[tuple[Frame, Found | None]], tracker: PoseTracker) -> Iterator[tuple[Frame, list[Pose]]]:
    for frame, found in boxed:
        followed = None if frame.failure else or_failure(frame, tracker.follow, frame.image, *found)
        poses, frame.lost = followed or ([], [])
        yield frame, poses
