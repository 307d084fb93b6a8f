"""Augmentation: draw a flip, a scale and a rotation; they become part of the crop's affine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROTATION_PROBABILITY = 0.6
FLIP_PROBABILITY = 0.5


@dataclass(frozen=True)
class AugmentationSettings:
    """Attributes: scale_factor (SCALE_FACTOR), rotation_factor in degrees (ROT_FACTOR), flip (FLIP)."""

    scale_factor: float = 0.25
    rotation_factor: float = 30.0
    flip: bool = True


@dataclass(frozen=True)
class Augmentation:
    """What was drawn: the crop grows by `scale`, turns by `rotation_deg`, and is mirrored if `flip`."""

    scale: float = 1.0
    rotation_deg: float = 0.0
    flip: bool = False


NO_AUGMENTATION = Augmentation()


def sample_augmentation(rng: np.random.Generator, settings: AugmentationSettings) -> Augmentation:
    """Draw as the original's JointsDataset does.

    Scale is normal around 1 with deviation SCALE_FACTOR, clipped at one deviation. Six times out of ten the
    rotation is normal around 0 with deviation ROT_FACTOR, clipped at two. Every other crop is mirrored.
    """
    scale_factor, rotation_factor = settings.scale_factor, settings.rotation_factor
    scale = np.clip(1 + scale_factor * rng.standard_normal(), 1 - scale_factor, 1 + scale_factor)
    rotation = np.clip(rotation_factor * rng.standard_normal(), -2 * rotation_factor, 2 * rotation_factor)
    rotates = rng.random() < ROTATION_PROBABILITY
    flips = rng.random() < FLIP_PROBABILITY
    return Augmentation(float(scale), float(rotation) if rotates else 0.0, bool(settings.flip and flips))
