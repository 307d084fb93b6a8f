"""A pickle reader that cannot run code: it interprets the data half of the pickle language and nothing else.

Python's own unpickler imports whatever a file names and calls it. This one implements the whole machine: every
instruction is listed here, a global name is looked up in a literal table (`ARRAY_GLOBALS`, plus what
`torch_files` adds for tensors) and never imported, and a call reaches only the functions of that table, each
of which checks its arguments. Everything else raises a one-line error that says what the file asked for.

Memory follows the file: a length is compared with the bytes that are left before anything is allocated, array
data is read straight into the array that keeps it (one copy, aligned, writable), and an array's shape must
account for exactly the bytes that came with it.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, Callable

import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import UNFORESEEN

MAX_INSTRUCTIONS = 5_000_000  # a ResNet-152 checkpoint with its optimiser needs about 30,000
MAX_INTEGER_BYTES = 64  # the legacy PyTorch magic number has 10
MAX_LINE_BYTES = 512  # a global's module or name
MAX_DIMENSIONS = 32  # numpy's own limit for a long time
MAX_DEPTH = 64  # containers within containers
MAX_EXPANDED_VALUES = 20_000_000  # values a plain recursive walk over the result would meet
LARGE_BYTES = 1 << 16  # from here on bytes are read straight into an array

_DTYPE_CODE = re.compile(r"[<>|=]?(?:[fiubc?](?:1|2|4|8|16)?|[SU]\d{1,4})\Z")
_HASHABLE = (str, bytes, int, float, bool, type(None))


class Global:
    """A name from the table of allowed globals. `call` is what REDUCE runs; None: it may only be named."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.call = call

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Refused(Exception):
    """Raised inside this package; the readers turn it into a `UserError` that names the file."""


class _ArrayShell:
    """What numpy's `_reconstruct` makes: an array whose shape and bytes come with the BUILD that follows."""

    __slots__ = ("indices",)

    def __init__(self) -> None:
        self.indices: list[int] = []  # where the memo holds this shell, to put the array there


class _DtypeShell:
    __slots__ = ("dtype",)

    def __init__(self, code: str) -> None:
        self.dtype = np.dtype(code)


def shown(value: object) -> str:
    """A value from a file as it may appear in a message: ASCII, no control characters, at most 80 of them.

    Only text, numbers and short tuples of numbers are spelt out: a crafted container could be endless.
    """
    if isinstance(value, str):
        text = ascii(value[:200])[1:-1]
    elif type(value) in (int, bool, float) or (
        isinstance(value, tuple) and len(value) <= MAX_DIMENSIONS and all(type(item) is int for item in value)
    ):
        text = ascii(value)
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


# -- the allowed globals


