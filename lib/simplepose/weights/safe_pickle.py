"""A pickle reader that cannot run code: Python's own unpickler, with every door to the outside closed.

Python's unpickler imports whatever a file names and calls it. Here a global name is looked up in a literal table
(`ARRAY_GLOBALS`, plus what `torch_files` adds for tensors) and never imported, a call reaches only the functions of
that table, each of which checks its arguments, and of the pickle language only the instructions that make data are
left. Everything else raises a one-line error that says what the file asked for.

It is the unpickler written in Python (`pickle._Unpickler`), not the one in C: its instructions can be taken away and
replaced, and it reads through a stream that compares every length with the bytes that are left before anything is
allocated. An array's shape must account for exactly the bytes that came with it.
"""

from __future__ import annotations

import math
import os
import pickle
import re
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Callable

import numpy as np

from simplepose.core.errors import UserError, shown
from simplepose.core.files import UNFORESEEN

MAX_READS = 5_000_000  # a ResNet-152 checkpoint with its optimiser needs about 60,000: one or two an instruction
MAX_LINE_BYTES = 512  # a global's module or name
MAX_DIMENSIONS = 32  # numpy's own limit for a long time
MAX_DEPTH = 64  # containers within containers
MAX_EXPANDED_VALUES = 20_000_000  # values a plain recursive walk over the result would meet

_DTYPE_CODE = re.compile(r"[<>|=]?(?:[fiubc?](?:1|2|4|8|16)?|[SU]\d{1,4})\Z")
_HASHABLE = (str, bytes, int, float, bool, type(None))
MAX_KEY = 2**32  # of whole numbers: larger ones can be chosen so that a dictionary compares each with all others
COPIES = 4  # times the file: what calls may be given; honest ones get a byte twice, for `encode` and for its array


class Refused(Exception):
    """Raised inside this package; the readers turn it into a `UserError` that names the file."""


class Global:
    """A name from the table of allowed globals. `call` is what calling it runs; None: it may only be named."""

    def __init__(self, name: str, call: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.call = call

    def __call__(self, *args: Any) -> Any:
        if self.call is None:
            raise Refused(f"calls {self.name}")
        return self.call(*args)


class _Dtype:
    """numpy's element type; its byte order comes with the BUILD that follows, when others already refer to it."""

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


# -- the allowed globals


def _is_key(value: Any) -> bool:
    """Whether it may be a dictionary's: nested tuples would be hashed recursively, and a short file could take for
    ever."""
    return isinstance(value, _HASHABLE) and not (isinstance(value, int) and abs(value) >= MAX_KEY)


def _ordered_dict(*args: Any) -> OrderedDict:
    if not args:
        return OrderedDict()
    if (
        len(args) == 1
        and isinstance(args[0], list)
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_key(pair[0]) for pair in args[0])
    ):
        return OrderedDict(args[0])  # Python 2 wrote its items this way
    raise Refused("calls OrderedDict with unusual arguments")


def _tuple(*args: Any) -> Any:
    """Paddle saves a tensor inside a nested object as `tuple((name, array))`; only the array matters."""
    if len(args) != 1 or not isinstance(args[0], (tuple, list)):
        raise Refused("calls tuple with unusual arguments")
    value = tuple(args[0])
    if len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], np.ndarray):
        return value[1]
    return value


def _dtype(*args: Any) -> _Dtype:
    code = args[0] if args else None
    if not isinstance(code, str) or len(args) > 3 or any(type(flag) not in (bool, int) for flag in args[1:]):
        raise Refused("describes an array type in an unusual way")
    if not _DTYPE_CODE.match(code):
        raise Refused(f"asks for arrays of type {shown(code)}")
    try:
        return _Dtype(code)
    except TypeError:
        raise Refused(f"asks for arrays of type {shown(code)}") from None


def _reconstruct(*args: Any) -> np.ndarray:
    """An empty array, whose shape and bytes come with the BUILD that follows."""
    if len(args) != 3 or not isinstance(args[0], Global) or args[0].name != "numpy.ndarray":
        raise Refused("reconstructs something that is not an array")
    return np.empty(0, np.uint8)


def _scalar(*args: Any) -> Any:
    if len(args) != 2:
        raise Refused("holds an array scalar with unusual arguments")
    return _filled(np.empty(0, np.uint8), (), args[0], False, args[1])[()]


def _from_buffer(*args: Any) -> np.ndarray:
    if len(args) != 4:
        raise Refused("holds an array buffer with unusual arguments")
    raw, dtype, shape, order = args
    return _filled(np.empty(0, np.uint8), shape, dtype, order == "F", raw)


def _encode(*args: Any) -> bytes:
    """`_codecs.encode(text, "latin1")` is how Python 3 writes bytes in the old pickle protocols."""
    if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise Refused("calls _codecs.encode with unusual arguments")
    return args[0].encode("latin-1")


def _no_bytes(*args: Any) -> bytes:
    """`bytes()` is how Python 3 writes empty bytes in the old pickle protocols."""
    if args:
        raise Refused("calls bytes with unusual arguments")
    return b""


