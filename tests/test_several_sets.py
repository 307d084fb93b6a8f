"""Training on several data sets with different joints: mapped by name, and what a set lacks is out of the loss."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from mini_coco import COCO_FROM_MPII, write_mini_coco
from tiny import experiment

from simplepose.build.data import build_train_loader, build_train_samples, build_valid_samples
from simplepose.config.load import dump_config, load_config
from simplepose.core.errors import UserError
from simplepose.core.skeletons import COCO, MPII, Skeleton
from simplepose.data.sample import PoseSample, with_joints_of

LACKING = [MPII.joints.index(name) for name in ("pelvis", "thorax", "upper_neck", "head_top")]  # in COCO


def test_joints_are_mapped_by_name():
    own = Skeleton("own", ("tail", "left_hip", "right_hip"), (("left_hip", "right_hip"),), ())
    wanted = Skeleton("wanted", ("right_hip", "nose", "left_hip"), (("left_hip", "right_hip"),), ())
    sample = PoseSample("a.jpg", np.zeros(2), np.ones(2), np.array([[1, 2], [3, 4], [5, 6]]), np.float32([1, 1, 0]))
    (mapped,) = with_joints_of([sample], own, wanted)
    assert mapped.visible.tolist() == [0, 0, 1] and mapped.visible.dtype == np.float32
    assert mapped.joints[[0, 2]].tolist() == [[5, 6], [3, 4]]


@pytest.fixture
def config_file(bundled, tmp_path):
    """An experiment on the bundled set, and on two pictures in COCO's form."""
    write_mini_coco(tmp_path / "coco", COCO, COCO_FROM_MPII, {"train2017": 2})
    written = experiment()
    first = {**written["DATASET"], "ROOT": str(bundled), "ROT_FACTOR": 0, "SCALE_FACTOR": 0, "FLIP": False}
    written["DATASET"] = [first, {"DATASET": "coco", "ROOT": str(tmp_path / "coco"), "TRAIN_SET": "train2017"}]
    path = tmp_path / "both.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def test_both_sets_are_trained_on_and_one_is_validated_on(config_file, tmp_path):
    config = load_config(config_file)
    samples = build_train_samples(config)
    assert len(build_valid_samples(config)) == 8
    assert [("coco" in sample.image) for sample in samples] == [False] * 15 + [True] * 3
    for sample in samples[15:]:
        assert not sample.visible[LACKING].any() and sample.visible.sum() > 6
    loader = build_train_loader(config)
    rows = np.concatenate([batch.indices for batch in loader.epoch(0)])
    assert sorted(rows) == list(range(18))
    batch = loader.dataset.load_batch([16])
    assert (batch.weights[0] == samples[16].visible).all()
    saved = tmp_path / "config.yaml"
    saved.write_text(dump_config(config))
    assert load_config(saved) == config


def test_a_flipped_person_of_another_set_keeps_left_and_right(config_file):
    """COCO's left wrist, mirrored, is the right wrist of a network with MPII's joints."""
    config = load_config(config_file, ["DATASET.FLIP=true"])
    dataset = build_train_loader(config).dataset
    left, right = MPII.joints.index("left_shoulder"), MPII.joints.index("right_shoulder")
    flipped = 0
    for epoch in range(8):
        _, joints, _, affine = dataset.load_crop(16, epoch)
        mirrored = np.linalg.det(affine[:, :2]) < 0
        own = dataset.samples[16].joints[[right, left] if mirrored else [left, right]]
        assert np.allclose(joints[[left, right]], own @ affine[:, :2].T + affine[:, 2])
        flipped += mirrored
    assert 0 < flipped < 8


@pytest.mark.parametrize(
    "override, message",
    [
        ("DATASET.MORE=[{DATASET: coco, FLIP: false}]", "'FLIP' is set for another data set than the first"),
        ("DATASET.MORE={DATASET: coco}", "DATASET.MORE must be a list of sets"),
        ("DATASET.MORE=[{DATASET: lsp}]", "DATASET.DATASET must be one of mpii, coco"),
        ("LOSS.USE_TARGET_WEIGHT=false", "would be taught to be nowhere"),
        ("DATASET.MORE=[{DATASET: coco, SKELETON: {name: paw, joints: [a], sigmas: 0.1}}]", "none of whose joints"),
    ],
)
def test_mistakes_are_named(config_file, override, message):
    with pytest.raises(UserError, match=message):
        load_config(config_file, [override])
