"""Files that are whole or not there: written beside their place, flushed to disk, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from simplepose.errors import UserError


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a scratch path in the same folder, made if need be; it takes `path`'s name when the block ends well.

    An older file of that name stays until then, and stays for good if the block fails.

    Raises:
        UserError: the folder does not take the file, or the disk is full.
    """
    path = Path(path)
    scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield scratch
        with open(scratch, "rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        scratch.unlink(missing_ok=True)
