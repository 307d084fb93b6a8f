"""Crop cache: for each training person the decoded image patch that augmentation can show.

A patch is cut out of the image once; a crop is then warped from the patch instead of the decoded photograph. Where
even the smallest crop has two or more image pixels per crop pixel, the patch is downscaled by averaging with that
integer factor. Elsewhere patch and image give the same crop, except that a few pixels round one grey level apart.

A cache is two files named after a digest of everything that they depend on: the pixels, patch after patch, and an
index of where each patch begins. Any change (a photograph, a box, a setting) changes the digest, so a new cache is
built.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import remove_scratch, size_text, written_whole
from simplepose.core.images import image_file, read_image
from simplepose.core.threads import results_in_order
from simplepose.data.augment import AugmentationSettings
from simplepose.data.sample import PoseSample
from simplepose.machine.logs import progress_bar

logger = logging.getLogger("simplepose")

VERSION = 1  # of the files' layout; part of the digest
BILINEAR_MARGIN = 2  # pixels around what a crop shows: interpolation looks at the next one
SAMPLED_SIZES = 64  # photographs sampled to estimate the cache's size

INDEX = np.dtype(  # of one patch
    [
        ("offset", np.int64),  # in the file of pixels
        ("width", np.int32),
        ("height", np.int32),
        ("left", np.int32),  # of the patch in the image, in image pixels
        ("top", np.int32),
        ("step", np.int32),  # image pixels per patch pixel
        ("checksum", np.uint32),
    ]
)


@dataclass(frozen=True)
class Region:
    """What a person's crops can show, in image pixels, right and bottom exclusive; `step` of them per patch pixel."""

    left: int
    top: int
    right: int
    bottom: int
    step: int

    @property
    def patch_size_wh(self) -> tuple[int, int]:
        return -(-(self.right - self.left) // self.step), -(-(self.bottom - self.top) // self.step)


def shown_region(sample: PoseSample, settings: AugmentationSettings, size_wh: tuple[int, int]) -> Region:
    """The part of an image that any augmentation of a person can show, before it is clipped to the image.

    Args:
        settings: bounds of scale, rotation and shift.
        size_wh: of the network input.
    """
    pixels = sample.size[0] / size_wh[0]  # image pixels per crop pixel, at scale 1
    size = np.array(size_wh) * pixels * (1 + settings.scale_factor)
    half = np.full(2, np.hypot(*size)) / 2 if settings.rotation_factor else size / 2
    half = half + size * settings.shift_factor
    low = np.floor(sample.center - half).astype(int) - BILINEAR_MARGIN
    high = np.ceil(sample.center + half).astype(int) + BILINEAR_MARGIN + 1
    return Region(*low.tolist(), *high.tolist(), step=max(1, int(pixels * (1 - settings.scale_factor))))


def cut_patch(image: np.ndarray, region: Region) -> tuple[np.ndarray, Region]:
    """Cut a region out of an image (H, W, 3) and downscale it by its step; returns it with the region inside the image.

    For a person outside the image one edge pixel is kept, which no crop shows.
    """
    height, width = image.shape[:2]
    left, top = min(max(region.left, 0), width - 1), min(max(region.top, 0), height - 1)
    right, bottom = max(min(region.right, width), left + 1), max(min(region.bottom, height), top + 1)
    patch, step = image[top:bottom, left:right], region.step
    cut = Region(left, top, right, bottom, step)
    if step > 1:
        patch_w, patch_h = cut.patch_size_wh
        below, beside = patch_h * step - patch.shape[0], patch_w * step - patch.shape[1]
        patch = cv2.copyMakeBorder(patch, 0, below, 0, beside, cv2.BORDER_REPLICATE)  # pad to whole blocks
        patch = cv2.resize(patch, (patch_w, patch_h), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(patch), cut


class CropCache:
    """Patches by sample. Reading is safe from any number of threads."""

    def __init__(self, pixels: Path, index: np.ndarray):
        self._path = pixels
        self._index = index
        self._pixels = np.memmap(pixels, np.uint8, "r")
        self._checked = np.zeros(len(index), bool)
        self._told = False

    def patch(self, row: int) -> tuple[np.ndarray, tuple[int, int, int]] | None:
        """The patch of a sample (h, w, 3) uint8 with its left, top and step.

        None if its pixels are damaged, or if its photograph could not be read.
        """
        entry = self._index[row]
        height, width = int(entry["height"]), int(entry["width"])
        if not height:
            return None
        flat = self._pixels[entry["offset"] : entry["offset"] + height * width * 3]
        if not self._checked[row]:  # once per run: checking takes as long as cropping
            if zlib.crc32(flat) != entry["checksum"]:
                self._give_up()
                return None
            self._checked[row] = True
        return flat.reshape(height, width, 3), (int(entry["left"]), int(entry["top"]), int(entry["step"]))

    def _give_up(self) -> None:
        """Warn once that the cache is damaged, and make the next run rebuild it."""
        if not self._told:
            self._told = True
            _index_path(self._path).unlink(missing_ok=True)
            logger.warning(
                "=> %s is damaged; what is wrong is read from the photographs, and the next run makes it anew",
                self._path.as_posix(),
            )


def open_crop_cache(
    folder: str | os.PathLike,
    samples: Sequence[PoseSample],
    settings: AugmentationSettings,
    size_wh: tuple[int, int],
    workers: int,
) -> CropCache:
    """Open the cache of these samples; it is built if it is missing or incomplete.

    Processes that need the same cache wait for the first one to build it.

    Args:
        folder: of all caches, DATASET.CACHE.
        settings, size_wh: augmentation and size of the crops.
        workers: threads that build it.

    Raises:
        UserError: not enough disk space, or no photograph can be read. Some unreadable ones are skipped.
    """
    folder = Path(folder)
    pixels = folder / f"{_digest(samples, settings, size_wh)}.pixels"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"DATASET.CACHE: cannot write to {folder}: {error.strerror}") from None
    with _lock(pixels.with_suffix(".lock")):
        index = _read_index(pixels, len(samples))
        if index is None:
            _make(pixels, samples, [shown_region(sample, settings, size_wh) for sample in samples], workers)
            index = _read_index(pixels, len(samples))
    logger.info("=> crop cache %s: %s", pixels.as_posix(), size_text(pixels.stat().st_size))
    return CropCache(pixels, index)


def _digest(samples: Sequence[PoseSample], settings: AugmentationSettings, size_wh: tuple[int, int]) -> str:
    """Everything that patches depend on, photographs by size and time of their last change."""
    files: dict[str, tuple[int, int]] = {}
    for sample in samples:
        file = image_file(sample.image)
        if file not in files:
            try:
                stat = os.stat(file)
            except (OSError, ValueError):
                stat = None
            files[file] = (stat.st_size, stat.st_mtime_ns) if stat else (0, 0)
    rows = [
        (sample.image, *files[image_file(sample.image)], *map(float, (*sample.center, sample.size[0])))
        for sample in samples
    ]
    content = [VERSION, settings.scale_factor, bool(settings.rotation_factor), *size_wh, rows]
    if settings.shift_factor:
        content.append(settings.shift_factor)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _index_path(pixels: Path) -> Path:
    return pixels.with_suffix(".index.npy")


def _read_index(pixels: Path, count: int) -> np.ndarray | None:
    """The index, or None if there is none that fits the file of pixels. It is written last."""
    try:
        index = np.load(_index_path(pixels))
        size = pixels.stat().st_size
    except (OSError, ValueError, EOFError):
        return None
    if index.dtype != INDEX or index.shape != (count,):
        return None
    ends = index["offset"] + index["width"].astype(np.int64) * index["height"] * 3
    return index if size == ends.max(initial=0) else None


def _make(pixels: Path, samples: Sequence[PoseSample], regions: Sequence[Region], workers: int) -> None:
    """Cut every patch, image by image, and write the two files."""
    by_image: dict[str, list[int]] = {}
    for row, sample in enumerate(samples):
        by_image.setdefault(sample.image, []).append(row)
    _announce(pixels, by_image, regions)

    def cut(image: str, rows: list[int]) -> list[tuple[int, np.ndarray, Region]]:
        photograph = _read_or_none(image)  # loading this person later fails in the same way, and reports it
        return [] if photograph is None else [(row, *cut_patch(photograph, regions[row])) for row in rows]

    index = np.zeros(len(samples), INDEX)
    _index_path(pixels).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # on Windows another process, which no lock holds off, may be writing it
        remove_scratch(pixels.parent, pixels.name)
    with written_whole(pixels) as scratch, open(scratch, "wb") as stream:
        for patches in progress_bar(
            results_in_order(cut, by_image.items(), max(1, workers)), len(by_image), "crop cache"
        ):
            for row, patch, region in patches:
                place = (stream.tell(), patch.shape[1], patch.shape[0], region.left, region.top, region.step)
                index[row] = (*place, zlib.crc32(patch))
                stream.write(patch)
    with written_whole(_index_path(pixels)) as scratch, open(scratch, "wb") as stream:
        np.save(stream, index)


def _announce(pixels: Path, by_image: dict[str, list[int]], regions: Sequence[Region]) -> None:
    """Log the estimated size of the cache; raise if the disk has too little space."""
    images = list(by_image)
    looked_at = images[:: max(1, len(images) // SAMPLED_SIZES)]
    sampled = []
    for image in looked_at:
        photograph = _read_or_none(image)
        if photograph is not None:
            sampled += [cut_patch(photograph, regions[row])[0].nbytes for row in by_image[image]]
    if not sampled:
        raise UserError(f"DATASET.CACHE: of {len(looked_at)} photographs none can be read, as {looked_at[0]}")
    expected = int(np.mean(sampled) * len(regions))
    free = shutil.disk_usage(pixels.parent).free
    logger.info(
        "=> making a crop cache of %d persons in %s: about %s, %s are free",
        len(regions), pixels.parent.as_posix(), size_text(expected), size_text(free),
    )  # fmt: skip
    if expected > free:
        raise UserError(
            f"DATASET.CACHE: {pixels.parent} has {size_text(free)} free, the cache needs about {size_text(expected)}; "
            "name another folder, or leave DATASET.CACHE empty"
        )


def _read_or_none(image: str) -> np.ndarray | None:
    try:
        return read_image(image)
    except UserError:
        return None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with its process. Without such locks (Windows) each builds a copy."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
