"""Skeletons: mirrors and sides by name, and YAML files that say what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from simplepose.config.load import dump_config, load_config
from simplepose.core.errors import UserError
from simplepose.core.skeletons import COCO, MPII, load_skeleton, skeleton_from

ROOT = Path(__file__).resolve().parent.parent
FIVE = {
    "joints": ["nose", "left_eye", "right_eye", "left_ear", "right_ear"],
    "pairs": [["left_eye", "right_eye"], ["right_ear", "left_ear"]],
    "limbs": [["nose", "left_eye"]],
    "sigmas": 0.05,
}


def test_five_joints_by_hand(tmp_path):
    path = tmp_path / "face.yaml"
    path.write_text(yaml.safe_dump(FIVE))
    face = load_skeleton(path)
    assert face.name == "face"
    assert face.flip_permutation.tolist() == [0, 2, 1, 4, 3]
    assert face.sides == ("", "left", "right", "right", "left")  # as `pairs` says, not as the names begin
    assert face.limb_indices == ((0, 1),)
    assert face.sigmas == (0.05,) * 5


@pytest.mark.parametrize("skeleton", [MPII, COCO], ids=lambda skeleton: skeleton.name)
def test_the_built_in_skeletons_hold_together(skeleton):
    permutation = skeleton.flip_permutation
    np.testing.assert_array_equal(permutation[permutation], np.arange(skeleton.num_joints))
    for name, side in zip(skeleton.joints, skeleton.sides):
        assert name.startswith(side) if side else not name.startswith(("left", "right"))
    assert all(a != b for a, b in skeleton.limb_indices)
    assert len(skeleton.sigmas) in (0, skeleton.num_joints)


def test_a_definition_survives_json():
    assert skeleton_from(json.loads(json.dumps(COCO.definition())), "weights") == COCO


@pytest.mark.parametrize(
    ("name", "joints", "pairs"),
    [
        ("mpii-16", 16, 6), ("coco-17", 17, 8), ("lsp-14", 14, 6), ("crowdpose-14", 14, 6), ("aic-14", 14, 6),
        ("halpe-26", 26, 11), ("hand-21", 21, 0), ("ap10k-17", 17, 7), ("coco-wholebody-133", 133, 61),
    ],
)  # fmt: skip
def test_bundled_skeletons_are_known_by_name(name, joints, pairs):
    skeleton = load_skeleton(name)
    assert (skeleton.name, skeleton.num_joints, len(skeleton.pairs), len(skeleton.sigmas)) == (
        name, joints, pairs, joints,
    )  # fmt: skip
    assert skeleton.limbs
    assert all(a.lower()[0] == "l" and b.lower()[0] == "r" for a, b in skeleton.pairs if "face" not in a)


def test_bundled_skeletons_agree_with_the_built_in_ones():
    for name, built_in in (("mpii-16", MPII), ("coco-17", COCO)):
        bundled = load_skeleton(name)
        assert bundled.joints == built_in.joints and set(bundled.pairs) == set(built_in.pairs)
        assert {frozenset(limb) for limb in bundled.limbs} == {frozenset(limb) for limb in built_in.limbs}
    assert load_skeleton("coco-17").sigmas == COCO.sigmas
    whole, halpe = load_skeleton("coco-wholebody-133"), load_skeleton("halpe-26")
    assert whole.joints[:17] == halpe.joints[:17] == COCO.joints
    assert whole.joints[whole.flip_permutation[23]] == "face-16"  # the contour of the face, from ear to ear


def test_the_example_loads():
    assert load_skeleton(ROOT / "experiments/custom/cat_face.yaml").num_joints == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": None}, "joints must be a list of names, found None"),
        ({"joints": []}, "joints must be a list of names"),
        ({"joints": ["nose", 3]}, "joints must be a list of names"),
        ({"joints": FIVE["joints"] + ["nose"]}, "the joint 'nose' is there twice"),
        ({"pairs": [["left_eye", "right_ey"]]}, "pairs names 'right_ey', which is not one of the joints"),
        ({"pairs": [["left_eye"]]}, r"pairs must hold two different names each, found \['left_eye'\]"),
        ({"pairs": [["nose", "nose"]]}, "two different names"),
        ({"pairs": [["left_eye", "right_eye"], ["left_eye", "nose"]]}, "pairs has 'left_eye' twice"),
        ({"pairs": "left_eye"}, "pairs must be a list of"),
        ({"limbs": [["nose", "tail"]]}, "limbs names 'tail'"),
        ({"sigmas": [0.1, 0.1]}, "2 sigmas for 5 joints"),
        ({"sigmas": None}, "sigmas must be positive numbers .*found None"),
        ({"sigmas": [0.1, 0.1, 0, 0.1, 0.1]}, "sigmas must be positive numbers .*found 0"),
        ({"sigmas": float("nan")}, "sigmas must be positive numbers"),
        ({"sigmas": 1e308}, "sigmas must be positive numbers .*found 1e.308"),
        ({"joints": [f"joint {number}" for number in range(1001)]}, "1001 joints; a skeleton has at most 1000"),
        ({"joints": ["nose", "a\x1b[2J"]}, "joints must be a list of names"),
        ({"limbs": [["nose", {"left": "eye"}]]}, "limbs names {'left': 'eye'}"),
        ({"name": ["face"]}, "name must be text"),
        ({"flip_pairs": []}, "'flip_pairs' is not a key of a skeleton; its keys: name, joints"),
    ],
)
def test_mistakes_in_a_skeleton_are_named(tmp_path, change, message):
    path = tmp_path / "face.yaml"
    path.write_text(yaml.safe_dump({**FIVE, **change}))
    with pytest.raises(UserError, match=message) as caught:
        load_skeleton(path)
    assert "face.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("[", "not valid YAML"), ("- a", "holds no skeleton")])
def test_files_that_are_no_skeleton(tmp_path, text, message):
    path = tmp_path / "face.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_skeleton(path)


def test_the_configuration_takes_the_joint_count_from_the_skeleton(tmp_path):
    (tmp_path / "face.yaml").write_text(yaml.safe_dump(FIVE))
    experiment = tmp_path / "a.yaml"
    experiment.write_text("DATASET: {DATASET: coco}\nMODEL: {NUM_JOINTS: 17}")
    skeleton = f"DATASET.SKELETON={(tmp_path / 'face.yaml').as_posix()}"
    config = load_config(experiment, [skeleton])
    assert config.MODEL.NUM_JOINTS == 5
    # The configuration of a run holds the definition, not a path that may move.
    dumped = tmp_path / "dumped.yaml"
    dumped.write_text(dump_config(config))
    (tmp_path / "face.yaml").rename(tmp_path / "moved.yaml")
    assert load_config(dumped) == config
    assert load_config(dumped, ["DATASET.DATASET=mpii"]).MODEL.NUM_JOINTS == 16
    (tmp_path / "moved.yaml").rename(tmp_path / "face.yaml")
    with pytest.raises(UserError, match="the face skeleton has 5 joints"):
        load_config(experiment, [skeleton, "MODEL.NUM_JOINTS=17"])
    with pytest.raises(UserError, match="set DATASET.DATASET to coco"):
        load_config(experiment, [skeleton, "DATASET.DATASET=mpii"])
    with pytest.raises(UserError, match="no such skeleton file: none.yaml"):
        load_config(experiment, ["DATASET.SKELETON=none.yaml"])
