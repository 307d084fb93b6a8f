"""PyTorch's file formats in numpy: reads both kinds of `torch.save` files and writes the newer one.

The zip format (PyTorch 1.6 and later) is an archive of uncompressed members: `data.pkl` describes the
tensors, `data/0`, `data/1`, ... are their storages. The legacy format is a row of pickles followed by the
storages. A tensor is a strided view of a storage, and several may share one; the sharing is kept here.
"""

from __future__ import annotations

import io
import math
import os
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Callable, NamedTuple

import numpy as np

from simplepose.core.errors import UserError, shown
from simplepose.weights.pickle_writer import Call, Name, Pickler
from simplepose.weights.safe_pickle import (
    ARRAY_GLOBALS,
    Global,
    Refused,
    check_sizes,
    load_pickle,
    read_into,
    reading,
    table_of,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
METADATA_MEMBER = "simplepose.json"  # an extra member that PyTorch ignores
MAX_MEMBERS = 100_000
MAX_METADATA_BYTES = 1 << 24

_BFLOAT16 = "bfloat16"
_STORAGE_TYPES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DTYPES = (  # torch's names, which are numpy's
    "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool",
)  # fmt: skip
_WRITTEN_STORAGES = {np.dtype(code).str[1:]: name for name, code in _STORAGE_TYPES.items() if code != _BFLOAT16}


@dataclass(frozen=True)
class _Storage:
    values: np.ndarray  # (N,) in native byte order; bfloat16 already widened to float32
    kind: str  # as in _STORAGE_TYPES, or "untyped" with uint8 values


# -- what the pickle of a tensor calls


def _rebuild_tensor(*args: Any) -> np.ndarray:
    """(storage, offset, sizes, strides, ...) with everything counted in elements -> a view of the storage."""
    if len(args) < 4 or len(args) > 7 or not isinstance(args[0], _Storage) or args[0].kind == "untyped":
        raise Refused("holds a tensor with unusual arguments")
    return _strided(args[0].values, args[1], args[2], args[3])


def _rebuild_tensor_v3(*args: Any) -> np.ndarray:
    """As above over an untyped storage; the seventh argument is the element type."""
    if len(args) not in (7, 8) or not isinstance(args[0], _Storage) or args[0].kind != "untyped":
        raise Refused("holds a tensor with unusual arguments")
    kind = args[6].name[len("torch.") :] if isinstance(args[6], Global) else None
    if kind not in _DTYPES or args[0].values.nbytes % np.dtype(kind).itemsize:
        raise Refused("holds a tensor of an unusual element type")
    return _strided(args[0].values.view(kind), args[1], args[2], args[3])


def _strided(storage: np.ndarray, offset: Any, sizes: Any, strides: Any) -> np.ndarray:
    check_sizes(sizes, "a tensor size")
    check_sizes(strides, "a tensor stride")
    check_sizes((offset,), "a tensor offset")
    if len(sizes) != len(strides):
        raise Refused("declares a tensor whose sizes and strides differ in number")
    count = math.prod(sizes)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides))
    if count and last >= len(storage):
        raise Refused(f"declares a tensor of shape {shown(sizes)} beyond the end of its {len(storage)} elements")
    if count >= 1 << 62:
        raise Refused(f"declares a tensor of shape {shown(sizes)}")
    if count == 0:
        return np.zeros(sizes, dtype=storage.dtype)
    item = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(storage[offset:], sizes, [stride * item for stride in strides])


def _rebuild_parameter(*args: Any) -> np.ndarray:
    if len(args) != 3 or not isinstance(args[0], np.ndarray):
        raise Refused("holds a parameter with unusual arguments")
    return args[0]


def _size(*args: Any) -> tuple:
    if len(args) != 1 or not isinstance(args[0], (tuple, list)):
        raise Refused("calls torch.Size with unusual arguments")
    return tuple(args[0])


def _device(*args: Any) -> str:
    if not args or not isinstance(args[0], str):
        raise Refused("calls torch.device with unusual arguments")
    return ":".join(str(part) for part in args if isinstance(part, (str, int)))


TORCH_GLOBALS = {
    **ARRAY_GLOBALS,
    **table_of(
        {
            "torch._utils._rebuild_tensor": _rebuild_tensor,
            "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
            "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
            "torch._utils._rebuild_parameter": _rebuild_parameter,
            "torch.Size": _size,
            "torch.device": _device,
            "torch.storage.UntypedStorage": None,
            **{f"torch.{name}": None for name in [*_STORAGE_TYPES, *_DTYPES, "bfloat16"]},
        }
    ),
}


