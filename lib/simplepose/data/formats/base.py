"""The form in which labels of every tool meet, and what readers and writers share.

Coordinates are 0-based pixels (x, y). Whatever a reader has to leave out it counts, by a text for the user.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from simplepose.core.errors import UserError, has_control, shown
from simplepose.core.files import read_bytes
from simplepose.core.images import MAX_IMAGE_BYTES, decode_image, image_size_wh
from simplepose.core.skeletons import Skeleton
from simplepose.data.fields import MAX_PIXELS
from simplepose.data.joint_names import plain_name, skeleton_of

UNLABELLED, HIDDEN, VISIBLE = 0, 1, 2  # COCO's visibilities
HIDDEN_WORDS = {"occluded", "hidden", "invisible", "遮挡", "不可见"}
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


@dataclass
class Person:
    """One labelled object, a person or whatever has joints.

    Attributes:
        points: joint name -> (x, y, visibility); joints without an entry are not labelled.
        box: (left, top, width, height), or None where there is none.
        area: square pixels; None: that of the box.
        crowd: COCO's iscrowd.
        score: of a prediction.
        row: place in the list of the file.
    """

    points: dict[str, tuple[float, float, int]]
    box: tuple[float, float, float, float] | None = None
    category: str = "person"
    area: float | None = None
    crowd: bool = False
    score: float | None = None
    row: int = 0


@dataclass
class Picture:
    """An image: its name in the labels, its size in pixels (0: not stated), and the persons on it."""

    name: str
    width: int = 0
    height: int = 0
    persons: list[Person] = field(default_factory=list)


@dataclass
class Labels:
    """A labelled set; `left_out` counts what the file has and this has not, by what it is."""

    skeleton: Skeleton
    pictures: list[Picture]
    left_out: Counter = field(default_factory=Counter)

    @property
    def persons(self) -> list[Person]:
        return [person for picture in self.pictures for person in picture.persons]

    def drop_crowds(self) -> None:
        """Leave out crowds, which COCO's form alone can mark."""
        for picture in self.pictures:
            single = [person for person in picture.persons if not person.crowd]
            self.left_out["crowds"] += len(picture.persons) - len(single)
            picture.persons = single


def keypoints_of(persons: Sequence[Person], skeleton: Skeleton) -> np.ndarray:
    """(N, K, 3): x, y, visibility; zeros where not labelled."""
    place = {joint: index for index, joint in enumerate(skeleton.joints)}
    keypoints = np.zeros((len(persons), skeleton.num_joints, 3))
    for row, person in enumerate(persons):
        for joint, point in person.points.items():
            if joint in place:
                keypoints[row, place[joint]] = point
    return keypoints


class ImageFolder:
    """The images that labels speak of, found below a folder by name; None: there are none at hand."""

    def __init__(self, root: str | os.PathLike | None):
        self.root = None if root is None else Path(root)
        if self.root is not None and not self.root.is_dir():
            raise UserError(f"no such folder of images: {root}")
        self.known: dict[str, Path] = {}  # files that a reader has found already
        self._by_name: dict[str, Path | None] | None = None

    def find(self, name: str) -> Path | None:
        """The file: <root>/<name>, or the only one of this name in any folder below; None if there is none."""
        if name in self.known:
            return self.known[name]
        if self.root is None:
            return None
        direct = self.root / safe_name(name)
        if os.path.isfile(direct):  # which is false, too, of a name that is too long
            return direct
        if self._by_name is None:
            self._by_name = {}
            for path in self.root.rglob("*"):
                if path.suffix.lower() in PICTURES:
                    self._by_name[path.name] = None if path.name in self._by_name else path
        last = PurePosixPath(safe_name(name)).name
        bare = re.sub(r"^[0-9a-f]{8}-", "", last)  # Label Studio puts eight digits before the name of an upload
        return self._by_name.get(last) or self._by_name.get(bare)

    def size_wh(self, name: str) -> tuple[int, int]:
        """Width and height of an image that must be there.

        Raises:
            UserError: no such image.
        """
        path = self.find(name)
        if path is None:
            raise UserError(f"the image {shown(name)} is not in {self.root or 'any folder'}; name theirs with --images")
        return image_size_wh(path)

    def size_if_there(self, name: str) -> tuple[int, int]:
        """Width and height; (0, 0) of an image that is not there or cannot be read."""
        try:
            return self.size_wh(name)
        except UserError:
            return 0, 0


