"""What kind of error each joint has: good, jitter, inversion, swap, miss; one definition for PCKh and OKS.

After Ronchi and Perona, Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation (ICCV 2017), section 3: the
annotated joint that a prediction is nearest to decides, in units (see `metrics.people`). In order:

- good: within `Reach.good` of its own joint.
- Within `Reach.at` of some joint, the nearest of these being
  its own: jitter; the same person's mirrored joint: inversion; another person's, same or mirrored: swap.
- jitter: within `Reach.near` of its own joint.
- miss: all else.

With OKS this is theirs (similarities of 0.85 and 0.5), except that good comes first even where another joint is nearer.
PCKh has one threshold: good is what it counts, so that 100 - Mean is the sum of the other kinds.
"""

from __future__ import annotations

import numpy as np

from simplepose.metrics.people import People, Predictions, distance

KINDS = ("good", "jitter", "inversion", "swap", "miss", "no pose")
GOOD, JITTER, INVERSION, SWAP, MISS, NO_POSE = range(len(KINDS))
ERRORS = KINDS[1:]
UNLABELLED = -1


def joint_kinds(predictions: Predictions, people: People) -> np.ndarray:
    """The kind of every joint, (N, K): a place in `KINDS`, or -1 for a joint without a label.

    Joints of a person to whom no prediction belongs are "no pose".
    """
    mirror, reach = people.skeleton.flip_permutation, people.reach
    own = people.distances(predictions.joints)
    mirrored = np.where(
        people.labelled[:, mirror] & (mirror != np.arange(len(mirror))),
        distance(predictions.joints, people.joints[:, mirror], people.units),
        np.inf,
    )
    others = _distances_to_others(predictions, people)
    kinds = np.full(own.shape, MISS)
    kinds[own <= reach.near] = JITTER
    nearest = np.minimum(own, np.minimum(mirrored, others))
    taken = nearest <= reach.at
    kinds[taken & (nearest == others)] = SWAP
    kinds[taken & (nearest == mirrored)] = INVERSION  # of two as near, the same person's
    kinds[taken & (nearest == own)] = JITTER
    kinds[own <= reach.good] = GOOD
    kinds[~predictions.found] = NO_POSE
    return np.where(people.labelled, kinds, UNLABELLED)


def _distances_to_others(predictions: Predictions, people: People) -> np.ndarray:
    """Distance (N, K) of each prediction from the nearest such joint, or its mirrored one, of another person in the
    image, in that person's units."""
    mirror = people.skeleton.flip_permutation
    nearest = np.full(people.labelled.shape, np.inf)
    for rows in people.companies():
        for order in (np.arange(len(mirror)), mirror):
            joints, labelled = people.joints[rows][:, order], people.labelled[rows][:, order]
            pairs = distance(predictions.joints[rows][:, None], joints[None], people.units[rows][None])  # (P, P, K)
            pairs = np.where(labelled[None] & ~np.eye(len(rows), dtype=bool)[..., None], pairs, np.inf)
            nearest[rows] = np.minimum(nearest[rows], pairs.min(axis=1))
    return nearest


def right_joints(predictions: Predictions, people: People) -> np.ndarray:
    """(N, K) bool: within `Reach.at` of its own joint. For PCKh, the joints that it counts."""
    return (people.distances(predictions.joints) <= people.reach.at) & predictions.found[:, None]


def kind_shares(kinds: np.ndarray) -> np.ndarray:
    """Percentage of each of `KINDS` among labelled joints; NaN without any."""
    counts = np.bincount(kinds[kinds >= 0].ravel(), minlength=len(KINDS))
    with np.errstate(invalid="ignore"):
        return 100 * counts / counts.sum()


def mended(predictions: Predictions, people: People, wrong: np.ndarray) -> np.ndarray:
    """Predictions (N, K, 2) with the joints of a mask (N, K) put where they are annotated."""
    return np.where(wrong[..., None], people.joints, predictions.joints)
