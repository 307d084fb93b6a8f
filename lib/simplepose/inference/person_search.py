"""Finds one person with the pose network alone: for images whose people nobody has boxed, where there is no detector.

A network answers best for crops that fit a person, and its joint scores tell how well one fits. So the first look is
at crops of several sizes all over the image; the best one's joints make a box, and the network looks at that box again
until it settles.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from simplepose.core.geometry import BOX_PADDING, as_boxes, is_box, overlap

# Chosen on 24 training persons of LSPET, as they are and pasted small into larger photographs, and on 7 training
# photographs of COCO, with one PoseResNet-18: docs/en/inference.md has the figures.
FIRST_CROPS = (1.0, 0.7, 0.5, 0.35)  # their sides, as parts of the image's longer side
STEP = 0.5  # at most, between neighbouring crops, as a part of their side
LOOKS = 3  # at most, the last of which is the prediction itself
SETTLED = 0.8  # overlap (IoU) of a box and the one before it
FOLLOWED = 0.5  # overlap with the box of the frame before; with less the person is looked for anew
MIN_SCORE, MIN_JOINTS = 0.15, 3  # joints that count, and how many of them make a box
BEYOND_JOINTS = 1.1  # a person's box is so much larger than the box of the joints, as in MPII

# boxes (P, 4) -> keypoints (P, K, 2) in image pixels and scores (P, K)
Look = Callable[[np.ndarray], "tuple[np.ndarray, np.ndarray]"]


def find_person(look: Look, image_size_wh: tuple[int, int], near: np.ndarray | None = None) -> np.ndarray:
    """The box (4,) of a person, as left, top, width and height in pixels; the whole image if nobody is found.

    Args:
        look: runs the network on boxes of the image.
        near: where the person was in the video's frame before; everything is searched if nobody is there any more.
    """
    if near is not None:
        box = _box_of_best(*look(near[None]), image_size_wh)
        if box is not None and overlap(box, near) > FOLLOWED:
            return box
    box = _box_of_best(*look(first_boxes(image_size_wh)), image_size_wh)
    for _ in range(LOOKS - 1 if box is not None else 0):
        before, box = box, _box_of_best(*look(box[None]), image_size_wh)
        if box is None:
            return before
        if overlap(box, before) > SETTLED:
            break
    return np.array([0.0, 0.0, *image_size_wh]) if box is None else box


def first_boxes(image_size_wh: tuple[int, int]) -> np.ndarray:
    """The boxes (P, 4) of the first look, whose crops are squares that cover the image in each of their sizes."""
    boxes = []
    for part in FIRST_CROPS:
        side = part * max(image_size_wh)
        centers = []
        for length in image_size_wh:
            count = max(0, int(np.ceil((length / side - 1) / STEP - 1e-9))) + 1
            ends = (side / 2, length - side / 2) if count > 1 else (length / 2, length / 2)
            centers.append(np.linspace(*ends, count))
        middle = np.stack(np.meshgrid(*centers), axis=-1).reshape(-1, 2)  # (P, 2)
        size = np.full_like(middle, side / BOX_PADDING)
        boxes.append(np.concatenate([middle - size / 2, size], axis=-1))
    return np.concatenate(boxes)


def _box_of_best(keypoints: np.ndarray, scores: np.ndarray, image_size_wh: tuple[int, int]) -> np.ndarray | None:
    """The box (4,) around the joints of the best of P answers; None if it shows no person inside the image."""
    best = int(np.argmax(scores.mean(axis=1)))
    joints = keypoints[best][scores[best] >= MIN_SCORE]
    if len(joints) < MIN_JOINTS:
        return None
    low, high = joints.min(axis=0), joints.max(axis=0)
    size = (high - low) * BEYOND_JOINTS
    box = np.concatenate([(low + high) / 2 - size / 2, size])
    return box if is_box(box) and as_boxes(box, image_size_wh)[1].all() else None
