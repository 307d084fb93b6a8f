"""People in an image: object detectors as ONNX files, recognised by their inputs and outputs.

Each family is a pair of functions: the image as the network wants it, and its raw outputs as boxes and person
scores. Thresholds and suppression of overlaps come after, once for all. Class 0 of COCO's 80 is the person.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np

from simplepose.description import ABOVE_ZERO, number_in
from simplepose.errors import UserError
from simplepose.files import read_yaml
from simplepose.onnx_runtime import open_session
from simplepose.preprocessing import IMAGENET_MEAN, IMAGENET_STD

PERSON = 0
NUM_CLASSES = 80
MIN_SCORE = 0.3  # of a box, by default
LETTERBOX_GREY = 114

Boxes = tuple[np.ndarray, np.ndarray]  # (P, 4) left, top, right, bottom in image pixels; (P,) person scores


@dataclass(frozen=True)
class Scaling:
    """How an image was brought to the detector's input: input pixel = image pixel * scale + offset."""

    scale_xy: tuple[float, float]
    offset_xy: tuple[float, float] = (0.0, 0.0)

    def to_image(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes (P, 4) from input pixels to image pixels."""
        return (boxes_xyxy - np.tile(self.offset_xy, 2)) / np.tile(self.scale_xy, 2)


class PersonDetector:
    """Boxes of people.

    Args:
        path: ONNX file of a detector with COCO's 80 classes.
        kind: one of `DETECTORS`; None recognises it.
        min_score: boxes below are left out.
        max_overlap: of two boxes whose intersection over union is larger, the better stays; None takes the kind's own.
        device: as `open_session` takes it.

    Raises:
        UserError: missing or unreadable file, a detector of no known kind, or no such device.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        kind: str | None = None,
        min_score: float = MIN_SCORE,
        max_overlap: float | None = None,
        device: str | None = None,
    ):
        if kind is not None and kind not in DETECTORS:
            raise UserError(f"--detector-type is {kind}; it is one of {', '.join(DETECTORS)}")
        self.session = open_session(path, device)
        inputs = {node.name: node.shape for node in self.session.get_inputs()}
        outputs = [node.shape for node in self.session.get_outputs()]
        self.kind = kind or recognise(inputs, outputs)
        if self.kind is None:
            raise UserError(
                f"{path} is no detector that is known here (inputs {inputs}, outputs {outputs}); "
                f"force one with --detector-type {'|'.join(DETECTORS)}"
            )
        family = DETECTORS[self.kind]
        self.min_score = min_score
        self.max_overlap = family.max_overlap if max_overlap is None else max_overlap
        self._decode = family.decode
        sizes = [shape for shape in inputs.values() if len(shape) == 4]
        if not sizes:
            raise UserError(f"{path} has no image input (inputs {inputs}); it is not a detector")
        self._prepare = family.prepare(path, _input_size(sizes[0], family.default_size_wh))
        self._names = list(inputs)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find people.

        Args:
            image: (H, W, 3) uint8, BGR.

        Returns:
            boxes (P, 4) as left, top, width, height in pixels, inside the image, and scores (P,); best first.

        Raises:
            UserError: the outputs are not what this kind of detector gives.
        """
        feed, scaling = self._prepare(image)
        first = feed.pop("image")
        feed = {name: feed.get(name, first) for name in self._names}  # the image input's name differs by file
        try:
            boxes, scores = self._decode(self.session.run(None, feed), first.shape, scaling)
        except Exception as error:
            raise UserError(f"the detector does not work as {self.kind}: {error}") from None
        return clean_boxes(boxes, scores, image.shape[1::-1], self.min_score, self.max_overlap)


def clean_boxes(
    boxes_xyxy: np.ndarray, scores: np.ndarray, image_size_wh: Sequence[int], min_score: float, max_overlap: float
) -> tuple[np.ndarray, np.ndarray]:
    """Drop low scores, clip to the image, drop what is empty there, suppress overlaps.

    Args:
        boxes_xyxy: (P, 4) pixels.
        scores: (P,).

    Returns:
        boxes (Q, 4) as left, top, width, height and scores (Q,), best first.
    """
    enough = scores >= min_score
    boxes, scores = boxes_xyxy[enough].astype(np.float64), scores[enough].astype(np.float64)
    limits = np.tile(np.asarray(image_size_wh, dtype=np.float64), 2)
    boxes = np.clip(boxes, 0, limits)
    there = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # false for NaN as well
    boxes, scores = boxes[there], scores[there]
    keep = suppress_overlaps(boxes, scores, max_overlap)
    boxes = boxes[keep]
    boxes[:, 2:] -= boxes[:, :2]
    return boxes, scores[keep]


def suppress_overlaps(boxes_xyxy: np.ndarray, scores: np.ndarray, max_overlap: float) -> np.ndarray:
    """Non-maximum suppression: rows to keep of boxes (P, 4), best first."""
    order = np.argsort(-scores, kind="stable")
    areas = np.prod(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], axis=1)
    keep = []
    while len(order):
        best, rest = order[0], order[1:]
        keep.append(best)
        top_left = np.maximum(boxes_xyxy[best, :2], boxes_xyxy[rest, :2])
        bottom_right = np.minimum(boxes_xyxy[best, 2:], boxes_xyxy[rest, 2:])
        common = np.prod(np.maximum(bottom_right - top_left, 0), axis=1)
        order = rest[common <= max_overlap * (areas[best] + areas[rest] - common)]
    return np.array(keep, dtype=np.int64)


def recognise(inputs: dict[str, Sequence[Any]], outputs: Sequence[Sequence[Any]]) -> str | None:
    """The kind of detector by the names and shapes of its inputs and the shapes of its outputs; None if unknown."""
    if "scale_factor" in inputs:
        return "paddledetection"
    lasts = [shape[-1] if len(shape) else None for shape in outputs]
    if len(outputs) > 1 and set(lasts) == {NUM_CLASSES, 32} and lasts.count(NUM_CLASSES) == lasts.count(32):
        return "nanodet"
    if len(outputs) == 1 and len(outputs[0]) == 3 and lasts[0] == NUM_CLASSES + 5:
        return "yolox"
    if len(outputs) == 1 and len(outputs[0]) == 4 and outputs[0][1] == NUM_CLASSES + 5:
        return "fastestdet"
    return None


def _input_size(shape: Sequence[Any], default_wh: tuple[int, int]) -> tuple[int, int]:
    """Width and height of an image input (N, 3, H, W); the default for what the file leaves open."""
    height, width = shape[2:]
    return (
        width if isinstance(width, int) and width > 0 else default_wh[0],
        height if isinstance(height, int) and height > 0 else default_wh[1],
    )


# --- the image as a network wants it: prepare(path, size_wh) -> image -> ({input name: array}, Scaling) ---------

Feed = Callable[[np.ndarray], tuple[dict[str, np.ndarray], Scaling]]


def _blob(image: np.ndarray, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32, mean and deviation in the channels' order and in pixel values."""
    blob = np.empty((1, 3, *image.shape[:2]), np.float32)
    for channel in range(3):  # channel by channel: numpy is slow over an innermost axis of 3
        np.multiply(image[..., channel], np.float32(1 / std[channel]), out=blob[0, channel])
        if mean[channel]:
            blob[0, channel] -= np.float32(mean[channel] / std[channel])
    return blob


