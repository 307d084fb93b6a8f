"""The fall-offs of OKS, measured: from persons that several people labelled, or from what a network misses by.

COCO's definition: the square of a joint's sigma is the mean of d^2 / s^2, d the distance of an annotator's joint from
where it is, s^2 the object's area.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from simplepose.core.oks import oks
from simplepose.core.skeletons import Skeleton
from simplepose.data.formats.base import Labels, Person, keypoints_of, safe_name

SAME_PERSON = 0.3  # of OKS with sigmas of 0.1: two annotations that are further apart are two persons
MIN_REPEATS = 10  # of a joint


def area_of(person: Person) -> float:
    """Square pixels, as the annotation says, else of the box, else of the box around the joints; at least 1."""
    if person.area or person.box:
        return max(float(person.area or person.box[2] * person.box[3]), 1.0)
    points = np.array([point[:2] for point in person.points.values() if point[2] > 0]).reshape(-1, 2)
    return max(float(np.ptp(points, axis=0).prod()), 1.0) if len(points) else 1.0


def repeats(annotators: Sequence[Labels]) -> list[list[Person]]:
    """Persons that at least two of the annotators labelled, each with all its annotations.

    Pictures are matched by name, persons by where their joints are; the skeleton is the first annotator's.
    """
    skeleton, pictures = annotators[0].skeleton, {}
    for labels in annotators:
        for picture in labels.pictures:
            pictures.setdefault(safe_name(picture.name), []).append(picture.persons)
    found = []
    for lists in pictures.values():
        groups = [[person] for person in lists[0]] if len(lists) > 1 else []
        for persons in lists[1:]:
            free = list(groups)
            for person in persons:
                closeness = [_closeness(person, group[0], skeleton) for group in free]
                if closeness and max(closeness) > SAME_PERSON:
                    free.pop(int(np.argmax(closeness))).append(person)
        found += [group for group in groups if len(group) > 1]
    return found


def _closeness(one: Person, other: Person, skeleton: Skeleton) -> float:
    a, b = keypoints_of([one, other], skeleton)
    both = (a[:, 2] > 0) & (b[:, 2] > 0)
    return float(oks(a[:, :2], b[:, :2], np.array(area_of(other)), np.full(len(a), 0.1), both)) if both.any() else 0.0


def sigmas_of_repeats(groups: Sequence[Sequence[Person]], skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """Sigmas (K,), NaN below `MIN_REPEATS`, and how many persons each is of (K,).

    The distance is from the mean of a person's annotations, and n / (n - 1) makes up for the mean being of the same.
    """
    total, count = np.zeros(skeleton.num_joints), np.zeros(skeleton.num_joints, int)
    for group in groups:
        keypoints = keypoints_of(group, skeleton)  # (n, K, 3)
        area = np.mean([area_of(person) for person in group])
        for k in range(skeleton.num_joints):
            points = keypoints[keypoints[:, k, 2] > 0, k, :2]
            if len(points) > 1:
                total[k] += ((points - points.mean(axis=0)) ** 2).sum() / (len(points) - 1) / area
                count[k] += 1
    return np.where(count >= MIN_REPEATS, np.sqrt(total / np.maximum(count, 1)), np.nan), count


def sigmas_of_residuals(keypoints: np.ndarray, found: np.ndarray, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sigmas (K,) and counts (K,) from a network's misses: an upper bound, as they hold its own errors as well.

    The median of d^2 / s^2 is taken, which wild answers do not move, and divided by ln 2: what the mean of a Gaussian
    cloud's is.

    Args:
        keypoints: (N, K, 3) labels.
        found: (N, K, 3) answers, NaN where there is none.
        areas: (N,).
    """
    squares = ((keypoints[..., :2] - found[..., :2]) ** 2).sum(axis=2) / areas[:, None]
    squares = np.where((keypoints[..., 2] > 0) & np.isfinite(squares), squares, np.nan)
    count = np.isfinite(squares).sum(axis=0)
    sigmas = [
        math.sqrt(np.nanmedian(column) / math.log(2)) if n >= MIN_REPEATS else math.nan
        for column, n in zip(squares.T, count)
    ]
    return np.array(sigmas), count
