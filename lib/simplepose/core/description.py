"""Bounds of the network description that a file carries. Files are untrusted input: the bounds hold for weight files
(through the configuration) and for exported networks alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from simplepose.core.errors import shown

BACKBONE_STRIDE = 32  # a ResNet's output is 1/32 of its input
MAX_SIDE = 4096  # pixels of a network's input
MAX_DECONVS = 5  # then the heatmaps have the input's resolution
MAX_CHANNELS = 4096  # of a deconvolution
MAX_SIGMA = 64.0  # heatmap cells
ABOVE_ZERO = 1e-300  # lower bound for positive numbers
BELOW_ONE = 1 - 2**-53  # upper bound for numbers below one


def range_text(low: float, high: float) -> str:
    """Bounds in words, as "above 0 and at most 64"."""
    lowest = "above 0" if low == ABOVE_ZERO else f"at least {low}"
    return f"{lowest} and {'below 1' if high == BELOW_ONE else f'at most {high}'}"


def number_in(value: Any, name: str, low: float, high: float) -> float:
    """A finite number within bounds; otherwise raises ValueError, which names it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name} must be a number {range_text(low, high)}, found {shown(value)}")
    return value


def sizes_of(image_size_wh: Any, heatmap_size_wh: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """Input and heatmap as (width, height). Raises ValueError for sizes that no network of this kind has."""
    for name, size in (("image_size_wh", image_size_wh), ("heatmap_size_wh", heatmap_size_wh)):
        if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(type(side) is int for side in size):
            raise ValueError(f"{name} must be [width, height], found {shown(size)}")
    for side in image_size_wh:
        if not 0 < side <= MAX_SIDE or side % BACKBONE_STRIDE:
            raise ValueError(
                f"a side of image_size_wh is {shown(side)}; sides are multiples of {BACKBONE_STRIDE} up to {MAX_SIDE}"
            )
    drawn = [[side // BACKBONE_STRIDE * 2**count for side in image_size_wh] for count in range(1, MAX_DECONVS + 1)]
    if list(heatmap_size_wh) not in drawn:
        raise ValueError(f"heatmaps of {shown(heatmap_size_wh)} do not go with an input of {shown(image_size_wh)}")
    return tuple(image_size_wh), tuple(heatmap_size_wh)


def close_to(values: Any, expected: Sequence[float]) -> bool:
    """Whether a list holds these numbers, up to rounding."""
    return (
        isinstance(values, (list, tuple))
        and len(values) == len(expected)
        and all(type(value) in (int, float) and math.isclose(value, e) for value, e in zip(values, expected))
    )
