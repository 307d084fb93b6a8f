"""PosePredictor: images and boxes in, poses out."""

from __future__ import annotations

import logging
import reprlib
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import numpy as np

from simplepose.core.codecs.base import Codec
from simplepose.core.errors import UserError
from simplepose.core.geometry import apply_affine, as_boxes, box_to_crop, crop_affine, invert_affine
from simplepose.core.images import as_image, crop_image
from simplepose.core.oks import rescore
from simplepose.core.skeletons import Skeleton
from simplepose.inference.network import InferenceSettings, PoseNetwork
from simplepose.inference.person_search import find_person

logger = logging.getLogger("simplepose")

DEFAULTS = InferenceSettings()


@dataclass(frozen=True)
class Pose:
    """One person.

    Attributes:
        keypoints: (K, 2) image pixels, 0-based (x, y).
        scores: (K,) heatmap maxima, about 0 to 1.
        box: (4,) left, top, width, height in pixels, as given.
        box_score: the detector's score of the box; 1 if there is none.
        skeleton: names and limbs of the joints.
        track_id: who it is in a video, by a tracker; None without one.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    box_score: float
    skeleton: Skeleton
    track_id: int | None = None

    @property
    def joints(self) -> tuple[str, ...]:
        """The names of the K joints."""
        return self.skeleton.joints

    @property
    def pose_score(self) -> float:
        """The mean of the positive keypoint scores."""
        return float(rescore(np.ones(1), self.scores[None], 0.0)[0])

    @property
    def score(self) -> float:
        """Box score times pose score: COCO's rescoring."""
        return float(self.box_score * self.pose_score)

    def to_dict(self) -> dict[str, Any]:
        """The person as JSON values, joints by name."""
        return {
            **({} if self.track_id is None else {"track_id": self.track_id}),
            "bbox": self.box.tolist(),
            "box_score": float(self.box_score),
            "pose_score": self.pose_score,
            "score": self.score,
            "keypoints": {
                name: {"x": float(x), "y": float(y), "score": float(score)}
                for name, (x, y), score in zip(self.joints, self.keypoints, self.scores)
            },
        }

    def draw(self, image: Any, min_score: float = 0.2) -> np.ndarray:
        """Draw limbs and joints, without joints below `min_score`.

        Args:
            image: whatever `PosePredictor` takes.

        Returns:
            (H, W, 3) uint8 BGR: the image itself if it is such an array, drawn on in place; else a new array.
        """
        from simplepose.core.drawing import draw_pose

        image = as_image(image)
        draw_pose(image, self.keypoints, self.scores, self.skeleton, min_score)
        return image


@dataclass(frozen=True)
class Crops:
    """The people of one image, ready for the network.

    Attributes:
        images: (P, 3, H, W) float32, or (P, H, W, 3) uint8 for a network that normalises them itself.
        to_image: (P, 2, 3) affines from network input pixels to image pixels.
        boxes: (P, 4) left, top, width, height in image pixels.
        box_scores: (P,).
        lost: a message for each person without a pose: its box is outside the image, or (after the network) its
            keypoints are NaN.
    """

    images: np.ndarray
    to_image: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    lost: list[str] = field(default_factory=list)


def cut_out(image: np.ndarray, boxes_xywh: np.ndarray, codec: Codec) -> tuple[np.ndarray, np.ndarray]:
    """Cut the people in boxes (P, 4) out of an image (H, W, 3).

    Returns:
        crops (P, h, w, 3) uint8 BGR of the codec's image size, and affines (P, 2, 3) from image pixels to crop pixels.
    """
    width, height = codec.image_size_wh
    affines = np.empty((len(boxes_xywh), 2, 3))
    crops = np.empty((len(boxes_xywh), height, width, 3), np.uint8)
    for index, box in enumerate(boxes_xywh):
        center, size = box_to_crop(box, aspect_ratio=width / height)
        affines[index] = crop_affine(center, size[0], 0.0, codec.extent_wh)
        crops[index] = crop_image(image, affines[index], codec.image_size_wh)
    return crops, affines


