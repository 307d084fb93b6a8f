"""Likely exchanges of left and right within a person, from the labels alone.

In a set of poses the axes between left and right agree: shoulders point where hips point. And a limb from a joint to
the wrong side's neighbour crosses the body. So every way to exchange some of a person's pairs is tried, and what
another assignment would gain is the score. An exchange of all pairs at once looks the same to this test: only a
network can see it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from simplepose.core.skeletons import Skeleton

MAX_PAIRS = 9  # 2^8 assignments are tried; with more pairs, one exchange at a time
MIN_AGREEMENT = 0.2  # of two axes in the mean over the set, to be evidence about each other
LIMB_WEIGHT = 0.5  # of a body height of limb, beside one of opposed axes


def exchanges(num_pairs: int) -> np.ndarray:
    """Ways to exchange pairs, (E, P) of bool, without the one that exchanges none; at most half of the pairs each."""
    if num_pairs > MAX_PAIRS:
        return np.eye(num_pairs, dtype=bool)
    rows = np.arange(1, 2**num_pairs)
    bits = (rows[:, None] >> np.arange(num_pairs)) % 2 == 1
    few = bits.sum(axis=1) * 2
    return bits[(few < num_pairs) | ((few == num_pairs) & bits[:, 0])]


def swap_scores(keypoints: np.ndarray, scales: np.ndarray, skeleton: Skeleton) -> tuple[np.ndarray, np.ndarray]:
    """What the best exchange of each person gains, (N,), and which it is, (N, P).

    The unit is what an average person's axes say about the exchanged pairs, times how well such axes agree in the
    set: an exchange of two pairs that always agree gains about 2.

    Args:
        keypoints: (N, K, 3) x, y, visibility.
        scales: (N,) sizes of the persons in pixels.
    """
    num, pairs = len(keypoints), [(skeleton.joints.index(a), skeleton.joints.index(b)) for a, b in skeleton.pairs]
    gains, chosen = np.zeros(num), np.zeros((num, len(pairs)), bool)
    if not pairs or not num:
        return gains, chosen
    left, right = np.array(pairs).T
    seen = keypoints[..., 2] > 0
    points = keypoints[..., :2] / scales[:, None, None]
    axes = np.where((seen[:, left] & seen[:, right])[..., None], points[:, left] - points[:, right], 0)  # (N, P, 2)
    lengths = np.linalg.norm(axes, axis=2)  # (N, P)
    units = axes / np.maximum(lengths, 1e-9)[..., None]
    agreement = {}  # (p, q) -> evidence of each person (N,), how well the two agree in the set, and their usual weight
    for p, q in combinations(range(len(pairs)), 2):
        cosine = (units[:, p] * units[:, q]).sum(axis=1)
        both = (lengths[:, p] > 0.02) & (lengths[:, q] > 0.02)
        usual = cosine[both].mean() if both.sum() >= 10 else 0.0
        if usual > MIN_AGREEMENT:
            shorter = np.minimum(lengths[:, p], lengths[:, q])
            weight = usual * shorter[both].mean()
            agreement[p, q] = np.where(both, usual * cosine * shorter, 0).astype(np.float32), usual, weight
    for exchange in exchanges(len(pairs)):
        place = np.arange(skeleton.num_joints)
        place[left[exchange]], place[right[exchange]] = right[exchange], left[exchange]
        apart = [found for (p, q), found in agreement.items() if exchange[p] != exchange[q]]
        if not apart:
            continue
        gain = -2 * np.sum([evidence for evidence, *_ in apart], axis=0)
        for a, b in skeleton.limb_indices:
            if place[a] != a or place[b] != b:
                known = seen[:, [a, b, place[a], place[b]]].all(axis=1)
                before = np.linalg.norm(points[:, a] - points[:, b], axis=1)
                after = np.linalg.norm(points[:, place[a]] - points[:, place[b]], axis=1)
                gain += np.where(known, LIMB_WEIGHT * (before - after), 0)
        _, usuals, weights = zip(*apart)
        gain *= np.mean(usuals) / np.sum(weights)
        better = gain > gains
        gains[better], chosen[better] = gain[better], exchange
    return gains, chosen
