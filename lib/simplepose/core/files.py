"""Atomic file writes (scratch file, flush to disk, rename), and bounded reads of text, JSON and YAML. Files may be
untrusted: only regular files up to a size are read, and every problem raises a one-line `UserError`.
"""

from __future__ import annotations

import gc
import json
import logging
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

import numpy as np

from simplepose.core.errors import UserError

logger = logging.getLogger("simplepose")

# The largest files of each kind that are read, in bytes.
SETTINGS_BYTES = 1 << 18  # YAML that people write; ours have 2 kB, a skeleton of 1,000 joints 100 kB
TABLE_BYTES = 1 << 28  # text with a line for each image
DATA_BYTES = 1 << 31  # annotations; COCO's largest file has 0.5 GB
WEIGHT_BYTES = 1 << 34  # a ResNet-152 with its optimiser has 1 GB

MAX_YAML_DEPTH = 32
MAX_YAML_VALUES = 20_000  # with aliases expanded; a skeleton of 1,000 joints has 8,000
# What Python and PyYAML may raise on a crafted file: `!!int abc`, `2001-13-45`, 5,000 digits, a thousand brackets.
UNFORESEEN = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


@contextmanager
def written_whole(path: str | os.PathLike, keep: int = 1) -> Iterator[Path]:
    """Yield a scratch path in the same folder, which is created if missing; on success it is renamed to `path`.

    An older file of that name stays until then, and is kept if the block fails.

    Args:
        keep: how many versions remain, the new one included: <path>, and before it <path>.1, <path>.2, ...

    Raises:
        UserError: the folder is not writable, or the disk is full.
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


def write_or_warn(write: Callable[..., None], *arguments: Any) -> bool:
    """Call a function that writes a file; returns whether it succeeded. On failure, as a full disk, it only warns."""
    try:
        write(*arguments)
    except UserError as error:
        logger.error("=> %s; going on, and what was there stays", error)
        return False
    return True


def require_regular(path: str | os.PathLike, what: str, limit: int) -> None:
    """Raise for paths that would never end or exhaust the memory: pipes, devices, oversized files.

    Args:
        what: the kind of file, as "configuration", for messages.
        limit: in bytes.

    Raises:
        UserError: missing, not a regular file, or too large.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such {what} file: {path}") from None
    except (OSError, ValueError) as error:  # ValueError: NUL or a lone surrogate in the name
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder, not a {what} file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is a pipe or a device; a {what} file is a regular file")
    if status.st_size > limit:
        raise UserError(f"{path} is too large: {size_text(status.st_size)}, more than any {what} file has")


def read_bytes(path: str | os.PathLike, what: str, limit: int) -> bytes:
    """The content of a regular file; arguments as `require_regular` takes them.

    Raises:
        UserError: missing, not a regular file, unreadable or too large.
    """
    require_regular(path, what, limit)
    try:
        with open(path, "rb") as stream:
            return stream.read(limit)  # files in /proc report no size
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def read_text(path: str | os.PathLike, what: str, limit: int = TABLE_BYTES) -> str:
    """The content of a text file in UTF-8; arguments as `require_regular` takes them.

    Raises:
        UserError: missing, unreadable, too large or not UTF-8.
    """
    try:
        return read_bytes(path, what, limit).decode("utf-8-sig")  # Windows editors put a byte order mark in front
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8, as a {what} file is") from None


def numbered(path: Path, number: int) -> Path:
    """The name under which `written_whole` keeps the version of `number` writes ago; 0 is the newest."""
    return path.with_name(f"{path.name}.{number}") if number else path


def remove_scratch(folder: Path, name: str) -> None:
    """Remove the scratch files of a process that was killed while writing `name`."""
    for scratch in folder.glob(f"{name}.*.part"):
        scratch.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power failure; Windows does so by itself."""
    if os.name == "posix":
        with suppress(OSError):  # some network file systems cannot flush a folder; the file is there all the same
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def read_yaml(path: str | os.PathLike, what: str) -> Any:
    """The content of a YAML file; `what` is the kind of file, as "configuration", for messages.

    Raises:
        UserError: missing, unreadable, too large or not YAML.
    """
    return parse_yaml(read_text(path, what, SETTINGS_BYTES), path)


def parse_yaml(text: str, where: str | os.PathLike) -> Any:
    """Parse YAML text; `where` it comes from, for messages.

    Raises:
        UserError: not YAML, nested too deeply, or more than `MAX_YAML_VALUES` values with aliases expanded.
    """
    import yaml  # here, so that an exported network runs without it

    try:
        return yaml.load(text, _bounded_loader())
    except (yaml.YAMLError, *UNFORESEEN) as error:
        raise UserError(f"{where} is not valid YAML: {' '.join(str(error).split())[:300]}") from None


@lru_cache(maxsize=1)
def _bounded_loader() -> type:
    """PyYAML's safe loader, which runs no code, with bounds on what a small file can grow to."""
    import yaml

    class BoundedLoader(yaml.SafeLoader):
        def __init__(self, stream: str):
            super().__init__(stream)
            self.depth = 0
            self.values: dict[int, int] = {}  # id of a node -> number of values in it, counted again for every alias

        def compose_node(self, parent: Any, index: Any) -> Any:
            alias = self.check_event(yaml.AliasEvent)
            self.depth += 1
            self.require(self.depth <= MAX_YAML_DEPTH, "it is nested too deeply")
            node = super().compose_node(parent, index)
            self.depth -= 1
            if alias:
                self.require(id(node) in self.values, "an alias holds itself")
                return node
            if isinstance(node, yaml.MappingNode):
                keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
                self.require(len(set(keys)) == len(keys), "a key is there twice")
            children = node.value if not isinstance(node, yaml.ScalarNode) else ()
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in children for child in pair]
            count = self.values[id(node)] = 1 + sum(self.values[id(child)] for child in children)
            self.require(
                max(count, len(self.values)) <= MAX_YAML_VALUES, f"it holds more than {MAX_YAML_VALUES} values"
            )
            return node

        def require(self, holds: bool, otherwise: str) -> None:
            if not holds:
                raise yaml.composer.ComposerError(None, None, otherwise, self.peek_event().start_mark)

    return BoundedLoader


def read_json(path: str | os.PathLike, limit: int = DATA_BYTES) -> Any:
    """The content of a JSON file of at most `limit` bytes.

    Raises:
        UserError: missing, unreadable, too large or not JSON.
    """
    return parse_json(read_bytes(path, "JSON", limit), path)


def parse_json(text: str | bytes, where: str | os.PathLike, **hooks: Any) -> Any:
    """Parse JSON text, NaN and infinity included; `where` it comes from, for messages.

    Raises:
        UserError: not JSON.
    """
    try:
        with _garbage_collection_paused():
            return json.loads(text, **hooks)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON: {str(error)[:300]}") from None


@contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause the collector, which would scan millions of new lists repeatedly; JSON has no cycles to collect."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def size_text(count: float) -> str:
    """A human-readable number of bytes, as "1.24 GB" or "3.5 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def write_json(path: Path, content: object) -> None:
    """Write JSON atomically, arrays included, NaN and infinite numbers as null."""
    import json_tricks

    text = json_tricks.dumps(finite_or_none(content), primitives=True, indent=1)
    with written_whole(path) as scratch:
        scratch.write_text(text + "\n", encoding="utf-8")


def finite_or_none(value: Any) -> Any:
    """NaN and infinite numbers, such as a score of joints that are never labelled, as None, which JSON has."""
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return finite_or_none(value.tolist())
    if isinstance(value, (list, tuple)):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
