"""Skeletons: which joints there are, which mirror each other, which are joined by a limb.

Everything that depends on a joint set (flip test, augmentation, drawing, scores) reads it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Skeleton:
    """A set of K joints.

    Attributes:
        name: as in DATASET.DATASET.
        joints: K names, in the order of the heatmaps.
        pairs: (left, right) names that a mirror exchanges.
        limbs: (name, name) to draw.
        sigmas: K fall-offs of COCO's object keypoint similarity, or empty where a data set has none.
    """

    name: str
    joints: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    limbs: tuple[tuple[str, str], ...]
    sigmas: tuple[float, ...] = ()

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @cached_property
    def flip_permutation(self) -> np.ndarray:
        """(K,) joint indices after a mirror: `mirrored[k]` is the joint that lands in place k."""
        permutation = np.arange(len(self.joints))
        for left, right in self.pairs:
            left_index, right_index = self.joints.index(left), self.joints.index(right)
            permutation[[left_index, right_index]] = right_index, left_index
        return permutation

    @cached_property
    def limb_indices(self) -> tuple[tuple[int, int], ...]:
        """`limbs` as joint indices."""
        return tuple((self.joints.index(a), self.joints.index(b)) for a, b in self.limbs)


def _left_right(*parts: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"left_{part}", f"right_{part}") for part in parts)


MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "pelvis",
        "thorax",
        "upper_neck",
        "head_top",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    ),
    pairs=_left_right("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    limbs=(
        ("head_top", "upper_neck"),
        ("upper_neck", "thorax"),
        ("thorax", "pelvis"),
        ("thorax", "right_shoulder"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("thorax", "left_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("pelvis", "right_hip"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
        ("pelvis", "left_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
    ),
)

COCO = Skeleton(
    name="coco",
    joints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    pairs=_left_right("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("left_hip", "right_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
    ),
    # From the COCO keypoint challenge's evaluation page.
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

SKELETONS = {skeleton.name: skeleton for skeleton in (MPII, COCO)}
