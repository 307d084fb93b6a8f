"""Inference: the flip test, and PosePredictor, over any function that turns images into heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np

from simplepose.geometry import apply_affine, box_to_crop, crop_affine, invert_affine
from simplepose.heatmaps import HeatmapCodec, flip_heatmaps
from simplepose.preprocessing import InputFormat, crop_image, normalize
from simplepose.skeletons import Skeleton

Network = Callable[[np.ndarray], np.ndarray]  # (N, 3, H, W) float32 -> (N, K, h, w) float32


@dataclass(frozen=True)
class InferenceSettings:
    """How heatmaps are made and read (section TEST of the configuration)."""

    flip_test: bool = False
    shift_heatmap: bool = True
    post_process: bool = True


def predict_heatmaps(
    network: Network, images: np.ndarray, flip_permutation: np.ndarray, settings: InferenceSettings
) -> np.ndarray:
    """Run the network, averaged with its answer to the mirrored images if the settings ask for the flip test.

    Args:
        images: (N, 3, H, W).
        flip_permutation: (K,), `Skeleton.flip_permutation`.

    Returns:
        (N, K, h, w) float32.
    """
    heatmaps = network(images)
    if settings.flip_test:
        mirrored = network(np.ascontiguousarray(images[..., ::-1]))
        heatmaps = 0.5 * (heatmaps + flip_heatmaps(mirrored, flip_permutation, settings.shift_heatmap))
    return heatmaps


@dataclass(frozen=True)
class Pose:
    """One person.

    Attributes:
        keypoints: (K, 2) image pixels, 0-based (x, y).
        scores: (K,) heatmap maxima, about 0 to 1.
        box_xywh: (4,) the box that was asked about.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    box_xywh: np.ndarray


class PosePredictor:
    """Poses of the people in an image, given their boxes.

    Args:
        network: (N, 3, H, W) float32 -> (N, K, h, w).
        skeleton, codec, input_format: those the network was trained with.
        settings: flip test and decoding.
    """

    def __init__(
        self,
        network: Network,
        skeleton: Skeleton,
        codec: HeatmapCodec,
        input_format: InputFormat,
        settings: InferenceSettings = InferenceSettings(),
    ):
        self.network = network
        self.skeleton = skeleton
        self.codec = codec
        self.input_format = input_format
        self.settings = settings

    def __call__(self, image: np.ndarray, boxes_xywh: Sequence[Sequence[float]] | None = None) -> list[Pose]:
        """Find a pose in each box.

        Args:
            image: (H, W, 3) uint8, BGR.
            boxes_xywh: (P, 4) left, top, width, height in pixels; None asks about the whole image.

        Returns:
            P poses, in the order of the boxes.
        """
        if boxes_xywh is None:
            height, width = image.shape[:2]
            boxes_xywh = [(0, 0, width, height)]
        boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
        if not len(boxes):
            return []
        size_wh = self.codec.image_size_wh
        affines = []
        for box in boxes:
            center, size = box_to_crop(box, aspect_ratio=size_wh[0] / size_wh[1])
            affines.append(crop_affine(center, size[0], 0.0, size_wh))
        crops = np.stack([crop_image(image, affine, size_wh) for affine in affines])  # (P, H, W, 3)
        images = normalize(crops, self.input_format)  # (P, 3, H, W)
        heatmaps = predict_heatmaps(self.network, images, self.skeleton.flip_permutation, self.settings)
        joints, scores = self.codec.decode(heatmaps, self.settings.post_process)  # (P, K, 2), (P, K)
        keypoints = apply_affine(invert_affine(np.stack(affines)), joints)
        return [Pose(*person) for person in zip(keypoints, scores, boxes)]


def paddle_network(model) -> Network:
    """A Paddle layer as a `Network`: eval mode, no gradients, arrays in and out."""
    import paddle

    model.eval()

    def network(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return model(paddle.to_tensor(images)).numpy()

    return network
