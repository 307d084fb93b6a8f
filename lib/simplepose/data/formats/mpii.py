"""MPII's JSON: <output>/annot/<set>.json beside images/. 16 joints, 1-based; centre and scale instead of a box."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from simplepose.core.errors import UserError, shown
from simplepose.core.files import read_json
from simplepose.core.skeletons import MPII, Skeleton
from simplepose.data.formats.base import (
    HIDDEN,
    VISIBLE,
    ImageFolder,
    Labels,
    Person,
    Picture,
    finish,
    number,
    plain,
    safe_name,
)
from simplepose.data.formats.coco import box_around
from simplepose.data.mpii import CENTER_DROP, PIXELS_PER_SCALE

IMAGES = "images"


def read(path: Path, images: ImageFolder, skeleton: Skeleton | None = None) -> Labels:
    """Read a list of persons; the box is the square that training crops, before its padding."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} is not in MPII's form: expected a list of persons")
    pictures: dict[str, Picture] = {}
    for row, entry in enumerate(entries):
        where = f"{path}: entry {row}"
        try:
            points = {}
            for joint, (x, y), v in zip(MPII.joints, entry.get("joints", ()), entry.get("joints_vis", ())):
                point = number(x, where) - 1, number(y, where) - 1, VISIBLE if number(v, where) > 0 else 0
                if point[2] or point[:2] != (-2, -2):
                    points[joint] = point
            (x, y), scale = (number(value, where) for value in entry["center"]), number(entry["scale"], where)
            side = scale * PIXELS_PER_SCALE
            drop = CENTER_DROP * scale if x != -1 else 0
            box = (x - 1 - side / 2, y + drop - 1 - side / 2, side, side)
            name = entry["image"]
            if name not in pictures:
                pictures[name] = Picture(name, *images.size_if_there(name))
            pictures[name].persons.append(Person(points, box, row=row))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{where} is {shown(entry)}, expected image, center, scale, joints, joints_vis") from None
    return finish(list(pictures.values()), Counter(), skeleton, str(path), MPII.joints, MPII.limbs, MPII.pairs)


def write(labels: Labels, folder: Path, image_set: str) -> int:
    """Write annot/<set>.json: MPII's joints by name; what else there is cannot be kept, and is counted."""
    common = [joint for joint in MPII.joints if joint in labels.skeleton.joints]
    if not common:
        raise UserError(f"MPII's form has 16 joints of its own, and the skeleton {labels.skeleton.name} none of them")
    entries, lost = [], labels.left_out
    for picture in labels.pictures:
        for person in picture.persons:
            if not any(v for *_, v in person.points.values()):
                lost["persons without a labelled joint"] += 1
                continue
            lost["joints that MPII does not have"] += sum(joint not in MPII.joints for joint in person.points)
            lost["marks that a joint is hidden"] += sum(v == HIDDEN for *_, v in person.points.values())
            x, y, width, height = person.box or box_around(person, picture)
            lost["boxes that were not square (MPII has a centre and a height)"] += width != height
            scale = max(width, height) / PIXELS_PER_SCALE
            points = [person.points.get(joint, (-2, -2, 0)) for joint in MPII.joints]
            center = x + width / 2 + 1, y + height / 2 + 1 - CENTER_DROP * scale
            entries.append(
                {
                    "image": safe_name(picture.name),
                    "center": [plain(value) for value in center],
                    "scale": plain(scale),
                    "joints": [[plain(x + 1), plain(y + 1)] for x, y, _ in points],
                    "joints_vis": [int(v > 0) for *_, v in points],
                }
            )
    path = folder / "annot" / f"{image_set}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    return len(entries)


def part_of(path: Path, names: set[str], target: Path) -> list[dict]:
    """The file's own entries for the images of these names; gt_<set>.mat beside it is divided with them."""
    from scipy.io import loadmat, savemat

    entries = read_json(path)
    rows = [row for row, entry in enumerate(entries) if entry["image"] in names]
    truth = path.with_name(f"gt_{path.stem}.mat")
    if truth.is_file():
        try:
            content = loadmat(str(truth))
            arrays = {key: content[key][..., rows] for key in ("jnt_missing", "pos_gt_src", "headboxes_src")}
        except Exception as error:  # whatever scipy raises on a file that is damaged or another
            raise UserError(f"{truth} is not the ground truth of {path.name}: {error}") from None
        savemat(str(target.with_name(f"gt_{target.stem}.mat")), {"dataset_joints": content["dataset_joints"], **arrays})
    return [entries[row] for row in rows]
