"""Who is who: similarities of poses and tracked people, and assignments by them (section 3.2 and Algorithm 1)."""

from __future__ import annotations

import numpy as np

from simplepose.core.geometry import overlap
from simplepose.core.oks import oks
from simplepose.core.skeletons import COCO, Skeleton

NONE = -1
DEFAULT_SIGMA = 0.079  # of joints that COCO does not have, such as neck and pelvis: its value for shoulders


def sigmas_of(skeleton: Skeleton) -> np.ndarray:
    """The fall-offs (K,) of OKS for any skeleton: its own, else COCO's by the joints' names."""
    known = dict(zip(COCO.joints, COCO.sigmas))
    return np.array(skeleton.sigmas or [known.get(joint, DEFAULT_SIGMA) for joint in skeleton.joints])


def joint_boxes(joints: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The boxes around the known joints.

    Args:
        joints: (..., K, 2) pixels.
        known: (..., K) bool.

    Returns:
        (..., 4) left, top, width, height in pixels; of a person without known joints all 0.
    """
    mask = known[..., None]
    low = np.where(mask, joints, np.inf).min(axis=-2)
    high = np.where(mask, joints, -np.inf).max(axis=-2)
    boxes = np.concatenate([low, high - low], axis=-1)
    return np.where(known.any(axis=-1)[..., None], boxes, 0.0)


def pose_similarity(joints: np.ndarray, tracked: np.ndarray, known: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """OKS of P poses and M tracked ones: S_pose, and with joints that flow has carried here S_flow.

    Args:
        joints: (P, K, 2) pixels.
        tracked: (M, K, 2) pixels.
        known: (M, K) bool, the tracked joints that count.
        sigmas: (K,).

    Returns:
        (P, M) from 0 to 1; a distance is judged on the area of the box around the tracked joints.
    """
    areas = joint_boxes(tracked, known)[:, 2:].prod(axis=1)
    return oks(joints[:, None], tracked[None], areas[None], sigmas, known[None])


def box_similarity(boxes_xywh: np.ndarray, others_xywh: np.ndarray) -> np.ndarray:
    """Intersection over union (P, M) of boxes (P, 4) and (M, 4): S_bbox."""
    return overlap(boxes_xywh[:, None], others_xywh[None])


def match_greedily(similarity: np.ndarray, minimum: float) -> np.ndarray:
    """The most similar pair first, then the best of what is left, as in Algorithm 1.

    Args:
        similarity: (P, T).
        minimum: a pair below it is none.

    Returns:
        (P,) column of each row, or `NONE`.
    """
    similarity = similarity.copy()
    columns = np.full(len(similarity), NONE)
    for _ in range(min(similarity.shape)):
        row, column = np.unravel_index(similarity.argmax(), similarity.shape)
        if similarity[row, column] < minimum:
            break
        columns[row] = column
        similarity[row] = similarity[:, column] = -np.inf
    return columns


def match_optimally(similarity: np.ndarray, minimum: float) -> np.ndarray:
    """The assignment with the largest sum (Hungarian method); arguments and result as in `match_greedily`."""
    from scipy.optimize import linear_sum_assignment

    columns = np.full(len(similarity), NONE)
    worth = np.where(similarity >= minimum, similarity, 0)  # a pair that does not count must not decide others
    for row, column in zip(*linear_sum_assignment(worth, maximize=True)):
        if similarity[row, column] >= minimum:
            columns[row] = column
    return columns
