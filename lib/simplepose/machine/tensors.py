"""Paddle's CPU tensors as numpy arrays over the same memory."""

from __future__ import annotations

import ctypes
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from paddle import Tensor

BLOCK = 1 << 14  # elements of a block that stays in the processor's cache between two operations


def array_of(tensor: Tensor) -> np.ndarray:
    """The memory of a contiguous float32 CPU tensor, flat; it lives as long as the tensor keeps it."""
    return np.ctypeslib.as_array((ctypes.c_float * math.prod(tensor.shape)).from_address(tensor.data_ptr()))


def move_towards(target: np.ndarray, source: np.ndarray, share: float) -> None:
    """target += share * (source - target), both flat, in one pass over memory."""
    for start in range(0, len(target), BLOCK):
        block = target[start : start + BLOCK]
        block += share * (source[start : start + BLOCK] - block)
