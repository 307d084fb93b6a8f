"""Left and right read off joint names: `left_eye`, `L.Eye`, `eyeR`, `左眼`; and a skeleton made of a list of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from simplepose.core.skeletons import COCO, MPII, Skeleton, skeleton_from

SIDES = {"left": "left", "l": "left", "左": "left", "right": "right", "r": "right", "右": "right"}
# words of a name: LEFT_Eye, leftEye, LEye, eye2; any other script is cut off from Latin letters
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
USUAL_SIGMA = 0.05  # where no published value is known for a joint of this name


def side_and_rest(name: str) -> tuple[str, str]:
    """("left", "eye") of "Left Eye"; the side is "" where the name has none, or both."""
    words = [word.lower() for word in _WORDS.findall(name)]
    found = [place for place, word in enumerate(words) if word in SIDES]
    if len(found) == 1:
        return SIDES[words[found[0]]], " ".join(words[: found[0]] + words[found[0] + 1 :])
    text = " ".join(words)
    for mark in ("left", "right", "左", "右"):  # "lefteye", "左眼"
        if not found and text.startswith(mark):
            return SIDES[mark], text[len(mark) :]
    return "", text


def mirror_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """(left, right) names that differ in their side alone, in the order of the left ones."""
    places: dict[tuple[str, str], list[str]] = {}
    for name in names:
        places.setdefault(side_and_rest(name), []).append(name)
    pairs = []
    for (side, rest), found in places.items():
        others = places.get(("right", rest), []) if side == "left" else []
        if len(found) == len(others) == 1:
            pairs.append((found[0], others[0]))
    if not pairs:  # lwri, rwri: only where both are there
        known = set(names)
        pairs = [(n, "r" + n[1:]) for n in names if n[:1] == "l" and len(n) > 1 and "r" + n[1:] in known]
    return pairs


def skeleton_of(
    name: str,
    joints: Sequence[str],
    pairs: Sequence[Sequence[str]] | None = None,
    limbs: Sequence[Sequence[str]] = (),
    where: str = "the joints",
) -> Skeleton:
    """A skeleton of these joints; whatever is not given is taken from their names.

    Pairs come from left and right in the names; limbs and OKS fall-offs from COCO or MPII where they have joints of
    these names, else there are no limbs and the fall-off is `USUAL_SIGMA`.
    """
    plain = {plain_name(joint): joint for joint in joints}
    sigmas = dict(zip(COCO.joints, COCO.sigmas))
    if not limbs:
        source = max((COCO, MPII), key=lambda known: len(plain.keys() & set(known.joints)))
        limbs = [(plain[a], plain[b]) for a, b in source.limbs if a in plain and b in plain]
    definition = {
        "name": name,
        "joints": list(joints),
        "pairs": [list(pair) for pair in (mirror_pairs(joints) if pairs is None else pairs)],
        "limbs": [list(limb) for limb in limbs],
        "sigmas": [sigmas.get(plain_name(joint), USUAL_SIGMA) for joint in joints],
    }
    return skeleton_from(definition, where)


def plain_name(name: str) -> str:
    """As COCO and MPII write it: "Left Wrist", "L_Wrist" and "left-wrist" are left_wrist."""
    side, rest = side_and_rest(name)
    return "_".join(filter(None, (side, *rest.split())))
