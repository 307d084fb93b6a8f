"""Image sources: images, a folder, a glob, a list file, a video, a camera, a stream. All yield `Frame`s.

A frame that cannot be read is yielded too, with the reason instead of an image, so that the others are processed.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import queue
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from simplepose.core.errors import UserError
from simplepose.core.files import read_text
from simplepose.core.images import read_image

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2")
VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif")
ADDRESS = re.compile(r"(https?|rtsps?|rtmps?|rtp|srt|tcp|udp)://", re.IGNORECASE)
CAMERA = re.compile(r"[0-9]{1,4}")  # its number; longer ones name files and folders, as 20260101
DEFAULT_FPS = 25.0  # of a camera or a video that does not say
MAX_BAD_FRAMES = 100  # in a row; after them the video ends


@dataclass
class Frame:
    """One image of a source.

    Attributes:
        index: 0, 1, ... within the source; for a camera with gaps, where frames came while the consumer was busy.
        name: the file as the user named it; a video's frames all have the video's.
        image: (H, W, 3) uint8, BGR; None if it could not be read.
        failure: the reason, "" if it could be read.
        is_video: whether it comes from a video or camera.
        lost: a message for each person in it without a pose.
    """

    index: int
    name: str
    image: np.ndarray | None
    failure: str = ""
    is_video: bool = False
    lost: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.name}, frame {self.index}" if self.is_video else self.name


class ImageFiles:
    """Images from files.

    Args:
        name: of the whole set.
        paths: the files.
        apply_exif: turn them as their EXIF orientation says.
        single: the user named one image, so that a failure is an error, not one of many.
    """

    is_video = is_live = False

    def __init__(self, name: str, paths: Sequence[str], apply_exif: bool, single: bool = False):
        self.name = name
        self.paths = list(paths)
        self.apply_exif = apply_exif
        self.is_single = single

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Frame]:
        for index, path in enumerate(self.paths):
            try:
                yield Frame(index, path, read_image(path, self.apply_exif))
            except UserError as error:
                yield Frame(index, path, None, str(error))

    def close(self) -> None:
        """Nothing to close."""


class Video:
    """Frames of a video file, a camera, or a video or live stream at an address.

    A frame that cannot be decoded counts as failed; reading continues up to the number of frames in the header. A live
    source yields its newest frame: a slow consumer misses some, and never lags behind.

    Attributes:
        path: what was opened.
        name: for display; an address without user name, password and query.
        is_live: a camera, or an address whose header gives no number of frames.

    Raises:
        UserError: no such camera, or nothing that OpenCV can open as a video.
    """

    is_video, is_single = True, False

    def __init__(self, name: str, apply_orientation: bool = True):
        is_camera, is_address = bool(CAMERA.fullmatch(name)), bool(ADDRESS.match(name))
        address = urlsplit(name) if is_address else None
        self.path = name
        self.name = f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}" if address else name
        self._capture = cv2.VideoCapture(int(name) if is_camera else name)
        if not self._capture.isOpened():
            if is_camera:
                raise UserError(f"there is no camera {name}, or another program uses it")
            if is_address:
                raise UserError(f"{self.name} does not answer, or not with a video that OpenCV can read")
            raise UserError(f"{name} is not a video that OpenCV can read; convert it, or name its frames' folder")
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, float(apply_orientation))
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._count = 0 if is_camera or not 0 < count < 1e9 else int(count)
        self.is_live = is_camera or (is_address and self._count == 0)
        self.is_file = not (is_camera or is_address)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else DEFAULT_FPS

    def __len__(self) -> int:
        """The number of frames in the header; 0 if unknown."""
        return self._count

    def __iter__(self) -> Iterator[Frame]:
        return self._newest() if self.is_live else self._every()

    def _every(self) -> Iterator[Frame]:
        index, bad = 0, []
        while True:
            decoded, image = self._capture.read()
            if decoded:
                # A failure counts once it is followed by a frame; those at the end are reported together below.
                yield from (self._failed(number, "the frame cannot be decoded") for number in bad)
                bad = []
                yield Frame(index, self.name, image, is_video=True)
            elif index >= self._count or len(bad) >= MAX_BAD_FRAMES:
                break
            else:
                bad.append(index)
            index += 1
        end = index - len(bad)
        # OpenCV estimates the count of some containers (WebM): one too many is no failure, unless it was the only one.
        if end == 0 or self._count - end > 1:
            yield self._failed(end, f"the video ends here; its header promises {self._count} frames")

    def _newest(self) -> Iterator[Frame]:
        newest: queue.Queue[tuple[int, np.ndarray | None]] = queue.Queue(1)
        stopped = threading.Event()

        def read() -> None:
            for index in itertools.count():
                decoded, image = self._capture.read()
                with contextlib.suppress(queue.Empty):
                    newest.get_nowait()  # drop a frame that was not taken in time
                newest.put((index, image if decoded else None))
                if stopped.is_set() or not decoded:
                    return

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        try:
            while True:
                index, image = newest.get()
                if image is None:
                    yield self._failed(index, "the camera or stream ended")
                    return
                yield Frame(index, self.name, image, is_video=True)
        finally:
            stopped.set()
            thread.join()

    def _failed(self, index: int, why: str) -> Frame:
        return Frame(index, self.name, None, why, is_video=True)

    def close(self) -> None:
        self._capture.release()


def open_source(text: str, ignore_orientation: bool = False) -> ImageFiles | Video:
    """Open what --img-file names.

    Args:
        text: an image, a folder (its images by name), a glob ("shots/**/*.png"), a list file (.txt: a path a line,
            relative to the list, # for comments), a video, a camera's number, or the address of a video or stream.
        ignore_orientation: take pixels as they are stored, as data sets do.

    Raises:
        UserError: nothing found, or not an image.
    """
    path = Path(text)
    apply_exif = not ignore_orientation
    if ADDRESS.match(text):
        if Path(urlsplit(text).path).suffix.lower() in IMAGE_EXTENSIONS:
            raise UserError(f"{Path(urlsplit(text).path).name} at an address is an image; download it first")
        return Video(text, apply_exif)
    if os.path.isdir(path):  # unlike Path's, false of a name that is too long
        files = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS)
        if not files:
            raise UserError(f"{text} holds no images ({' '.join(IMAGE_EXTENSIONS)})")
        return ImageFiles(path.resolve().name, files, apply_exif)
    if os.path.isfile(path) or not (CAMERA.fullmatch(text) or glob.has_magic(text)):
        if path.suffix.lower() == ".txt":
            return ImageFiles(path.stem, _read_list(path), apply_exif)
        if path.suffix.lower() in VIDEO_EXTENSIONS:
            if not os.path.isfile(path):
                raise UserError(f"no such video: {text}")
            return Video(text, apply_exif)
        return ImageFiles(path.stem, [text], apply_exif, single=True)
    if CAMERA.fullmatch(text):
        return Video(text)
    files = sorted(file for file in glob.glob(text, recursive=True) if Path(file).suffix.lower() in IMAGE_EXTENSIONS)
    if not files:
        raise UserError(f"no image matches {text}")
    return ImageFiles("images", files, apply_exif)


def open_sources(texts: Sequence[str], ignore_orientation: bool = False) -> ImageFiles | Video:
    """As `open_source`; several texts are images, as when a shell expands a glob without quotes.

    Raises:
        UserError: as there; or several videos, or no image among several files.
    """
    if len(texts) == 1:
        return open_source(texts[0], ignore_orientation)
    for text in texts:
        if Path(text).suffix.lower() in VIDEO_EXTENSIONS:
            raise UserError(f"{text} is one of {len(texts)} files, and several can only be images; run it by itself")
    files = [text for text in texts if Path(text).suffix.lower() in IMAGE_EXTENSIONS]  # as for a glob in quotes
    if not files:
        raise UserError(f"none of {texts[0]} and {len(texts) - 1} more is an image ({' '.join(IMAGE_EXTENSIONS)})")
    return ImageFiles("images", files, not ignore_orientation)


def _read_list(path: Path) -> list[str]:
    names = [line.strip() for line in read_text(path, "list").splitlines()]
    files = [str(path.parent / name) for name in names if name and not name.startswith("#")]
    if not files:
        raise UserError(f"{path} lists no images; write one path a line")
    if any("\0" in name for name in files):
        raise UserError(f"{path} is no list of paths: a line holds a NUL")
    return files