class PosePredictor:
    """Poses of the people in images. `simplepose.PosePredictor` takes files as well.

    Args:
        network: with its preprocessing and decoding.
        settings: flip test and decoding.
        batch_size: the most people in one forward pass.
        detector: finds the people when no boxes are given: from an image (H, W, 3) uint8 BGR to boxes (P, 4) as left,
            top, width, height and scores (P,). None: the network itself finds one person, see `find_person`.
        name: of the network, in messages.

    Raises:
        UserError: a flip test of an exported network that decodes but was exported without one.
    """

    def __init__(
        self,
        network: PoseNetwork,
        settings: InferenceSettings = DEFAULTS,
        batch_size: int = 16,
        detector: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        name: str = "the network",
    ):
        if settings.flip_test and network.graph.decode and not network.graph.flip_test:
            raise UserError(f"{name} decodes in its graph, without the flip test; export it with --with-flip-test too")
        self.network = network
        self.settings = settings
        self.batch_size = batch_size
        self.detector = detector
        self._running = threading.Lock()  # a search in one thread, poses in another: the network may not like both

    @property
    def skeleton(self) -> Skeleton:
        return self.network.skeleton

    def __call__(
        self,
        image: Any,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> list[Pose] | list[list[Pose]]:
        """Find the people of an image.

        Args:
            image: a file, a Pillow image, or an array of uint8: (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) gray; see
                `as_image`. Or a list of these, whose people go through the network together.
            boxes_xywh: (P, 4) left, top, width, height in pixels; None asks the detector, and without one the network
                finds one person. For a list of images a list with one such entry for each.
            box_scores: (P,), 1 each by default; for a list of images a list of them.

        Returns:
            A pose for each box, in the order of the boxes, except for boxes outside the image and for people with NaN
            outputs; a warning reports those. For a list of images a list of such lists.

        Raises:
            UserError: not an image, or not boxes.
        """
        if not isinstance(image, (list, tuple)):
            return self._call([image], [boxes_xywh], [box_scores])[0]
        each = []
        for name, given in (("boxes_xywh", boxes_xywh), ("box_scores", box_scores)):
            each.append([None] * len(image) if given is None else given)
            if len(each[-1]) != len(image):
                raise UserError(f"for {len(image)} images {name} must have as many entries, not {len(given)}")
        return self._call(image, *each)

    def _call(self, images: Sequence[Any], boxes: Sequence[Any], box_scores: Sequence[Any]) -> list[list[Pose]]:
        people = [self.crop(*one) for one in zip(images, boxes, box_scores)]
        poses = self.predict(people)
        for line in (line for crops in people for line in crops.lost):
            logger.warning("%s", line)
        return poses

    def crop(
        self,
        image: Any,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> Crops:
        """The first half of a call: crop the people of one image. Arguments as in `__call__`."""
        image = as_image(image)
        height, width = image.shape[:2]
        if boxes_xywh is None:
            boxes_xywh, box_scores = self.detector(image) if self.detector else (self.find_person(image), box_scores)
        boxes, inside = as_boxes(boxes_xywh, (width, height))
        try:
            scores = np.ones(len(boxes)) if box_scores is None else np.asarray(box_scores, dtype=np.float64)
        except (TypeError, ValueError):
            scores = np.zeros(0)
        if scores.shape != (len(boxes),) or not np.isfinite(scores).all():
            raise UserError(f"{len(boxes)} boxes need as many finite scores, found {reprlib.repr(box_scores)}")
        lost = [
            f"no pose for box {box_text(box)}, which does not touch the image of {width}x{height} pixels"
            for box in boxes[~inside]
        ]
        boxes, scores = boxes[inside], scores[inside]
        crops, affines = cut_out(image, boxes, self.network.codec)
        return Crops(self.network.prepare(crops), invert_affine(affines), boxes, scores, lost)

    def find_person(self, image: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """The box (4,) of a person in an image (H, W, 3) uint8 BGR, found by the network; the whole image if nobody is.

        It misses people smaller than a third of the image, and of several people it takes one: a detector is
        better.

        Args:
            near: the person's box in the frame before, for videos.
        """
        settings = replace(self.settings, flip_test=False)

        def look(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            crops, affines = cut_out(image, boxes, self.network.codec)
            joints, scores = self._run(self.network.prepare(crops), settings)
            return apply_affine(invert_affine(affines), joints), scores

        return find_person(look, image.shape[1::-1], near)

    def predict(self, people: Sequence[Crops]) -> list[list[Pose]]:
        """The second half of a call: run the network on the people of several images together.

        Returns:
            For each image its poses, in the order of the boxes. A person with NaN or infinite keypoints or scores gets
            a message in `Crops.lost` instead.
        """
        if not people:
            return []
        images = np.concatenate([crops.images for crops in people])  # (N, ...), N people in all images
        answers = iter(self._predict(images, people))
        poses: list[list[Pose]] = []
        for crops in people:
            poses.append([])
            for box, box_score in zip(crops.boxes, crops.box_scores.tolist()):
                keypoints, scores = next(answers)
                if np.isfinite(keypoints).all() and np.isfinite(scores).all():
                    poses[-1].append(Pose(keypoints, scores, box, box_score, self.skeleton))
                else:
                    crops.lost.append(f"no pose for box {box_text(box)}: the network's answer is NaN or infinite")
        return poses

    def _predict(self, images: np.ndarray, people: Sequence[Crops]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Keypoints (K, 2) in image pixels and scores (K,) of each person."""
        if not len(images):
            return []
        joints, scores = self._run(images, self.settings)
        return zip(apply_affine(np.concatenate([crops.to_image for crops in people]), joints), scores)

    def _run(self, images: np.ndarray, settings: InferenceSettings) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, K, 2) in input pixels and scores (N, K) of prepared images, N > 0, batch by batch."""
        found = []
        for start in range(0, len(images), self.batch_size):
            with self._running:
                found.append(self.network.predict(images[start : start + self.batch_size], settings))
        joints, scores = (np.concatenate(parts) for parts in zip(*found))
        return joints, scores


def box_text(box_xywh: np.ndarray) -> str:
    """A box as --bbox takes it."""
    return ",".join(f"{value:g}" for value in box_xywh)
