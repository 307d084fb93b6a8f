"""Files on this disk, S3, HDFS and whatever else pyarrow or fsspec can open, behind one `pyarrow.fs.FileSystem`."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.core.errors import UserError
from simplepose.core.files import TABLE_BYTES
from simplepose.core.images import MAX_IMAGE_BYTES, decode_image
from simplepose.inference.sources import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, Frame, Video

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem


def open_storage(text: str) -> tuple[FileSystem, str]:
    """The file system of a path or address (s3://bucket/key, hdfs://...), and the path in it.

    Raises:
        UserError: an address that neither pyarrow nor fsspec knows, or a storage that does not answer.
    """
    from pyarrow.fs import FileSystem, LocalFileSystem

    try:
        if "://" not in text:
            path = Path(text).absolute().as_posix()
            path.encode()  # Arrow takes names in UTF-8 only
            return LocalFileSystem(), path
        storage, path = FileSystem.from_uri(text)
    except (ImportError, OSError, ValueError) as error:
        address = re.sub(r"//[^/@]*@", "//", text.partition("?")[0])  # without keys and passwords
        raise UserError(f"cannot open {address}: {one_line(error)}") from None
    return storage, path.rstrip("/")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def list_inputs(storage: FileSystem, path: str) -> list[str]:
    """The images and videos of a folder and the folders in it, by name; or those that a list file (.txt) names, a path
    a line, relative to the list; or the one file itself.

    Raises:
        UserError: nothing there, no image or video in it, or no permission.
    """
    from pyarrow.fs import FileSelector, FileType

    try:
        (found,) = storage.get_file_info([path])
        if found.type == FileType.Directory:
            paths = [info.path for info in storage.get_file_info(FileSelector(path, recursive=True)) if info.is_file]
        elif found.type != FileType.File:
            raise UserError(f"there is no file or folder {path}")
        elif path.lower().endswith(".txt"):
            return _read_list(storage, path)
        else:
            paths = [path]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot list {path}: {one_line(error)}") from None
    paths = sorted(name for name in paths if name.lower().endswith((*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS)))
    if not paths:
        raise UserError(f"{path} holds no images and no videos ({' '.join((*IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS))})")
    return paths


def _read_list(storage: FileSystem, path: str) -> list[str]:
    with storage.open_input_file(path) as stream:
        if stream.size() > TABLE_BYTES:
            raise UserError(f"{path} is too large for a list; split it")
        lines = stream.read().decode("utf-8-sig").splitlines()
    names = [line.strip() for line in lines]
    names = [posixpath.join(posixpath.dirname(path), name) for name in names if name and not name.startswith("#")]
    if not names:
        raise UserError(f"{path} lists no images and no videos; write one path a line")
    return list(dict.fromkeys(names))  # a file named twice is one input


def is_video(path: str) -> bool:
    return path.lower().endswith(VIDEO_EXTENSIONS)


def read_frames(storage: FileSystem, path: str, apply_exif: bool) -> Iterator[Frame]:
    """The frame of an image, or those of a video. What cannot be read is a frame with the reason, as everywhere."""
    try:
        (found,) = storage.get_file_info([path])
        if not found.is_file:  # a pipe would never end
            raise UserError(f"there is no file {path}")
        yield from (_video if is_video(path) else _image)(storage, path, apply_exif)
    except (UserError, OSError, ValueError) as error:  # ValueError: NUL in the name
        yield Frame(0, path, None, one_line(error), is_video=is_video(path))


def count_frames(storage: FileSystem, path: str) -> int:
    """How many frames a video's header promises, if it is on this disk and can be read; else 0."""
    if storage.type_name != "local":
        return 0
    try:
        video = Video(path)
    except UserError:
        return 0
    with contextlib.closing(video):
        return len(video)


def _image(storage: FileSystem, path: str, apply_exif: bool) -> Iterator[Frame]:
    with storage.open_input_stream(path) as stream:
        yield Frame(0, path, decode_image(stream.read(MAX_IMAGE_BYTES), path, apply_exif))


def _video(storage: FileSystem, path: str, apply_exif: bool) -> Iterator[Frame]:
    with contextlib.ExitStack() as stack:
        local = path
        if storage.type_name != "local":  # OpenCV reads videos from a disk
            copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=posixpath.splitext(path)[1]))
            with storage.open_input_stream(path) as stream:
                shutil.copyfileobj(stream, copy)
            copy.flush()
            local = copy.name
        try:
            video = Video(local, apply_exif)
        except UserError as error:
            raise UserError(str(error).replace(local, path)) from None
        stack.callback(video.close)
        for frame in video:
            frame.name = path
            yield frame


@contextlib.contextmanager
def written_whole(storage: FileSystem, path: str) -> Iterator:
    """A stream to a file that is there under its name once it is complete, and not before.

    Raises:
        UserError: no permission, or no space.
    """
    scratch = f"{path}.{secrets.token_hex(4)}.part"
    try:
        storage.create_dir(posixpath.dirname(path))
        with storage.open_output_stream(scratch) as stream:
            yield stream
        if storage.type_name == "local":  # a table is safe from a power failure before its parts are removed
            with open(scratch, "rb+") as written:
                os.fsync(written.fileno())
        storage.move(scratch, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            storage.delete_file(scratch)
        if isinstance(error, OSError):
            raise UserError(f"cannot write {path}: {one_line(error)}") from None
        raise
