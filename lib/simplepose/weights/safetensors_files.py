"""The safetensors format: a JSON header with names, types and offsets, then the bytes.

Reading is done here, because the numpy flavour of the package `safetensors` has no bfloat16 and because a
damaged file should give a one-line error; the rules are the format's own (offsets ascending, no gap, no overlap).
Writing goes through the package.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from simplepose.core.errors import UserError, optional_packages, shown
from simplepose.core.files import parse_json
from simplepose.weights.safe_pickle import Refused, check_sizes, read_into, reading
from simplepose.weights.torch_files import widen_bfloat16

MAX_HEADER_BYTES = 100_000_000  # the format's limit
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a `.safetensors` file.

    Returns:
        (name -> array in native byte order, bfloat16 as float32; the file's own text metadata).
    Raises:
        UserError: unreadable, truncated, or a header that does not fit the file.
    """
    with reading(path), open(path, "rb") as stream:
        return _read(stream, os.fstat(stream.fileno()).st_size)


def _read(stream: BinaryIO, size: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if size < 8:
        raise Refused("is cut short")
    header_size = struct.unpack("<Q", stream.read(8))[0]
    if header_size > MAX_HEADER_BYTES:
        raise Refused(f"announces a header of {header_size} bytes; the format allows {MAX_HEADER_BYTES}")
    if header_size > size - 8:
        raise Refused(f"announces a header of {header_size} bytes, {size - 8} are left")
    try:
        header = parse_json(stream.read(header_size), "the header", object_pairs_hook=_unique)
    except UserError:
        raise Refused("has a header that is not JSON") from None
    if not isinstance(header, dict):
        raise Refused("has a header that is not a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise Refused("has metadata that are not text")

    data_start, data_size = 8 + header_size, size - 8 - header_size
    entries = sorted((_entry(name, value) for name, value in header.items()), key=lambda entry: entry[2:])
    expected = 0
    for name, _, begin, end, _ in entries:
        if begin < expected:
            raise Refused(f"has tensors that overlap ({shown(name)})")
        if begin > expected:
            raise Refused(f"has unexplained bytes before {shown(name)}")
        expected = end
    if expected > data_size:
        raise Refused(f"is cut short: its tensors need {expected} bytes, {data_size} are left")
    if expected < data_size:
        raise Refused(f"has {data_size - expected} unexplained bytes at its end")

    arrays = {}
    stream.seek(data_start)
    for name, kind, _, _, shape in entries:
        raw = np.empty(shape, dtype=_DTYPES[kind])
        read_into(stream, raw)
        native = raw if raw.dtype.isnative else raw.astype(raw.dtype.newbyteorder("="))
        arrays[name] = widen_bfloat16(native) if kind == "BF16" else native
    return {name: arrays[name] for name in header}, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name appears twice")
    return table


def _entry(name: str, value: Any) -> tuple[str, str, int, int, tuple[int, ...]]:
    """(name, type, first byte, byte behind the last, shape), checked to agree."""
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"describes {shown(name)} in an unusual way")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise Refused(f"holds {shown(name)} of the unknown type {shown(kind)}")
    if not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise Refused(f"describes {shown(name)} in an unusual way")
    check_sizes(tuple(shape), "a tensor shape")
    check_sizes(tuple(offsets), "tensor offsets")
    begin, end = offsets
    if end - begin != math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize:
        raise Refused(f"declares {shown(name)} of shape {shown(tuple(shape))} {kind} over {end - begin} bytes")
    return name, kind, begin, end, tuple(shape)


def write_safetensors(
    path: str | os.PathLike, state_dict: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write name -> array with text metadata; needs the package `safetensors` (UserError without it)."""
    with optional_packages():
        from safetensors.numpy import save_file
    arrays = {name: np.asarray(value, order="C") for name, value in state_dict.items()}
    with open(path, "wb") as stream:
        permissions = os.fstat(stream.fileno()).st_mode & 0o777  # what the user's umask makes of a new file
    save_file(arrays, os.fspath(path), metadata=dict(metadata) or None)
    os.chmod(path, permissions)  # the package writes files that only their owner may read
