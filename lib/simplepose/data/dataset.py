"""From samples to batches: read, augment, crop, encode; in order, in parallel, and the same at any worker count."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simplepose.core.codecs.base import Codec
from simplepose.core.errors import UserError
from simplepose.core.geometry import apply_affine, crop_affine, invert_affine, patch_affine
from simplepose.core.images import REDUCED, InputFormat, crop_image, normalize, read_image
from simplepose.core.skeletons import Skeleton
from simplepose.data.augment import (
    NO_AUGMENTATION,
    Augmentation,
    AugmentationSettings,
    half_body,
    repaint,
    sample_augmentation,
)
from simplepose.data.crop_cache import CropCache
from simplepose.data.sample import PoseSample

logger = logging.getLogger("simplepose")


@dataclass(frozen=True)
class Batch:
    """N crops, ready for the network.

    Attributes:
        images: (N, 3, H, W) float32.
        heatmaps: (N, K, h, w) float32 targets.
        weights: (N, K) float32, 0 where a joint is out of the loss.
        to_image: (N, 2, 3) affines from network input pixels back to image pixels.
        indices: (N,) rows in the list of samples.
    """

    images: np.ndarray
    heatmaps: np.ndarray
    weights: np.ndarray
    to_image: np.ndarray
    indices: np.ndarray


class PoseDataset:
    """Makes batches from samples.

    Args:
        samples: the persons.
        skeleton: of their joints.
        codec: draws the targets; its image size is that of the crops.
        input_format: one of `core.images.INPUT_FORMATS`.
        augmentation: None for validation.
        seed: with the epoch and the sample's row, fixes the augmentation of every crop.
        cache: the crop cache of these samples; None reads the images.
        reduced_decode: decode an image at 1/2, 1/4 or 1/8 where a crop is at least that much coarser. Faster, but it
            averages pixels that a plain crop skips.
        max_bad: how many images may be unreadable. Each is reported once and replaced by the sample of the next
            readable row; one more raises an error.
    """

    def __init__(
        self,
        samples: Sequence[PoseSample],
        skeleton: Skeleton,
        codec: Codec,
        input_format: InputFormat,
        augmentation: AugmentationSettings | None = None,
        seed: int = 0,
        cache: CropCache | None = None,
        reduced_decode: bool = False,
        max_bad: int = 0,
    ):
        self.samples = samples
        self.skeleton = skeleton
        self.codec = codec
        self.input_format = input_format
        self.augmentation = augmentation
        self.seed = seed
        self.cache = cache
        self.reduced_decode = reduced_decode
        self.max_bad = max_bad
        self.bad_images: set[str] = set()
        self._lock = threading.Lock()  # batches are made by several threads

    def __len__(self) -> int:
        return len(self.samples)

    def load_crop(self, index: int, epoch: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Read, augment and crop one person.

        Returns:
            crop (H, W, 3) uint8 BGR, joints (K, 2) in crop pixels, visible (K,), affine (2, 3) image -> crop.

        Raises:
            UserError: an image that cannot be read.
        """
        sample = self.samples[index]
        drawn = NO_AUGMENTATION
        if self.augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, index))  # one generator per sample: workers run in any order
            drawn = sample_augmentation(rng, self.augmentation)
        center, crop_width = self._frame(sample, drawn)
        affine = crop_affine(center, crop_width, drawn.rotation_deg, self.codec.extent_wh, drawn.flip)
        crop = repaint(self._crop(index, affine), drawn)
        joints, visible = apply_affine(affine, sample.joints), sample.visible
        if drawn.flip:  # a mirrored right wrist looks like a left one
            permutation = self.skeleton.flip_permutation
            joints, visible = joints[permutation], visible[permutation]
        return crop, joints, visible, affine

    def _frame(self, sample: PoseSample, drawn: Augmentation) -> tuple[np.ndarray, float]:
        """Centre (2,) and width of a person's crop, in image pixels."""
        width, height = self.codec.image_size_wh
        center, crop_width = sample.center, sample.size[0]
        if drawn.half_body:
            half = half_body(sample.joints, sample.visible, self.skeleton.lower_body, drawn.half_body, width / height)
            center, crop_width = half or (center, crop_width)
        crop_width = crop_width * drawn.scale
        return center + np.array(drawn.shift) * (crop_width, crop_width * height / width), crop_width

    def _crop(self, index: int, affine: np.ndarray) -> np.ndarray:
        """A person's crop, (H, W, 3) uint8 BGR, by the affine from image to crop."""
        cached = self.cache.patch(index) if self.cache else None
        if cached is None:
            coarseness = 1 / np.sqrt(abs(np.linalg.det(affine[:, :2])))  # image pixels per crop pixel
            reduction = max(r for r in REDUCED if r <= max(1, coarseness)) if self.reduced_decode else 1
            cached = read_image(self.samples[index].image, reduction=reduction), (0, 0, reduction)
        pixels, place = cached
        return crop_image(pixels, patch_affine(affine, *place), self.codec.image_size_wh)

    def _load_readable(self, index: int, epoch: int) -> tuple[int, tuple]:
        """The first row from `index` on whose image can be read, and its crop; see `max_bad`."""
        for row in range(index, index + len(self)):
            row %= len(self)
            try:
                return row, self.load_crop(row, epoch)
            except UserError as error:
                self._tolerate(self.samples[row].image, error)
        raise UserError(f"none of the {len(self)} samples has an image that can be read")

    def _tolerate(self, image: str, error: UserError) -> None:
        with self._lock:
            if image in self.bad_images:
                return
            if self.max_bad == 0:
                raise error
            if len(self.bad_images) == self.max_bad:
                raise UserError(f"{error}; {self.max_bad} others before it, as many as DATASET.MAX_BAD allows")
            self.bad_images.add(image)
            logger.error("=> left out, %d of DATASET.MAX_BAD %d: %s", len(self.bad_images), self.max_bad, error)

    def load_batch(self, indices: Sequence[int], epoch: int = 0) -> Batch:
        """Crops, normalises and draws targets for the samples in these rows."""
        indices, loaded = zip(*(self._load_readable(index, epoch) for index in indices))
        crops, joints, visible, affines = zip(*loaded)
        heatmaps, weights = self.codec.encode(np.stack(joints), np.stack(visible))
        return Batch(
            images=normalize(np.stack(crops), self.input_format),
            heatmaps=heatmaps,
            weights=weights,
            to_image=invert_affine(np.stack(affines)),
            indices=np.asarray(indices),
        )
