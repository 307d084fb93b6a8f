"""Ultralytics' pose data sets: data.yaml, images/<set>/ and a text file for each image in labels/<set>/, normalised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from simplepose.core.errors import UserError
from simplepose.core.files import read_text, read_yaml
from simplepose.core.skeletons import MAX_JOINTS, Skeleton
from simplepose.data.formats.base import (
    PICTURES,
    VISIBLE,
    ImageFolder,
    Labels,
    Person,
    Picture,
    finish,
    new_label_file,
    number,
    require_upright,
)
from simplepose.data.formats.coco import box_around
from simplepose.data.joint_names import side_and_rest

IMAGES = "images/{set}"


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None, image_set: str = "train") -> Labels:
    """Read one set of a data.yaml; joints are named by its `kpt_names`, by the skeleton, or joint_0, joint_1, ..."""
    settings = read_yaml(path, "YOLO")
    try:
        num_joints, numbers = map(int, settings["kpt_shape"])
        if not (0 < num_joints <= MAX_JOINTS and numbers in (2, 3)):
            raise ValueError("kpt_shape is [joints, 2 or 3]")
        named = settings.get("names") or {}
        names = dict(enumerate(named)) if isinstance(named, list) else named
        names.get(0)
        joints = [str(name) for name in next(iter((settings.get("kpt_names") or {0: []}).values()))]
        joints = joints or (list(skeleton.joints) if skeleton else [f"joint_{k}" for k in range(num_joints)])
        if len(joints) != num_joints:
            raise ValueError(f"{len(joints)} names for {num_joints} joints")
        mirror = settings.get("flip_idx") or []
        pairs = [[joints[a], joints[b]] for a, b in enumerate(mirror) if a < b] if mirror else None
        for pair in pairs or ():  # flip_idx does not say which is the left one, the names may
            pair.sort(key=lambda name: side_and_rest(name)[0] == "right")
        listed = settings.get(image_set) or settings.get({"valid": "val", "val": "valid"}.get(image_set, ""))
        folders = [listed] if isinstance(listed, str) else list(listed)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path} is not a data.yaml of YOLO-pose with the set {image_set!r} ({type(error).__name__}: {error}); it "
            "has train, val, kpt_shape and names"
        ) from None
    root = path.parent / str(settings.get("path") or "")
    if not root.is_dir():  # written on another machine
        root = path.parent
    left_out: Counter = Counter()
    pictures = []
    for folder in folders:
        place = root / str(folder)
        if not place.is_dir():
            raise UserError(f"{path}: the set {image_set} lies in {place}, which is no folder")
        for file in sorted(file for file in place.rglob("*") if file.suffix.lower() in PICTURES):
            name = file.relative_to(place).as_posix()
            if images.known.setdefault(name, file) != file:
                raise UserError(f"{images.known[name]} and {file} would both be {name}; give them different names")
            require_upright(file)
            picture = Picture(name, *images.size_wh(name))
            labels = _label_file(file)
            lines = read_text(labels, "label").splitlines() if labels.is_file() else []
            left_out["images without a label file"] += not labels.is_file()
            for row, line in enumerate(lines):
                if line.strip():
                    where = f"{labels}: line {row + 1}"
                    picture.persons.append(_person(line.split(), joints, numbers, names, picture, row, where))
            pictures.append(picture)
    return finish(pictures, +left_out, skeleton, str(path), joints, pairs=pairs)


def _label_file(image: Path) -> Path:
    """labels/... beside images/...: the last folder called images is exchanged, as Ultralytics does."""
    parts = list(image.parts)
    place = max((k for k, part in enumerate(parts) if part == "images"), default=None)
    if place is not None:
        parts[place] = "labels"
    return Path(*parts).with_suffix(".txt")


def _person(
    words: list[str], joints: list[str], numbers: int, names: Any, picture: Picture, row: int, where: str
) -> Person:
    expected = 5 + numbers * len(joints)
    if len(words) != expected:
        raise UserError(f"{where} has {len(words)} numbers; class, box and {len(joints)} joints take {expected}")
    kind, x, y, w, h, *flat = (number(word, where) for word in words)
    w, h = w * picture.width, h * picture.height
    points = {}
    for k, joint in enumerate(joints):
        px, py, *v = flat[k * numbers : (k + 1) * numbers]
        visible = int(v[0]) if v else VISIBLE * bool(px or py)
        if visible or px or py:
            points[joint] = (px * picture.width, py * picture.height, visible)
    box = (x * picture.width - w / 2, y * picture.height - h / 2, w, h)
    return Person(points, box, str(names.get(int(kind), int(kind))), row=row)


def write(labels: Labels, folder: Path, image_set: str) -> int:
    """Write labels/<set>/*.txt and data.yaml."""
    skeleton = labels.skeleton
    categories = list(dict.fromkeys(person.category for person in labels.persons)) or [skeleton.name]
    for picture in labels.pictures:
        if not (picture.width and picture.height):
            raise UserError(f"YOLO's labels are relative to the image, and the size of {picture.name} is unknown")
        lines = []
        for person in picture.persons:
            x, y, w, h = person.box or box_around(person, picture)
            values = [(x + w / 2) / picture.width, (y + h / 2) / picture.height, w / picture.width, h / picture.height]
            for joint in skeleton.joints:
                px, py, v = person.points.get(joint, (0, 0, 0))
                values += [px / picture.width, py / picture.height, v]
            lines.append(" ".join([str(categories.index(person.category)), *(f"{value:.9g}" for value in values)]))
        path = new_label_file(folder / "labels" / image_set, picture.name, ".txt")
        path.write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")
    settings = {
        "path": ".",
        **{name: f"images/{name}" for name in dict.fromkeys(("train", "val", image_set))},
        "kpt_shape": [skeleton.num_joints, 3],
        "flip_idx": skeleton.flip_permutation.tolist(),
        "names": dict(enumerate(categories)),
        "kpt_names": {0: list(skeleton.joints)},
    }
    text = yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return len(labels.persons)
