"""Outputs of a run: pictures or a video with the poses drawn in, and the coordinates as JSON, CSV or NPZ.

Every output takes frame after frame (`add`) and is complete after `close`, also after an interruption.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from array import array
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np

from simplepose.core.drawing import BACKGROUND_COLOR, MIDDLE_COLOR, draw_label, draw_pose, track_color, write_image
from simplepose.core.errors import UserError
from simplepose.core.files import written_whole
from simplepose.core.skeletons import Skeleton
from simplepose.data.posetrack import JOINTS_2018, SAME_JOINT
from simplepose.inference.predictor import Pose
from simplepose.inference.sources import ADDRESS, CAMERA, IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, Frame, ImageFiles, Video
from simplepose.inference.videos import FfmpegVideo, OpenCvVideo, open_video, require_format

FORMATS = {"json": ".json", "coco": ".json", "csv": ".csv", "npz": ".npz", "posetrack": ".json"}  # and its extension
TRAIL = 50  # frames
SCORES = ("box_score", "pose_score", "score")  # of a `Pose`
# An --output with one of these extensions names a file; for several images it should name a folder.
FILE_EXTENSIONS = {*FORMATS.values(), *IMAGE_EXTENSIONS, *VIDEO_EXTENSIONS}

NOT_UTF8 = "backslashreplace"  # what is no UTF-8 in a file name, as of old archives; in JSON it reads back as it was


class Output:
    """Takes the results of a run, frame by frame; `str` says what was written.

    Args:
        paths: of the files, by frame index or one for all.
    """

    what = "coordinates"

    def __init__(self, paths: Sequence[Path]):
        self.paths = paths
        self.written: list[Path] = []  # where there is a file for each frame

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Complete the files; nothing to do where each is written at once."""

    def __str__(self) -> str:
        return f"{self.what}: {self.written[0].as_posix()}" + _more(self.written) if self.written else f"no {self.what}"