def table_of(entries: Mapping[str, Callable[..., Any] | None]) -> dict[str, Global]:
    """Name -> what calling it runs (None: it may only be named), as `load_pickle` takes it."""
    return {name: Global(name, call) for name, call in entries.items()}


#: What files of arrays need, under numpy's names before and since version 2, and Python 2's names.
ARRAY_GLOBALS: dict[str, Global] = table_of(
    {
        "collections.OrderedDict": _ordered_dict,
        "builtins.tuple": _tuple,
        "__builtin__.tuple": _tuple,
        "builtins.bytes": _no_bytes,
        "__builtin__.bytes": _no_bytes,
        "_codecs.encode": _encode,
        "numpy.dtype": _dtype,
        "numpy.core.multiarray._reconstruct": _reconstruct,
        "numpy._core.multiarray._reconstruct": _reconstruct,
        "numpy.core.multiarray.scalar": _scalar,
        "numpy._core.multiarray.scalar": _scalar,
        "numpy.core.numeric._frombuffer": _from_buffer,
        "numpy._core.numeric._frombuffer": _from_buffer,
        "numpy.ndarray": None,
    }
)


def _filled(array: np.ndarray, shape: Any, dtype: Any, fortran_order: Any, raw: Any) -> np.ndarray:
    """Give an empty array its content: writable, aligned and in native byte order; large bytes are not copied.

    Args:
        shape: tuple of non-negative ints whose product times the item size must be the length of `raw`.
        raw: bytes, or text of byte values (Python 2).
    Raises:
        Refused: the description does not account for the bytes.
    """
    if not isinstance(dtype, _Dtype):
        raise Refused("describes an array in an unusual way")
    if isinstance(raw, str):
        raw = raw.encode("latin-1")
    if not isinstance(raw, bytes):
        raise Refused("holds an array without data")
    check_sizes(shape, "an array shape")
    if dtype.dtype.itemsize == 0 or math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise Refused(f"declares an array of shape {shown(shape)} {dtype.dtype} over {len(raw)} bytes")
    if array.size:  # a tensor's, which others may look into
        raise Refused("fills an array twice")
    array.__setstate__((1, shape, dtype.dtype, bool(fortran_order), raw))
    return array


def check_sizes(sizes: Any, what: str) -> None:
    """Raise `Refused` unless `sizes` is a tuple of at most 32 non-negative 63-bit ints."""
    if (
        not isinstance(sizes, tuple)
        or len(sizes) > MAX_DIMENSIONS
        or any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes)
    ):
        raise Refused(f"declares {what} of {shown(sizes)}")


# -- the unpickler


class _Bounded:
    """The bytes of one pickle; a length beyond those that are left is refused before any memory is taken."""

    def __init__(self, stream: BinaryIO, remaining: int) -> None:
        self.stream = stream
        self.remaining = remaining
        self.reads = 0

    def read(self, count: int) -> bytes:
        self.reads += 1
        if self.reads > MAX_READS:
            raise Refused(f"has more than {MAX_READS} pickle instructions")
        if count > self.remaining:
            raise Refused(f"is cut short: {count} bytes are announced, {self.remaining} are left")
        data = self.stream.read(count)
        if len(data) != count:
            raise Refused("is cut short")
        self.remaining -= count
        return data

    def readline(self) -> bytes:
        line = self.stream.readline(min(MAX_LINE_BYTES, self.remaining))
        self.remaining -= len(line)
        if not line.endswith(b"\n"):
            raise Refused("is cut short or holds an overlong name")
        return line


class _Instructions(dict):
    """Code of an instruction -> what carries it out."""

    def __missing__(self, code: int) -> None:
        raise Refused(f"uses the pickle instruction {bytes([code])}, which weight files do not need")


_NAMES = """
    PROTO STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG1 BINFLOAT
    SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 SHORT_BINSTRING BINSTRING
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT EMPTY_LIST APPEND APPENDS GLOBAL STACK_GLOBAL INST
    BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET BINPERSID
"""
_CODES = [getattr(pickle, name)[0] for name in _NAMES.split()]
_PYTHONS = {code: pickle._Unpickler.dispatch[code] for code in _CODES}


