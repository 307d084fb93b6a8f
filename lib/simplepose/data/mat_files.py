"""MATLAB's files (version 5) from strangers: bounded before they are read, and every problem a one-line `UserError`."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any, Callable

from simplepose.core.errors import UserError
from simplepose.core.files import require_regular, size_text

MAT_BYTES = 2**28
COMPRESSED = 15  # kind of a part that is packed


def require_bounded(path: str | Path, limit: int) -> None:
    """Raise for files of which a part would unpack to more than `limit` bytes; scipy would unpack all of it.

    Raises:
        UserError: such a file, one that is missing or no regular file, or one above `MAT_BYTES`.
    """
    require_regular(path, "MATLAB", MAT_BYTES)
    try:
        stream = open(path, "rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    with stream:
        order = {b"IM": "<", b"MI": ">"}.get(stream.read(128)[126:])
        while order and len(head := stream.read(8)) == 8:
            kind, size = struct.unpack(f"{order}2I", head)
            if kind == COMPRESSED:
                _require_small(stream.read(size), limit, path)
            else:
                stream.seek(size, 1)


def _require_small(packed: bytes, limit: int, path: str | Path) -> None:
    unpacker, size = zlib.decompressobj(), 0
    try:
        while packed:
            size += len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
            if size > limit:
                raise UserError(f"{path} is too large: a part of it has more than {size_text(limit)} unpacked")
    except zlib.error:  # scipy says what is wrong
        return


def read_mat(path: str | Path, name: str, what: str, take: Callable[[Any], Any]) -> Any:
    """What `take` makes of a MATLAB file's variable `name`; `what` the file should be, for messages.

    Raises:
        UserError: not such a file, whatever scipy or `take` raises on it.
    """
    from scipy.io import loadmat

    require_bounded(path, 2**31)  # MPII's official file has 12 MB
    try:
        content = loadmat(str(path), squeeze_me=True, struct_as_record=False)
        if name not in content:
            raise ValueError("it holds " + (", ".join(key for key in content if key[:2] != "__") or "nothing"))
        return take(content[name])
    except NotImplementedError:
        raise UserError(f"{path} is of MATLAB 7.3; save it as version 5, as the official file is") from None
    except Exception as error:
        raise UserError(f"{path} is not {what}: {error}") from None