def _storage_kind(storage_type: Any) -> str:
    name = storage_type.name if isinstance(storage_type, Global) else ""
    if name == "torch.storage.UntypedStorage":
        return "untyped"
    kind = _STORAGE_TYPES.get(name[len("torch.") :])
    if kind is None:
        raise Refused("refers to a storage of an unknown type")
    return kind


def _file_dtype(kind: str, byte_order: str) -> np.dtype:
    code = {_BFLOAT16: "u2", "untyped": "u1"}.get(kind, kind)
    return np.dtype(code).newbyteorder(byte_order)


def native_array(raw: Any, kind: str, byte_order: str) -> np.ndarray:
    """The elements in a writable buffer of bytes as an array (N,) in native byte order, bfloat16 as float32."""
    array = np.frombuffer(raw, _file_dtype(kind, byte_order))
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return widen_bfloat16(native) if kind == _BFLOAT16 else native


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """bfloat16 given as uint16 bits -> the same numbers as float32: they are its upper half."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _storage_id(identifier: Any) -> tuple[str, str, int]:
    """(kind, key, number of elements) of a persistent id ('storage', type, key, location, count, ...)."""
    if isinstance(identifier, tuple) and identifier and identifier[0] == "module":
        raise Refused("holds a whole pickled module instead of a state dict")
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise Refused("refers to data in an unusual way")
    key, count = identifier[2], identifier[4]
    if not isinstance(key, (str, int)) or type(count) is not int or count < 0:
        raise Refused("refers to data in an unusual way")
    return _storage_kind(identifier[1]), str(key), count


# -- zip format


class _Archive:
    """The members of an uncompressed zip file, each checked to lie inside the file and to overlap none."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        try:
            with zipfile.ZipFile(stream) as archive:
                infos = archive.infolist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
            raise Refused(f"is a damaged or truncated zip archive ({shown(str(error))})") from None
        if len(infos) > MAX_MEMBERS:
            raise Refused(f"has {len(infos)} members")
        self.members: dict[str, tuple[int, zipfile.ZipInfo]] = {}
        spans = []
        for info in infos:
            start = self._check(info, size)
            if info.filename in self.members:
                raise Refused(f"has two members called {shown(info.filename)}")
            self.members[info.filename] = (start, info)
            spans.append((info.header_offset, start + info.file_size))
        spans.sort()
        for (_, end), (following, _) in zip(spans, spans[1:]):
            if end > following:
                raise Refused("has members that overlap")

    def _check(self, info: zipfile.ZipInfo, size: int) -> int:
        """Offset of the member's first byte."""
        name = shown(info.filename)
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise Refused(f"has a member that points outside the archive ({name})")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise Refused(
                f"has a compressed member ({name}: {info.compress_size} bytes claim to be {info.file_size}); "
                "PyTorch does not compress"
            )
        if info.flag_bits & 0x1:
            raise Refused(f"has an encrypted member ({name})")
        if not 0 <= info.header_offset <= size - 30:
            raise Refused(f"has a member outside the file ({name})")
        self.stream.seek(info.header_offset)
        header = self.stream.read(30)
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise Refused(f"has a member without a header ({name})")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        if start + info.file_size > size:
            raise Refused(f"has a member that is cut short ({name})")
        return start

    def find(self, ending: str) -> str | None:
        """The one member called `ending` in the archive's top folder."""
        found = [name for name in self.members if name.count("/") == 1 and name.endswith("/" + ending)]
        return found[0] if len(found) == 1 else None

    def size(self, name: str) -> int:
        return self.members[name][1].file_size

    def read(self, name: str, limit: int) -> bytes:
        start, info = self.members[name]
        if info.file_size > limit:
            raise Refused(f"has a member of unexpected size ({shown(name)}: {info.file_size} bytes)")
        self.stream.seek(start)
        data = self.stream.read(info.file_size)
        self.verify(name, data)
        return data

    def verify(self, name: str, data: Any) -> None:
        # PyTorch writes 0 when it was told not to compute checksums.
        expected = self.members[name][1].CRC
        if expected and zlib.crc32(data) != expected:
            raise Refused(f"is damaged: the checksum of {name:.80} does not match")


