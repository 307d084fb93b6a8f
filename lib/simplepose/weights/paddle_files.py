"""Paddle's `.pdparams` in numpy: reads what `paddle.save` wrote and writes what `paddle.load` accepts.

`paddle.save` pickles a state dict of numpy arrays together with a table of internal parameter names, and a
nested object with each tensor as `(internal name, array)`. bfloat16 arrays are stored as uint16 bits.

A training checkpoint is such a pickle followed by a checksum, which unpicklers ignore.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from simplepose.weights.pickle_writer import Pickler
from simplepose.weights.safe_pickle import Refused, check_sizes, load_pickle, reading

NAME_TABLE = "StructuredToParameterName@@"
SLICES = "UnpackBigParamInfor@@"  # Paddle's own spelling
METADATA_KEY = "simplepose"  # JSON text beside the arrays; `Layer.set_state_dict` only reports it as unexpected
PICKLE_PROTOCOL = 4  # what paddle.save writes; protocols 2 and 3 cannot hold more than 4 GiB
CHECKSUM_MARK = b"blake2b-256 sum:"  # then the 32 bytes of the sum over everything before the mark
CHECKSUM_BYTES = 32
CHUNK_BYTES = 1 << 20


def read_paddle(path: str | os.PathLike) -> Any:
    """Read a file that `paddle.save` wrote (state dict, optimiser state or nested object), running no code.

    Returns:
        Nested dicts, lists, numbers and text with a numpy array for every tensor. Arrays that Paddle cut into
        slices (more than 1 GiB in protocol 2) are whole again; the table of internal names is left out.
    Raises:
        UserError: unreadable, damaged, or it asks for more than arrays need.
    """
    with reading(path), open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        _check_sum(stream, size)
        value = load_pickle(stream, size)
        if isinstance(value, dict):
            _join_slices(value, size)
            value.pop(NAME_TABLE, None)
    return value


def _join_slices(state: dict, file_size: int) -> None:
    information = state.pop(SLICES, None)
    if information is None:
        return
    if not isinstance(information, dict):
        raise Refused("describes its sliced arrays in an unusual way")
    total = 0
    for name, entry in information.items():
        parts = entry.get("slices") if isinstance(entry, dict) else None
        shape = entry.get("OriginShape") if isinstance(entry, dict) else None
        if not isinstance(parts, list) or not parts or len(set(map(str, parts))) != len(parts):
            raise Refused("describes its sliced arrays in an unusual way")
        arrays = [state.pop(part, None) if isinstance(part, str) else None for part in parts]
        if not all(isinstance(array, np.ndarray) for array in arrays):
            raise Refused("lacks a slice of a large array")
        check_sizes(shape, "an array shape")
        total += sum(array.nbytes for array in arrays)
        if total > file_size:  # one array under several names
            raise Refused("has slices larger than the file")
        whole = np.concatenate([array.reshape(-1) for array in arrays])
        if whole.size != np.prod(shape, dtype=np.float64):
            raise Refused("has slices that do not add up to the array they belong to")
        state[name] = whole.reshape(shape)


def write_paddle(path: str | os.PathLike, state_dict: Mapping[str, np.ndarray], metadata: str | None = None) -> None:
    """Write a state dict that `paddle.load` and `Layer.set_state_dict` accept, bit for bit.

    Args:
        state_dict: name -> array.
        metadata: JSON text, stored under the extra key "simplepose".
    numpy before and since version 2 can read the arrays. The same input gives the same bytes.
    """
    with open(path, "wb") as stream:
        Pickler(stream, PICKLE_PROTOCOL).dump({**state_dict, **({} if metadata is None else {METADATA_KEY: metadata})})


def write_checked(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """Write nested dicts, lists, text, numbers and arrays for `read_paddle`, and behind them their checksum."""
    with open(path, "wb") as stream:
        summing = _SummingStream(stream)
        Pickler(summing, PICKLE_PROTOCOL).dump(content)
        stream.write(CHECKSUM_MARK + summing.digest.digest())


class _SummingStream:
    """Passes what is written on to a stream and computes its checksum."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)

    def write(self, data: Any) -> None:
        self.digest.update(data)
        self.stream.write(data)


def _check_sum(stream: BinaryIO, size: int) -> None:
    """Refuse a file whose checksum is not that of its content; files without one pass. Rewinds the stream."""
    body = size - len(CHECKSUM_MARK) - CHECKSUM_BYTES
    stream.seek(max(0, body))
    tail = stream.read()
    stream.seek(0)
    if body <= 0 or not tail.startswith(CHECKSUM_MARK):
        return
    digest = hashlib.blake2b(digest_size=CHECKSUM_BYTES)
    while body:
        chunk = stream.read(min(body, CHUNK_BYTES))
        if not chunk:
            raise Refused("is cut short")
        digest.update(chunk)
        body -= len(chunk)
    stream.seek(0)
    if digest.digest() != tail[len(CHECKSUM_MARK) :]:
        raise Refused("has changed since it was written (its checksum does not fit)")
