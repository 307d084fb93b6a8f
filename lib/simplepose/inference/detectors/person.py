"""Person detectors in ONNX: the family is recognised by inputs and outputs, and decides pre- and postprocessing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from simplepose.core.description import MAX_SIDE
from simplepose.core.errors import UserError
from simplepose.inference.detectors.base import MIN_SCORE, NUM_CLASSES, Family, clean_boxes
from simplepose.inference.detectors.fastestdet import _prepare_fastestdet, decode_fastestdet
from simplepose.inference.detectors.nanodet import _prepare_nanodet, decode_nanodet
from simplepose.inference.detectors.paddledetection import _prepare_paddledetection, decode_paddledetection
from simplepose.inference.detectors.yolox import _prepare_yolox, decode_yolox
from simplepose.inference.onnx_network import open_session


class PersonDetector:
    """Boxes of people.

    Args:
        path: ONNX file of a detector with COCO's 80 classes.
        kind: one of `DETECTORS`; None recognises it.
        min_score: boxes with a lower score are skipped.
        device: as `open_session` takes it.

    Raises:
        UserError: missing or unreadable file, a detector of unknown kind, or no such device.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        kind: str | None = None,
        min_score: float = MIN_SCORE,
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
        self.max_overlap = family.max_overlap
        self._decode = family.decode
        sizes = [shape for shape in inputs.values() if len(shape) == 4]
        if not sizes:
            raise UserError(f"{path} has no image input (inputs {inputs}); it is not a detector")
        width, height = _input_size(sizes[0], family.default_size_wh)
        if max(width, height) > MAX_SIDE:
            raise UserError(f"{path} takes images of {width} x {height} pixels; at most {MAX_SIDE} a side are made")
        self._prepare = family.prepare(path, (width, height))
        self._names = list(inputs)

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find people.

        Args:
            image: (H, W, 3) uint8, BGR.

        Returns:
            boxes (P, 4) as left, top, width, height in pixels, inside the image, and scores (P,); best first.

        Raises:
            UserError: the outputs do not match this kind of detector.
        """
        feed, scaling = self._prepare(image)
        first = feed.pop("image")
        feed = {name: feed.get(name, first) for name in self._names}  # the name of the image input differs by file
        try:
            boxes, scores = self._decode(self.session.run(None, feed), first.shape, scaling)
        except Exception as error:
            raise UserError(f"the detector does not work as {self.kind}: {error}") from None
        return clean_boxes(boxes, scores, image.shape[1::-1], self.min_score, self.max_overlap)


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


DETECTORS = {
    "yolox": Family(_prepare_yolox, decode_yolox, (640, 640), 0.45),
    "paddledetection": Family(_prepare_paddledetection, decode_paddledetection, (640, 640), 1.0),
    "nanodet": Family(_prepare_nanodet, decode_nanodet, (416, 416), 0.5),
    "fastestdet": Family(_prepare_fastestdet, decode_fastestdet, (352, 352), 0.45),
}