def _read_zip(stream: BinaryIO, size: int) -> tuple[Any, str | None]:
    archive = _Archive(stream, size)
    pickle_name = archive.find("data.pkl")
    if pickle_name is None:
        raise Refused("is a zip archive, but not one that torch.save wrote (no data.pkl)")
    folder = pickle_name[: -len("data.pkl")]
    if f"{folder}constants.pkl" in archive.members:
        raise Refused("is a TorchScript program, not a file of weights")
    byte_order = sys.byteorder
    if f"{folder}byteorder" in archive.members:
        byte_order = archive.read(f"{folder}byteorder", 16).decode("ascii", "replace")
        if byte_order not in ("little", "big"):
            raise Refused(f"has the unknown byte order '{shown(byte_order)}'")
    storages: dict[str, _Storage] = {}

    def load_storage(identifier: Any) -> _Storage:
        kind, key, count = _storage_id(identifier)
        if key not in storages:
            name = f"{folder}data/{key}"
            if name not in archive.members:
                raise Refused(f"lacks the member {shown(name)}")
            item = _file_dtype(kind, "=").itemsize
            if archive.size(name) != count * item:
                raise Refused(
                    f"declares {count} elements of {item} bytes in {shown(name)} of {archive.size(name)} bytes"
                )
            stream.seek(archive.members[name][0])
            raw = np.empty(count * item, np.uint8)
            read_into(stream, raw)
            archive.verify(name, memoryview(raw))
            storages[key] = _Storage(native_array(raw, kind, "<" if byte_order == "little" else ">"), kind)
        if storages[key].kind != kind:
            raise Refused(f"uses the storage {shown(key)} with two element types")
        return storages[key]

    # Small: it describes the tensors; held in memory because the storages are read while it is interpreted.
    description = archive.read(pickle_name, size)
    value = load_pickle(io.BytesIO(description), len(description), TORCH_GLOBALS, load_storage)
    metadata = archive.find(METADATA_MEMBER)
    return value, archive.read(metadata, MAX_METADATA_BYTES).decode("utf-8", "replace") if metadata else None


# -- legacy format


def _read_legacy(stream: BinaryIO, size: int) -> Any:
    def next_pickle(load: Callable[[Any], Any] | None = None) -> Any:
        return load_pickle(stream, size - stream.tell(), TORCH_GLOBALS, load)

    if next_pickle() != LEGACY_MAGIC:
        raise Refused("is not a PyTorch file")
    protocol = next_pickle()
    if protocol != LEGACY_PROTOCOL:
        raise Refused(f"has the unknown PyTorch protocol {shown(protocol)}")
    system = next_pickle()
    little = system.get("little_endian", True) if isinstance(system, dict) else True
    byte_order = "<" if little is not False else ">"

    storages: dict[str, _Storage] = {}
    announced = 0  # bytes of all storages, which follow the pickles in this same file

    def load_storage(identifier: Any) -> _Storage:
        nonlocal announced
        kind, key, count = _storage_id(identifier)
        if key not in storages:
            announced += count * _file_dtype(kind, "=").itemsize
            if announced > size:
                raise Refused(f"declares {announced} bytes of storages in a file of {size}")
            dtype = np.dtype(np.float32) if kind == _BFLOAT16 else _file_dtype(kind, "=")
            # The tensors become views of this memory now and meaningful when it is filled below.
            storages[key] = _Storage(np.empty(count, dtype=dtype), kind)
        root = storages[key]
        if root.kind != kind or len(root.values) != count:
            raise Refused(f"describes the storage {shown(key)} in two ways")
        view = identifier[5] if len(identifier) == 6 else None
        if view is None:
            return root
        if not isinstance(view, tuple) or len(view) != 3:
            raise Refused("refers to data in an unusual way")
        check_sizes(view[1:], "a storage view")
        if view[1] + view[2] > count:
            raise Refused(f"declares a storage view beyond the end of its {count} elements")
        return _Storage(root.values[view[1] : view[1] + view[2]], kind)

    value = next_pickle(load_storage)
    keys = next_pickle()
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
        raise Refused("lacks the list of its storages")
    if sorted(map(str, keys)) != sorted(storages):
        raise Refused("lists other storages than its tensors use")
    for key in map(str, keys):
        storage = storages[key]
        head = stream.read(8)
        if len(head) != 8:
            raise Refused("is cut short")
        count = struct.unpack(byte_order + "q", head)[0]
        if count != len(storage.values):
            raise Refused(f"holds {count} elements in the storage {shown(key)}, not {len(storage.values)}")
        dtype = _file_dtype(storage.kind, byte_order)
        if dtype == storage.values.dtype:
            read_into(stream, storage.values)
        else:
            raw = np.empty(count * dtype.itemsize, np.uint8)
            read_into(stream, raw)
            storage.values[:] = native_array(raw, storage.kind, byte_order)
    return value


