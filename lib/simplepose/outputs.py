"""What remains of a run: pictures or a video with the poses drawn in, and the coordinates as JSON, CSV or NPZ.

Every output takes frame after frame (`add`) and is whole after `close`, also when the run was interrupted before.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from simplepose.errors import UserError
from simplepose.files import written_whole
from simplepose.inference import Pose
from simplepose.skeletons import Skeleton
from simplepose.sources import Frame, ImageFiles, Video
from simplepose.visualize import BACKGROUND_COLOR, draw_label, draw_pose, write_image

FORMATS = {"json": ".json", "coco": ".json", "csv": ".csv", "npz": ".npz"}  # and the extension of each
SCORES = ("box_score", "pose_score", "score")  # of a `Pose`
CODECS = {".avi": "MJPG"}  # FourCC by extension; MPEG-4 for the others
WRITABLE_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".m4v")


class Output(Protocol):
    """Takes the results of a run."""

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None: ...

    def close(self) -> None: ...


class Painter:
    """How poses are drawn.

    Args:
        min_score: joints below are left out.
        ids, scores: write each person's number, and score, above the box.
        plain: cover the image first, so that nobody can be recognised.
    """

    def __init__(
        self, skeleton: Skeleton, min_score: float, ids: bool = False, scores: bool = False, plain: bool = False
    ):
        self.skeleton = skeleton
        self.min_score = min_score
        self.ids = ids
        self.scores = scores
        self.plain = plain

    def draw(self, image: np.ndarray, poses: Sequence[Pose]) -> None:
        """Draw all people onto an image, in place."""
        if self.plain:
            image[:] = BACKGROUND_COLOR
        for index, pose in enumerate(poses):
            draw_pose(image, pose.keypoints, pose.scores, self.skeleton, self.min_score)
            parts = [str(index)] * self.ids + [f"{pose.score:.2f}"] * self.scores
            if parts:
                draw_label(image, pose.box, " ".join(parts))


class Drawings:
    """One picture a frame; `paths` by frame index. A frame that could not be read has none."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        if frame.image is not None and not frame.failure:
            write_image(self.paths[frame.index], frame.image)

    def close(self) -> None:
        """Every picture is whole already."""

    def __str__(self) -> str:
        return f"drawing: {self.paths[0].as_posix()}" + _more(self.paths)


class DrawnVideo:
    """A video of the source's frame rate and size. A frame that could not be read repeats the one before it."""

    def __init__(self, path: Path, fps: float):
        if path.suffix.lower() not in WRITABLE_VIDEOS:
            raise UserError(f"cannot write a video as {path.name!r}; use one of {' '.join(WRITABLE_VIDEOS)}")
        self.path = path
        self.fps = fps
        self._writer: cv2.VideoWriter | None = None
        self._size_wh = (0, 0)
        self._last: np.ndarray | None = None

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        if frame.image is not None:
            self._last = frame.image
        if self._last is None:
            return  # nothing to show yet
        if self._writer is None:
            self._open()
        if self._last.shape[1::-1] != self._size_wh:  # a stream may change its size; the file cannot
            self._last = cv2.resize(self._last, self._size_wh)
        self._writer.write(self._last)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()  # writes the index without which nobody can play the file

    def __str__(self) -> str:
        return f"video: {self.path.as_posix()}"

    def _open(self) -> None:
        _make_folder(self.path)
        self._size_wh = self._last.shape[1::-1]
        code = cv2.VideoWriter_fourcc(*CODECS.get(self.path.suffix.lower(), "mp4v"))
        self._writer = cv2.VideoWriter(str(self.path), code, self.fps, self._size_wh)
        if not self._writer.isOpened():
            width, height = self._size_wh
            raise UserError(f"cannot write {self.path}: no file there, or no video of {width}x{height} pixels")


