"""Gradients of convolution weights as matrix products: on AVX2 faster than oneDNN's own kernels for them.

The gradient at row and column (i, j) of a kernel is a sum over all pixels: of the result's gradient there, times the
input one kernel step further. With a border of zeros between rows and between images such a step is an offset in
memory, and the sum is a product of two matrices that have a row a pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from simplepose.machine import mkl
from simplepose.machine.onednn import FLOAT32, Description, Memory, Primitive, reorder
from simplepose.models.onednn_layers import Geometry, Pool

SLOWER = ("jit:avx2", "jit_1x1:avx2")  # oneDNN's kernels; those for AVX-512 were not compared
BYTES = 4  # of a float32


class WeightsProducts:
    """Prepares the calls; what they copy to is shared by layers of one shape.

    Args:
        pool: lends memory for a result in the products' own layout.
    """

    def __init__(self, pool: Pool):
        self._pool = pool
        self._bordered: dict[tuple, np.ndarray] = {}

    @staticmethod
    def suit(geometry: Geometry, kernel: Primitive) -> bool:
        """Whether they can be had, do this convolution, and are faster than this kernel of its weights' gradient."""
        size, around = geometry.weight_shape[2], geometry.padding
        fits = size in (1, 3) and geometry.stride == 1 and around == (size // 2, size // 2)
        return fits and not geometry.transposed and kernel.implementation in SLOWER and mkl.load() is not None

    def calls(self, geometry: Geometry, source: Memory, gradient: Memory, result: Memory) -> list[Callable[[], None]]:
        """What sets `result`, in the layout of Paddle's weights.

        Args:
            source: the convolution's input (N, C, H, W), in NHWC, float32.
            gradient: of its result, likewise.
        """
        outputs, inputs, size, _ = geometry.weight_shape
        n, _, height, width = source.description.shape
        if size == 1:
            sizes = (outputs, inputs, n * height * width)
            return [mkl.TransposedProduct(gradient.address, source.address, result, sizes)]
        # A row of the image is a pixel longer than it is, and an image a row: the next one's border as well.
        pitch = width + 1
        first = pitch + 1  # pixel; before it a row and a pixel of border
        pixels = (n * (height + 1) - 1) * pitch - 1  # from the first to the last
        wide = size * inputs  # a pixel's row holds its neighbours' inputs, too, for products that are as much wider
        bordered = first + n * (height + 1) * pitch
        a, b = self._rows("gradient", bordered, outputs), self._rows("source", bordered, wide)

        def place(rows: np.ndarray, pixel: int, column: int = 0) -> int:
            return rows.ctypes.data + (pixel * rows.shape[1] + column) * BYTES

        def inside(rows: np.ndarray, channels: int, address: int) -> Memory:
            each = rows.shape[1]
            strides = ((height + 1) * pitch * each, 1, pitch * each, each)
            return Memory(Description((n, channels, height, width), FLOAT32, strides), address)

        calls: list[Callable[[], None]] = [reorder(gradient, inside(a, outputs, place(a, first)))]
        for j in range(size):
            calls.append(reorder(source, inside(b, inputs, place(b, first + 1 - j, j * inputs))))
        kernel_row = outputs * wide
        packed = self._pool.take(Description(geometry.weight_shape, FLOAT32, (wide, 1, kernel_row, inputs)))
        for i in range(size):
            there = place(b, first + (i - 1) * pitch)
            sizes, offset = (outputs, wide, pixels), i * kernel_row * BYTES
            calls.append(mkl.TransposedProduct(place(a, first), there, packed, sizes, offset))
        self._pool.give_back(packed)
        return [*calls, reorder(packed, result)]

    def _rows(self, whose: str, pixels: int, columns: int) -> np.ndarray:
        """Zeros (pixels, columns), of which nobody writes to the border."""
        key = whose, pixels, columns
        if key not in self._bordered:
            self._bordered[key] = np.zeros((pixels, columns), np.float32)
        return self._bordered[key]
