"""Annotations, augmentation and batches: the original's arithmetic, and the same figures at any worker count."""

from __future__ import annotations

import json
import math
import zipfile

import cv2
import numpy as np
import pytest

from simplepose.core.codecs.gaussian import HeatmapCodec, argmax_cells
from simplepose.core.errors import UserError
from simplepose.core.geometry import apply_affine
from simplepose.core.images import INPUT_FORMATS, read_image
from simplepose.core.skeletons import MPII
from simplepose.data.augment import Augmentation, AugmentationSettings, half_body, repaint, sample_augmentation
from simplepose.data.dataset import PoseDataset
from simplepose.data.loader import BatchLoader, BatchSampler
from simplepose.data.mpii import load_mpii
from simplepose.data.sample import PoseSample, select_well_framed
from simplepose.metrics.mean_pose import mean_pose, place_pose

CODEC = HeatmapCodec((64, 64), (16, 16), 1)


def write_annotations(root, entries, name="train"):
    (root / "annot").mkdir(parents=True, exist_ok=True)
    (root / "annot" / f"{name}.json").write_text(json.dumps(entries))


def entry(**changes):
    joints = [[10.0 + k, 20.0 + k] for k in range(16)]
    return {"image": "a.jpg", "center": [100, 80], "scale": 2.0, "joints": joints, "joints_vis": [1] * 16, **changes}


NAN = math.nan


def with_joint(value):
    """Sixteen joints, the y of number 7 as given."""
    return [[1, 2]] * 7 + [[1, value]] + [[1, 2]] * 8


def test_mpii_by_hand(tmp_path):
    write_annotations(tmp_path, [entry(), entry(center=[-1, 50])])
    first, second = load_mpii(tmp_path, "train")
    np.testing.assert_allclose(first.center, [99, 109])  # y: 80 + 15 * 2, then - 1 on both
    np.testing.assert_allclose(first.size, 500)  # 2 * 1.25 * 200
    np.testing.assert_allclose(first.joints[3], [12, 22])
    assert first.image.endswith("/images/a.jpg")
    np.testing.assert_allclose(second.center, [-2, 49])  # an unknown centre is neither dropped nor padded
    np.testing.assert_allclose(second.size, 400)


def test_a_test_set_carries_no_joints(tmp_path):
    write_annotations(tmp_path, [{"image": "a.jpg", "center": [5, 5], "scale": 1}], "test")
    assert not load_mpii(tmp_path, "test")[0].visible.any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "holds a dict, expected a list"),
        ("[]", "holds no persons"),
        ([{"image": "a.jpg"}], "entry 0 has no 'center'"),
        ([entry(joints=[[0, 0]] * 17, joints_vis=[1] * 17)], "entry 0: joints is a list of 17, expected 16 x 2"),
        ([entry(), entry(scale="big")], "entry 1: scale is 'big'"),
        ([entry(scale=0)], "scale is 0"),
        ([entry(scale=1e308)], "scale is 1e\\+308"),
        ([entry(scale=10**400)], "scale is 10000.*"),
        ([entry(center=[1])], "center is a list of 1, expected 2 numbers"),
        ([entry(center={"x": 1})], "center is {'x': 1}"),
        (["a"], "entry 0 is 'a'"),
        ([entry(), entry(joints=with_joint(NAN))], r"entry 1: joints\[7\]\[1\] is nan"),
        ([entry(joints=with_joint(None))], r"joints\[7\]\[1\] is None"),
        ([entry(joints=with_joint(-math.inf))], r"joints\[7\]\[1\] is -inf"),
        ([entry(joints=with_joint(10**400))], r"joints\[7\]\[1\] is 1000"),
        ([entry(joints=[[1, 2], 3] * 8)], r"joints\[1\] is 3, expected 2 numbers"),
        ([entry(joints=[[1] * 16] * 2)], "joints is a list of 2"),
        ([entry(joints_vis=[1] * 15 + [NAN])], r"joints_vis\[15\] is nan"),
        ([entry(joints_vis=[2] * 16)], r"joints_vis\[0\] is 2, expected a number from 0 to 1"),
        ([entry(image=None)], "entry 0 names the image None"),
        (
            [entry(), entry(image="../../secret.jpg")],
            r"entry 1 names the image '../../secret.jpg', .*ROOT",
        ),
    ],
)
def test_malformed_annotations_are_named(tmp_path, content, message):
    (tmp_path / "annot").mkdir()
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "annot" / "train.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        load_mpii(tmp_path, "train")
    assert "train.json" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_set_whose_name_ends_in_test_keeps_its_labels(tmp_path):
    write_annotations(tmp_path, [entry()], "latest")
    assert load_mpii(tmp_path, "latest")[0].visible.all()


