"""The GPU's part of the training loop, as far as a CPU can try it: late looks, batches read ahead, a scaled loss."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import paddle
import pytest
import yaml
from tiny import AfterStep, experiment, seen, training_state

from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.data.augment import AugmentationSettings
from simplepose.data.dataset import Batch, PoseDataset
from simplepose.data.loader import BatchLoader, BatchSampler
from simplepose.data.mpii import load_mpii
from simplepose.machine.device import set_device
from simplepose.models.pose_resnet import PoseResNet
from simplepose.training.amp import LossScaler, MixedPrecision
from simplepose.training.checkpoint import load_checkpoint, save_checkpoint
from simplepose.training.health import PATIENCE, Health
from simplepose.training.loop import LoopSettings, train_one_epoch
from simplepose.training.optim import build_optimizer, learning_rate
from simplepose.training.prefetch import on_device, read_ahead


def scaled(scale: float = 8.0) -> MixedPrecision:
    """What a GPU does with a scaled loss, in float32: a power of two in the scale changes no digit."""
    precision = MixedPrecision()
    precision.scaler = LossScaler(scale)
    return precision


def start(bundled):
    """Data, network and optimiser, the same each time: 7 iterations an epoch, the last one shorter."""
    paddle.seed(0)
    codec = HeatmapCodec((32, 32), (8, 8), 1)
    dataset = PoseDataset(load_mpii(bundled, "train"), MPII, codec, INPUT_FORMATS["bgr"], AugmentationSettings())
    loader = BatchLoader(dataset, BatchSampler(13, 2, shuffle=True, seed=7), 2)
    model = PoseResNet(18, 16, deconv_filters=(8, 8, 8))
    return loader, model, training_state(model, lr=0.01)


def trained(bundled, precision=None, **settings):
    """Weights after an epoch, its figures, and (steps since, iteration, averages) after each step looked at."""
    loader, model, state = start(bundled)
    state.precision = precision or state.precision
    progress, calls = state.progress, []
    watcher = AfterStep(lambda steps: calls.append((steps, progress.iteration, progress.averages)))
    figures = train_one_epoch(model, loader, state, LoopSettings(print_freq=100, **settings), [watcher])
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}, figures, calls


def test_a_loss_read_late_is_the_same_loss(bundled):
    weights, figures, calls = trained(bundled)
    assert [call[:2] for call in calls] == [(1, i) for i in range(1, 8)]
    late_weights, late_figures, late_calls = trained(bundled, read_every=3)
    # The first iteration is printed, as is the last; in between every third is looked at.
    assert [call[:2] for call in late_calls] == [(1, 1), (3, 4), (3, 7)]
    assert late_figures == figures
    assert [averages for *_, averages in late_calls] == [calls[i][2] for i in (0, 3, 6)]
    for name, array in weights.items():
        np.testing.assert_array_equal(late_weights[name], array, err_msg=name)


def test_late_looks_fall_on_steps_of_the_optimiser(bundled):
    *_, calls = trained(bundled, read_every=3, accumulate=2)
    assert [call[:2] for call in calls] == [(2, 4), (2, 7)]  # iterations 0-3, then 4-6, the last step of one


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_scaled_loss_changes_nothing(bundled, accumulate):
    plain, figures, _ = trained(bundled, accumulate=accumulate)
    scaled_weights, scaled_figures, _ = trained(bundled, accumulate=accumulate, precision=scaled())
    assert scaled_figures == figures
    for name, array in plain.items():
        np.testing.assert_array_equal(scaled_weights[name], array, err_msg=name)


class Poisoned(BatchLoader):
    """From the batch of iteration 3 on, one number is NaN."""

    def epoch(self, epoch: int = 0, start: int = 0):
        for i, batch in enumerate(super().epoch(epoch, start), start):
            if i >= 3:
                batch.heatmaps[0, 0, 5, 5] = np.nan
            yield batch


def test_a_loss_that_is_no_number_is_found_late_and_named_right(tmp_path, bundled):
    loader, model, state = start(bundled)
    health = Health(model, loader.dataset, tmp_path)
    health._steps = PATIENCE  # no longer new
    loader = Poisoned(loader.dataset, loader.sampler, 2)
    with pytest.raises(UserError, match="the loss is nan at epoch 0, iteration 3,") as raised:
        train_one_epoch(model, loader, state, LoopSettings(print_freq=100, read_every=5), [health])
    rows = loader.sampler.batches(0)[3]
    assert all(loader.dataset.samples[row].image in str(raised.value) for row in rows)
    with np.load(tmp_path / "loss_nan_epoch0_iteration3.npz") as dump:
        assert dump["indices"].tolist() == rows
        np.testing.assert_array_equal(dump["images"], loader.dataset.load_batch(rows, 0).images)
    assert state.progress.iteration == 1  # nothing is saved beyond what was looked at


def test_a_new_training_is_looked_at_every_step(tmp_path, bundled):
    loader, model, state = start(bundled)
    calls = []
    watchers = [Health(model, loader.dataset, tmp_path), AfterStep(calls.append)]
    train_one_epoch(model, loader, state, LoopSettings(print_freq=100, read_every=5), watchers)
    assert calls == [1] * 7


def test_an_overflow_is_the_scale_s_to_mend_until_it_is_one(tmp_path, bundled):
    loader, model, _ = start(bundled)
    health = Health(model, loader.dataset, tmp_path)
    batch = loader.dataset.load_batch([0])
    first = next(iter(model.parameters()))
    (first.sum() * np.inf).backward()
    health.before_step(seen(batch, None, 0.5, 0, loss_scale=2.0))
    with pytest.raises(UserError, match="the gradient is inf"):
        health.before_step(seen(batch, paddle.zeros([1]), 0.5, 1))


def test_a_step_that_overflows_is_left_out_and_the_scale_follows():
    weight = paddle.create_parameter([1], "float32", default_initializer=paddle.nn.initializer.Constant(2.0))
    optimizer = build_optimizer("sgd", [weight], learning_rate(0.1, lambda iteration: 1.0), momentum=0.0)
    scaler = LossScaler(scale=4.0, patience=2)

    def step(gradient: float) -> tuple[bool, float, float]:
        (weight * gradient * scaler.scale).backward()
        taken = scaler.step(optimizer)
        optimizer.clear_grad()
        return taken, pytest.approx(weight.item()), scaler.scale

    assert step(3.0) == (True, 1.7, 4.0)
    assert step(np.inf) == (False, 1.7, 2.0)
    assert step(np.nan) == (False, 1.7, 1.0)
    assert step(-np.inf) == (False, 1.7, 1.0)
    assert step(1.0) == (True, 1.6, 1.0)
    assert step(1.0) == (True, 1.5, 2.0)  # two in a row


def test_the_loss_scale_goes_with_the_checkpoint(tmp_path, bundled):
    *_, state = start(bundled)
    state.precision = scaled(0.25)
    state.precision.scaler.good_steps = 7
    save_checkpoint(tmp_path / "checkpoint", state)
    state.precision = other = scaled()
    load_checkpoint(tmp_path / "checkpoint", state)
    assert (other.loss_scale, other.scaler.good_steps) == (0.25, 7)
    state.precision = plain = MixedPrecision()
    load_checkpoint(tmp_path / "checkpoint", state)  # float32 goes on from it
    assert plain.loss_scale == 1 and plain.state_dict() == {}
    save_checkpoint(tmp_path / "checkpoint", state)
    state.precision = other
    load_checkpoint(tmp_path / "checkpoint", state)  # and the other way round
    assert other.loss_scale == 0.25


def test_half_precision_needs_a_gpu(tmp_path, bundled, run_command):
    if paddle.get_device().startswith("gpu"):
        pytest.skip("there is one")
    with pytest.raises(UserError, match="TRAIN.AMP O2 needs a GPU"):
        MixedPrecision("O2")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment()))
    finished = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.AMP=O2", f"DATASET.ROOT={bundled}", cwd=tmp_path)
    assert finished.returncode == 2
    assert "TRAIN.AMP O2 needs a GPU" in finished.stderr
    finished = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.AMP=fp16", cwd=tmp_path)
    assert "TRAIN.AMP must be one of O0, O1, O2" in finished.stderr


def test_half_precision_on_a_cpu_is_bfloat16_or_is_said_to_be_float32(tmp_path, bundled, run_command):
    if paddle.get_device() != "cpu":
        pytest.skip("there is a GPU")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment(END_EPOCH=1)))
    finished = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.AMP=O1", f"DATASET.ROOT={bundled}", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    first = finished.stdout.splitlines()[0]
    assert first.count("bfloat16") == 1 and ("bfloat16 products" in first) == first.endswith("float32")


@pytest.mark.parametrize(
    ("launched", "gpus", "device"),
    [(None, "0", "gpu:0"), (None, "2,3", "gpu:2"), ("3", "0", "gpu:3"), ("1,2", "0", "gpu:1")],
)
def test_a_process_of_the_launcher_takes_its_own_gpu(monkeypatch, launched, gpus, device):
    monkeypatch.delenv("FLAGS_selected_gpus", raising=False)
    if launched:  # by `paddle.distributed.launch --gpus`, for one process as well
        monkeypatch.setenv("FLAGS_selected_gpus", launched)
    asked = []
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(paddle, "set_device", asked.append)
    set_device(gpus)
    assert asked == [device]


def make_batches(count: int, fails_at: int | None = None):
    for i in range(count):
        if i == fails_at:
            raise UserError("cannot read photo.jpg")
        images, heatmaps = np.full((2, 3, 4, 4), i, np.float32), np.full((2, 5, 1, 1), i + 0.5, np.float32)
        yield Batch(images, heatmaps, np.full((2, 5), -i, np.float32), np.zeros((2, 2, 3)), np.array([i, i + 1]))


@pytest.mark.parametrize("reader", [on_device, lambda batches: read_ahead(batches, paddle.CPUPlace())])
def test_batches_arrive_in_order_with_their_tensors(reader):
    received = list(reader(make_batches(9)))
    assert [batch.indices[0] for batch, *_ in received] == list(range(9))
    for batch, images, heatmaps, weights in received:
        np.testing.assert_array_equal(images.numpy(), batch.images)
        np.testing.assert_array_equal(heatmaps.numpy(), batch.heatmaps)
        np.testing.assert_array_equal(weights.numpy(), batch.weights)


def test_what_goes_wrong_in_the_reader_arrives_as_itself():
    received = []
    with pytest.raises(UserError, match=r"cannot read photo\.jpg"):
        for batch, *_ in read_ahead(make_batches(9, fails_at=4), paddle.CPUPlace()):
            received.append(batch.indices[0])
    assert received == [0, 1, 2, 3]


def test_a_reader_that_is_left_early_ends():
    batches = read_ahead(make_batches(10_000), paddle.CPUPlace())
    next(batches)
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 5


def test_a_profile_names_the_phases(tmp_path, bundled, run_command):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment(BATCH_SIZE=2, ACCUMULATE=2)))
    finished = run_command("train.py", "--cfg", "tiny.yaml", "--profile", "3", f"DATASET.ROOT={bundled}", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    (line,) = re.findall(r"=> profile of 4 iterations, .*", finished.stdout)  # two steps of the optimiser
    split = dict(re.findall(r"(data|forward|backward|optimiser|the rest) [\d.]+ s \((\d+)%\)", line))
    assert len(split) == 5 and 95 <= sum(map(int, split.values())) <= 105
    assert int(split["backward"]) > int(split["data"])
    folder = tmp_path / "output/mpii/pose_resnet_18/tiny"
    assert [path.name for path in folder.iterdir()] == ["profile.json"]
    events = json.loads((folder / "profile.json").read_text())["traceEvents"]
    names = [event.get("name", "") for event in events]
    for phase in ("data", "forward", "backward", "optimiser"):
        assert sum(name.startswith(phase) and "conv" not in name for name in names) >= 2, phase
    assert [sum(name.startswith(f"{phase}[") for name in names) for phase in ("forward", "optimiser")] == [4, 2]
    for wrong, advice in (("0", "above zero"), ("99", "ask for fewer")):
        finished = run_command(
            "train.py", "--cfg", "tiny.yaml", "--profile", wrong, f"DATASET.ROOT={bundled}", cwd=tmp_path
        )
        assert finished.returncode == 2 and advice in finished.stderr
    both = run_command("train.py", "--cfg", "tiny.yaml", "--profile", "2", "--dry-run", cwd=tmp_path)
    assert both.returncode == 2 and "not allowed with" in both.stderr
