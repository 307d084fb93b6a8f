"""YOLOX: preprocessing and decoding."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from simplepose.inference.detectors.base import LETTERBOX_GREY, PERSON, Boxes, Feed, Scaling, _blob, _grid, _letterbox


def _prepare_yolox(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    def prepare(image: np.ndarray) -> tuple[dict[str, np.ndarray], Scaling]:
        box, scaling = _letterbox(image, size_wh, LETTERBOX_GREY)
        return {"image": _blob(box)}, scaling  # BGR, 0-255

    return prepare


def decode_yolox(outputs: Sequence[np.ndarray], input_shape: Sequence[int], scaling: Scaling) -> Boxes:
    """(1, cells, 85) = centre x, y, width, height, objectness, class scores, at strides 8, 16, 32 (, 64).

    Exports come in two kinds: centres in cells from their own and logarithms of sizes in cells, or (with
    --decode_in_inference) everything in input pixels. A logarithm beyond 10 would be a box of 22,026 cells.
    """
    rows = outputs[0][0]
    height, width = input_shape[2:]
    centers, sizes = rows[:, :2], rows[:, 2:4]
    if not (sizes > 10).any():
        strides = (8, 16, 32, 64)
        grids = [_grid(width // stride, height // stride) for stride in strides]
        while sum(map(len, grids)) > len(rows):
            grids.pop()
        cells = np.concatenate(grids)
        stride = np.repeat(strides[: len(grids)], [len(grid) for grid in grids])[:, None]
        centers, sizes = (centers + cells) * stride, np.exp(sizes) * stride
    scores = rows[:, 4] * rows[:, 5 + PERSON]
    return scaling.to_image(np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)), scores
