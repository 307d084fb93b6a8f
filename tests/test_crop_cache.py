"""The crop cache: the same crops as from the photographs, never stale ones, and whole again after any damage."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.geometry import apply_affine, crop_affine, patch_affine
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.data import crop_cache
from simplepose.data.augment import AugmentationSettings
from simplepose.data.crop_cache import cut_patch, open_crop_cache, shown_region
from simplepose.data.dataset import PoseDataset
from simplepose.data.sample import PoseSample

SIZE_WH = (64, 96)
SETTINGS = AugmentationSettings(0.25, 30)
CODEC = HeatmapCodec(SIZE_WH, (16, 24), 1)


def person(image: str, center=(150.0, 100.0), width=70.0) -> PoseSample:
    return PoseSample(image, np.array(center), np.array([width, width * 1.5]), np.full((16, 2), 150.0), np.ones(16))


@pytest.fixture
def noise(tmp_path) -> str:
    """A photograph of which every pixel differs from its neighbours, so that nothing shifted looks the same."""
    cv2.imwrite(str(tmp_path / "noise.png"), np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8))
    return str(tmp_path / "noise.png")


def crops(samples, cache=None, epochs=12) -> np.ndarray:
    dataset = PoseDataset(samples, MPII, CODEC, INPUT_FORMATS["bgr"], SETTINGS, 0, cache)
    return np.stack([dataset.load_crop(row, epoch)[0] for epoch in range(epochs) for row in range(len(samples))])


def assert_same_crops(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but for one grey level in one of a thousand: a position's last bit differs where it is counted from."""
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_the_same_crops_as_from_the_photograph(noise, tmp_path):
    # In the middle, over each edge, in a corner, and beside the image; up to 1.25 x 70 / 64 pixels to one of the crop.
    centers = [(150, 100), (3.3, 100), (298.7, 90), (150, 2), (140.5, 199), (0, 0), (900, 700)]
    samples = [person(noise, center) for center in centers]
    cache = open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 2)
    expected = crops(samples)
    assert expected[: len(samples) - 1].any(axis=(1, 2, 3)).all()
    assert_same_crops(crops(samples, cache), expected)


def test_a_large_person_is_averaged_down_and_stays_in_place():
    # 12 pixels to one of the crop, 9 at the smallest scale. The crop's spot must stay where the photograph's is.
    image = np.zeros((1500, 1500, 3), np.uint8)
    spot = np.array([812.0, 655.0])
    cv2.circle(image, (812, 655), 90, (255, 255, 255), -1)
    sample = person("", (700.0, 700.0), 64 * 12.0)
    region = shown_region(sample, SETTINGS, SIZE_WH)
    assert region.step == 9
    patch, cut = cut_patch(image, region)
    assert patch.shape[:2] == cut.patch_size_wh[::-1]
    assert patch.nbytes < image.nbytes / 60
    affine = crop_affine(sample.center, sample.size[0] * 1.1, 25.0, SIZE_WH, flip=True)
    crop = cv2.warpAffine(patch, patch_affine(affine, cut.left, cut.top, cut.step), SIZE_WH)[..., 0].astype(float)
    y, x = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    center = np.array([(x * crop).sum(), (y * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(center, apply_affine(affine, spot[None])[0], atol=0.05)


def test_reduced_decoding_keeps_every_spot_in_place(tmp_path):
    # 4.4 pixels to one of the crop: at scales from 0.91 on the photograph is decoded at 1/4, below at 1/2.
    image = np.zeros((800, 900, 3), np.uint8)
    spot = np.array([500.0, 385.0])
    cv2.circle(image, (500, 385), 40, (255, 255, 255), -1)
    cv2.imwrite(str(tmp_path / "spot.jpg"), image)
    sample = person(str(tmp_path / "spot.jpg"), (450.0, 400.0), 64 * 4.4)
    sample.joints[:] = spot
    plain = PoseDataset([sample], MPII, CODEC, INPUT_FORMATS["bgr"], SETTINGS, 0)
    reduced = PoseDataset([sample], MPII, CODEC, INPUT_FORMATS["bgr"], SETTINGS, 0, reduced_decode=True)
    y, x = np.mgrid[: SIZE_WH[1], : SIZE_WH[0]]
    differ = 0
    for epoch in range(20):
        expected, found = (dataset.load_crop(0, epoch) for dataset in (plain, reduced))
        weights = found[0][..., 0].astype(float)
        center = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
        np.testing.assert_allclose(center, found[1][0], atol=0.06)
        np.testing.assert_array_equal(found[1], expected[1])
        differ += (found[0] != expected[0]).any()
    assert differ == 20  # averaged pixels, not skipped ones


def test_reduced_decoding_leaves_small_people_alone(noise):
    plain = PoseDataset([person(noise)], MPII, CODEC, INPUT_FORMATS["bgr"], SETTINGS, 0)
    reduced = PoseDataset([person(noise)], MPII, CODEC, INPUT_FORMATS["bgr"], SETTINGS, 0, reduced_decode=True)
    np.testing.assert_array_equal(plain.load_crop(0)[0], reduced.load_crop(0)[0])


def test_rotation_needs_a_circle_and_none_a_box():
    turned, straight = (
        shown_region(person("", (500, 500), 64), AugmentationSettings(0, degrees), SIZE_WH) for degrees in (30, 0)
    )
    assert straight.right - straight.left == 64 + 2 * crop_cache.BILINEAR_MARGIN + 1
    assert turned.right - turned.left > 115 > np.hypot(64, 96) - 1  # the crop's diagonal
    assert turned.right - turned.left == turned.bottom - turned.top


def test_what_has_changed_is_another_cache(noise, tmp_path):
    samples = [person(noise)]

    def names(samples, settings=SETTINGS, size_wh=SIZE_WH):
        open_crop_cache(tmp_path / "cache", samples, settings, size_wh, 1)
        return {path.name for path in (tmp_path / "cache").glob("*.pixels")}

    first = names(samples)
    assert names(samples) == first
    assert len(names([person(noise, width=71.0)])) == 2
    assert len(names(samples, AugmentationSettings(0.3, 30))) == 3
    assert len(names(samples, SETTINGS, (96, 96))) == 4
    os.utime(noise, ns=(1, 1))
    assert len(names(samples)) == 5


@pytest.mark.parametrize("damage", ["cut pixels", "no index", "cut index", "foreign index"])
def test_a_broken_cache_is_made_anew(noise, tmp_path, damage):
    samples = [person(noise)]
    open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 1)
    (pixels,), (index,) = ((tmp_path / "cache").glob(f"*.{end}") for end in ("pixels", "index.npy"))
    if damage == "cut pixels":
        os.truncate(pixels, 1000)
    elif damage == "cut index":
        os.truncate(index, 50)
    elif damage == "foreign index":
        np.save(index, np.zeros(3))
    else:
        index.unlink()
    pixels.with_name(f"{pixels.name}.0123abcd.part").write_bytes(b"of a process that was killed")
    cache = open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 1)
    assert_same_crops(crops(samples, cache), crops(samples))
    assert not list((tmp_path / "cache").glob("*.part"))


def test_a_flipped_bit_is_noticed_and_mended(noise, tmp_path, caplog):
    samples = [person(noise), person(noise, (50, 50))]
    open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 1)
    (pixels,) = (tmp_path / "cache").glob("*.pixels")
    content = bytearray(pixels.read_bytes())
    content[100] ^= 1
    pixels.write_bytes(content)
    cache = open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 1)
    with caplog.at_level(logging.WARNING, "simplepose"):
        assert_same_crops(crops(samples, cache), crops(samples))
    assert len([record for record in caplog.records if "is damaged" in record.message]) == 1
    open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 1)
    assert pixels.read_bytes()[100] == content[100] ^ 1