# -- reading and writing


def read_torch(path: str | os.PathLike) -> Any:
    """Read a file that `torch.save` wrote, in either format, without PyTorch and without running code.

    Returns:
        The saved object: nested dicts, lists, numbers and text with a numpy array for every tensor. Element
        types are kept, except that bfloat16 becomes float32. Strided tensors are views; storages stay shared.
    Raises:
        UserError: unreadable, damaged, or it asks for more than tensors need.
    """
    return read_torch_with_metadata(path)[0]


def read_torch_with_metadata(path: str | os.PathLike) -> tuple[Any, str | None]:
    """As `read_torch`, with the JSON text that `write_torch` put beside the tensors, or None."""
    with reading(path), open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(263)
        stream.seek(0)
        if head[257:262] == b"ustar":
            raise Refused("is in PyTorch's tar format of 2016; load and save it again with a later PyTorch")
        if head[:2] == b"PK":
            return _read_zip(stream, size)
        return _read_legacy(stream, size), None


def write_torch(path: str | os.PathLike, state_dict: Mapping[str, np.ndarray], metadata: str | None = None) -> None:
    """Write a state dict in PyTorch's zip format; `torch.load(path, weights_only=True)` reads it.

    Args:
        state_dict: name -> array of float, integer or bool type; order and bits are kept.
        metadata: JSON text for an extra archive member that PyTorch ignores and `read_torch_with_metadata`
            finds.
    The same input gives the same bytes. Raises UserError for other element types.
    """
    arrays = {}
    for name, value in state_dict.items():
        array = np.asarray(value, order="C")
        if not array.dtype.isnative or array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        if array.dtype.str[1:] not in _WRITTEN_STORAGES:
            raise UserError(
                f"cannot write {name} to {os.fspath(path)}: PyTorch files have no element type {array.dtype}"
            )
        arrays[name] = array

    description = io.BytesIO()
    tensors = OrderedDict((name, _as_tensor(str(key), array)) for key, (name, array) in enumerate(arrays.items()))
    _TorchPickler(description, protocol=2).dump(tensors)
    with open(path, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        _add_member(archive, "data.pkl", np.frombuffer(description.getvalue(), dtype=np.uint8))
        _add_member(archive, "byteorder", np.frombuffer(b"little", dtype=np.uint8))
        for key, array in enumerate(arrays.values()):
            _add_member(archive, f"data/{key}", array)
        _add_member(archive, "version", np.frombuffer(b"3\n", dtype=np.uint8))
        if metadata is not None:
            _add_member(archive, METADATA_MEMBER, np.frombuffer(metadata.encode("utf-8"), dtype=np.uint8))


class _StorageId(NamedTuple):
    """Where a reader finds the content of a tensor; PyTorch's "persistent id"."""

    tag: str
    storage_type: Name
    key: str
    device: str
    count: int


class _TorchPickler(Pickler):
    def persistent_id(self, value: Any) -> tuple | None:
        return tuple(value) if isinstance(value, _StorageId) else None


def _as_tensor(key: str, array: np.ndarray) -> Call:
    """(storage, offset, sizes, strides in elements, no gradient, no backward hooks)."""
    storage = _StorageId("storage", Name("torch", _WRITTEN_STORAGES[array.dtype.str[1:]]), key, "cpu", array.size)
    strides = tuple(math.prod(max(size, 1) for size in array.shape[axis + 1 :]) for axis in range(array.ndim))
    arguments = (storage, 0, array.shape, strides, False, OrderedDict())
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def _add_member(archive: zipfile.ZipFile, name: str, data: np.ndarray) -> None:
    """Append a member whose data begin at a multiple of 64 bytes, as PyTorch's own do."""
    info = zipfile.ZipInfo(f"archive/{name}", date_time=(1980, 1, 1, 0, 0, 0))
    info.file_size = data.nbytes
    large = data.nbytes >= 1 << 31
    # Local header, name, zip64 sizes, and the four bytes that open the padding itself.
    data_start = archive.start_dir + 30 + len(info.filename) + (20 if large else 0) + 4
    padding = -data_start % 64
    info.extra = struct.pack("<HH", 0x4246, padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=large) as member:
        member.write(data.tobytes())
