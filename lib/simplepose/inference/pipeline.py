"""Poses for a whole source, as a pipeline: decoding, detecting and cropping, the pose network, and drawing overlap.

Each stage is a generator that its own thread runs slightly ahead of the next stage. OpenCV and both runtimes release
the GIL, so the stages run in parallel.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Callable, TypeVar

import cv2

from simplepose.core.errors import UserError
from simplepose.inference.box_sources import BoxSource
from simplepose.inference.predictor import Crops, Pose, PosePredictor
from simplepose.inference.sources import Frame

AHEAD = 2  # images waiting between two stages; a few even out the jitter, more only cost memory
FRAMES_PER_BATCH = 4  # images whose people go through the network together

Item = TypeVar("Item")


class Summary:
    """Counts the results of a run, and measures its time from here on.

    Args:
        min_score: joints at or above it count as found.

    Attributes:
        failures: (which frame, why), of frames and of single persons.
    """

    def __init__(self, min_score: float):
        self.min_score = min_score
        self.images = self.people = self.joints = self.found = self.empty = 0
        self.failures: list[tuple[str, str]] = []
        self._tracks: set[int | None] = set()
        self._start = time.perf_counter()

    def add(self, frame: Frame, poses: list[Pose]) -> None:
        self.images += 1
        self.people += len(poses)
        for pose in poses:
            self._tracks.add(pose.track_id)
            self.joints += len(pose.scores)
            self.found += int((pose.scores >= self.min_score).sum())
        self.failures += [(frame.label, why) for why in frame.lost]
        if frame.failure:
            self.failures.append((frame.label, frame.failure))
        elif not poses:
            self.empty += 1

    def __str__(self) -> str:
        seconds = time.perf_counter() - self._start
        rate = self.images / max(seconds, 1e-9)
        people = _count(self.people, "person", "people")
        if self._tracks and None not in self._tracks:
            people = f"{_count(self.people, 'pose')} of {_count(len(self._tracks), 'person', 'people')}"
        return (
            f"{_count(self.images, 'image')} ({self.empty} without people), {people}, "
            f"{self.found} of {self.joints} joints score {self.min_score} or more, "
            f"{seconds:.1f} s ({rate:.1f} images/s), {len(self.failures)} failed"
        )


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"


def find_poses(
    frames: Iterable[Frame], boxes: BoxSource, predictor: PosePredictor, live: bool = False
) -> Iterator[tuple[Frame, list[Pose]]]:
    """The poses of every frame, in order.

    Args:
        frames: a frame with a failure passes through without poses, and so does one that fails here.
        live: for cameras: one frame is processed at a time, without queues. The stages then do not overlap: low latency
            matters more than frames per second.
    """
    if live:
        yield from _predict(_crop(frames, boxes, predictor), predictor, 1)
        return
    with contextlib.ExitStack() as stages:  # the last one ends first: nothing is read from `frames` afterwards
        read = stages.enter_context(contextlib.closing(ahead(frames)))
        cropped = stages.enter_context(contextlib.closing(ahead(_crop(read, boxes, predictor))))
        yield from stages.enter_context(contextlib.closing(ahead(_predict(cropped, predictor, FRAMES_PER_BATCH))))


def _crop(frames: Iterable[Frame], boxes: BoxSource, predictor: PosePredictor) -> Iterator[tuple[Frame, Crops | None]]:
    for frame in frames:
        crops = None
        if not frame.failure:
            crops = or_failure(frame, lambda frame: predictor.crop(frame.image, *boxes(frame)), frame)
        yield frame, crops


def or_failure(frame: Frame, function: Callable[..., Item], *arguments: object) -> Item | None:
    """What the function returns; None if it fails, and then the frame says why."""
    try:
        return function(*arguments)
    except (UserError, cv2.error, MemoryError) as error:
        frame.failure = " ".join(str(error).split()) or type(error).__name__
        return None


def _predict(
    cropped: Iterable[tuple[Frame, Crops | None]], predictor: PosePredictor, frames_per_batch: int
) -> Iterator[tuple[Frame, list[Pose]]]:
    waiting: list[tuple[Frame, Crops | None]] = []
    for item in cropped:
        waiting.append(item)
        people = sum(len(crops.boxes) for _, crops in waiting if crops)
        if len(waiting) >= frames_per_batch or people >= predictor.batch_size:
            yield from _predict_batch(waiting, predictor)
            waiting = []
    if waiting:
        yield from _predict_batch(waiting, predictor)


def _predict_batch(
    batch: list[tuple[Frame, Crops | None]], predictor: PosePredictor
) -> Iterator[tuple[Frame, list[Pose]]]:
    people = [crops for _, crops in batch if crops is not None]
    poses = iter(predictor.predict(people) if people else [])
    for frame, crops in batch:
        frame.lost = crops.lost if crops is not None else []
        yield frame, next(poses) if crops is not None else []


def ahead(items: Iterable[Item], depth: int = AHEAD) -> Iterator[Item]:
    """Iterate in a thread, at most `depth` items ahead of the consumer.

    An error in the thread is raised here, after the items before it. When this generator is closed, the thread stops
    after its current item.
    """
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: Item | None, error: BaseException | None, last: bool) -> None:
        while not stopped.is_set():
            try:
                return ready.put((item, error, last), timeout=0.1)
            except queue.Full:
                pass

    def work() -> None:
        error = None
        iterator = iter(items)
        try:
            for item in iterator:
                put(item, None, False)
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            if hasattr(iterator, "close"):
                iterator.close()
        put(None, error, True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error, last = ready.get()
            if error is not None:
                raise error
            if last:
                return
            yield item
    finally:
        stopped.set()
        thread.join()
