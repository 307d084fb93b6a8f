"""oneDNN through its C interface: the fast CPU kernels that Paddle's wheel carries and its eager mode never calls.

A `Description` says what an array looks like, a `Memory` is one such array, a `Primitive` is a compiled kernel, and
`Primitive.on(...)` a call of it on certain memories, ready to be repeated. Layouts are by strides: "nhwc" is what
convolutions are fastest on, "any" lets the kernel choose. Source: oneDNN 3 developer guide and dnnl_types.h.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import byref, c_char_p, c_float, c_int, c_int32, c_int64, c_size_t, c_uint, c_void_p
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

ISA_BFLOAT16 = 0xE7  # bits of the processor's instruction sets: AVX-512 with bfloat16 products, or AMX
LIBRARIES = ("libdnnl.so.3", "mkldnn.dll")  # beside Paddle: on Linux, on Windows
VERSION = 3  # of the interface; its numbers below are not those of version 2

BFLOAT16, FLOAT32 = 2, 3
ANY_LAYOUT = 1
FORWARD, INFERENCE, BACKWARD = 64, 96, 128
CONVOLUTION, DECONVOLUTION, RELU, RELU_FROM_OUTPUT, MAX_POOLING, ADD = 0x1, 0xA, 0x20, 0x100, 0x1FF, 0x1FFF0
USE_GLOBAL_STATS, USE_SCALE, USE_SHIFT, FUSE_RELU = 1, 2, 4, 8
ARGUMENTS = {
    "src": 1, "src_1": 2, "dst": 17, "weights": 33, "bias": 41, "mean": 49, "variance": 50, "scale": 51, "shift": 52,
    "workspace": 64, "diff_src": 129, "diff_dst": 145, "diff_weights": 161, "diff_bias": 169, "diff_scale": 255,
    "diff_shift": 256,
}  # fmt: skip
QUERIES = {
    "src": 129, "diff_src": 130, "weights": 131, "diff_weights": 132, "dst": 133, "diff_dst": 134, "workspace": 135,
}  # fmt: skip


class Unavailable(Exception):
    """oneDNN, or a kernel of it, cannot be used here; the message says why."""


class Handle:
    """An object of the library, destroyed with its owner."""

    def __init__(self, kind: str, *create: Any):
        library = load()
        self.pointer = c_void_p()
        self._destroy = getattr(library.functions, f"dnnl_{kind}_destroy")
        library.call(create[0], byref(self.pointer), *create[1:])

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            self._destroy(self.pointer)


class Library:
    """The loaded library, with one engine (the CPU) and one stream of calls to it."""

    def __init__(self, path: Path):
        try:
            self.functions = ctypes.CDLL(str(path))
            version = self.functions.dnnl_version
            version.restype = ctypes.POINTER(c_int * 3)
            self.version = tuple(version().contents)
        except (OSError, AttributeError) as error:
            raise Unavailable(f"{path.name} cannot be loaded ({error})") from None
        if self.version[0] != VERSION:
            raise Unavailable(f"{path.name} is oneDNN {'.'.join(map(str, self.version))}, not {VERSION}")
        try:
            self.functions.dnnl_memory_desc_get_size.restype = c_size_t
            self.functions.dnnl_primitive_desc_query_md.restype = c_void_p
        except AttributeError as error:
            raise Unavailable(f"{path.name} lacks a function ({error})") from None
        self.engine, self.stream = c_void_p(), c_void_p()
        self.call("engine_create", byref(self.engine), c_int(1), c_size_t(0))
        self.call("stream_create", byref(self.stream), self.engine, c_uint(1))

    def __str__(self) -> str:
        return f"oneDNN {'.'.join(map(str, self.version))}"

    @property
    def has_bfloat16(self) -> bool:
        """Whether this processor multiplies bfloat16 numbers."""
        isa = getattr(self.functions, "dnnl_get_effective_cpu_isa", lambda: 0)()
        return isa & ISA_BFLOAT16 == ISA_BFLOAT16

    def call(self, name: str, *arguments: Any) -> None:
        """Call dnnl_<name>.

        Raises:
            Unavailable: the library has no such function, or refuses.
        """
        try:
            status = getattr(self.functions, f"dnnl_{name}")(*arguments)
        except AttributeError:
            raise Unavailable(f"oneDNN has no dnnl_{name}") from None
        if status:
            raise Unavailable(f"oneDNN refuses dnnl_{name} (status {status})")


@lru_cache(maxsize=1)
def load() -> Library:
    """The library beside Paddle, which must have been imported: it brings the threads.

    Raises:
        Unavailable: there is none, or it is of another version.
    """
    package = find_spec("paddle")
    folder = Path(package.origin).parent / "libs" if package and package.origin else Path()
    found = [folder / name for name in LIBRARIES if (folder / name).exists()]
    if not found:
        raise Unavailable(f"Paddle carries none ({' and '.join(LIBRARIES)} are not in {folder})")
    return Library(found[0])


def sizes(*values: int) -> Any:
    """Sizes as the library takes them."""
    return (c_int64 * 12)(*values)


class Description(Handle):
    """Shape, type and layout of an array.

    Args:
        shape: logical: (N, C, H, W) or (out, in, kh, kw), whatever the layout.
        kind: FLOAT32 or BFLOAT16.
        layout: "plain" (row-major), "nhwc", "any" (a kernel chooses), or strides in elements.
    """

    def __init__(self, shape: Sequence[int], kind: int = FLOAT32, layout: str | Sequence[int] = "plain"):
        self.shape, self.kind = tuple(shape), kind
        described = (c_int(len(shape)), sizes(*shape), c_int(kind))
        if layout == "any":
            super().__init__("memory_desc", "memory_desc_create_with_tag", *described, c_int(ANY_LAYOUT))
            return
        if layout == "plain":
            layout = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        elif layout == "nhwc":
            _, c, h, w = shape
            layout = (h * w * c, 1, w * c, c)
        super().__init__("memory_desc", "memory_desc_create_with_strides", *described, sizes(*layout))


def size_of(description: Description | c_void_p) -> int:
    """Bytes that an array of this description takes."""
    return load().functions.dnnl_memory_desc_get_size(getattr(description, "pointer", description))


class Memory(Handle):
    """An array as a description has it.

    Args:
        description: one's own, or what `Primitive.wants` says.
        place: an array whose memory it is; an address that somebody else keeps alive; or None for memory of its own,
            which is not touched here: the thread that first writes to a page has it near.
        keep: whose description it is, kept alive.
    """

    def __init__(self, description: Any, place: np.ndarray | int | None = None, keep: Primitive | None = None):
        self.description, self._keep = description, keep
        self.raw = getattr(description, "pointer", description)
        if place is None:
            place = np.empty(size_of(description), np.uint8)
        self.block = place if isinstance(place, np.ndarray) else None
        self.address = place if self.block is None else place.ctypes.data
        super().__init__("memory", "memory_create", self.raw, load().engine, c_void_p(self.address))

    def move_to(self, address: int) -> None:
        """Stand for the array at another address from now on."""
        if address != self.address:
            load().call("memory_set_data_handle", self.pointer, c_void_p(address))
            self.address = address

    def is_laid_out(self, description: c_void_p) -> bool:
        """Whether this is its layout, and type and shape."""
        return bool(load().functions.dnnl_memory_desc_equal(self.raw, description))

    def floats(self) -> np.ndarray:
        """The float32 numbers of a block of its own, in the order of memory."""
        return self.block.view(np.float32)


class Primitive(Handle):
    """A kernel, compiled for the shapes and layouts that `create`'s arguments describe.

    Args:
        create: of oneDNN's dnnl_<create>_primitive_desc_create.
        arguments: as there, after the engine.

    Raises:
        Unavailable: this processor has no such kernel.
    """

    def __init__(self, create: str, *arguments: Any):
        engine = () if create == "reorder" else (load().engine,)  # a reorder names its engines among the arguments
        raw = [getattr(argument, "pointer", argument) for argument in arguments]
        self.descriptor = Handle("primitive_desc", f"{create}_primitive_desc_create", *engine, *raw)
        super().__init__("primitive", "primitive_create", self.descriptor.pointer)

    def wants(self, argument: str) -> c_void_p:
        """The description of an argument as the kernel has chosen it; it lives as long as the kernel."""
        query = load().functions.dnnl_primitive_desc_query_md
        return c_void_p(query(self.descriptor.pointer, c_int(QUERIES[argument]), c_int(0)))

    @property
    def implementation(self) -> str:
        """oneDNN's name of what runs, as "brgconv:avx2"."""
        name = c_char_p()
        load().call("primitive_desc_query", self.descriptor.pointer, c_int(8), c_int(0), byref(name))
        return (name.value or b"").decode()

    def on(self, **memories: Memory) -> Call:
        return Call(self, memories)


