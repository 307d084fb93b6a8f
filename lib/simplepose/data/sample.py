"""PoseSample: one annotated (or detected) person, the same for every data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from simplepose.core.skeletons import Skeleton


@dataclass(frozen=True)
class PoseSample:
    """A person in an image; coordinates are 0-based (x, y) pixels of the image as stored.

    Attributes:
        image: path; "images.zip@name.jpg" names a zip's member.
        center: (2,) of the crop.
        size: (2,) width and height of the crop, padding included.
        joints: (K, 2); anything where `visible` is 0.
        visible: (K,) 1 where the joint is labelled, else 0.
        image_id, category_id: of the data set, where it has them.
        box_score: of the detector; 1 for an annotated person.
    """

    image: str
    center: np.ndarray
    size: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    image_id: int = 0
    category_id: int = 1
    box_score: float = 1.0


def is_test_set(image_set: str) -> bool:
    """Whether a set has no labels, as MPII's test and COCO's test2017 and test-dev2017: its name starts with "test"."""
    return image_set.startswith("test")


def with_joints_of(samples: Iterable[PoseSample], own: Skeleton, wanted: Skeleton) -> list[PoseSample]:
    """The samples of one skeleton with the joints of another one, by name; joints they lack are unlabelled."""
    rows = [own.joints.index(name) if name in own.joints else -1 for name in wanted.joints]
    known = np.array(rows) >= 0
    return [
        replace(sample, joints=sample.joints[rows], visible=sample.visible[rows] * known.astype(np.float32))
        for sample in samples
    ]


def select_well_framed(samples: Iterable[PoseSample]) -> list[PoseSample]:
    """Keep persons whose labelled joints are centred in their crop (DATASET.SELECT_DATA).

    The closeness of the joints' mean to the crop's centre, on COCO's OKS scale, must exceed a threshold that rises
    with the number of labelled joints. Source: `select_data` of the original.
    """
    selected = []
    for sample in samples:
        labelled = sample.visible > 0
        count = labelled.sum()
        if count == 0:
            continue
        distance = np.linalg.norm(sample.joints[labelled].mean(axis=0) - sample.center)
        similarity = np.exp(-(distance**2) / (2 * 0.2**2 * sample.size.prod()))
        if similarity > 0.2 / 16 * count + 0.45 - 0.2 / 16:
            selected.append(sample)
    return selected
