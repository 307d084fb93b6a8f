"""Writes the pickles that PyTorch and Paddle read, instruction by instruction, without either installed.

Python's pickler would copy every array once more, keep those copies until the end, and write numpy's new
module names, which numpy < 2 cannot read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

import numpy as np


class PickleWriter:
    """Appends pickle instructions to a binary stream; the caller closes with `stop()`."""

    def __init__(self, stream: BinaryIO, protocol: int) -> None:
        self.stream = stream
        self.raw(b"\x80" + bytes([protocol]))

    def raw(self, data: bytes) -> None:
        self.stream.write(data)

    def mark(self) -> None:
        self.raw(b"(")

    def text(self, value: str) -> None:
        data = value.encode("utf-8")
        self.raw(b"X" + struct.pack("<I", len(data)) + data)

    def integer(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self.raw(b"K" + struct.pack("<B", value))
        elif -(1 << 31) <= value < 1 << 31:
            self.raw(b"J" + struct.pack("<i", value))
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.raw(b"\x8a" + struct.pack("<B", len(data)) + data)

    def integers(self, values: Iterable[int]) -> None:
        """A tuple of integers."""
        self.mark()
        for value in values:
            self.integer(value)
        self.raw(b"t")

    def boolean(self, value: bool) -> None:
        self.raw(b"\x88" if value else b"\x89")

    def global_name(self, module: str, name: str) -> None:
        self.raw(b"c" + module.encode() + b"\n" + name.encode() + b"\n")

    def empty_ordered_dict(self) -> None:
        self.global_name("collections", "OrderedDict")
        self.raw(b")R")

    def array(self, value: np.ndarray) -> None:
        """A numpy array under the module name `numpy.core`, which every numpy reads; needs protocol 4."""
        value = np.asarray(value, order="C")
        self.global_name("numpy.core.multiarray", "_reconstruct")
        self.global_name("numpy", "ndarray")
        self.integers((0,))
        self.raw(b"C\x01b\x87R")  # b"b"; three arguments; call
        self.mark()
        self.integer(1)  # version of the state
        self.integers(value.shape)
        self.global_name("numpy", "dtype")
        self.text(value.dtype.str[1:])
        self.raw(b"\x89\x88\x87R")  # False, True; three arguments; call
        self.mark()
        self.integer(3)  # version of the state
        self.text(value.dtype.str[0])
        self.raw(b"NNN")
        self.integer(-1)
        self.integer(-1)
        self.integer(0)
        self.raw(b"tb")
        self.boolean(False)  # C order
        self.raw(b"\x8e" + struct.pack("<Q", value.nbytes))
        write_array(self.stream, value)
        self.raw(b"tb")

    def value(self, value: Any) -> None:
        """Nested dicts and lists of text, numbers, None and arrays."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, dict):
            self.raw(b"}")
            self.mark()
            for key, item in value.items():
                self.value(key)
                self.value(item)
            self.set_items()
        elif isinstance(value, (list, tuple)):
            self.raw(b"]")
            self.mark()
            for item in value:
                self.value(item)
            self.raw(b"e")
        elif value is None:
            self.raw(b"N")
        elif isinstance(value, bool):
            self.boolean(value)
        elif isinstance(value, int):
            self.integer(value)
        elif isinstance(value, float):
            self.raw(b"G" + struct.pack(">d", value))
        elif isinstance(value, str):
            self.text(value)
        elif isinstance(value, np.ndarray):
            self.array(value)
        else:
            raise TypeError(f"no way to write a {type(value).__name__} is known here")

    def set_items(self) -> None:
        self.raw(b"u")

    def stop(self) -> None:
        self.raw(b".")


def write_array(stream: BinaryIO, value: np.ndarray) -> None:
    """Append the bytes of a C-contiguous array without copying them."""
    if value.nbytes:
        stream.write(memoryview(value.reshape(-1).view(np.uint8)))
