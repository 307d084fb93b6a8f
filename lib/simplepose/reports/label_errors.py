"""Annotations with which a network confidently disagrees: likely label errors, the likeliest first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.geometry import is_box
from simplepose.core.images import read_image
from simplepose.data.checks import Finding, LabelledSet, median_of
from simplepose.data.joint_names import plain_name, side_and_rest
from simplepose.inference.predictor import PosePredictor

logger = logging.getLogger("simplepose")

FAR = 0.2  # of the person's size: a joint that is further from the network's answer is elsewhere
BEYOND = 5  # times the network's usual error at such joints: a weak one has to be further away
SURE, HALF_SURE = 1.2, 0.8  # times the score that half of such joints reach
EXCHANGED = 0.5  # persons' sizes that an exchange of sides brings labels and answer closer, all pairs together
IMAGES_AT_ONCE = 16


def answers(
    checked: LabelledSet,
    predictor: PosePredictor,
    progress: Callable[[Iterable], Iterable] = iter,
    most: int | None = None,
) -> np.ndarray:
    """What the network says about each person, in its annotated box: (N, K, 3) x, y, score, by the set's joints.

    With `most`, only about so many persons are looked at, spread over the set. NaN where a person was not, has no
    usable box, its image cannot be read, or the network does not know the joint.
    """
    ours = {plain_name(joint): k for k, joint in enumerate(checked.skeleton.joints)}
    known = [
        (ours[plain_name(joint)], k) for k, joint in enumerate(predictor.skeleton.joints) if plain_name(joint) in ours
    ]
    if not known:
        names = ", ".join(predictor.skeleton.joints[:3])
        raise UserError(f"the network's joints ({names}, ...) are none of those of {checked.name}")
    found = np.full((len(checked.persons), checked.skeleton.num_joints, 3), np.nan)
    boxes = np.where(np.isfinite(checked.boxes), checked.boxes, checked.extents)
    by_picture: dict[int, list[int]] = {}
    for row, (picture, box) in enumerate(zip(checked.picture_rows.tolist(), boxes)):
        if is_box(box):
            by_picture.setdefault(picture, []).append(row)
    pictures = list(by_picture)
    if most is not None:
        pictures = pictures[:: max(1, len(checked.persons) // max(most, 1))]
    for start in progress(range(0, len(pictures), IMAGES_AT_ONCE)):
        rows, images = [], []
        for picture in pictures[start : start + IMAGES_AT_ONCE]:
            try:
                path = checked.images.find(checked.labels.pictures[picture].name)
                images.append(read_image(path or checked.labels.pictures[picture].name))
                rows.append(by_picture[picture])
            except UserError:  # told as a finding of its own
                continue
        people = [predictor.crop(image, boxes[of_one]) for image, of_one in zip(images, rows)]
        for of_one, poses in zip(rows, predictor.predict(people)):
            pose_of = {tuple(pose.box): pose for pose in poses}  # without boxes that are not in the image
            for row in of_one:
                pose = pose_of.get(tuple(boxes[row]))
                if pose is not None:
                    for mine, theirs in known:
                        found[row, mine] = (*pose.keypoints[theirs], pose.scores[theirs])
    return found


def label_errors(checked: LabelledSet, found: np.ndarray) -> list[Finding]:
    """Joints far from a confident answer, and persons whose sides the network sees the other way round.

    Args:
        found: of `answers`.
    """
    exchanged, gains, names = _exchanged(checked, found)
    rows = np.flatnonzero(exchanged)
    other_sides = checked.finding(
        "left and right that the network sees exchanged",
        rows, [f"{names[row]} ({gains[row]:.2f})" for row in rows], gains[rows],
        "Its joints fit the labels better with the sides exchanged. Networks confuse sides themselves, most of all "
        "from behind: look at each.", wrong=False,
    )  # fmt: skip
    worst, weights = _far_joints(checked, found)
    weights[exchanged] = 0
    rows = np.flatnonzero(weights > 0)
    elsewhere = checked.finding(
        "joints where the network confidently points elsewhere",
        rows, [f"{checked.skeleton.joints[worst[row]]} ({weights[row]:.2f})" for row in rows], weights[rows],
        f"A label more than {FAR:.0%} of the person's size away from an answer that the network is sure of: either is "
        "wrong, and the likeliest label errors come first. The number is distance times sureness.", wrong=False,
    )  # fmt: skip
    results = [finding for finding in (other_sides, elsewhere) if finding]
    place = {id(person): row for row, person in enumerate(checked.persons)}
    for finding in results:
        for example in finding.examples:
            example.answer = found[place[id(example.person)]]
    return results


def _sureness(found: np.ndarray) -> np.ndarray:
    """(N, K) scores relative to the median of each joint."""
    return np.nan_to_num(found[..., 2] / median_of(found[..., 2], 0))


def _far_joints(checked: LabelledSet, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The joint of each person that disagrees most (N,), and distance x sureness (N,); 0 for those that agree."""
    sure = _sureness(found)
    distance = np.linalg.norm(found[..., :2] - checked.keypoints[..., :2], axis=2) / checked.scales[:, None]
    distance[~checked.labelled] = np.nan
    usual = median_of(np.where(sure >= SURE, distance, np.nan), 0)
    with np.errstate(invalid="ignore"):
        far = (distance > FAR) & (distance > BEYOND * usual) & (sure >= SURE)
    # An answer that is right about the others counts more; and one that points to the other side's joint counts not at
    # all: a leg in the air is usually lost to the one on the ground.
    close = (distance < FAR / 2).sum(axis=1) / np.maximum(np.isfinite(distance).sum(axis=1) - 1, 1)
    mirrored = found[:, checked.skeleton.flip_permutation, :2]
    collapsed = np.linalg.norm(found[..., :2] - mirrored, axis=2) / checked.scales[:, None] < FAR
    collapsed &= np.array(checked.skeleton.sides) != ""
    doubt = np.where(far & ~collapsed, distance * np.minimum(sure, 1.5) * close[:, None] ** 2, 0)
    return doubt.argmax(axis=1), doubt.max(axis=1)


def _exchanged(checked: LabelledSet, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, Sequence[str]]:
    """Whether the sides of a person look exchanged (N,), by how much (N,), and which pairs."""
    sure, gains, names = _sureness(found), np.zeros(len(found)), [""] * len(found)
    for left, right in checked.skeleton.pairs:
        a, b = checked.skeleton.joints.index(left), checked.skeleton.joints.index(right)
        apart = [
            np.linalg.norm(found[:, k, :2] - checked.keypoints[:, j, :2], axis=1)
            for k, j in ((a, a), (b, b), (a, b), (b, a))
        ]
        gain = (apart[0] + apart[1] - apart[2] - apart[3]) / checked.scales
        both = checked.labelled[:, a] & checked.labelled[:, b] & (np.minimum(sure[:, a], sure[:, b]) > HALF_SURE)
        gain = np.where(both, np.nan_to_num(gain), 0) * np.minimum(np.minimum(sure[:, a], sure[:, b]), 1.5)
        gains += gain
        for row in np.flatnonzero(gain > 0.1):
            names[row] += (", " if names[row] else "") + (side_and_rest(left)[1] or left)
    return gains > EXCHANGED, gains, names
