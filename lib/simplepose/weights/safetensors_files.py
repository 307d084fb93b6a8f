"""The safetensors format, read and written by its package, which checks that header and bytes fit together.

Its numpy flavour has no bfloat16, so the raw bytes become arrays here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from simplepose.core.errors import optional_packages, shown
from simplepose.weights.safe_pickle import Refused, reading
from simplepose.weights.torch_files import native_array

_KINDS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bfloat16", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
          "U64": "u8", "U32": "u4", "U16": "u2", "U8": "u1", "BOOL": "?"}  # fmt: skip


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a `.safetensors` file; needs the package `safetensors`.

    Returns:
        (name -> array in native byte order, bfloat16 as float32; the file's own text metadata).
    Raises:
        UserError: no package, unreadable, truncated, or a header that does not fit the file.
    """
    with optional_packages():
        from safetensors import SafetensorError, deserialize, safe_open
    arrays = {}
    with reading(path):
        try:
            with safe_open(os.fspath(path), framework="numpy") as file:
                metadata = dict(file.metadata() or {})
            entries = deserialize(Path(path).read_bytes())
        except SafetensorError as error:
            raise Refused(f"is damaged ({error})") from None
        for name, entry in entries:
            if entry["dtype"] not in _KINDS:
                raise Refused(f"holds {shown(name)} of the unknown type {shown(entry['dtype'])}")
            arrays[name] = native_array(bytearray(entry["data"]), _KINDS[entry["dtype"]], "<").reshape(entry["shape"])
    return arrays, metadata


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
