"""Files that are whole or not there: written beside their place, flushed to disk, then renamed. And text, JSON and
YAML, read with the same words for what can be wrong with them.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable

from simplepose.errors import UserError

logger = logging.getLogger("simplepose")


@contextmanager
def written_whole(path: str | os.PathLike, keep: int = 1) -> Iterator[Path]:
    """Yield a scratch path in the same folder, made if need be; it takes `path`'s name when the block ends well.

    An older file of that name stays until then, and stays for good if the block fails.

    Args:
        keep: how many files remain, the new one among them: <path>, and before it <path>.1, <path>.2, ...

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
        for number in range(keep - 1, 0, -1):
            before = numbered(path, number - 1)
            if before.exists():
                os.replace(before, numbered(path, number))
        os.replace(scratch, path)
        _flush_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            scratch.unlink()


def written_or_said(write: Callable[..., None], *arguments: Any) -> bool:
    """Call what writes a file; whether it could. If not, as on a full disk, a line says so and the work goes on."""
    try:
        write(*arguments)
    except UserError as error:
        logger.error("=> %s; going on, and what was there stays", error)
        return False
    return True


def require_regular(path: str | os.PathLike, what: str, limit: int) -> None:
    """Refuse what would never end, or fill the memory: pipes, devices, files larger than any of their kind.

    Args:
        what: it should be, as "configuration", for messages.
        limit: in bytes.

    Raises:
        UserError: missing, not a regular file, or too large.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such {what} file: {path}") from None
    except (OSError, ValueError) as error:  # ValueError: NUL or half a character in the name
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder, not a {what} file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is a pipe or a device; a {what} file is a regular file")
    if status.st_size > limit:
        raise UserError(f"{path} is too large for a {what} file: {size_text(status.st_size)}, more than any has")


def read_text(path: str | os.PathLike, what: str) -> str:
    """The content of a text file in UTF-8; `what` it is, as "configuration", for messages.

    Raises:
        UserError: missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")  # Windows editors put a byte order mark in front
    except FileNotFoundError:
        raise UserError(f"no such {what} file: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8, as a {what} file is") from None


def numbered(path: Path, number: int) -> Path:
    """The name under which `written_whole` keeps the file from so many writings ago; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


def remove_scratch(folder: Path, name: str) -> None:
    """Remove what a process that was killed while writing `name` left beside it."""
    for scratch in folder.glob(f"{name}.*.part"):
        scratch.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a renaming last through a power failure; Windows does so by itself."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_yaml(path: str | os.PathLike, what: str) -> Any:
    """The content of a YAML file; `what` it is, as "configuration", for messages.

    Raises:
        UserError: missing, unreadable or not YAML.
    """
    import yaml  # here, so that an exported network runs without it

    try:
        return yaml.safe_load(read_text(path, what))
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        with _garbage_collection_paused():
            return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Millions of new lists make the collector walk over all of them time and again; JSON has no cycles to find."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def size_text(count: float) -> str:
    """A number of bytes for people, as "1.24 GB" or "3.5 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
