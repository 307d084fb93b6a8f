"""Skeletons: which joints there are, which mirror each other, which are joined by a limb.

Everything that depends on a joint set (flip test, augmentation, drawing, scores) reads it from here. A skeleton of
your own is a YAML file (DATASET.SKELETON); `Skeleton.definition` and `skeleton_from` are its two directions.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from simplepose.core.errors import UserError, has_control, shown
from simplepose.core.files import read_yaml

MAX_JOINTS = 1000  # one heatmap each; a network of more would not fit in memory
MAX_NAME = 100  # characters
SIGMAS = (1e-4, 10.0)  # COCO's are 0.025 to 0.107
LOWER_BODY = ("pelvis", "hip", "knee", "ankle", "foot", "heel", "toe")  # parts of joint names


@dataclass(frozen=True)
class Skeleton:
    """A set of K joints.

    Attributes:
        name: as in DATASET.DATASET, or the YAML file's own.
        joints: K names, in the order of the heatmaps.
        pairs: (left, right) names that a mirror exchanges.
        limbs: (name, name) to draw.
        sigmas: K fall-offs of COCO's object keypoint similarity, or empty where a data set has none.
    """

    name: str
    joints: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    limbs: tuple[tuple[str, str], ...]
    sigmas: tuple[float, ...] = ()

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @cached_property
    def flip_permutation(self) -> np.ndarray:
        """(K,) joint indices after a mirror: `mirrored[k]` is the joint that lands in place k."""
        permutation = np.arange(len(self.joints))
        for left, right in self.pairs:
            left_index, right_index = self.joints.index(left), self.joints.index(right)
            permutation[[left_index, right_index]] = right_index, left_index
        return permutation

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """The side of each joint as `pairs` has it: "left", "right", or "" for the middle."""
        side_of = {name: side for pair in self.pairs for name, side in zip(pair, ("left", "right"))}
        return tuple(side_of.get(name, "") for name in self.joints)

    @cached_property
    def lower_body(self) -> np.ndarray:
        """(K,) bool: which joints are of the lower body, by their names."""
        return np.array([any(part in name.lower() for part in LOWER_BODY) for name in self.joints])

    @cached_property
    def limb_indices(self) -> tuple[tuple[int, int], ...]:
        """`limbs` as joint indices."""
        return tuple((self.joints.index(a), self.joints.index(b)) for a, b in self.limbs)

    def definition(self) -> dict[str, Any]:
        """The skeleton in plain lists, as its YAML file holds it; `skeleton_from` reads it back."""
        return {
            "name": self.name,
            "joints": list(self.joints),
            "pairs": [list(pair) for pair in self.pairs],
            "limbs": [list(limb) for limb in self.limbs],
            "sigmas": list(self.sigmas),
        }


def _left_right(*parts: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"left_{part}", f"right_{part}") for part in parts)


MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle",
        "right_knee",
        "right_hip",
        "left_hip",
        "left_knee",
        "left_ankle",
        "pelvis",
        "thorax",
        "upper_neck",
        "head_top",
        "right_wrist",
        "right_elbow",
        "right_shoulder",
        "left_shoulder",
        "left_elbow",
        "left_wrist",
    ),
    pairs=_left_right("ankle", "knee", "hip", "wrist", "elbow", "shoulder"),
    limbs=(
        ("head_top", "upper_neck"),
        ("upper_neck", "thorax"),
        ("thorax", "pelvis"),
        ("thorax", "right_shoulder"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("thorax", "left_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("pelvis", "right_hip"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
        ("pelvis", "left_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
    ),
)

COCO = Skeleton(
    name="coco",
    joints=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
    ),
    pairs=_left_right("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
    limbs=(
        ("nose", "left_eye"),
        ("nose", "right_eye"),
        ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
        ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"),
        ("left_hip", "right_hip"),
        ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"),
        ("right_hip", "right_knee"),
        ("right_knee", "right_ankle"),
    ),
    # From the COCO keypoint challenge's evaluation page.
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
        0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip

BUNDLED = Path(__file__).with_name("skeletons.yaml")

SKELETONS = {skeleton.name: skeleton for skeleton in (MPII, COCO)}


def bundled_skeletons() -> dict[str, dict[str, Any]]:
    """Name -> definition of the skeletons that come with the package, as `skeleton_from` takes them."""
    definitions = read_yaml(BUNDLED, "skeleton")
    for name, definition in definitions.items():
        joints = definition["joints"]
        for key in ("pairs", "limbs"):
            definition[key] = [[joints[a], joints[b]] for a, b in definition.get(key) or ()]
        if not definition["pairs"]:
            mirrored = {joint: joint.replace("left_", "right_", 1).replace("L_", "R_", 1) for joint in joints}
            definition["pairs"] = [[a, b] for a, b in mirrored.items() if a != b and b in joints]
        definition["name"] = name
    return definitions


def load_skeleton(path: str | os.PathLike) -> Skeleton:
    """Read a skeleton from a YAML file: `joints` and `sigmas`, and if there are any `pairs`, `limbs` and a `name`.

    The name of one in `BUNDLED`, as "halpe-26", stands for that.

    Raises:
        UserError: missing file, not YAML, or an inconsistent definition.
    """
    if not Path(path).suffix and str(path) in (bundled := bundled_skeletons()):
        return skeleton_from(bundled[str(path)], str(path))
    definition = read_yaml(path, "skeleton")
    if not isinstance(definition, dict):
        raise UserError(f"{path} holds no skeleton: expected joints, sigmas, pairs and limbs")
    return skeleton_from({"name": Path(path).stem, **definition}, str(path))


def skeleton_from(definition: Any, where: str, needs_sigmas: bool = True) -> Skeleton:
    """The skeleton of a definition as in a YAML file.

    Args:
        definition: `name`; `joints`, names in the order of the annotations; `sigmas`, one number per joint or one
            for all; `pairs` as [left, right] and `limbs` as [one end, other end], by name, may be missing.
        where: the file, for messages.
        needs_sigmas: False: they may be missing, as for a network that is run but not scored.

    Raises:
        UserError: an unknown key, a missing or repeated joint, a name that is no joint, a sigma that is not positive.
    """
    if not isinstance(definition, dict):
        raise UserError(f"{where}: a skeleton has {', '.join(_KEYS)}, found {shown(definition)}")
    unknown = [key for key in definition if key not in _KEYS]
    if unknown:
        raise UserError(f"{where}: {shown(unknown[0])} is not a key of a skeleton; its keys: {', '.join(_KEYS)}")
    name, joints = definition.get("name"), definition.get("joints")
    if not _is_name(str(name)) or isinstance(name, (dict, list, tuple)):
        raise UserError(f"{where}: name must be text of at most {MAX_NAME} characters, found {shown(name)}")
    if not isinstance(joints, (list, tuple)) or not joints or not all(_is_name(joint) for joint in joints):
        raise UserError(f"{where}: joints must be a list of names, found {shown(joints)}")
    if len(joints) > MAX_JOINTS:
        raise UserError(f"{where}: {len(joints)} joints; a skeleton has at most {MAX_JOINTS}")
    repeated = _repeated(joints)
    if repeated is not None:
        raise UserError(f"{where}: the joint {repeated!r} is there twice")
    pairs = _name_pairs("pairs", definition.get("pairs") or (), joints, where)
    repeated = _repeated([name for pair in pairs for name in pair])
    if repeated is not None:
        raise UserError(f"{where}: pairs has {repeated!r} twice; a joint mirrors one other")
    sigmas = definition.get("sigmas")
    return Skeleton(
        name=str(name),
        joints=tuple(joints),
        pairs=pairs,
        limbs=_name_pairs("limbs", definition.get("limbs") or (), joints, where),
        sigmas=() if not needs_sigmas and sigmas == [] else _sigmas(sigmas, len(joints), where),
    )


_KEYS = ("name", "joints", "sigmas", "pairs", "limbs")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and not has_control(value)


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _name_pairs(key: str, written: Any, joints: Sequence[str], where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(written, (list, tuple)):
        raise UserError(f"{where}: {key} must be a list of [name, name], found {shown(written)}")
    if len(written) > 10 * MAX_JOINTS:
        raise UserError(f"{where}: {len(written)} {key}; a skeleton has at most {10 * MAX_JOINTS}")
    known = set(joints)
    for pair in written:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or pair[0] == pair[1]:
            raise UserError(f"{where}: {key} must hold two different names each, found {shown(pair)}")
        for name in pair:
            if not isinstance(name, str) or name not in known:
                raise UserError(f"{where}: {key} names {shown(name)}, which is not one of the joints")
    return tuple((first, second) for first, second in written)


def _sigmas(written: Any, num_joints: int, where: str) -> tuple[float, ...]:
    sigmas = written if isinstance(written, (list, tuple)) else [written] * num_joints
    if len(sigmas) != num_joints:
        raise UserError(f"{where}: {len(sigmas)} sigmas for {num_joints} joints; give one each, or one number for all")
    low, high = SIGMAS
    for sigma in sigmas:
        if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not low <= sigma <= high:
            raise UserError(
                f"{where}: sigmas must be positive numbers ({low:g} to {high:g}), found {shown(sigma)}; "
                "0.05 for all is a fair start"
            )
    return tuple(float(sigma) for sigma in sigmas)