def require_upright(path: Path) -> None:
    """Refuse a photograph that EXIF turns, where labels mean it as displayed: data sets are read as stored.

    Raises:
        UserError: it is turned, or mirrored.
    """
    data = read_bytes(path, "image", MAX_IMAGE_BYTES)
    if b"Exif" in data[:1024]:
        displayed, stored = (decode_image(data, path, apply_exif, reduction=8) for apply_exif in (True, False))
        if not np.array_equal(displayed, stored):
            raise UserError(f"{path} is turned by EXIF, which data sets ignore; store it upright, its labels stay")


def safe_name(name: str) -> str:
    """A relative path that stays inside of a folder, of a file name or URL that a stranger wrote."""
    try:
        if "?d=" in name:  # Label Studio's local files
            name = parse_qs(urlsplit(name).query).get("d", [name])[0]
        elif "://" in name:
            name = PurePosixPath(unquote(urlsplit(name).path)).name
        elif name.startswith("/data/upload/"):
            name = name.rpartition("/")[2]
    except ValueError:  # as http://[a
        raise UserError(f"{shown(name)} is not the name of an image") from None
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or parts[-1] in ("/", "//", "..") or has_control(name):
        raise UserError(f"{shown(name)} is not the name of an image")
    outside = ".." in parts or parts[0][0] == "/" or ":" in parts[0]  # "//" at the start is a root of its own
    return parts[-1] if outside else "/".join(parts)


def number(value: Any, where: str, most: float = MAX_PIXELS) -> float:
    """A finite number of pixels, or of anything smaller; `where` is the file and the entry.

    Raises:
        UserError: something else.
    """
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not abs(found) <= most:
        raise UserError(f"{where}: {shown(value)} is not a number of pixels")
    return found


