"""Validates fields of JSON entries: numbers, ids and image names. Whole columns are checked at once; only after a
failure are the entries visited one by one, so that the error can name the faulty one.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from simplepose.core.errors import UserError

MAX_PIXELS = 2**20  # OpenCV reads no image that is wider or higher: no coordinate, and no size, lies beyond


def numbers_of(
    entries: Sequence[Any],
    field: str,
    shape: tuple[int, ...],
    where: str,
    low: float = -MAX_PIXELS,
    high: float = MAX_PIXELS,
    rows: Sequence[int] | None = None,
) -> np.ndarray:
    """One field of N entries, (N, *shape) float64.

    Args:
        where: file and list, for messages, as "valid.json: entry".
        low, high: bounds, inclusive.
        rows: indices of the entries in the file; None: 0 to N - 1.

    Raises:
        UserError: an entry without the field, of another shape, or with something that is not a number in the bounds.
    """
    try:
        values = np.array([entry[field] for entry in entries])
        if not entries:
            return values.reshape(0, *shape)
        is_number = values.dtype.kind in "biuf"  # not text, which may be "12"
        if is_number and values.shape == (len(entries), *shape) and ((values >= low) & (values <= high)).all():
            return values.astype(np.float64)  # excludes NaN, which is within no bounds
    except (KeyError, TypeError, ValueError, OverflowError):
        pass
    for row, entry in zip(rows or range(len(entries)), entries):
        if not isinstance(entry, dict):
            raise UserError(f"{where} {row} is {reprlib.repr(entry)}, expected a mapping with {field!r}")
        if field not in entry:
            raise UserError(f"{where} {row} has no {field!r}")
        fault = _first_fault(entry[field], shape, field, low, high)
        if fault:
            raise UserError(f"{where} {row}: {fault}")
    raise UserError(f"{where}s: {field} must be {' x '.join(map(str, shape)) or 'one'} numbers each")  # not expected


def _first_fault(value: Any, shape: tuple[int, ...], name: str, low: float, high: float) -> str | None:
    """As "joints[3][0] is nan, expected a number from -1 to 1"; None if all is well."""
    if not shape:
        is_number = isinstance(value, (int, float)) and low <= value <= high
        return None if is_number else f"{name} is {reprlib.repr(value)}, expected a number from {low:g} to {high:g}"
    if not isinstance(value, list) or len(value) != shape[0]:
        found = f"a list of {len(value)}" if isinstance(value, list) else reprlib.repr(value)
        return f"{name} is {found}, expected {' x '.join(map(str, shape))} numbers"
    faults = (_first_fault(item, shape[1:], f"{name}[{place}]", low, high) for place, item in enumerate(value))
    return next(filter(None, faults), None)


def is_id(value: Any) -> bool:
    """Whether this can be an id: a whole number of 64 bits."""
    return type(value) is int and -(2**63) <= value < 2**63


def image_paths(names: Iterable[Any], folder: str, root: str, where: str) -> list[str]:
    """<folder><name> of each image; the folder, or the zip as "images.zip@", is in the data root.

    Raises:
        UserError: a name that is not text, or that leads out of the data root.
    """
    paths = []
    for row, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise UserError(f"{where} {row} names the image {reprlib.repr(name)}, expected the name of a file")
        path = folder + name
        if ".." in name and os.path.relpath(path, root).split(os.sep)[0] == "..":
            raise UserError(
                f"{where} {row} names the image {reprlib.repr(name)}, which lies outside of DATASET.ROOT ({root}); "
                "images are read from inside of it"
            )
        paths.append(path)
    return paths