def make_cache(folder: str, noise: str) -> float:
    samples = [person(noise, (x, 100)) for x in range(20, 280, 10)]
    return float(crops(samples, open_crop_cache(folder, samples, SETTINGS, SIZE_WH, 1), 1).mean())


def test_several_processes_want_the_same_cache(noise, tmp_path):
    folders = [str(tmp_path / "cache")] * 3
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        means = list(pool.map(make_cache, folders, [noise] * 3))
    assert means == [make_cache(str(tmp_path / "other"), noise)] * 3  # exactly: all read patches
    assert len(list((tmp_path / "cache").glob("*.pixels*"))) == 1  # no scratch file is left


def test_no_room_is_said_before(noise, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(UserError, match=r"has 0.0 MB free, the cache needs about 0.\d MB"):
        open_crop_cache(tmp_path / "cache", [person(noise)], SETTINGS, SIZE_WH, 1)
    assert not list((tmp_path / "cache").glob("*.pixels*"))


def test_unreadable_images_are_named_when_they_are_wanted(noise, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 torn")
    samples = [person(noise), person(str(tmp_path / "none.jpg")), person(str(tmp_path / "torn.jpg"))]
    cache = open_crop_cache(tmp_path / "cache", samples, SETTINGS, SIZE_WH, 1)
    dataset = PoseDataset(samples, MPII, CODEC, INPUT_FORMATS["bgr"], SETTINGS, 0, cache)
    dataset.load_crop(0)
    with pytest.raises(UserError, match="no such image"):
        dataset.load_crop(1)
    with pytest.raises(UserError, match="truncated JPEG"):
        dataset.load_crop(2)
    with pytest.raises(UserError, match="none can be read"):
        open_crop_cache(tmp_path / "cache", samples[1:], SETTINGS, SIZE_WH, 1)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        open_crop_cache(tmp_path / "file", [], SETTINGS, SIZE_WH, 1)


@pytest.mark.slow
def test_training_makes_the_cache_and_finds_it_again(bundled, tmp_path, run_command):
    shutil.copytree(bundled, tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(
        "DATASET: {DATASET: mpii, ROOT: data, CACHE: cache}\n"
        "MODEL: {DEPTH: 18, IMAGE_SIZE: 64, EXTRA: {SIGMA: 1, NUM_DECONV_FILTERS: [8, 8, 8]}}\n"
        "TRAIN: {BATCH_SIZE: 8, END_EPOCH: 1}\n"
    )
    first, second = (run_command("train.py", "--cfg", "tiny.yaml", cwd=tmp_path) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "=> making a crop cache of 15 persons in cache: about" in first.stdout
    assert "making a crop cache" not in second.stdout
    assert "=> crop cache cache/" in second.stdout