def test_images_beside_the_images_folder_may_be_named(tmp_path):
    write_annotations(tmp_path, [entry(image="../more..images/a.jpg")])
    assert load_mpii(tmp_path, "train")[0].image.endswith("images/../more..images/a.jpg")


def test_missing_annotations_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no such annotation file: .*DATASET\.TEST_SET"):
        load_mpii(tmp_path, "train")


def test_zip_format_reads_the_same_crops(bundled, tmp_path):
    (tmp_path / "annot").mkdir()
    (tmp_path / "annot" / "train.json").write_bytes((bundled / "annot" / "train.json").read_bytes())
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for image in (bundled / "images").iterdir():
            archive.write(image, image.name)
    loose, zipped = load_mpii(bundled, "train"), load_mpii(tmp_path, "train", "zip")
    for a, b in zip(loose, zipped):
        np.testing.assert_array_equal(read_image(a.image), read_image(b.image))
    with pytest.raises(UserError, match="no member 'none.jpg'"):
        read_image(f"{tmp_path}/images.zip@none.jpg")


def test_augmentation_follows_the_originals_distribution():
    rng = np.random.default_rng(0)
    drawn = [sample_augmentation(rng, AugmentationSettings(0.25, 30)) for _ in range(4000)]
    scales = np.array([a.scale for a in drawn])
    angles = np.array([a.rotation_deg for a in drawn])
    assert (scales.min(), scales.max()) == (0.75, 1.25)
    # Clipped at one deviation: 31.7% of a normal distribution lies beyond, half on each side.
    assert np.mean(scales == 0.75) == pytest.approx(0.159, abs=0.02)
    assert np.mean(angles == 0) == pytest.approx(0.4, abs=0.03)
    assert np.abs(angles).max() == 60
    assert angles[angles != 0].std() == pytest.approx(30, rel=0.08)
    assert np.mean([a.flip for a in drawn]) == pytest.approx(0.5, abs=0.03)
    assert not any(sample_augmentation(rng, AugmentationSettings(0.25, 30, flip=False)).flip for _ in range(50))


def dataset_of(bundled, augmentation=None, seed=0):
    return PoseDataset(load_mpii(bundled, "train"), MPII, CODEC, INPUT_FORMATS["bgr"], augmentation, seed)


