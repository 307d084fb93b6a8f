"""Under which conditions a person or a joint was to be found: size, crowding, visibility, trunk, image region.

Each condition divides a set into named groups; how a network does in each is `group_figures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simplepose.metrics.compare import bootstrap_intervals
from simplepose.metrics.error_kinds import kind_shares
from simplepose.metrics.people import People

FEW_PERSONS = 30  # with fewer, a share is known to some 15 points at best, and the page says so
CROWD_EDGES = (1e-9, 0.25, 0.5)
TRUNK_EDGES_DEG = (30, 60, 120)


@dataclass(frozen=True)
class Condition:
    """A way to divide a set.

    Attributes:
        name, groups: in words.
        group_of: (N, K) place in `groups`, -1 where it is not known.
        meaning: how it is measured.
    """

    name: str
    groups: Sequence[str]
    group_of: np.ndarray
    meaning: str


def conditions(people: People) -> list[Condition]:
    """All conditions that this set tells of."""
    shape = people.labelled.shape

    def of_persons(name: str, groups: Sequence[str], group_of: np.ndarray, meaning: str) -> Condition:
        return Condition(name, groups, np.repeat(group_of[:, None], shape[1], axis=1), meaning)

    made = [_size(people, of_persons)]
    if people.companies():
        crowd = np.digitize(crowd_index(people), CROWD_EDGES)
        groups = ("alone", "up to 0.25", "0.25 to 0.5", "above 0.5")
        made.append(of_persons("crowding", groups, crowd, "other people's joints in the box around the person's own "
            "joints, as a share of the person's own (the crowd index of Li et al., CVPR 2019)"))  # fmt: skip
    count = people.labelled.sum(axis=1)
    edges = np.unique(np.ceil(np.array([0.25, 0.5, 0.75, 1]) * shape[1])).astype(int)
    between = [f"{low}" if low == high - 1 else f"{low} to {high - 1}" for low, high in zip(edges, edges[1:])]
    groups = [f"up to {edges[0] - 1}", *between, "all"]
    made.append(
        of_persons("labelled joints", groups, np.digitize(count, edges), "how much of the person is to be seen")
    )
    angle = trunk_angle(people)
    if np.isfinite(angle).any():
        group = np.where(np.isfinite(angle), np.digitize(angle, TRUNK_EDGES_DEG), -1)
        groups = ("upright, up to 30°", "leaning, 30° to 60°", "lying, 60° to 120°", "head down, above 120°")
        made.append(of_persons("trunk", groups, group, "angle between the line from hips to shoulders and upward"))
    if people.occluded is not None:
        group = np.where(people.labelled, people.occluded.astype(int), -1)
        made.append(Condition("visibility", ("visible", "hidden"), group, "of the joint, as it is annotated"))
    if people.image_sizes.all(axis=1).any():
        made.append(_region(people))
    return made


def _size(people: People, of_persons) -> Condition:
    """Octaves of pixels, from 8 to 1024 at most."""
    octaves = np.floor(np.log2(np.maximum(people.sizes, 1e-9)))
    low, high = (int(np.clip(value, 3, 10)) for value in np.percentile(octaves, (1, 99)))
    edges = [2**power for power in range(low + 1, max(high, low + 1) + 1)]
    between = [f"{a} to {b} px" for a, b in zip(edges, edges[1:])]
    groups = [f"below {edges[0]} px", *between, f"{edges[-1]} px and more"]
    return of_persons("size", groups, np.digitize(people.sizes, edges), f"{people.size_of} in the photograph")


def _region(people: People) -> Condition:
    """Thirds of the image's height and width."""
    known = people.labelled & people.image_sizes.all(axis=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        place = 3 * people.joints / people.image_sizes[:, None]
    column, row = (np.clip(np.nan_to_num(place[..., axis]), 0, 2.9).astype(int) for axis in (0, 1))
    groups = [
        f"{upright} {across}" for upright in ("top", "middle", "bottom") for across in ("left", "centre", "right")
    ]
    return Condition("image region", groups, np.where(known, 3 * row + column, -1), "where in the image the joint is")


def crowd_index(people: People) -> np.ndarray:
    """Labelled joints of others inside the box around each person's labelled joints, over the person's own: (N,)."""
    low = np.where(people.labelled[..., None], people.joints, np.inf).min(axis=1)
    high = np.where(people.labelled[..., None], people.joints, -np.inf).max(axis=1)
    index = np.zeros(len(people))
    for rows in people.companies():
        for row in rows:
            others = rows[rows != row]
            joints = people.joints[others][people.labelled[others]]
            inside = ((joints >= low[row]) & (joints <= high[row])).all(axis=1).sum()
            index[row] = inside / max(people.labelled[row].sum(), 1)
    return index


def trunk_angle(people: People) -> np.ndarray:
    """Degrees from upright, 0 to 180, of the line from the hips' middle to the shoulders': (N,); NaN if unknown."""
    names = [name.lower() for name in people.skeleton.joints]
    ends = []
    for part in ("hip", "shoulder"):
        pair = [place for place, name in enumerate(names) if part in name]
        if len(pair) != 2:
            return np.full(len(people), np.nan)
        both = people.labelled[:, pair].all(axis=1)[:, None]
        ends.append(np.where(both, people.joints[:, pair].mean(axis=1), np.nan))
    x, y = (ends[1] - ends[0]).T
    return np.degrees(np.arctan2(np.abs(x), -y))


def group_figures(
    condition: Condition, kinds: np.ndarray, right: np.ndarray, counted: np.ndarray, rng: np.random.Generator
) -> list[dict[str, object]]:
    """Of each group that has any: persons, joints, percentage right with its 95 % interval, shares of the kinds.

    Args:
        kinds, right: (N, K), from `error_kinds`.
        counted: (N, K) bool, joints to look at.
    """
    rows = []
    for place, name in enumerate(condition.groups):
        chosen = counted & (condition.group_of == place) & (kinds >= 0)
        if not chosen.any():
            continue
        present = chosen.any(axis=1)
        hits, counts = (right & chosen)[present].sum(axis=1), chosen[present].sum(axis=1)
        rows.append(
            {
                "group": name,
                "persons": int(present.sum()),
                "joints": int(chosen.sum()),
                "right": 100 * hits.sum() / counts.sum(),
                "interval": bootstrap_intervals(hits, counts, rng)[0],
                "too few persons": bool(present.sum() < FEW_PERSONS),
                "shares": kind_shares(np.where(chosen, kinds, -1)),
            }
        )
    return rows
