"""Writes the pickles that PyTorch and Paddle read, without either installed.

Python's own pickler, the one written in Python, told how to write a name without importing it: it would ask for
PyTorch, and write numpy's new module names, which numpy < 2 cannot read. It keeps no memo, and so no copy of an array.
"""

from __future__ import annotations

import pickle
from typing import Any, BinaryIO, NamedTuple

import numpy as np


class Name(NamedTuple):
    """A global that the reader of the file is to look up."""

    module: str
    name: str

    def __call__(self) -> None:
        """Python's pickler wants something that can be called."""


class Call(NamedTuple):
    """A value that the reader of the file makes by a call, and then by setting the state of what it returned."""

    function: Name
    arguments: tuple
    state: Any = None


class Pickler(pickle._Pickler):
    """Nested dicts, lists, tuples, text, numbers, None, arrays, `Name` and `Call`; the same input, the same bytes."""

    def __init__(self, stream: BinaryIO, protocol: int) -> None:
        super().__init__(stream, protocol)
        self.fast = True  # no memo

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        if isinstance(value, np.ndarray):
            value = _array(value)
        elif isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Name):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
        elif isinstance(value, Call):
            self.save_reduce(*value)
        else:
            super().save(value, save_persistent_id)


def _array(value: np.ndarray) -> Call:
    """A numpy array under the module name `numpy.core`, which every numpy reads."""
    order, code = value.dtype.str[0], value.dtype.str[1:]
    dtype = Call(Name("numpy", "dtype"), (code, False, True), (3, order, None, None, None, -1, -1, 0))
    empty = (Name("numpy", "ndarray"), (0,), b"b")
    state = (1, value.shape, dtype, False, value.tobytes())  # version, shape, type, not Fortran's order, content
    return Call(Name("numpy.core.multiarray", "_reconstruct"), empty, state)