class _Unpickler(pickle._Unpickler):
    def __init__(
        self, source: _Bounded, allowed: Mapping[str, Global], persistent_load: Callable[[Any], Any] | None
    ) -> None:
        super().__init__(source, encoding="latin-1")  # of Python 2's strings
        self.source = source
        self.left = COPIES * source.remaining
        self.allowed = allowed
        if persistent_load is not None:
            self.persistent_load = persistent_load

    def find_class(self, module: str, name: str) -> Global:
        found = self.allowed.get(f"{module}.{name}")
        if found is None:
            raise Refused(f"asks for {module:.80}.{name:.80}")
        return found

    def load_frame(self) -> None:
        """A frame is a hint for readers that buffer."""
        if struct.unpack("<Q", self.read(8))[0] > self.source.remaining:
            raise Refused("is cut short")

    def load_reduce(self) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(args, tuple):
            raise Refused("calls something it may not call")
        self._charge(args)
        self.append(function(*args))

    def _charge(self, parts: tuple) -> None:
        """What a call copies must have come with the file: two bytes suffice to name the same text or list again."""
        self.left -= sum(len(part) for part in parts if isinstance(part, (bytes, str, list, tuple)))
        if self.left < 0:
            raise Refused("copies the same data over and over")

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise Refused("is not a valid pickle: it fills a dictionary in an unusual way")
        for key, value in zip(items[::2], items[1::2]):
            if not _is_key(key):
                raise Refused(f"uses a {type(key).__name__} as a dictionary key")
            target[key] = value

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, np.ndarray) and isinstance(state, tuple) and len(state) == 5:
            self._charge(state)
            _filled(target, *state[1:])  # (version, shape, dtype, order, data)
        elif isinstance(target, _Dtype):
            order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
            if not isinstance(order, str) or order not in "<>|=" or any(part is not None for part in state[2:5]):
                raise Refused("describes an array type in an unusual way")
            if order and order in "<>":
                target.dtype = target.dtype.newbyteorder(order)
        elif not (isinstance(target, OrderedDict) and isinstance(state, dict)):
            # PyTorch attaches `_metadata` (module versions) to a state dict; nothing here reads it.
            raise Refused("sets the state of something that has none")

    dispatch = _Instructions(
        {
            **_PYTHONS,
            pickle.FRAME[0]: load_frame,
            pickle.REDUCE[0]: load_reduce,
            pickle.SETITEM[0]: load_setitem,
            pickle.SETITEMS[0]: load_setitems,
            pickle.BUILD[0]: load_build,
            pickle.BYTEARRAY8[0]: _PYTHONS[pickle.BINBYTES8[0]],  # Python's own takes the memory first
            pickle.EMPTY_SET[0]: _PYTHONS[pickle.EMPTY_LIST[0]],  # read as lists: nothing is hashed
            pickle.ADDITEMS[0]: _PYTHONS[pickle.APPENDS[0]],
        }
    )


def load_pickle(
    stream: BinaryIO,
    remaining: int,
    allowed: Mapping[str, Global] = ARRAY_GLOBALS,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Read one pickle from `stream` without running anything.

    Args:
        stream: binary stream at the first byte of the pickle; left just behind it.
        remaining: bytes from there to the end of the file or archive member; no announced length may exceed
            it.
        allowed: the global names that may be asked for; they are never imported.
        persistent_load: what BINPERSID calls with the identifier; None refuses it.
    Returns:
        Nested dicts, lists (sets too), tuples, numbers, text, bytes and arrays.
    Raises:
        Refused: anything else. The caller adds the file's name: see `reading`.
    """
    try:
        value = _Unpickler(_Bounded(stream, remaining), allowed, persistent_load).load()
    except (pickle.UnpicklingError, *UNFORESEEN) as error:
        raise Refused(f"is not a valid pickle ({type(error).__name__})") from None
    _extent(value, {})
    return value


@contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Context for reading a file: every problem with it raises a one-line `UserError` that names it."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    except (Refused, *UNFORESEEN) as error:
        reason = error if isinstance(error, Refused) else f"is damaged ({type(error).__name__})"
        raise UserError(
            f"refused: {os.fspath(path)} {reason}; weight files need only arrays, numbers, text and containers of them"
        ) from None


def read_into(stream: BinaryIO, target: np.ndarray) -> None:
    """Fill the contiguous array `target` from `stream`; `Refused` if the stream ends first."""
    if target.nbytes and stream.readinto(target.reshape(-1).view(np.uint8)) != target.nbytes:  # type: ignore[attr-defined]
        raise Refused("is cut short")


def _extent(value: Any, known: dict[int, tuple[int, int] | None], level: int = 0) -> tuple[int, int]:
    """(depth, number of values when written out); refuses results that a plain recursive walk could not handle.

    A file may hold the same list many times for the price of two bytes; each container is visited once here.

    Args:
        known: id of a container -> its extent; None while it is being visited.
    """
    if not isinstance(value, (dict, list, tuple)):
        return 0, 1
    if id(value) not in known:
        if level > MAX_DEPTH:
            raise Refused(f"nests containers more than {MAX_DEPTH} deep")
        known[id(value)] = None
        children = value.values() if isinstance(value, dict) else value
        extents = [_extent(child, known, level + 1) for child in children]
        depth = 1 + max((depth for depth, _ in extents), default=0)
        known[id(value)] = depth, 1 + sum(count for _, count in extents)
    extent = known[id(value)]
    if extent is None:
        raise Refused("holds a container that contains itself")
    if level + extent[0] > MAX_DEPTH:
        raise Refused(f"nests containers more than {MAX_DEPTH} deep")
    if extent[1] > MAX_EXPANDED_VALUES:
        raise Refused("repeats the same containers over and over")
    return extent