class JsonPerImage:
    """A JSON file for each image; `paths` by frame index."""

    def __init__(self, skeleton: Skeleton, model_file: str, paths: Sequence[Path]):
        self.skeleton = skeleton
        self.model_file = model_file
        self.paths = paths

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        if frame.image is None or frame.failure:
            return
        height, width = frame.image.shape[:2]
        path = self.paths[frame.index]
        _make_folder(path)
        content = {
            "image": frame.name,
            "size": [width, height],
            "model_file": self.model_file,
            "people": [pose.to_dict() for pose in poses],
        }
        with written_whole(path) as scratch:
            scratch.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def close(self) -> None:
        """Every file is whole already."""

    def __str__(self) -> str:
        return f"coordinates: {self.paths[0].as_posix()}" + _more(self.paths)


class _RecordFile:
    """A text file that grows record by record beside its place, and takes its name when it is closed.

    A run over a camera may last for days: nothing is kept in memory.
    """

    def __init__(self, path: Path, head: str, tail: str, separator: str):
        _make_folder(path)
        self.path = path
        self.tail = tail
        self.separator = separator
        self._scratch = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        try:
            self._stream = open(self._scratch, "w", encoding="utf-8", newline="")  # noqa: SIM115
            self._stream.write(head)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from None
        self._first = True

    def write(self, record: str) -> None:
        try:
            self._stream.write(record if self._first else self.separator + record)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None
        self._first = False

    def close(self) -> None:
        try:
            self._stream.write(self.tail)
            self._stream.close()
            os.replace(self._scratch, self.path)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from None


class JsonVideo:
    """One JSON file for a video: its properties, and a list of frames with their people."""

    def __init__(self, skeleton: Skeleton, model_file: str, path: Path, video: str, fps: float):
        self.skeleton = skeleton
        head = json.dumps({"video": video, "fps": fps, "model_file": model_file, "frames": []}, ensure_ascii=False)
        self._file = _RecordFile(path, head.removesuffix("]}") + "\n", "\n]}\n", ",\n")

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        record: dict[str, Any] = {"frame": frame.index}
        if frame.failure:
            record["failure"] = frame.failure
        record["people"] = [pose.to_dict() for pose in poses]
        self._file.write(json.dumps(record, ensure_ascii=False))

    def close(self) -> None:
        self._file.close()

    def __str__(self) -> str:
        return f"coordinates: {self._file.path.as_posix()}"


class CocoResults:
    """COCO's results form for keypoints, readable by pycocotools' `loadRes`.

    `image_id` is the number that the file name spells (139 for 000000000139.jpg), else, and for videos, the frame's
    index; `file_name` says which image it is.
    """

    def __init__(self, path: Path):
        self._file = _RecordFile(path, "[\n", "\n]\n", ",\n")

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        stem = Path(frame.name).stem
        image_id = int(stem) if stem.isdecimal() and not frame.is_video else frame.index
        for pose in poses:
            points = np.column_stack([pose.keypoints, pose.scores]).ravel()  # x, y, score of each joint
            record = {
                "image_id": image_id,
                "category_id": 1,
                "keypoints": [round(float(value), 4) for value in points],
                "score": pose.score,
                "box_score": float(pose.box_score),
                "pose_score": pose.pose_score,
                "file_name": Path(frame.name).name,
            }
            self._file.write(json.dumps(record, ensure_ascii=False))

    def close(self) -> None:
        self._file.close()

    def __str__(self) -> str:
        return f"coordinates: {self._file.path.as_posix()}"


class CsvTable:
    """One line a person: image, frame, person, box, `SCORES`, then x, y and score of every joint."""

    def __init__(self, skeleton: Skeleton, path: Path):
        columns = ["image", "frame", "person", "box_x", "box_y", "box_w", "box_h", *SCORES]
        columns += [f"{joint}_{value}" for joint in skeleton.joints for value in ("x", "y", "score")]
        self._file = _RecordFile(path, self._line(columns), "", "")

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        for index, pose in enumerate(poses):
            points = np.column_stack([pose.keypoints, pose.scores]).ravel()
            numbers = [f"{value:.6g}" for value in (*pose.box, *(getattr(pose, name) for name in SCORES), *points)]
            self._file.write(self._line([frame.name, frame.index, index, *numbers]))

    def close(self) -> None:
        self._file.close()

    def __str__(self) -> str:
        return f"coordinates: {self._file.path.as_posix()}"

    @staticmethod
    def _line(values: Sequence[Any]) -> str:
        text = io.StringIO()
        csv.writer(text).writerow(values)
        return text.getvalue()