class _Argument(ctypes.Structure):
    _fields_ = (("number", c_int), ("memory", c_void_p))


class Call:
    """A kernel on certain memories, to be run as often as they are filled anew."""

    def __init__(self, primitive: Primitive, memories: dict[str, Memory]):
        self._alive = (primitive, memories)
        arguments = [_Argument(ARGUMENTS[name], memory.pointer) for name, memory in memories.items()]
        table = (_Argument * len(arguments))(*arguments)
        self._execute = load().functions.dnnl_primitive_execute
        self._arguments = (primitive.pointer, load().stream, c_int(len(arguments)), table)

    def __call__(self) -> None:
        if self._execute(*self._arguments):
            raise RuntimeError(f"oneDNN failed in {self._alive[0].implementation}")


class PostOps(Handle):
    """What a kernel does to its result on the way out: add it to what is there, then ReLU."""

    def __init__(self, add: bool = False, relu: bool = False):
        super().__init__("primitive_attr", "primitive_attr_create")
        operations = Handle("post_ops", "post_ops_create")
        if add:
            load().call("post_ops_append_sum", operations.pointer, c_float(1), c_int32(0), c_int(0))
        if relu:
            load().call("post_ops_append_eltwise", operations.pointer, c_int(RELU), c_float(0), c_float(0))
        load().call("primitive_attr_set_post_ops", self.pointer, operations.pointer)


def reorder(source: Memory, target: Memory) -> Call:
    """Copy into another layout or type."""
    engine = load().engine
    return Primitive("reorder", source.raw, engine, target.raw, engine, None).on(src=source, dst=target)
