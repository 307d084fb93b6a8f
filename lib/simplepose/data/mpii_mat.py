"""MPII's official annotation, mpii_human_pose_v1_u12_1.mat, as the JSON files and gt_valid.mat of the original release.

A person needs joints, a position (objpos) and a scale; images with `img_train` 0 are the test set. Which training
images validate is no part of that file: they are those of Tompson et al. (CVPR 2015), whose names are in
mpii_valid_images.txt (2,729 images, 2,958 persons), in the order of the published list.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.skeletons import MPII
from simplepose.data.mat_files import read_mat

JOINT_NAMES = (  # of gt_valid.mat
    "rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head",
    "rwri", "relb", "rsho", "lsho", "lelb", "lwri",
)  # fmt: skip
ORIGINAL = {"train": 22246, "valid": 2958}  # persons of the original JSON files


def read_release(
    path: str | Path, progress: Callable[[Iterable], Iterable] = iter
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[np.ndarray]], Counter]:
    """Read the official file.

    Returns:
        set (train, valid, trainval, test) -> its persons in MPII's JSON form; "valid" -> its head boxes (2, 2), two
        opposite corners; and what was left out.

    Raises:
        UserError: not that file.
    """
    what = "MPII's annotation, with RELEASE.annolist"
    return read_mat(path, "RELEASE", what, lambda release: _sets(release, progress))


def _sets(release: Any, progress: Callable[[Iterable], Iterable]) -> tuple[dict, dict, Counter]:
    images, is_train = np.atleast_1d(release.annolist), np.atleast_1d(release.img_train)
    if len(images) != len(is_train):
        raise ValueError(f"{len(images)} images, and {len(is_train)} entries of img_train")
    order = {name: place for place, name in enumerate(valid_images())}
    sets: dict[str, list] = {"train": [], "valid": [], "test": []}
    left_out: Counter = Counter()
    for image, trains in zip(progress(images), is_train):
        name = str(image.image.name)
        image_set = "test" if not trains else "valid" if Path(name).stem in order else "train"
        for person in np.atleast_1d(getattr(image, "annorect", [])):
            entry, fault = _person(person, name, image_set == "test")
            if fault:
                left_out[f"persons of {'test' if image_set == 'test' else 'training'} images {fault}"] += 1
            else:
                sets[image_set].append((entry, _head_box(person)))
    sets["valid"].sort(
        key=lambda found: order[Path(found[0]["image"]).stem]
    )  # stable: persons of an image stay in order
    head_boxes = {"valid": [box for _, box in sets["valid"]]}
    entries = {image_set: [entry for entry, _ in found] for image_set, found in sets.items()}
    entries["trainval"] = entries["train"] + entries["valid"]
    return entries, head_boxes, left_out


def valid_images() -> list[str]:
    """Names, without .jpg, of the validation images."""
    return Path(__file__).with_name("mpii_valid_images.txt").read_text().split()


def _person(person: Any, image: str, is_test: bool) -> tuple[dict[str, Any], str]:
    """A person in JSON form, or why there is none."""
    position, scale = getattr(person, "objpos", None), getattr(person, "scale", None)
    if not hasattr(position, "x") or not isinstance(scale, (int, float)):
        return {}, "without a position or a scale"
    place = {"image": image, "scale": round(float(scale), 6), "center": [float(position.x), float(position.y)]}
    if is_test:
        return place, ""
    points = np.atleast_1d(getattr(getattr(person, "annopoints", None), "point", []))
    if not len(points):
        return {}, "without joints"
    joints, visible = [[-1.0, -1.0] for _ in MPII.joints], [0] * MPII.num_joints
    for point in points:  # is_visible tells hidden from seen joints; the original takes both as labelled
        joints[int(point.id)] = [round(float(point.x), 4), round(float(point.y), 4)]
        visible[int(point.id)] = 1
    return {"joints_vis": visible, "joints": joints, **place}, ""


def _head_box(person: Any) -> np.ndarray:
    """Two opposite corners, (2, 2); zeros where there is none."""
    corners = [getattr(person, name, 0.0) for name in ("x1", "y1", "x2", "y2")]
    return np.array([value if isinstance(value, (int, float)) else 0.0 for value in corners]).reshape(2, 2)


def write_ground_truth(path: Path, entries: list[dict[str, Any]], head_boxes: list[np.ndarray], origin: str) -> None:
    """Write gt_valid.mat for the entries of valid.json: 1-based, missing joints (0, 0) with jnt_missing 1.

    Args:
        head_boxes: of each, (2, 2), two opposite corners, 1-based.
        origin: what the file's header says.
    """
    from scipy.io import savemat

    joints = np.array([entry["joints"] for entry in entries], float)  # (N, 16, 2)
    missing = np.array([entry["joints_vis"] for entry in entries]) == 0  # (N, 16)
    joints[missing] = 0
    names = np.empty((1, len(JOINT_NAMES)), object)
    names[0, :] = JOINT_NAMES
    buffer = io.BytesIO()
    savemat(
        buffer,
        {
            "dataset_joints": names,
            "jnt_missing": missing.T.astype(np.uint8),  # (16, N)
            "pos_gt_src": joints.transpose(1, 2, 0),  # (16, 2, N)
            "headboxes_src": np.stack(head_boxes, axis=-1),  # (2, 2, N)
        },
    )
    header = f"MATLAB 5.0 MAT-file, {origin}".encode().ljust(116)  # savemat writes the current time there
    path.write_bytes(header + buffer.getvalue()[116:])