def _ordered_dict(*args: Any) -> OrderedDict:
    if not args:
        return OrderedDict()
    if (
        len(args) == 1
        and isinstance(args[0], list)
        and all(isinstance(pair, (list, tuple)) and len(pair) == 2 and type(pair[0]) in _HASHABLE for pair in args[0])
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


def _dtype(*args: Any) -> _DtypeShell:
    code = args[0] if args else None
    if not isinstance(code, str) or len(args) > 3 or any(type(flag) not in (bool, int) for flag in args[1:]):
        raise Refused("describes an array type in an unusual way")
    if not _DTYPE_CODE.match(code):
        raise Refused(f"asks for arrays of type '{shown(code)}'")
    try:
        return _DtypeShell(code)
    except TypeError:
        raise Refused(f"asks for arrays of type '{shown(code)}'") from None


def _reconstruct(*args: Any) -> _ArrayShell:
    if len(args) != 3 or not isinstance(args[0], Global) or args[0].name != "numpy.ndarray":
        raise Refused("reconstructs something that is not an array")
    return _ArrayShell()


def _scalar(*args: Any) -> Any:
    if len(args) != 2 or not isinstance(args[0], _DtypeShell):
        raise Refused("holds an array scalar with unusual arguments")
    return array_from_bytes(args[1], args[0].dtype, (), False)[()]


def _from_buffer(*args: Any) -> np.ndarray:
    if len(args) != 4 or not isinstance(args[1], _DtypeShell) or not isinstance(args[3], str):
        raise Refused("holds an array buffer with unusual arguments")
    return array_from_bytes(args[0], args[1].dtype, args[2], args[3] == "F")


def _encode(*args: Any) -> bytes:
    """`_codecs.encode(text, "latin1")` is how Python 3 writes bytes in the old pickle protocols."""
    if len(args) != 2 or not isinstance(args[0], str) or not isinstance(args[1], str) or args[1] != "latin1":
        raise Refused("calls _codecs.encode with unusual arguments")
    try:
        return args[0].encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("holds bytes that are not bytes") from None


def _no_bytes(*args: Any) -> bytes:
    """`bytes()` is how Python 3 writes empty bytes in the old pickle protocols."""
    if args:
        raise Refused("calls bytes with unusual arguments")
    return b""


def _table(entries: Mapping[str, Callable[..., Any] | None]) -> dict[str, Global]:
    return {name: Global(name, call) for name, call in entries.items()}


#: What files of arrays need, under numpy's names before and since version 2, and Python 2's names.
ARRAY_GLOBALS: dict[str, Global] = _table(
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


def array_from_bytes(raw: Any, dtype: np.dtype, shape: Any, fortran_order: bool) -> np.ndarray:
    """The array that a pickle describes, writable and in native byte order.

    Args:
        raw: bytes, text of byte values (Python 2), or a (N,) uint8 array, which is used without a copy.
        shape: tuple of non-negative ints whose product times the item size must be the length of `raw`.
    Raises:
        Refused: the description does not account for the bytes.
    """
    if isinstance(raw, str):
        try:
            raw = raw.encode("latin-1")
        except UnicodeEncodeError:
            raise Refused("holds an array whose data are not bytes") from None
    if isinstance(raw, (bytes, bytearray)):
        raw = np.frombuffer(raw, dtype=np.uint8).copy()
    if not isinstance(raw, np.ndarray) or raw.dtype != np.uint8 or raw.ndim != 1:
        raise Refused("holds an array without data")
    check_sizes(shape, "an array shape")
    if dtype.itemsize == 0 or math.prod(shape) * dtype.itemsize != raw.nbytes:
        raise Refused(f"declares an array of shape {shown(shape)} {dtype} over {raw.nbytes} bytes")
    try:
        array = raw.view(dtype).reshape(shape, order="F" if fortran_order else "C")
    except ValueError:
        raise Refused(f"declares an array of shape {shown(shape)}") from None
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def check_sizes(sizes: Any, what: str) -> None:
    """Raise `Refused` unless `sizes` is a tuple of at most 32 non-negative 63-bit ints."""
    if (
        not isinstance(sizes, tuple)
        or len(sizes) > MAX_DIMENSIONS
        or any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes)
    ):
        raise Refused(f"declares {what} of {shown(sizes)}")


# -- the machine


class _Machine:
    """One pickle program: a stack, a memo, and the bytes that are left in the file."""

    def __init__(
        self,
        stream: BinaryIO,
        remaining: int,
        allowed: Mapping[str, Global],
        persistent_load: Callable[[Any], Any] | None,
    ) -> None:
        self.stream = stream
        self.remaining = remaining  # bytes between the stream's position and the end of this member or file
        self.allowed = allowed
        self.persistent_load = persistent_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    # bytes

    def read(self, count: int) -> bytes:
        if count > self.remaining:
            raise Refused(f"is cut short: {count} bytes are announced, {self.remaining} are left")
        data = self.stream.read(count)
        if len(data) != count:
            raise Refused("is cut short")
        self.remaining -= count
        return data

    def read_number(self, layout: str) -> Any:
        return struct.unpack(layout, self.read(struct.calcsize(layout)))[0]

    def read_bytes(self, count: int) -> Any:
        """`bytes`, or a (count,) uint8 array from `LARGE_BYTES` upwards, to copy arrays only once."""
        if count < LARGE_BYTES:
            return self.read(count)
        if count > self.remaining:
            raise Refused(f"is cut short: {count} bytes are announced, {self.remaining} are left")
        data = np.empty(count, dtype=np.uint8)
        read_into(self.stream, data)
        self.remaining -= count
        return data

    def read_text(self, count: int, encoding: str = "utf-8") -> str:
        try:
            return self.read(count).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        except UnicodeDecodeError:
            raise Refused("holds text that is not UTF-8") from None

    def read_line(self) -> str:
        line = self.stream.readline(min(MAX_LINE_BYTES, self.remaining))
        self.remaining -= len(line)
        if not line.endswith(b"\n"):
            raise Refused("is cut short or holds an overlong name")
        return line[:-1].decode("utf-8", "replace")

    # stack

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("is not a valid pickle: it takes a value from an empty stack")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise Refused("is not a valid pickle: a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self, kind: type, what: str) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0) or not isinstance(self.stack[-1], kind):
            raise Refused(f"is not a valid pickle: it fills {what} that is not there")
        return self.stack[-1]

    def remember(self, index: int) -> None:
        if not self.stack:
            raise Refused("is not a valid pickle: it remembers a value from an empty stack")
        value = self.memo[index] = self.stack[-1]
        if isinstance(value, _ArrayShell):
            value.indices.append(index)

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise Refused("is not a valid pickle: it recalls a value it never stored")
        self.stack.append(self.memo[index])

    # containers and calls

    def set_items(self, target: dict, items: list[Any]) -> None:
        if len(items) % 2:
            raise Refused("is not a valid pickle: a dictionary has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            # Nested tuples as keys would be hashed recursively: a short file could take for ever.
            if not isinstance(key, _HASHABLE):
                raise Refused(f"uses a {type(key).__name__} as a dictionary key")
            target[key] = value

    def find_global(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("is not a valid pickle: a global without a name")
        found = self.allowed.get(f"{module}.{name}")
        if found is None:
            raise Refused(f"asks for {shown(module)}.{shown(name)}")
        return found

    def reduce(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, Global) or function.call is None or not isinstance(args, tuple):
            raise Refused(f"calls {function.name if isinstance(function, Global) else 'something it may not call'}")
        self.stack.append(function.call(*args))

    def build(self) -> None:
        state, target = self.pop(), self.top(object, "an object")
        if isinstance(target, _ArrayShell):
            # A version number came first only since numpy 1.0; (version, shape, dtype, order, data).
            if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[2], _DtypeShell):
                raise Refused("describes an array in an unusual way")
            array = array_from_bytes(state[4], state[2].dtype, state[1], bool(state[3]))
            self.stack[-1] = array
            for index in target.indices:
                if self.memo[index] is target:
                    self.memo[index] = array
        elif isinstance(target, _DtypeShell):
            order = state[1] if isinstance(state, tuple) and len(state) >= 2 else None
            if not isinstance(order, str) or order not in "<>|=" or any(part is not None for part in state[2:5]):
                raise Refused("describes an array type in an unusual way")
            if order and order in "<>":
                target.dtype = target.dtype.newbyteorder(order)
        elif isinstance(target, OrderedDict) and isinstance(state, dict):
            pass  # PyTorch attaches `_metadata` (module versions) to a state dict; nothing here reads it
        else:
            raise Refused("sets the state of something that has none")

    def run(self) -> Any:
        stack, marks = self.stack, self.marks
        for _ in range(MAX_INSTRUCTIONS):
            code = self.read(1)
            if code in _READ_NUMBER:
                stack.append(self.read_number(_READ_NUMBER[code]))
            elif code in _CONSTANTS:
                stack.append(_CONSTANTS[code])
            elif code in _TUPLE_SIZES:
                items = [self.pop() for _ in range(_TUPLE_SIZES[code])]
                stack.append(tuple(reversed(items)))
            elif code in _TEXT:
                stack.append(self.read_text(self.read_number(_TEXT[code])))
            elif code in _BYTES:
                stack.append(self.read_bytes(self.read_number(_BYTES[code])))
            elif code in _PYTHON2_STRINGS:
                count = self.read_number(_PYTHON2_STRINGS[code])
                small = 0 <= count < LARGE_BYTES
                stack.append(self.read_text(count, "latin-1") if small else self.read_bytes(max(count, 0)))
            elif code in _PUT:
                self.remember(self.read_number(_PUT[code]))
            elif code in _GET:
                self.recall(self.read_number(_GET[code]))
            elif code == b"\x94":  # MEMOIZE
                self.remember(len(self.memo))
            elif code == b"(":  # MARK
                marks.append(len(stack))
            elif code == b"t":  # TUPLE
                stack.append(tuple(self.pop_to_mark()))
            elif code == b"}":  # EMPTY_DICT
                stack.append({})
            elif code == b"]":  # EMPTY_LIST
                stack.append([])
            elif code == b"\x8f":  # EMPTY_SET
                stack.append(set())
            elif code == b"u":  # SETITEMS
                items = self.pop_to_mark()
                self.set_items(self.top(dict, "a dictionary"), items)
            elif code == b"s":  # SETITEM
                value, key = self.pop(), self.pop()
                self.set_items(self.top(dict, "a dictionary"), [key, value])
            elif code == b"e":  # APPENDS
                items = self.pop_to_mark()
                self.top(list, "a list").extend(items)
            elif code == b"a":  # APPEND
                value = self.pop()
                self.top(list, "a list").append(value)
            elif code == b"\x90":  # ADDITEMS
                items = self.pop_to_mark()
                if not all(isinstance(item, _HASHABLE) for item in items):
                    raise Refused("holds a set of containers")
                self.top(set, "a set").update(items)
            elif code == b"c":  # GLOBAL
                module = self.read_line()
                stack.append(self.find_global(module, self.read_line()))
            elif code == b"\x93":  # STACK_GLOBAL
                name, module = self.pop(), self.pop()
                stack.append(self.find_global(module, name))
            elif code == b"R":  # REDUCE
                self.reduce()
            elif code == b"b":  # BUILD
                self.build()
            elif code == b"Q":  # BINPERSID
                if self.persistent_load is None:
                    raise Refused("refers to data outside the pickle")
                stack.append(self.persistent_load(self.pop()))
            elif code in (b"\x8a", b"\x8b"):  # LONG1, LONG4
                count = self.read_number("<B" if code == b"\x8a" else "<i")
                if not 0 <= count <= MAX_INTEGER_BYTES:
                    raise Refused(f"holds an integer of {count} bytes")
                stack.append(int.from_bytes(self.read(count), "little", signed=True))
            elif code == b"I":  # INT, which Python 2 used for integers beyond 32 bits
                line = self.read_line()
                if not re.fullmatch(r"-?[0-9]{1,20}", line):
                    raise Refused(f"holds the integer '{shown(line)}'")
                stack.append({"00": False, "01": True}.get(line, int(line)))
            elif code == b"\x80":  # PROTO
                if self.read(1)[0] > 5:
                    raise Refused("is written in a pickle protocol newer than 5")
            elif code == b"\x95":  # FRAME: a hint for readers that buffer
                if self.read_number("<Q") > self.remaining:
                    raise Refused("is cut short")
            elif code == b"2":  # DUP
                stack.append(self.top(object, "a value"))
            elif code == b"0":  # POP
                self.pop()
            elif code == b"1":  # POP_MARK
                self.pop_to_mark()
            elif code == b".":  # STOP
                return self.pop()
            elif code == b"i":  # INST: a call in one instruction; it is always refused, but by its name
                module = self.read_line()
                raise Refused(f"asks for {shown(module)}.{shown(self.read_line())}")
            else:
                raise Refused(f"uses the pickle instruction {code!r}, which weight files do not need")
        raise Refused(f"has more than {MAX_INSTRUCTIONS} pickle instructions")


_READ_NUMBER = {b"J": "<i", b"K": "<B", b"M": "<H", b"G": ">d"}  # BININT, BININT1, BININT2, BINFLOAT
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_TUPLE_SIZES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_TEXT = {b"\x8c": "<B", b"X": "<I", b"\x8d": "<Q"}  # SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
# SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
_BYTES = {
    b"C": "<B",
    b"B": "<I",
    b"\x8e": "<Q",
    b"\x96": "<Q",
}
_PYTHON2_STRINGS = {b"U": "<B", b"T": "<i"}  # SHORT_BINSTRING, BINSTRING
_PUT = {b"q": "<B", b"r": "<I"}
_GET = {b"h": "<B", b"j": "<I"}


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
        Nested dicts, lists, tuples, numbers, text, bytes and arrays. Bytes of 64 KiB and more come back as
        (N,) uint8 arrays.
    Raises:
        Refused: anything else. The caller adds the file's name: see `reading`.
    """
    try:
        value = _Machine(stream, remaining, allowed, persistent_load).run()
    except UNFORESEEN as error:
        raise Refused(f"is not a valid pickle ({type(error).__name__})") from None
    _check_nesting(value)
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
    if target.nbytes == 0:
        return
    view = memoryview(target.reshape(-1).view(np.uint8))
    done = 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise Refused("is cut short")
        done += count


def _check_nesting(root: Any) -> None:
    """Refuse results that a plain recursive walk could not handle.

    A file may hold the same list many times for the price of two bytes. Each container is visited once here:
    its depth and its size when written out follow from those of its children.
    """
    sizes: dict[int, tuple[int, int]] = {}  # id -> (depth, values when written out); -1 while being visited
    todo: list[tuple[Any, bool]] = [(root, False)]
    while todo:
        value, children_done = todo.pop()
        if not isinstance(value, (dict, list, tuple)):
            continue
        children = list(value.values()) if isinstance(value, dict) else value
        if children_done:
            depth, total = 0, 1
            for child in children:
                child_depth, child_total = sizes.get(id(child), (0, 1))
                depth, total = max(depth, child_depth), total + child_total
            sizes[id(value)] = (depth + 1, total)
            if depth + 1 > MAX_DEPTH:
                raise Refused(f"nests containers more than {MAX_DEPTH} deep")
            if total > MAX_EXPANDED_VALUES:
                raise Refused("repeats the same containers over and over")
        elif id(value) not in sizes:
            sizes[id(value)] = (-1, 0)
            todo.append((value, True))
            todo.extend((child, False) for child in children if isinstance(child, (dict, list, tuple)))
        elif sizes[id(value)][0] < 0:
            raise Refused("holds a container that contains itself")
