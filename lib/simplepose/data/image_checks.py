"""What the image files of a set are: readable, of which size, and which are the same picture."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import read_bytes
from simplepose.core.images import MAX_IMAGE_BYTES, decode_image, stated_size_wh
from simplepose.core.threads import results_in_order
from simplepose.data.formats.base import ImageFolder, Picture

THUMB = 32  # pixels a side of what near-duplicates are found by
SAME_PICTURE = 0.985  # correlation of two thumbnails, of the whole and of its finer half alone
FLAT = 6.0  # grey levels; a thumbnail that deviates less looks like any other
DECODED_SIDE = 256  # of the shorter side, about; larger JPEGs are decoded coarser, which is faster


@dataclass
class ImageFact:
    """An image file; `fault` says why it cannot be read."""

    size_wh: tuple[int, int] = (0, 0)
    digest: bytes = b""
    thumb: np.ndarray | None = None  # (THUMB, THUMB) uint8
    fault: str = ""


def look_at(path: Path | None) -> ImageFact:
    """Read and decode an image."""
    if path is None:
        return ImageFact(fault="no such image")
    try:
        data = read_bytes(path, "image", MAX_IMAGE_BYTES)
        size_wh = stated_size_wh(data)
        reduction = max(r for r in (1, 2, 4, 8) if r == 1 or min(size_wh) >= r * DECODED_SIDE)
        image = decode_image(data, path, reduction=reduction)
        thumb = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (THUMB, THUMB), interpolation=cv2.INTER_AREA)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        return ImageFact(size_wh if all(size_wh) else image.shape[1::-1], digest, thumb)
    except UserError as error:
        return ImageFact(fault=str(error))


def look_at_all(
    pictures: Sequence[Picture], images: ImageFolder, progress: Callable[[Iterable], Iterable] = iter
) -> list[ImageFact]:
    """`look_at` for each picture, in order; only thumbnails are kept."""
    paths = ((images.find(picture.name),) for picture in pictures)
    return list(progress(results_in_order(look_at, paths, 2)))


def same_files(facts: Sequence[ImageFact]) -> list[list[int]]:
    """Groups of rows whose files hold the same bytes."""
    groups = defaultdict(list)
    for row, fact in enumerate(facts):
        if fact.digest:
            groups[fact.digest].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def near_duplicates(facts: Sequence[ImageFact], others: Sequence[ImageFact]) -> list[tuple[int, int, float]]:
    """(row, the closest row of the other set, correlation) of pictures that look the same, the closest first.

    Resized, compressed again, slightly brighter: all that still correlates. Files of the same bytes are not among
    them. 10,000 against 1,000 pictures take about a second and 50 MB.
    """
    ours, rows = _vectors(facts)
    theirs, other_rows = _vectors(others)
    pairs = []
    step = max(1, 2**22 // max(len(other_rows), 1))  # so that a block of products has 16 MB
    for start in range(0, len(rows) if other_rows else 0, step):
        close = np.minimum(*(one[start : start + step] @ other.T for one, other in zip(ours, theirs)))
        for n, m in enumerate(close.argmax(axis=1)):
            row, other = rows[start + n], other_rows[m]
            if close[n, m] >= SAME_PICTURE and facts[row].digest != others[other].digest:
                pairs.append((row, other, float(close[n, m])))
    return sorted(pairs, key=lambda pair: -pair[2])


def _vectors(facts: Sequence[ImageFact]) -> tuple[tuple[np.ndarray, np.ndarray], list[int]]:
    """Thumbnails of length 1, (N, THUMB^2) float32, whole and without what a blur keeps; and their rows."""
    rows = [n for n, fact in enumerate(facts) if fact.thumb is not None and fact.thumb.std() >= FLAT]
    whole = np.array([facts[n].thumb for n in rows], np.float32).reshape(-1, THUMB, THUMB)
    fine = np.array([image - cv2.GaussianBlur(image, (0, 0), 3) for image in whole]).reshape(whole.shape)
    unit = []
    for kind in (whole, fine):
        flat = kind.reshape(len(rows), THUMB * THUMB)
        flat = flat - flat.mean(axis=1, keepdims=True)
        unit.append(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
    return (unit[0], unit[1]), rows