def box_of_corners(corners: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the box around points (N, 2)."""
    xs, ys = zip(*corners)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def assign_points(
    boxes: Sequence[tuple[str, Any, Person]],
    points: Iterable[tuple[str, Any, tuple[float, float, int]]],
    left_out: Counter,
) -> list[Person]:
    """Persons of loose boxes and points: a point goes to the box of its key, else to the smallest box around it.

    Args:
        boxes: (name, key or None, the person with nothing but its box).
        points: (joint, key or None, point). Without a box, points of one key are a person.
    """
    persons = [person for *_, person in boxes]
    by_key = {key: person for _, key, person in boxes if key is not None}
    for joint, key, point in points:
        person = by_key.get(key)
        if person is None and (key is not None or not boxes):
            person = by_key.setdefault(key, Person({}))
            persons.append(person)
        if person is None:
            around = [p for p in persons if p.box and _within(point, p.box)]
            person = min(around, key=lambda p: p.box[2] * p.box[3], default=None)
        if person is None:
            left_out["points outside of every box"] += 1
        elif joint in person.points:
            left_out["points of a joint that the person has already"] += 1
        else:
            person.points[joint] = point
    return persons


def _within(point: Sequence[float], box: Sequence[float]) -> bool:
    return box[0] <= point[0] <= box[0] + box[2] and box[1] <= point[1] <= box[1] + box[3]


def finish(
    pictures: list[Picture],
    left_out: Counter,
    skeleton: Skeleton | None,
    where: str,
    joints: Sequence[str] = (),
    limbs: Sequence[Sequence[str]] = (),
    pairs: Sequence[Sequence[str]] | None = None,
) -> Labels:
    """Labels of pictures that were read.

    Args:
        skeleton: the user's; joints of other names are left out. None: made of the names that occur.
        joints, limbs, pairs: as far as the file itself tells.

    Raises:
        UserError: no joint at all.
    """
    persons = [person for picture in pictures for person in picture.persons]
    if skeleton is None:
        fullest = max(persons, key=lambda person: len(person.points), default=Person({}))
        names = dict.fromkeys([*joints, *fullest.points])  # in an order that is one person's own
        names.update(dict.fromkeys(joint for person in persons for joint in person.points))
        if not names:
            raise UserError(f"{where} has no labelled joint")
        category = Counter(person.category for person in persons).most_common(1)
        skeleton = skeleton_of(category[0][0] if category else "object", list(names), pairs, limbs, where)
    else:
        ours = {plain_name(joint): joint for joint in skeleton.joints}
        for person in persons:
            theirs, person.points = person.points, {}
            for joint, point in theirs.items():
                name = joint if joint in skeleton.joints else ours.get(plain_name(joint))
                if name is None:
                    left_out[f"points of the joint {shown(joint)}, which the skeleton does not have"] += 1
                else:
                    person.points[name] = point
    return Labels(skeleton, pictures, left_out)


# ---- Writing ---------------------------------------------------------------------------------------------


@contextmanager
def written_folder(output: str | os.PathLike) -> Iterator[Path]:
    """Yield a scratch folder; on success its files are put into `output`, labels last.

    A set may be put beside others that are there already, but no file of them is replaced by another.

    Raises:
        UserError: a file that is there with another content, or a folder that cannot be written.
    """
    output = Path(output)
    whole = Path(os.path.abspath(output))
    scratch = whole.parent / f".{whole.name}.{secrets.token_hex(4)}.part"
    try:
        scratch.mkdir(parents=True)
        yield scratch
        files = sorted(path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file())
        for file in files:
            there, new = output / file, scratch / file
            if there.exists() and (
                there.stat().st_size != new.stat().st_size or there.read_bytes() != new.read_bytes()
            ):
                raise UserError(f"{there} is there already, with another content; choose another --output or --set")
        for file in sorted(files, key=lambda file: file.suffix.lower() not in PICTURES):  # labels after the images
            (output / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(scratch / file, output / file)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def put_images(
    labels: Labels, images: ImageFolder, folder: Path, progress: Callable[[Iterable], Iterable] = iter
) -> None:
    """Put the images of labels into a folder under their names: hard links where possible, else copies.

    Pictures whose image is not there are left out of the labels, and counted.
    """
    kept, sources = [], {}
    for picture in progress(labels.pictures):
        source, name = images.find(picture.name), safe_name(picture.name)
        if source is None:
            labels.left_out["images that are not there, with their persons"] += 1
            continue
        if sources.setdefault(name, source) != source:
            raise UserError(f"{sources[name]} and {source} would both be {name}; give them different names")
        target = folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another disk, or a file system without links
                shutil.copyfile(source, target)
        kept.append(picture)
    if not kept:
        raise UserError(
            f"none of the {len(labels.pictures)} images is in {images.root}; name their folder with --images"
        )
    labels.pictures = kept


def new_label_file(folder: Path, name: str, suffix: str) -> Path:
    """Where the labels of an image go in forms with a file each; a.jpg and a.png would share it, which is an error."""
    path = (folder / safe_name(name)).with_suffix(suffix)
    if path.exists():
        raise UserError(f"{shown(name)} and another image would both have their labels in {path.name}; rename one")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def plain(value: float) -> float | int:
    """A number as JSON is to show it: 3 and not 3.0, and no digits beyond a millionth of a pixel."""
    rounded = round(float(value), 6)
    return int(rounded) if rounded.is_integer() else rounded