def _letterbox(
    image: np.ndarray,
    size_wh: tuple[int, int],
    fill: int,
    centered: bool = False,
    interpolation: int = cv2.INTER_LINEAR,
) -> tuple[np.ndarray, Scaling]:
    """Fit an image into a size without changing its aspect ratio; the rest is one grey."""
    height, width = image.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    fitted_w, fitted_h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = ((size_wh[0] - fitted_w) // 2, (size_wh[1] - fitted_h) // 2) if centered else (0, 0)
    box = np.full((size_wh[1], size_wh[0], 3), fill, np.uint8)
    box[top : top + fitted_h, left : left + fitted_w] = cv2.resize(
        image, (fitted_w, fitted_h), interpolation=interpolation
    )
    return box, Scaling((fitted_w / width, fitted_h / height), (left, top))


def _stretch(image: np.ndarray, size_wh: tuple[int, int]) -> tuple[np.ndarray, Scaling]:
    """Resize an image to a size, whatever its aspect ratio."""
    height, width = image.shape[:2]
    return cv2.resize(image, size_wh), Scaling((size_wh[0] / width, size_wh[1] / height))


def _prepare_yolox(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    def prepare(image: np.ndarray) -> tuple[dict[str, np.ndarray], Scaling]:
        box, scaling = _letterbox(image, size_wh, LETTERBOX_GREY)
        return {"image": _blob(box)}, scaling  # BGR, 0-255

    return prepare


def _prepare_nanodet(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    # Centred on black, averaged over pixels: of the ways to letterbox, the one with the best AP (0.362 on 79 images
    # of COCO; 0.351 on grey without averaging, where the boxes come closest to other programs').
    mean, std = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)  # B, G, R

    def prepare(image: np.ndarray) -> tuple[dict[str, np.ndarray], Scaling]:
        box, scaling = _letterbox(image, size_wh, 0, True, cv2.INTER_AREA)
        return {"image": _blob(box, mean, std)}, scaling

    return prepare


def _prepare_fastestdet(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    def prepare(image: np.ndarray) -> tuple[dict[str, np.ndarray], Scaling]:
        box, scaling = _stretch(image, size_wh)
        return {"image": _blob(box, std=(255, 255, 255))}, scaling

    return prepare


def _prepare_paddledetection(path: str | os.PathLike, size_wh: tuple[int, int]) -> Feed:
    """RGB, stretched (or fitted, top left), normalised as the `infer_cfg.yml` beside the file says.

    Without that file: stretched, ImageNet's mean and deviation, as PicoDet and PP-YOLOE have it. PP-YOLOE+ divides
    by 255 and no more, which only its `infer_cfg.yml` tells.
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


# --- raw outputs as boxes: decode(outputs, input shape (1, 3, H, W), Scaling) -> Boxes --------------------------


def _grid(width: int, height: int) -> np.ndarray:
    """(height * width, 2) cell indices (x, y), row by row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


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


def decode_nanodet(outputs: Sequence[np.ndarray], input_shape: Sequence[int], scaling: Scaling) -> Boxes:
    """For each stride class scores (1, cells, 80) and distributions (1, cells, 32) = 4 sides x 8 bins.

    The distance of a side from the cell's centre is the distribution's mean, in strides.
    """
    height, width = input_shape[2:]
    by_cells = {}
    for output in outputs:
        output = output.reshape(-1, output.shape[-1])
        by_cells.setdefault(len(output), {})[output.shape[1]] = output
    boxes, scores = [], []
    for cells, pair in by_cells.items():
        stride = round((width * height / cells) ** 0.5)
        centers = _grid(-(-width // stride), -(-height // stride)) * stride + (stride - 1) / 2
        bins = pair[32].reshape(cells, 4, 8)
        bins = np.exp(bins - bins.max(axis=-1, keepdims=True))
        sides = bins @ np.arange(8, dtype=np.float32) / bins.sum(axis=-1) * stride  # left, top, right, bottom
        boxes.append(np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], axis=1))
        scores.append(pair[NUM_CLASSES][:, PERSON])
    return scaling.to_image(np.concatenate(boxes)), np.concatenate(scores)


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


def decode_paddledetection(outputs: Sequence[np.ndarray], input_shape: Sequence[int], scaling: Scaling) -> Boxes:
    """Boxes (n, 6) = class, score, left, top, right, bottom in image pixels, suppressed already; and their number."""
    rows = next(output for output in outputs if output.ndim == 2 and output.shape[1] == 6)
    rows = rows[rows[:, 0] == PERSON]  # rows of padding have class -1
    return scaling.to_image(rows[:, 2:]), rows[:, 1]


@dataclass(frozen=True)
class Family:
    """A kind of detector."""

    prepare: Callable[[str | os.PathLike, tuple[int, int]], Feed]
    decode: Callable[[Sequence[np.ndarray], Sequence[int], Scaling], Boxes]
    default_size_wh: tuple[int, int]  # where the file leaves it open
    max_overlap: float


DETECTORS = {
    "yolox": Family(_prepare_yolox, decode_yolox, (640, 640), 0.45),
    "paddledetection": Family(_prepare_paddledetection, decode_paddledetection, (640, 640), 1.0),
    "nanodet": Family(_prepare_nanodet, decode_nanodet, (416, 416), 0.5),
    "fastestdet": Family(_prepare_fastestdet, decode_fastestdet, (352, 352), 0.45),
}
