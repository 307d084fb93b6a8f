"""Augmentation: what is drawn for a crop. Motion becomes part of the crop's affine; colours change in the crop."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from simplepose.core.geometry import box_to_crop

ROTATION_PROBABILITY = 0.6
FLIP_PROBABILITY = 0.5
HALF_BODY_PADDING = 1.5  # of the crop around half a body
HALF_BODY_JOINTS = 8  # labelled joints of a person who may be halved, and ...
HALF_BODY_PART = 3  # ... of a half
OCCLUSION_SIDES = (0.1, 0.4)  # of the rectangle, as a part of the crop's


@dataclass(frozen=True)
class AugmentationSettings:
    """Section DATASET of the configuration.

    Attributes:
        scale_factor, rotation_factor in degrees, flip: as the original has them.
        shift_factor, half_body, color_factor, occlusion: see SHIFT_FACTOR, PROB_HALF_BODY, COLOR_FACTOR and
            PROB_OCCLUSION.
    """

    scale_factor: float = 0.25
    rotation_factor: float = 30.0
    flip: bool = True
    shift_factor: float = 0.0
    half_body: float = 0.0
    color_factor: float = 0.0
    occlusion: float = 0.0


@dataclass(frozen=True)
class Augmentation:
    """What was drawn.

    Attributes:
        scale, rotation_deg, flip: the crop grows by `scale`, turns, and is mirrored.
        shift: (2,) by how much of its size it moves.
        half_body: "upper", "lower" or "".
        colors: gain and offset (2, 3) of each channel, or None.
        occlusion: left, top, width, height as parts of the crop and blue, green, red (7,), or None.
    """

    scale: float = 1.0
    rotation_deg: float = 0.0
    flip: bool = False
    shift: tuple[float, float] = (0.0, 0.0)
    half_body: str = ""
    colors: np.ndarray | None = None
    occlusion: np.ndarray | None = None


NO_AUGMENTATION = Augmentation()


def sample_augmentation(rng: np.random.Generator, settings: AugmentationSettings) -> Augmentation:
    """Draw scale, rotation and flip as the original's JointsDataset does, and what came after it.

    Scale is normal around 1 with deviation SCALE_FACTOR, clipped at one deviation. Six times out of ten the
    rotation is normal around 0 with deviation ROT_FACTOR, clipped at two. Every other crop is mirrored. All others are
    uniform. Everything is drawn, used or not, so that switching one on does not change the others.
    """
    scale_factor, rotation_factor = settings.scale_factor, settings.rotation_factor
    scale = np.clip(1 + scale_factor * rng.standard_normal(), 1 - scale_factor, 1 + scale_factor)
    rotation = np.clip(rotation_factor * rng.standard_normal(), -2 * rotation_factor, 2 * rotation_factor)
    rotates = rng.random() < ROTATION_PROBABILITY
    flips = rng.random() < FLIP_PROBABILITY
    shift = settings.shift_factor * rng.uniform(-1, 1, 2)
    halved, upper = rng.random(2) < (settings.half_body, 0.5)
    colors = 1 + settings.color_factor * rng.uniform(-1, 1, (2, 3))
    occluded = rng.random() < settings.occlusion
    sides = rng.uniform(*OCCLUSION_SIDES, 2)
    corner, paint = rng.random(2) * (1 - sides), rng.uniform(0, 255, 3)
    return Augmentation(
        float(scale),
        float(rotation) if rotates else 0.0,
        bool(settings.flip and flips),
        (float(shift[0]), float(shift[1])),
        ("upper" if upper else "lower") if halved else "",
        np.stack([colors[0], 127.5 * (colors[1] - 1)]) if settings.color_factor else None,
        np.concatenate([corner, sides, paint]) if occluded else None,
    )


def half_body(
    joints: np.ndarray, visible: np.ndarray, lower: np.ndarray, part: str, aspect_ratio: float
) -> tuple[np.ndarray, float] | None:
    """The crop around half of a body, or around the other half if that one has too few labelled joints.

    Args:
        joints, visible: (K, 2) pixels and (K,).
        lower: (K,) bool, `Skeleton.lower_body`.
        part: "upper" or "lower".
        aspect_ratio: width / height of the network's input.

    Returns:
        Centre (2,) and width in pixels; None if neither half will do. Source: HRNet (Sun et al., CVPR 2019).
    """
    labelled = visible > 0
    if labelled.sum() < HALF_BODY_JOINTS:
        return None
    halves = [labelled & ~lower, labelled & lower]
    for half in halves if part == "upper" else halves[::-1]:
        if half.sum() >= HALF_BODY_PART:
            low, high = joints[half].min(axis=0), joints[half].max(axis=0)
            center, size = box_to_crop(np.concatenate([low, high - low]), aspect_ratio, HALF_BODY_PADDING)
            return (center, float(size[0])) if size[0] >= 1 else None
    return None


def repaint(crop: np.ndarray, drawn: Augmentation) -> np.ndarray:
    """Change the colours of a crop (H, W, 3) uint8, and paint over a part of it, as drawn."""
    if drawn.colors is not None:
        gain, offset = drawn.colors
        crop = cv2.LUT(crop, np.clip(np.rint(np.arange(256)[:, None] * gain + offset), 0, 255).astype(np.uint8)[None])
    if drawn.occlusion is not None:
        height, width = crop.shape[:2]
        left, top, wide, high = np.rint(drawn.occlusion[:4] * (width, height, width, height)).astype(int)
        crop[top : top + high, left : left + wide] = np.rint(drawn.occlusion[4:])
    return crop
