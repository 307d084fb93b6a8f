"""PaddleDetection's exported models: preprocessing and decoding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.description import ABOVE_ZERO, number_in
from simplepose.core.errors import UserError
from simplepose.core.files import read_yaml
from simplepose.core.images import IMAGENET_MEAN, IMAGENET_STD
from simplepose.inference.detectors.base import PERSON, Boxes, Feed, Scaling, _blob, _letterbox, _stretch


def _prepare_paddledetection(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    """RGB, stretched (or fitted, top left), normalised as the `infer_cfg.yml` beside the file says.

    Without that file: stretched, ImageNet's mean and deviation, as PicoDet and PP-YOLOE have it. PP-YOLOE+ only divides
    by 255, which is stated in its `infer_cfg.yml` alone.
    """
    steps = _infer_cfg(path)
    pixels = steps.get("NormalizeImage", {})
    normalised = pixels.get("norm_type", "mean_std") == "mean_std"
    divisor = 255 if pixels.get("is_scale", True) else 1
    mean = [value * divisor for value in (pixels.get("mean", IMAGENET_MEAN) if normalised else (0, 0, 0))]  # R, G, B
    std = [value * divisor for value in (pixels.get("std", IMAGENET_STD) if normalised else (1, 1, 1))]
    keep_ratio = steps.get("Resize", {}).get("keep_ratio", False)

    def prepare(image: np.ndarray) -> tuple[dict[str, np.ndarray], Scaling]:
        box, scaling = _letterbox(image, size_wh, 0) if keep_ratio else _stretch(image, size_wh)
        scale_x, scale_y = scaling.scale_xy
        return {
            "image": _blob(box[..., ::-1], mean, std),
            "scale_factor": np.array([[scale_y, scale_x]], np.float32),
            "im_shape": np.array([[size_wh[1], size_wh[0]]], np.float32),
        }, Scaling((1.0, 1.0))  # the network answers in image pixels

    return prepare


def _infer_cfg(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """The preprocessing steps of PaddleDetection's infer_cfg.yml beside the file, by type; {} without one."""
    file = Path(path).parent / "infer_cfg.yml"
    if not file.is_file():
        return {}
    content = read_yaml(file, "PaddleDetection")
    try:
        steps = {step["type"]: step for step in content["Preprocess"]}
        pixels = steps.get("NormalizeImage", {})
        for name, lowest in (("mean", 0), ("std", ABOVE_ZERO)):
            if len([number_in(value, name, lowest, 1000) for value in pixels.get(name, IMAGENET_MEAN)]) != 3:
                raise ValueError(f"{name} has a number each for R, G and B")
        return steps
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not an infer_cfg.yml of PaddleDetection: {error!r}") from None


def decode_paddledetection(outputs: Sequence[np.ndarray], input_shape: Sequence[int], scaling: Scaling) -> Boxes:
    """Boxes (n, 6) = class, score, left, top, right, bottom in image pixels, suppressed already; and their number."""
    rows = next(output for output in outputs if output.ndim == 2 and output.shape[1] == 6)
    rows = rows[rows[:, 0] == PERSON]  # rows of padding have class -1
    return scaling.to_image(rows[:, 2:]), rows[:, 1]
