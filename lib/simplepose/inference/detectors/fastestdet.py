"""FastestDet: preprocessing and decoding."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from simplepose.inference.detectors.base import PERSON, Boxes, Feed, Scaling, _blob, _grid, _stretch


def _prepare_fastestdet(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    def prepare(image: np.ndarray) -> tuple[dict[str, np.ndarray], Scaling]:
        box, scaling = _stretch(image, size_wh)
        return {"image": _blob(box, std=(255, 255, 255))}, scaling

    return prepare


def decode_fastestdet(outputs: Sequence[np.ndarray], input_shape: Sequence[int], scaling: Scaling) -> Boxes:
    """(1, 85, h, w) = objectness, tanh dx, tanh dy, sigmoid w, sigmoid h, class scores for each cell."""
    maps = outputs[0][0]
    height, width = maps.shape[1:]
    size = np.array([input_shape[3], input_shape[2]], np.float32)
    rows = maps.reshape(len(maps), -1).T  # (cells, 85)
    centers = (_grid(width, height) + np.tanh(rows[:, 1:3])) / (width, height) * size
    sizes = size / (1 + np.exp(-rows[:, 3:5]))
    scores = rows[:, 0] ** 0.6 * rows[:, 5 + PERSON] ** 0.4
    return scaling.to_image(np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=1)), scores
