"""Matrix products by the MKL that Paddle's wheel carries, on the threads that Paddle and oneDNN use."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int, c_void_p
from functools import lru_cache
from typing import Any

from simplepose.machine.onednn import Memory, beside_paddle

LIBRARIES = ("libmklml_intel.so", "mklml.dll")  # on Linux, on Windows
ROW_MAJOR, PLAIN, TRANSPOSED = 101, 111, 112  # of CBLAS


@lru_cache(maxsize=1)
def load() -> Any:
    """Its cblas_sgemm, or None where there is none."""
    path = beside_paddle(LIBRARIES)
    try:
        product = ctypes.CDLL(str(path)).cblas_sgemm if path else None
    except (OSError, AttributeError):
        return None
    if product:
        matrix = (c_void_p, c_int)
        product.argtypes = (*[c_int] * 6, c_float, *matrix, *matrix, c_float, *matrix)
        product.restype = None
    return product


class TransposedProduct:
    """A call that sets C (M, N) to the product of A (K, M), transposed, and B (K, N); all row by row, float32.

    Args:
        a, b: addresses that somebody else keeps alive.
        c, offset: so many bytes after the memory's address at the time of the call.
        sizes: M, N, K.
    """

    def __init__(self, a: int, b: int, c: Memory, sizes: tuple[int, int, int], offset: int = 0):
        m, n, _ = sizes
        self._arguments = (ROW_MAJOR, TRANSPOSED, PLAIN, *sizes, 1.0, a, m, b, n, 0.0)
        self._result, self._offset, self._columns, self._product = c, offset, n, load()

    def __call__(self) -> None:
        self._product(*self._arguments, self._result.address + self._offset, self._columns)
