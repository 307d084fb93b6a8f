"""Dividing a labelled set in two so that what validates is not what was trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np

from simplepose.core.errors import UserError


def group_of(name: str, pattern: str | None = None) -> str:
    """The group of an image: its name without the number at its end, as of a video's frames.

    Args:
        pattern: a regular expression whose first group, or whole match, is taken instead.

    Raises:
        UserError: a pattern that is none, or does not match.
    """
    if pattern is None:
        path = PurePosixPath(name.strip("/") or "_")
        return str(path.with_name(re.sub(r"(?<![ _.-])[ _.-]*\d+$", "", path.stem) or "_"))
    try:
        match = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"--group {pattern} is not a regular expression: {error}") from None
    if match is None:
        raise UserError(f"--group {pattern} does not match the image {name}")
    return match[match.re.groups and 1] or ""  # None where an optional bracket, as (anna-)?, is not there


def choose(groups: Sequence[str], weights: Sequence[int], share: float, seed: int) -> set[str]:
    """Groups to validate on, drawn at random until they weigh about `share` of all.

    Args:
        groups: the group of each image.
        weights: persons on each.

    Raises:
        UserError: a single group, or a share that leaves one part empty.
    """
    total: dict[str, int] = {}
    for group, weight in zip(groups, weights):
        total[group] = total.get(group, 0) + weight
    if len(total) < 2:
        raise UserError(
            f"all {len(groups)} images are one group ({next(iter(total), '')}); say what divides them: --group"
        )
    if not 0 < share < 1:
        raise UserError(f"--valid is the share of persons to validate on, between 0 and 1, found {share:g}")
    wanted, chosen, weight = share * sum(total.values()), set(), 0
    for group in np.random.default_rng(seed).permutation(sorted(total)).tolist():
        # A group that overshoots by more than it lacks is passed over, unless nothing is chosen yet.
        if not chosen or weight + total[group] / 2 <= wanted:
            chosen.add(group)
            weight += total[group]
        if weight >= wanted:
            break
    if len(chosen) == len(total):
        raise UserError(f"{len(total)} groups do not divide {1 - share:.0%} to {share:.0%}; choose another --valid")
    return chosen
