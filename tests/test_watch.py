"""What the training notices by itself: a loss that is no number, nothing to learn, images that cannot be read."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest
from tiny import seen, training_state

from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.data.augment import AugmentationSettings
from simplepose.data.dataset import PoseDataset
from simplepose.data.loader import BatchLoader, BatchSampler
from simplepose.data.mpii import load_mpii
from simplepose.models.pose_resnet import PoseResNet
from simplepose.training.health import PATIENCE, Health
from simplepose.training.loop import LoopSettings, train_one_epoch
from simplepose.training.state import Progress


@pytest.fixture
def said(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("simplepose"), "propagate", True)
    caplog.set_level(logging.WARNING, "simplepose")
    return lambda: [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def dataset_of(bundled: Path, max_bad: int = 0) -> PoseDataset:
    codec = HeatmapCodec((32, 32), (8, 8), 1)
    samples = load_mpii(bundled, "train")
    return PoseDataset(samples, MPII, codec, INPUT_FORMATS["bgr"], AugmentationSettings(), max_bad=max_bad)


@pytest.fixture(scope="module")
def model() -> PoseResNet:
    paddle.seed(0)
    return PoseResNet(18, 16, deconv_filters=(8, 8, 8))


class Poisoned(BatchLoader):
    """A NaN in one number of the third batch."""

    where = "heatmaps"

    def epoch(self, epoch: int = 0, start: int = 0):
        for i, batch in enumerate(super().epoch(epoch, start), start):
            if i == 2:
                getattr(batch, self.where)[1, 0, 5, 5] = np.nan
            yield batch


@pytest.mark.parametrize(("where", "what"), [("heatmaps", "loss"), ("images", "gradient")])
def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(tmp_path, bundled, where, what):
    paddle.seed(0)
    dataset = dataset_of(bundled)
    loader = Poisoned(dataset, BatchSampler(len(dataset), 4, shuffle=True), 2)
    loader.where = where
    network = PoseResNet(18, 16, deconv_filters=(8, 8, 8))
    state = training_state(network, lr=0.01, progress=Progress(epoch=5))
    with pytest.raises(UserError) as raised:
        train_one_epoch(network, loader, state, LoopSettings(print_freq=1), [Health(network, dataset, tmp_path)])
    message = str(raised.value)
    assert f"the {what} is nan at epoch 5, iteration 2, learning rate 0.01" in message
    rows = loader.sampler.batches(5)[2]
    for row in rows:
        assert dataset.samples[row].image in message
    with np.load(tmp_path / f"{what}_nan_epoch5_iteration2.npz") as dump:
        assert np.isnan(dump[where]).sum() == 1
        assert dump["indices"].tolist() == rows
        assert dump["predicted"].shape == dump["heatmaps"].shape == (4, 16, 8, 8)
    assert state.progress.iteration == 2  # two steps were taken, and not the third
    assert all(np.isfinite(weight.numpy()).all() for weight in network.parameters() if not weight.stop_gradient)


def look(health: Health, batch, losses) -> None:
    for i, loss in enumerate(losses):
        health.before_step(seen(batch, None, loss, i))


def test_a_constant_loss_is_said_once(tmp_path, bundled, model, said):
    dataset = dataset_of(bundled)
    batch = dataset.load_batch([0, 1])
    health = Health(model, dataset, tmp_path)
    health._without_gradient = {}
    look(health, batch, [0.5] * PATIENCE + [0.25] + [0.5] * PATIENCE)
    assert said() == []
    look(health, batch, [0.5] * 100)
    assert said() == [f"=> the loss has been exactly 0.5 for {PATIENCE + 1} iterations: nothing is learnt"]


def test_joints_that_nobody_labels_are_named(tmp_path, bundled, model, said):
    dataset = dataset_of(bundled)
    nose, hip = MPII.joints.index("head_top"), MPII.joints.index("left_hip")
    dataset.samples = [
        replace(sample, visible=np.where(np.isin(np.arange(16), [nose, hip]), 0, sample.visible))
        for sample in dataset.samples
    ]
    Health(model, dataset, tmp_path)
    (line,) = said()
    assert "left_hip" in line and "head_top" in line and "left_knee" not in line


def test_crops_beside_the_people_are_said(tmp_path, bundled, model, said):
    dataset = dataset_of(bundled)
    dataset.samples = [replace(sample, center=sample.center - 10_000) for sample in dataset.samples]
    health = Health(model, dataset, tmp_path)
    health._without_gradient = {}
    look(health, dataset.load_batch([0, 1]), range(PATIENCE))
    (line,) = said()
    assert f"no labelled joint lay in any crop of {PATIENCE} iterations" in line


def test_arrays_without_a_gradient_are_named(tmp_path, bundled, model, said):
    dataset = dataset_of(bundled)
    batch = dataset.load_batch([0, 1])
    health = Health(model, dataset, tmp_path)
    for parameter in model.parameters():
        parameter.clear_gradient()
    heatmaps = model(paddle.to_tensor(batch.images))
    (heatmaps[:, :, :4] * 0).sum().backward()  # nothing reaches any weight
    look(health, batch, range(PATIENCE - 1))
    (model.final_layer.bias * 2).sum().backward()
    look(health, batch, range(2))
    (line,) = said()
    count = sum(not weight.stop_gradient for weight in model.parameters()) - 1
    assert f"{count} arrays have had a gradient of exactly zero for {PATIENCE} iterations" in line
    assert "final_layer.weight" in line and "final_layer.bias" not in line


def break_images(dataset: PoseDataset, folder: Path, rows: list[int]) -> None:
    dataset.samples = [
        replace(sample, image=str(folder / f"gone{row}.jpg")) if row in rows else sample
        for row, sample in enumerate(dataset.samples)
    ]


@pytest.mark.parametrize("workers", [0, 3])
def test_images_that_vanished_are_named_and_others_take_their_place(tmp_path, bundled, said, workers):
    dataset = dataset_of(bundled, max_bad=3)
    break_images(dataset, tmp_path, [3, 4, 14])
    loader = BatchLoader(dataset, BatchSampler(len(dataset), 4, shuffle=False), workers)
    for _ in range(2):
        assert [batch.indices.tolist() for batch in loader.epoch(1)] == [
            [0, 1, 2, 5], [5, 5, 6, 7], [8, 9, 10, 11], [12, 13, 0]
        ]  # fmt: skip
    assert len(said()) == 3  # each once
    for row in (3, 4, 14):
        assert any(f"gone{row}.jpg" in line for line in said())


def test_one_image_too_many_ends_the_reading(tmp_path, bundled):
    dataset = dataset_of(bundled, max_bad=1)
    break_images(dataset, tmp_path, [3])
    dataset.load_batch([2, 3])
    break_images(dataset, tmp_path, [3, 5])
    with pytest.raises(UserError, match=r"gone5.jpg; 1 others before it, as many as DATASET.MAX_BAD allows"):
        dataset.load_batch([3, 5])
    strict = dataset_of(bundled)
    break_images(strict, tmp_path, [3])
    with pytest.raises(UserError, match=r"no such image: .*gone3.jpg$"):
        strict.load_batch([3])