def test_a_flipped_crop_keeps_every_joint_on_its_pixel(tmp_path):
    # Sixteen spots of different brightness: wherever augmentation puts them, label k must sit on spot k's mirror twin.
    image = np.zeros((200, 200, 3), np.uint8)
    joints = np.array([[40 + 40 * (k % 4), 40 + 40 * (k // 4)] for k in range(16)], float)
    for k, (x, y) in enumerate(joints):
        cv2.circle(image, (int(x), int(y)), 5, (100 + 10 * k,) * 3, -1)
    cv2.imwrite(str(tmp_path / "spots.png"), image)
    sample = PoseSample(str(tmp_path / "spots.png"), np.array([95.0, 105.0]), np.full(2, 220.0), joints, np.ones(16))
    codec = HeatmapCodec((256, 256), (64, 64), 2)
    dataset = PoseDataset([sample], MPII, codec, INPUT_FORMATS["bgr"], AugmentationSettings(0.2, 40))
    flips = set()
    for epoch in range(12):
        crop, moved, _, affine = dataset.load_crop(0, epoch)
        flipped = np.linalg.det(affine[:, :2]) < 0
        flips.add(bool(flipped))
        owner = MPII.flip_permutation if flipped else np.arange(16)
        for k, (x, y) in enumerate(np.rint(moved).astype(int)):
            if 0 <= x < 256 and 0 <= y < 256:
                assert abs(int(crop[y, x, 0]) - (100 + 10 * owner[k])) <= 2
    assert flips == {True, False}


def test_a_mirrored_crop_is_the_crops_mirror_image_where_data_are_unbiased(tmp_path, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "noise.png"), image)
    joints = np.random.default_rng(1).uniform(10, 80, (16, 2))
    sample = PoseSample(str(tmp_path / "noise.png"), np.array([60.0, 45.0]), np.full(2, 63.0), joints, np.ones(16))
    shifts = {}
    for unbiased in (True, False):
        dataset = PoseDataset([sample], MPII, HeatmapCodec((64, 64), (16, 16), 1, unbiased), INPUT_FORMATS["bgr"])
        dataset.augmentation = AugmentationSettings()
        answers = []
        for flip in (False, True):
            monkeypatch.setattr("simplepose.data.dataset.sample_augmentation", lambda *_, f=flip: Augmentation(flip=f))
            answers.append(dataset.load_crop(0))
        (crop, plain, _, _), (mirrored, moved, _, _) = answers
        shifts[unbiased] = (63 - moved[MPII.flip_permutation, 0] - plain[:, 0]).round(9)
        if unbiased:
            np.testing.assert_array_equal(mirrored[:, ::-1], crop)
    assert set(shifts[True]) == {0.0} and set(shifts[False]) == {-1.0}  # the original is a pixel off


def test_each_augmentation_is_drawn_for_itself_and_within_its_bounds():
    every = AugmentationSettings(0.25, 30, True, 0.1, 0.3, 0.2, 0.4)
    plain = AugmentationSettings()
    drawn = [sample_augmentation(np.random.default_rng(seed), every) for seed in range(2000)]
    before = [sample_augmentation(np.random.default_rng(seed), plain) for seed in range(2000)]
    for new, old in zip(drawn, before):  # what the original draws stays as it is
        assert (new.scale, new.rotation_deg, new.flip) == (old.scale, old.rotation_deg, old.flip)
        assert (old.shift, old.half_body, old.colors, old.occlusion) == ((0, 0), "", None, None)
    shifts = np.array([a.shift for a in drawn])
    assert 0.09 < np.abs(shifts).max() <= 0.1 and abs(shifts.mean()) < 0.005
    halves = [a.half_body for a in drawn]
    assert np.mean([bool(half) for half in halves]) == pytest.approx(0.3, abs=0.03)
    assert halves.count("upper") / halves.count("lower") == pytest.approx(1, abs=0.2)
    gain, offset = np.stack([a.colors for a in drawn]).transpose(1, 0, 2)
    assert 0.8 <= gain.min() < 0.81 and 1.19 < gain.max() <= 1.2 and 25 < offset.max() <= 25.5
    hidden = [a.occlusion for a in drawn if a.occlusion is not None]
    assert len(hidden) / 2000 == pytest.approx(0.4, abs=0.03)
    left, top, wide, high = np.stack(hidden)[:, :4].T
    assert min(left.min(), top.min()) >= 0 and max((left + wide).max(), (top + high).max()) <= 1


def test_repainting_by_hand():
    crop = np.full((10, 10, 3), 100, np.uint8)
    colors = np.array([[1.0, 1.5, 3.0], [10.0, -20.0, 0.0]])
    occlusion = np.array([0.2, 0.4, 0.3, 0.1, 1.0, 2.0, 3.0])
    painted = repaint(crop.copy(), Augmentation(colors=colors, occlusion=occlusion))
    assert painted[0, 0].tolist() == [110, 130, 255]
    covered = (painted == (1, 2, 3)).all(axis=2)
    assert covered[4, 2:5].all() and covered.sum() == 3
    np.testing.assert_array_equal(repaint(crop, Augmentation()), 100)


def test_half_a_body_by_hand():
    joints = np.zeros((16, 2))
    joints[~MPII.lower_body] = [[10 + 10 * (k % 3), 20 + 10 * (k // 3)] for k in range((~MPII.lower_body).sum())]
    joints[MPII.lower_body] = [[100, 100 + 20 * k] for k in range(MPII.lower_body.sum())]
    visible = np.ones(16)
    center, width = half_body(joints, visible, MPII.lower_body, "upper", 1.0)
    np.testing.assert_allclose(center, [20, 30])  # nine joints: x 10 to 30, y 20 to 40
    assert width == 20 * 1.5
    center, width = half_body(joints, visible, MPII.lower_body, "lower", 0.5)  # a line of 120 high
    np.testing.assert_allclose([*center, width], [100, 160, 120 * 0.5 * 1.5])
    few = visible * ~MPII.lower_body
    few[0] = 1
    assert half_body(joints, few, MPII.lower_body, "lower", 1.0)[1] == 30  # one joint is no half: the other one
    few[np.flatnonzero(~MPII.lower_body)[:4]] = 0
    assert half_body(joints, few, MPII.lower_body, "upper", 1.0) is None


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_same_at_any_worker_count(bundled, workers):
    dataset = dataset_of(bundled, AugmentationSettings())
    sampler = BatchSampler(len(dataset), 4, shuffle=True, seed=7)
    for epoch in range(2):
        alone = list(BatchLoader(dataset, sampler, 0).epoch(epoch))
        together = list(BatchLoader(dataset, sampler, workers).epoch(epoch))
        assert len(alone) == len(together) == 4
        for a, b in zip(alone, together):
            for name in vars(a):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_seed_and_epoch_decide_the_augmentation(bundled):
    crops = {
        (seed, epoch): dataset_of(bundled, AugmentationSettings(), seed).load_batch([0, 1], epoch).images.tobytes()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len(set(crops.values())) == 4
    again = dataset_of(bundled, AugmentationSettings(), 1).load_batch([0, 1], 1).images.tobytes()
    assert again == crops[1, 1]


def test_batch_leads_back_to_the_annotation(bundled):
    dataset = dataset_of(bundled)
    batch = dataset.load_batch(range(len(dataset)))
    cells, _ = argmax_cells(batch.heatmaps)
    found = apply_affine(batch.to_image, cells * CODEC.stride_xy)
    for row, sample in enumerate(dataset.samples):
        drawn = batch.heatmaps[row].max(axis=(1, 2)) == 1
        limit = sample.size[0] / 64 * 2 * np.sqrt(2) + 1e-6  # half a cell on each axis, in image pixels
        assert np.linalg.norm(found[row] - sample.joints, axis=1)[drawn].max() <= limit


@pytest.mark.parametrize(("length", "ranks"), [(10, 1), (10, 3), (2, 4), (7, 2)])
def test_ranks_share_an_epoch_and_miss_nobody(length, ranks):
    samplers = [BatchSampler(length, 2, True, 5, rank, ranks) for rank in range(ranks)]
    rows = [[row for batch in sampler.batches(3) for row in batch] for sampler in samplers]
    assert len({len(share) for share in rows}) == 1
    assert {row for share in rows for row in share} == set(range(length))
    assert all(len(sampler) == len(sampler.batches(3)) for sampler in samplers)


def test_an_error_in_a_worker_arrives_as_itself(bundled, tmp_path):
    dataset = dataset_of(bundled)
    dataset.samples[9] = PoseSample(str(tmp_path / "gone.jpg"), np.zeros(2), np.ones(2), np.zeros((16, 2)), np.ones(16))
    with pytest.raises(UserError, match=r"no such image: .*gone\.jpg"):
        list(BatchLoader(dataset, BatchSampler(15, 4, False), 2).epoch())


def test_select_data_by_hand():
    def sample(offset):
        joints = np.full((16, 2), 100.0)
        return PoseSample("", np.array([100.0 + offset, 100]), np.full(2, 100.0), joints, np.ones(16))

    # 16 joints: the bar is 0.6375; exp(-d^2 / (2 * 0.04 * 10000)) falls to it at d = 18.98.
    assert [s.center[0] for s in select_well_framed([sample(18.9), sample(19.1)])] == [118.9]
    hidden = PoseSample("", np.zeros(2), np.ones(2), np.zeros((16, 2)), np.zeros(16))
    assert select_well_framed([hidden]) == []


def test_mean_pose_by_hand():
    def sample(center, width, joint, visible):
        return PoseSample("", np.array(center, float), np.full(2, width), np.array([joint], float), np.array([visible]))

    train = [sample([0, 0], 10, [5, 0], 1), sample([10, 10], 20, [10, 20], 1), sample([0, 0], 1, [99, 99], 0)]
    np.testing.assert_allclose(mean_pose(train), [[0.25, 0.25]])
    np.testing.assert_allclose(place_pose(mean_pose(train), [sample([100, 50], 40, [0, 0], 1)]), [[[110, 60]]])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "no such image"),
        (lambda p: p.write_bytes(b""), "is empty"),
        (lambda p: p.write_bytes(b"not an image"), "not an image that OpenCV can read"),
        (lambda p: p.mkdir(), "is a folder"),
    ],
)
def test_unreadable_images_are_named(tmp_path, make, message):
    path = tmp_path / "picture.jpg"
    make(path)
    with pytest.raises(UserError, match=message):
        read_image(path)


def test_a_truncated_jpeg_is_refused_not_read_as_grey(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(data)
    assert read_image(path).shape == (200, 300, 3)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(UserError, match="truncated JPEG"):
        read_image(path)


def test_non_ascii_paths_and_grey_images(tmp_path):
    path = tmp_path / "照片 é.png"
    path.write_bytes(cv2.imencode(".png", np.full((4, 5), 7, np.uint8))[1].tobytes())
    np.testing.assert_array_equal(read_image(path), np.full((4, 5, 3), 7))
