"""Writes videos that play everywhere: H.264, VP9 or GIF through an ffmpeg program, with the source's sound; without
ffmpeg, what OpenCV can encode.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from simplepose.core.errors import UserError
from simplepose.machine.streams import silenced

WAITING_FRAMES = 2  # for ffmpeg; more only cost memory
GET_FFMPEG = "install ffmpeg, or: python -m pip install imageio-ffmpeg"


@dataclass(frozen=True)
class Format:
    """How a kind of file is written.

    Attributes:
        codec: its name for display.
        encoder, video, container, sound: ffmpeg's names and options; no `sound` where the container has none.
        opencv: FourCCs to try without ffmpeg, best first.
    """

    codec: str
    encoder: str
    video: str
    container: str
    sound: str
    opencv: tuple[str, ...]


# Browsers, phones and slides play H.264 in YUV 4:2:0; it needs even sizes, hence the padding.
_H264_OPTIONS = (
    "-vf pad=ceil(iw/2)*2:ceil(ih/2)*2,scale=out_color_matrix=bt709 -colorspace bt709 -pix_fmt yuv420p "
    "-preset veryfast -crf 20 -movflags +faststart"
)


def _h264(container: str, *opencv: str) -> Format:
    return Format("H.264", "libx264", _H264_OPTIONS, container, "-c:a aac -b:a 160k", opencv)


FORMATS = {
    ".mp4": _h264("mp4", "avc1", "mp4v"),
    ".m4v": _h264("mp4", "avc1", "mp4v"),
    ".mov": _h264("mov", "avc1", "mp4v"),
    ".mkv": _h264("matroska", "avc1", "mp4v"),
    ".webm": Format(
        "VP9", "libvpx-vp9", "-pix_fmt yuv420p -deadline realtime -cpu-used 6 -row-mt 1 -crf 32 -b:v 0", "webm",
        "-c:a libopus", ("VP80",),
    ),
    ".avi": Format("Motion JPEG", "mjpeg", "-pix_fmt yuvj420p -q:v 3", "avi", "-c:a pcm_s16le", ("MJPG",)),
    # A palette per frame: one for all would keep every frame in memory. Viewers slow down beyond 50 frames a second.
    ".gif": Format(
        "GIF", "gif",
        "-vf fps=min(source_fps\\,50),split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1",
        "gif", "", (),
    ),
}  # fmt: skip
OPENCV_CODECS = {
    "avc1": "H.264",
    "mp4v": "MPEG-4 Part 2, which browsers do not play",
    "VP80": "VP8",
    "MJPG": "Motion JPEG",
}


def require_format(path: Path) -> Format:
    """The format of a video file, by its extension.

    Raises:
        UserError: not a video's extension, or one that needs an ffmpeg, which is missing.
    """
    found = FORMATS.get(path.suffix.lower())
    if found is None:
        raise UserError(f"cannot write a video as {path.name!r}; use one of {' '.join(FORMATS)}")
    if not found.opencv and find_ffmpeg(found.encoder) is None:
        raise UserError(f"cannot write {path.name!r} without ffmpeg: {GET_FFMPEG}; or name it .mp4")
    return found


@cache
def find_ffmpeg(encoder: str) -> str | None:
    """An ffmpeg program that has this encoder: imageio-ffmpeg's, else the system's; None if there is none."""
    try:
        import imageio_ffmpeg

        program = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):
        program = shutil.which("ffmpeg")
    if program is None:
        return None
    try:
        listed = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return program if re.search(rf"^ V\S+ {encoder} ", listed.stdout, re.MULTILINE) else None


def open_video(
    path: Path, fps: float, size_wh: tuple[int, int], sound_of: str | None = None
) -> FfmpegVideo | OpenCvVideo:
    """Open a video file: `write` takes frames (H, W, 3) uint8 BGR, `close` completes it, `str` describes it.

    Args:
        sound_of: a video file whose sound is copied, up to the length of the frames.

    Raises:
        UserError: such a file cannot be written there.
    """
    wanted = require_format(path)
    program = find_ffmpeg(wanted.encoder)
    if program is None:
        return OpenCvVideo(path, wanted, fps, size_wh)
    return FfmpegVideo(program, path, wanted, fps, size_wh, sound_of)


class FfmpegVideo:
    """A video that an ffmpeg process writes. If this process is killed, ffmpeg still completes the file."""

    def __init__(
        self, program: str, path: Path, wanted: Format, fps: float, size_wh: tuple[int, int], sound_of: str | None
    ):
        self.path = path
        rate = Fraction(fps).limit_denominator(100_000)
        line = [program, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "bgr24"]
        line += ["-s", f"{size_wh[0]}x{size_wh[1]}", "-r", str(rate), "-i", "pipe:0"]
        sound = bool(wanted.sound and sound_of and _has_sound(program, sound_of))
        if sound:  # silence after its end, so that the frames alone determine the length
            line += ["-i", f"file:{sound_of}", "-map", "0:v", "-map", "1:a:0", *wanted.sound.split()]
            line += ["-af", "apad", "-shortest"]
        line += ["-c:v", wanted.encoder, *wanted.video.split(), "-f", wanted.container, f"file:{path}"]
        self._description = wanted.codec + (", with the sound" if sound else "")
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        # Ctrl-C is for this process, which then ends the file.
        alone = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {"start_new_session": True}
        )
        try:
            self._process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._said, **alone
            )
        except OSError as error:
            raise UserError(f"cannot run {program}: {error.strerror}") from None
        # A signal in the middle of `put` may leave a `Queue` without a wake-up for good, and a `SimpleQueue` not.
        self._frames: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def write(self, image: np.ndarray) -> None:
        while self._process.poll() is None and self._frames.qsize() >= WAITING_FRAMES:
            time.sleep(0.002)
        if self._process.poll() is not None:
            raise self._failure()
        self._frames.put(np.ascontiguousarray(image))

    def close(self) -> None:
        self._frames.put(None)
        self._thread.join()
        if self._process.wait():
            raise self._failure()

    def __str__(self) -> str:
        return self._description

    def _feed(self) -> None:
        # In a thread of its own, where no signal can come between the bytes of a frame.
        with contextlib.suppress(OSError):  # ffmpeg has ended; `write` and `close` say why
            while (image := self._frames.get()) is not None:
                self._process.stdin.write(image)
            self._process.stdin.close()
            return
        while self._frames.get() is not None:
            pass

    def _failure(self) -> UserError:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()] or [f"exit code {self._process.returncode}"]
        return UserError(f"cannot write {self.path}: ffmpeg says: {said[0]}")


class OpenCvVideo:
    """A video that OpenCV writes, without sound."""

    def __init__(self, path: Path, wanted: Format, fps: float, size_wh: tuple[int, int]):
        for code in wanted.opencv:
            with silenced(2):  # it complains about each codec that it lacks
                self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, size_wh)
            if self._writer.isOpened():
                self._codec = OPENCV_CODECS[code]
                return
        raise UserError(f"cannot write {path}: no file there, or no video of {size_wh[0]}x{size_wh[1]} pixels")

    def write(self, image: np.ndarray) -> None:
        self._writer.write(image)

    def close(self) -> None:
        self._writer.release()  # writes the index, without which the file cannot be played

    def __str__(self) -> str:
        return f"{self._codec}, without sound; for H.264 and sound {GET_FFMPEG}"


def _has_sound(program: str, path: str) -> bool:
    probed = subprocess.run(
        [program, "-hide_banner", "-nostdin", "-i", f"file:{path}"], capture_output=True, text=True, errors="replace"
    )
    return re.search(r"Stream #0:\d.*: Audio: ", probed.stderr) is not None