class Painter:
    """How poses are drawn.

    Args:
        min_score: joints with a lower score are skipped.
        numbers, scores: write each person's track, or else place in the frame's list, and score, above the box.
        plain: cover the image first, so that nobody can be recognised.
        trails: draw the path of each tracked person over the last `TRAIL` frames.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        min_score: float,
        numbers: bool = False,
        scores: bool = False,
        plain: bool = False,
        trails: bool = False,
    ):
        self.skeleton = skeleton
        self.min_score = min_score
        self.numbers = numbers
        self.scores = scores
        self.plain = plain
        self._ways: deque[dict[int, np.ndarray]] = deque(maxlen=TRAIL if trails else 0)  # places by track

    def draw(self, image: np.ndarray, poses: Sequence[Pose]) -> None:
        """Draw all people onto an image, in place."""
        if self.plain:
            image[:] = BACKGROUND_COLOR
        self._ways.append({pose.track_id: pose.keypoints.mean(axis=0) for pose in poses if pose.track_id is not None})
        for index, pose in enumerate(poses):
            color, number = None, index
            if pose.track_id is not None:
                color, number = track_color(pose.track_id), pose.track_id
                way = [places[number] for places in self._ways if number in places]
                if len(way) > 1:
                    cv2.polylines(image, [np.rint(way).astype(np.int32)], False, color, 2, cv2.LINE_AA)
            draw_pose(image, pose.keypoints, pose.scores, self.skeleton, self.min_score, color)
            parts = [str(number)] * self.numbers + [f"{pose.score:.2f}"] * self.scores
            if parts:
                draw_label(image, pose.box, " ".join(parts), color or MIDDLE_COLOR)


class Drawings(Output):
    """One picture per frame; `paths` by frame index. A frame that could not be read has none."""

    what = "drawing"

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        if frame.image is not None and not frame.failure:
            write_image(self.paths[frame.index], frame.image)
            self.written.append(self.paths[frame.index])


class DrawnVideo(Output):
    """A video of the source's frame rate, size and sound, with one picture per frame of the source.

    A frame that could not be read, or that a camera took while the consumer was busy, repeats the previous one; before
    the first readable frame the picture is black.

    Args:
        sound_of: a video file whose sound to keep.
    """

    def __init__(self, path: Path, fps: float, sound_of: str | None = None):
        require_format(path)
        super().__init__([path])
        self.path = path
        self.fps = fps
        self.sound_of = sound_of
        self._writer: FfmpegVideo | OpenCvVideo | None = None
        self._size_wh = (0, 0)
        self._last: np.ndarray | None = None
        self._count = 0  # frames written

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        if self._writer is None:
            if frame.image is None:
                return  # the size is unknown so far; these frames are written later
            self._open(frame.image)
        for _ in range(self._count, frame.index):
            self._write(self._last)
        self._write(self._last if frame.image is None else frame.image)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def __str__(self) -> str:
        if self._writer is None:
            return f"no video {self.path.as_posix()}: there was no frame to draw on"
        return f"video: {self.path.as_posix()} ({self._writer})"

    def _open(self, image: np.ndarray) -> None:
        _make_folder(self.path)
        self._size_wh = image.shape[1::-1]
        self._writer = open_video(self.path, self.fps, self._size_wh, self.sound_of)
        self._last = np.zeros_like(image)

    def _write(self, image: np.ndarray) -> None:
        if image.shape[1::-1] != self._size_wh:  # a stream may change its size; the file cannot
            image = cv2.resize(image, self._size_wh)
        self._writer.write(image)
        self._last = image
        self._count += 1


class JsonPerImage(Output):
    """A JSON file for each image; `paths` by frame index."""

    def __init__(self, model_file: str, paths: Sequence[Path]):
        super().__init__(paths)
        self.model_file = model_file

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
            scratch.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8", NOT_UTF8)
        self.written.append(path)


class _RecordFile(Output):
    """A text file written record by record under a scratch name, and renamed when it is closed.

    Nothing is kept in memory: a run over a camera may last for days. When the disk is full, an older file of that name
    stays.
    """

    def __init__(self, path: Path, head: str, tail: str, separator: str):
        super().__init__([path])
        self.tail = tail
        self.separator = separator
        self._file = ExitStack()
        scratch = self._file.enter_context(written_whole(path))
        try:
            stream = scratch.open("w", encoding="utf-8", errors=NOT_UTF8, newline="")
            self._stream = self._file.enter_context(stream)
            self._stream.write(head)
        except OSError as error:
            self._give_up(error)
        self._first = True

    def write(self, record: str) -> None:
        try:
            self._stream.write(record if self._first else self.separator + record)
        except OSError as error:
            self._give_up(error)
        self._first = False

    def close(self) -> None:
        if not self._stream.closed:
            with self._file:
                self._stream.write(self.tail)
            self.written = [*self.paths]

    def _give_up(self, error: OSError) -> None:
        """Remove the scratch file, and raise the error as a `UserError`."""
        with self._file:
            raise error


class JsonVideo(_RecordFile):
    """One JSON file for a video: its properties, and a list of frames with their people."""

    def __init__(self, model_file: str, path: Path, video: str, fps: float):
        head = json.dumps({"video": video, "fps": fps, "model_file": model_file, "frames": []}, ensure_ascii=False)
        super().__init__(path, head.removesuffix("]}") + "\n", "\n]}\n", ",\n")

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        record: dict[str, Any] = {"frame": frame.index}
        if frame.failure:
            record["failure"] = frame.failure
        record["people"] = [pose.to_dict() for pose in poses]
        self.write(json.dumps(record, ensure_ascii=False))


class CocoResults(_RecordFile):
    """COCO's results form for keypoints, readable by pycocotools' `loadRes`.

    `file_name` says which image it is.

    Args:
        ids: `image_id` by frame index, as `numbered_images` gives it; None for a video, where it is the index.
    """

    def __init__(self, path: Path, ids: Sequence[int] | None):
        super().__init__(path, "[\n", "\n]\n", ",\n")
        self._ids = ids

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        image_id = frame.index if self._ids is None else self._ids[frame.index]
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
                **({} if pose.track_id is None else {"track_id": pose.track_id}),
            }
            self.write(json.dumps(record, ensure_ascii=False))


class PoseTrackResults(_RecordFile):
    """PoseTrack's form of 2018: annotations with a `track_id`, and the images they belong to.

    Joints are PoseTrack's 17, those that the network does not have all 0; of a skeleton without any of them its own.
    Frames of a video are called <video>/<index>.jpg.
    """

    def __init__(self, skeleton: Skeleton, path: Path, source: ImageFiles | Video):
        own = [SAME_JOINT.get(joint, joint) for joint in skeleton.joints]
        self.joints = JOINTS_2018 if set(own).intersection(JOINTS_2018) else skeleton.joints
        self._columns = [own.index(joint) if joint in own else None for joint in self.joints]
        self._source = source
        self._frames = array("q")  # their indices; a video may be long
        self._count = 0
        super().__init__(path, '{"annotations": [\n', "", ",\n")

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        self._frames.append(frame.index)
        for pose in poses:
            points = np.column_stack([pose.keypoints, np.ones(len(pose.scores)), pose.scores])
            points = np.array([np.zeros(4) if column is None else points[column] for column in self._columns])
            record = {
                "id": self._count,
                "image_id": frame.index,
                "track_id": pose.track_id,
                "category_id": 1,
                "keypoints": points[:, :3].round(2).ravel().tolist(),
                "scores": points[:, 3].round(4).tolist(),
                "bbox": pose.box.round(2).tolist(),
                "score": round(pose.score, 4),
            }
            self.write(json.dumps(record))
            self._count += 1

    def close(self) -> None:
        images = ",\n".join(json.dumps({"id": index, "file_name": self._image(index)}) for index in self._frames)
        categories = json.dumps([{"id": 1, "name": "person", "keypoints": self.joints}])
        self.tail = f'\n], "images": [\n{images}\n], "categories": {categories}}}\n'
        super().close()

    def _image(self, index: int) -> str:
        return f"{_name(self._source)}/{index:06d}.jpg" if self._source.is_video else self._source.paths[index]


class CsvTable(_RecordFile):
    """One line per person: image, frame, person (of a tracked one its id), box, `SCORES`, then x, y and score of every
    joint.
    """

    def __init__(self, skeleton: Skeleton, path: Path):
        columns = ["image", "frame", "person", "box_x", "box_y", "box_w", "box_h", *SCORES]
        columns += [f"{joint}_{value}" for joint in skeleton.joints for value in ("x", "y", "score")]
        super().__init__(path, self._line(columns), "", "")

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        for index, pose in enumerate(poses):
            points = np.column_stack([pose.keypoints, pose.scores]).ravel()
            numbers = [f"{value:.6g}" for value in (*pose.box, *(getattr(pose, name) for name in SCORES), *points)]
            person = index if pose.track_id is None else pose.track_id
            self.write(self._line([frame.name, frame.index, person, *numbers]))

    @staticmethod
    def _line(values: Sequence[Any]) -> str:
        text = io.StringIO()
        csv.writer(text).writerow(values)
        return text.getvalue()


class NpzTable(Output):
    """Arrays over all N people: image (N,), frame (N,), box (N, 4), keypoints (N, K, 2), scores (N, K), and of
    `SCORES` (N,) each; of tracked people also track_id (N,). `joints` (K,) names the columns.
    """

    def __init__(self, skeleton: Skeleton, path: Path):
        super().__init__([path])
        _make_folder(path)
        self.skeleton = skeleton
        self.path = path
        self._rows: list[tuple[str, int, Pose]] = []

    def add(self, frame: Frame, poses: Sequence[Pose]) -> None:
        self._rows += [(frame.name, frame.index, pose) for pose in poses]

    def close(self) -> None:
        images, frames, poses = zip(*self._rows) if self._rows else ((), (), ())
        num_joints = self.skeleton.num_joints
        tracks = [pose.track_id for pose in poses]
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
                **({} if None in tracks or not tracks else {"track_id": np.array(tracks)}),
            )
        self.written = [self.path]


def choose_outputs(
    source: ImageFiles | Video, skeleton: Skeleton, model_file: str, output: str | None, form: str, draw: bool
) -> list[Output]:
    """Create the outputs of a run.

    Args:
        output: for one image or a video the drawing's file, or a folder for it (it exists, or ends with a slash); for
            several images a folder. None: <name>_pose.jpg, <name>_pose.mp4 or the folder <name>_pose in the working
            directory. Without drawings, the file of the coordinates if it has the format's extension.
        form: format of the coordinates, one of `FORMATS`.
        draw: write drawings, too.
    """
    drawings, coordinates = _places(source, output, form, draw)
    outputs: list[Output] = []
    if draw and source.is_video:
        sound_of = source.path if source.is_file else None
        outputs.append(DrawnVideo(drawings[0], source.fps, sound_of))
    elif draw:
        outputs.append(Drawings(drawings))
    if form == "coco":
        outputs.append(CocoResults(coordinates[0], None if source.is_video else numbered_images(source.paths)))
    elif form == "csv":
        outputs.append(CsvTable(skeleton, coordinates[0]))
    elif form == "npz":
        outputs.append(NpzTable(skeleton, coordinates[0]))
    elif form == "posetrack":
        outputs.append(PoseTrackResults(skeleton, coordinates[0], source))
    elif source.is_video:
        outputs.append(JsonVideo(model_file, coordinates[0], source.name, source.fps))
    else:
        outputs.append(JsonPerImage(model_file, coordinates))
    return outputs


def require_free(source: ImageFiles | Video, output: str | None, form: str, draw: bool, overwrite: bool) -> None:
    """Check that a run overwrites nothing by accident; arguments as `choose_outputs` takes them.

    Raises:
        UserError: an output exists and `overwrite` is false, an output is an image or video of the source, or `output`
            is not possible for this source.
    """
    drawings, coordinates = _places(source, output, form, draw)
    if draw and source.is_video:
        require_format(drawings[0])
    taken = [path for path in (*(drawings if draw else ()), *coordinates) if os.path.exists(path)]
    sources = {os.path.realpath(path) for path in (source.paths if not source.is_video else [source.path])}
    for path in taken:
        if os.path.realpath(path) in sources:
            raise UserError(f"{path.as_posix()} is what --img-file reads; name another place with --output")
    if taken and not overwrite:
        raise UserError(
            f"{taken[0].as_posix()} exists{_more(taken)}; add --overwrite, or name another place with --output"
        )


def _places(source: ImageFiles | Video, output: str | None, form: str, draw: bool) -> tuple[list[Path], list[Path]]:
    """The files of the drawings, one per image or one for a video, and those of the coordinates."""
    extension = FORMATS[form]
    is_folder = not output or os.path.isdir(output) or output.endswith(("/", os.sep))
    one_table = source.is_single or source.is_video or form != "json"
    if not is_folder and Path(output).suffix.lower() == extension and one_table and not draw:
        return [], [Path(output)]
    if source.is_single or source.is_video:
        drawing = Path(output or "") / f"{_name(source)}_pose{'.mp4' if source.is_video else '.jpg'}"
        if not is_folder:
            drawing = Path(output)
            if drawing.suffix.lower() in FORMATS.values():
                raise UserError(f"--output {output} is no drawing; add --no-draw for coordinates alone")
        return [drawing], [drawing.with_suffix(extension)]
    if not is_folder and Path(output).suffix.lower() in FILE_EXTENSIONS:
        raise UserError(
            f"--output {output} is a file, and the results of several images go to a folder; name one, or for a table "
            f"of all coordinates: --no-draw --format csv --output all.csv"
        )
    folder = Path(output or f"{source.name}_pose")
    drawings = picture_paths(source.paths, folder)
    if form == "json":
        return drawings, [path.with_suffix(extension) for path in drawings]
    return drawings, [folder / f"poses{extension}"]


def _name(source: ImageFiles | Video) -> str:
    if source.is_video and CAMERA.fullmatch(source.path):
        return f"camera{source.path}"
    path = urlsplit(source.name).path if ADDRESS.match(source.name) else source.name
    return Path(path).stem or "stream"


def numbered_images(names: Sequence[str]) -> list[int]:
    """An id for each image: the number that its name spells (139 for 000000000139.jpg), unless two spell the same;
    those without one are counted from the largest on."""
    stems = [Path(name).stem for name in names]
    numbers = {place: int(stem) for place, stem in enumerate(stems) if stem.isdecimal()}
    if len(set(numbers.values())) < len(numbers):
        numbers = {}
    others = itertools.count(max(numbers.values(), default=-1) + 1)
    return [numbers[place] if place in numbers else next(others) for place in range(len(stems))]


def picture_paths(names: Sequence[str], folder: Path) -> list[Path]:
    """Paths of the drawings: <folder>/<name>_pose.jpg, in the subfolders that the images have among themselves.

    a.jpg and a.png in one place become a_pose.jpg and a_png_pose.jpg: nothing overwrites anything.
    """
    files = [Path(os.path.abspath(name)) for name in names]
    root = os.path.commonpath([file.parent for file in files]) if files else ""
    taken: set[str] = set()  # in lower case: to many file systems A.jpg and a.jpg are one file
    paths = []
    for file in files:
        place = folder / os.path.relpath(file.parent, root)
        names = ["", f"_{file.suffix.lstrip('.')}"]
        numbers = (f"_{number}" for number in itertools.count(2))  # lazily: there may be 100,000 images
        candidates = (f"{file.stem}{name}_pose.jpg" for name in itertools.chain(names, numbers))
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