class NpzTable:
    """Arrays over all N people: image (N,), frame (N,), box (N, 4), keypoints (N, K, 2), scores (N, K), and of
    `SCORES` (N,) each. `joints` (K,) names the columns.
    """

    def __init__(self, skeleton: Skeleton, path: Path):
        _make_folder(path)
        self.skeleton = skeleton
        self.path = path
        self._rows: list[tuple[str, int, Pose]] = []

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        self._rows += [(frame.name, frame.index, pose) for pose in poses]

    def close(self) -> None:
        images, frames, poses = zip(*self._rows) if self._rows else ((), (), ())
        num_joints = self.skeleton.num_joints
        with written_whole(self.path) as scratch, open(scratch, "wb") as stream:
            np.savez_compressed(
                stream,
                joints=np.array(self.skeleton.joints),
                image=np.array(images, dtype=str),
                frame=np.array(frames, dtype=np.int64),
                box=np.array([pose.box for pose in poses]).reshape(-1, 4),
                keypoints=np.array([pose.keypoints for pose in poses]).reshape(-1, num_joints, 2),
                scores=np.array([pose.scores for pose in poses]).reshape(-1, num_joints),
                **{name: np.array([getattr(pose, name) for pose in poses], dtype=np.float64) for name in SCORES},
            )

    def __str__(self) -> str:
        return f"coordinates: {self.path.as_posix()}"


def choose_outputs(
    source: ImageFiles | Video, skeleton: Skeleton, model_file: str, output: str | None, form: str, draw: bool
) -> list[Output]:
    """Where everything goes.

    Args:
        output: of one image or a video the drawing's file, or a folder for it (it exists, or ends with a slash); of
            several images a folder. None: <name>_pose.jpg, <name>_pose.mp4 or the folder <name>_pose, here.
        form: of the coordinates, one of `FORMATS`.
        draw: write drawings, too.
    """
    name = f"camera{source.name}" if source.is_live else Path(source.name).stem
    if source.is_single or source.is_video:
        drawing = Path(output or "") / f"{name}_pose{'.mp4' if source.is_video else '.jpg'}"
        if output and not (Path(output).is_dir() or output.endswith(("/", os.sep))):
            drawing = Path(output)
        drawings = [drawing]
        beside = drawing.with_suffix(FORMATS[form])
    else:
        folder = Path(output or f"{source.name}_pose")
        drawings = picture_paths(source.paths, folder)
        beside = folder / f"poses{FORMATS[form]}"

    outputs: list[Output] = []
    if draw:
        outputs.append(DrawnVideo(drawing, source.fps) if source.is_video else Drawings(drawings))
    if form == "coco":
        outputs.append(CocoResults(beside))
    elif form == "csv":
        outputs.append(CsvTable(skeleton, beside))
    elif form == "npz":
        outputs.append(NpzTable(skeleton, beside))
    elif source.is_video:
        outputs.append(JsonVideo(skeleton, model_file, beside, source.name, source.fps))
    else:
        outputs.append(JsonPerImage(skeleton, model_file, [path.with_suffix(".json") for path in drawings]))
    return outputs


def picture_paths(names: Sequence[str], folder: Path) -> list[Path]:
    """Where each image's drawing goes: <folder>/<name>_pose.jpg, below the folder as the images are among themselves.

    a.jpg and a.png in one place become a_pose.jpg and a_png_pose.jpg: nothing overwrites anything.
    """
    files = [Path(os.path.abspath(name)) for name in names]
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    taken: set[str] = set()  # in lower case: to many file systems A.jpg and a.jpg are one file
    paths = []
    for file in files:
        place = folder / os.path.relpath(file.parent, root)
        candidates = [f"{file.stem}_pose.jpg", f"{file.stem}_{file.suffix.lstrip('.')}_pose.jpg"]
        candidates += [f"{file.stem}_{number}_pose.jpg" for number in range(2, len(files) + 2)]
        path = next(place / name for name in candidates if str(place / name).lower() not in taken)
        taken.add(str(path).lower())
        paths.append(path)
    return paths


def _more(paths: Sequence[Path]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""


def _make_folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
