"""Training that is stopped, killed, or left without a disk goes on as if nothing had happened."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from tiny import AfterStep, experiment, training_state

from simplepose.commands import train
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.data.augment import AugmentationSettings
from simplepose.data.dataset import PoseDataset
from simplepose.data.loader import BatchLoader, BatchSampler, DistributedBatches
from simplepose.data.mpii import load_mpii
from simplepose.inference.network import InferenceSettings
from simplepose.machine import logs
from simplepose.machine.signals import Stopped, StopRequest
from simplepose.models.pose_resnet import PoseResNet
from simplepose.training.checkpoint import CheckpointKeeper, load_checkpoint, save_checkpoint
from simplepose.training.evaluation import evaluate
from simplepose.training.loop import LoopSettings, train_one_epoch
from simplepose.training.optim import WeightAverage, lr_schedule
from simplepose.training.run_folder import claim, set_aside
from simplepose.training.state import Progress
from simplepose.training.watchers import LogLines
from simplepose.weights import read_pickle_checked, read_weights, write_checked, write_weights

ROOT = Path(__file__).resolve().parent.parent
RUN = Path("output/mpii/pose_resnet_18/tiny")  # the run folder, seen from the folder of tiny.yaml
TINY = experiment(CHECKPOINT_EVERY=1)
EPOCHS = 2


@pytest.fixture
def workplace(tmp_path, bundled) -> Path:
    """A folder with tiny.yaml: 4 iterations an epoch, a checkpoint after each."""
    shutil.copytree(bundled, tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path


def start(bundled: Path, workers: int, kind: str = "adam"):
    """Data, a small network and its optimiser, the same each time: 4 iterations an epoch."""
    paddle.seed(0)
    codec = HeatmapCodec((32, 32), (8, 8), 1)
    dataset = PoseDataset(load_mpii(bundled, "train"), MPII, codec, INPUT_FORMATS["bgr"], AugmentationSettings())
    loader = BatchLoader(dataset, BatchSampler(len(dataset), 4, shuffle=True, seed=7), workers)
    model = PoseResNet(18, 16, deconv_filters=(8, 8, 8))
    schedule = lr_schedule("PolynomialDecay", len(loader), EPOCHS)
    return loader, model, training_state(model, kind, 0.01, schedule)


def logged(caplog) -> list[str]:
    """What the log says of each iteration, without the times."""
    lines = [record.message for record in caplog.records if record.message.startswith("Epoch")]
    caplog.clear()
    return [re.sub(r"Time.*Lr|\teta.*", "", line) for line in lines]


@pytest.fixture
def listening(caplog):
    logger = logging.getLogger("simplepose")
    level, propagate, logger.propagate = logger.level, logger.propagate, True
    caplog.set_level(logging.INFO, "simplepose")
    yield caplog
    logger.propagate = propagate
    logger.setLevel(level)


@pytest.mark.parametrize(
    ("kind", "accumulate", "decay", "frozen_epochs"), [("adam", 1, None, 0), ("sgd", 1, None, 0), ("adam", 3, 0.9, 1)]
)
def test_interrupted_anywhere_it_ends_with_the_same_weights_and_log(
    tmp_path, bundled, listening, kind, accumulate, decay, frozen_epochs
):
    """Without and with everything that has a state of its own."""

    def train(workers: int, progress: Progress, after_step=None) -> dict:
        """One life: from the checkpoint if there is one, to the end or to what `after_step` raises."""
        loader, model, state = start(bundled, workers, kind)
        state.average = WeightAverage(PoseResNet(18, 16, deconv_filters=(8, 8, 8)), decay) if decay else None
        state.progress = progress
        if (tmp_path / "checkpoint").exists():
            load_checkpoint(tmp_path, state)
        settings = LoopSettings(EPOCHS, print_freq=1, accumulate=accumulate)
        watchers = [LogLines(EPOCHS), *([AfterStep(after_step)] if after_step else [])]
        try:
            while state.progress.epoch < EPOCHS:
                frozen = model.freeze_backbone(state.progress.epoch < frozen_epochs)
                figures.append(train_one_epoch(model, loader, state, settings, watchers, frozen))
                state.progress = Progress(state.progress.epoch + 1)
        except Stopped:
            save_checkpoint(tmp_path / "checkpoint", state)
            return {}
        networks = [model] if state.average is None else [model, state.average.network]
        return {(i, name): t.numpy() for i, network in enumerate(networks) for name, t in network.state_dict().items()}

    figures: list[dict] = []
    straight, straight_figures = train(0, Progress()), figures.copy()
    log = logged(listening)
    assert len(log) == 4 * EPOCHS

    figures.clear()
    taken, steps = 0, EPOCHS * -(-4 // accumulate)
    stops = np.random.default_rng(1).choice(np.arange(1, steps + 1), 3, replace=False)

    def after_step(steps: int) -> None:
        nonlocal taken
        taken += steps
        if taken in stops:
            raise Stopped

    for workers in (3, 0, 1):  # each with other weights and other names, before it loads
        assert train(workers, Progress(), after_step) == {}
    end = train(2, Progress(), after_step)
    assert logged(listening) == log
    assert figures == straight_figures
    for name, array in straight.items():
        np.testing.assert_array_equal(end[name], array, err_msg=str(name))


def test_read_as_weights_a_checkpoint_gives_the_averaged_ones(tmp_path, bundled):
    _, _, state = start(bundled, 0)
    state.average = WeightAverage(PoseResNet(18, 16, deconv_filters=(8, 8, 8)), 0.9)
    save_checkpoint(tmp_path / "checkpoint", state)
    found = read_weights(tmp_path / "checkpoint").state
    for name, tensor in state.average.network.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.numpy(), name)


def test_accumulated_gradients_are_those_of_a_larger_batch(bundled):
    def weights_after(batch_size: int, accumulate: int) -> dict[str, np.ndarray]:
        loader, model, _ = start(bundled, 0)
        state = training_state(model, lr=0.01)
        loader.sampler = BatchSampler(8, batch_size, shuffle=True)
        model.final_layer.weight.set_value(model.final_layer.weight * 300)  # or the gradients are lost in rounding
        train_one_epoch(model, loader, state, LoopSettings(print_freq=9, accumulate=accumulate), frozen=model)
        return {name: weight.numpy() for name, weight in model.named_parameters()}

    large, small, other = weights_after(8, 1), weights_after(2, 4), weights_after(2, 2)
    _, start_model, _ = start(bundled, 0)
    for name, weight in start_model.named_parameters():
        moved = np.abs(large[name] - weight.numpy()).max()
        np.testing.assert_allclose(small[name], large[name], atol=1e-4 * moved, rtol=1e-6, err_msg=name)
    assert np.abs(other["deconv_layers.0.weight"] - large["deconv_layers.0.weight"]).max() > 0


def test_a_frozen_backbone_stays_and_then_learns(bundled):
    loader, model, state = start(bundled, 0)

    def changed() -> set[str]:
        """Train an epoch; the first part of the names of everything that it changed."""
        before = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        state.progress = Progress()
        train_one_epoch(model, loader, state, LoopSettings(print_freq=9), frozen=frozen)
        after = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        return {name.partition(".")[0] for name in before if (before[name] != after[name]).any()}

    frozen = model.freeze_backbone(True)
    assert changed() == {"deconv_layers", "final_layer"}
    frozen = model.freeze_backbone(False)
    assert changed() == {"backbone", "deconv_layers", "final_layer"}
    assert model.backbone.bn1._mean.stop_gradient  # a statistic is no weight, frozen or not


def test_an_evaluation_stops_at_once(bundled):
    loader, _, _ = start(bundled, 0)
    loader.sampler = DistributedBatches(len(loader.dataset), 4)
    stop, predicted = StopRequest(), []

    class Evaluator:
        def add(self, indices, joints, scores):
            predicted.extend(indices)

    def network(images):
        stop.requested = True  # the signal comes while the first batch is predicted
        return np.zeros((len(images), 16, 8, 8), np.float32)

    with pytest.raises(Stopped):
        evaluate(network, loader, Evaluator(), InferenceSettings(), 1, stop=stop)
    assert predicted == []
    evaluate(network, loader, Evaluator(), InferenceSettings(), 1)
    assert predicted == list(range(15))


def test_an_epoch_whose_batches_are_others_starts_anew(bundled, listening):
    *_, state = start(bundled, 0)
    before = BatchSampler(15, 4, True).order
    state.progress = same = Progress(1, iteration=2, averages={"loss": [1.0, 8.0]}, order=before)
    state.follow(BatchSampler(15, 4, True).order)
    assert (same.epoch, same.iteration, same.averages) == (1, 2, {"loss": [1.0, 8.0]})
    state.progress = other = Progress(1, iteration=2, averages={"loss": [1.0, 8.0]}, order=before)
    state.follow(BatchSampler(15, 8, True).order)  # 2 iterations an epoch where 4 were
    assert (other.epoch, other.iteration, other.averages) == (1, 0, {})
    assert state.schedule.last_epoch == 2
    for change in ({"seed": 1}, {"shuffled": False}, {"accumulated": 2}):  # as many iterations, but others
        state.progress = changed = Progress(3, iteration=2, order={**before, "accumulated": 1})
        state.schedule.step(3 * 4 + 2)  # where the checkpoint was
        state.follow({**before, "accumulated": 1, **change})
        assert (changed.iteration, state.schedule.last_epoch) == (0, 12), change
    assert "epoch 1 starts anew: its batches are others now (iterations 4 -> 2, batch size 4 -> 8)" in listening.text


@pytest.mark.parametrize("checkpoint", [False, True])
def test_the_learning_rate_is_that_of_the_iteration_wherever_a_training_begins(bundled, checkpoint):
    *_, state = start(bundled, 0)  # polynomial decay over 2 epochs of 4 iterations
    order = BatchSampler(15, 4, True).order
    if checkpoint:
        state.schedule.step(7)
        rate = state.optimizer.get_lr()
        state.progress = Progress(1, iteration=3, order=order)
        state.follow(order)
        assert state.optimizer.get_lr() == rate
    else:
        state.progress = Progress(epoch=1)  # TRAIN.BEGIN_EPOCH
        state.follow(order)
        assert state.optimizer.get_lr() == pytest.approx(0.01 * 0.5**0.9)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_epoch_whose_figures_are_no_numbers_is_kept_all_the_same(tmp_path, value):
    model = PoseResNet(18, 1, deconv_filters=(8,), deconv_kernels=(4,))
    state = training_state(model)
    progress = state.progress
    keeper = CheckpointKeeper(tmp_path, state, dict)
    keeper.finish_epoch({"valid_loss": value}, {"Mean": float("nan")}, "Mean")
    keeper.finish_epoch({"valid_loss": 0.5}, {"Mean": 3.0}, "Mean")
    keeper.finish()
    assert [entry["valid_loss"] for entry in json.loads((tmp_path / "history.json").read_text())] == [None, 0.5]
    assert (progress.best_score, progress.best_epoch) == (3.0, 1)  # a score that is none is not the best for ever
    keeper.finish_epoch({"valid_loss": value}, {"Mean": 9.0}, "Mean")
    assert read_weights(tmp_path / "model_best.pdparams").metadata["metrics"] == {"valid_loss": None, "Mean": 9.0}
    load_checkpoint(tmp_path, state)
    assert state.progress.epoch == 3


# --- Files that are damaged, and disks that are full


@pytest.fixture
def saved(tmp_path):
    """A run folder with two checkpoints, of epochs 2 and 1, and a function that loads from it."""
    paddle.seed(0)
    model = PoseResNet(18, 16, deconv_filters=(8, 8, 8))
    state = training_state(model)
    for epoch in (1, 2):
        state.progress = Progress(epoch, 1.5)
        save_checkpoint(tmp_path / "checkpoint", state, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint.1"]

    def load(path: Path = tmp_path) -> int:
        load_checkpoint(path, state)
        return state.progress.epoch

    return tmp_path, load


@pytest.mark.parametrize("damage", ["cut", "one bit", "empty", "gone"])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_taken(saved, listening, damage):
    folder, load = saved
    assert load() == 2
    newest = folder / "checkpoint"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes({"cut": content[:-1000], "one bit": content, "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        newest.unlink()  # killed between two renamings
    assert load() == 1
    if damage != "gone":
        assert re.search(r"checkpoint.*; taking the one before, .*checkpoint\.1", listening.text)
        with pytest.raises(UserError):  # asked for by name, no other will do
            load(newest)
    (folder / "checkpoint.1").write_bytes(b"")
    with pytest.raises(UserError, match="checkpoint"):
        load()


@pytest.mark.parametrize(
    "changes", [{"progress": {"epoch": 1, "of_a_newer_version": 3}}, {"model": 5}, {"optimizer": [1]}, {"progress": 3}]
)
def test_a_checkpoint_of_another_version_is_refused_in_one_line(saved, changes):
    folder, load = saved
    content = {**read_pickle_checked(folder / "checkpoint"), **changes}
    write_checked(folder / "other", content)
    with pytest.raises(UserError, match="other is not a checkpoint that this version can read"):
        load(folder / "other")


def test_a_changed_bit_is_called_one(saved):
    folder, load = saved
    content = bytearray((folder / "checkpoint").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match="checksum does not fit"):
        load(folder / "checkpoint")


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    """Plainly pickled, without a position in the epoch and without a checksum."""
    model = PoseResNet(18, 1, deconv_filters=(8,), deconv_kernels=(4,))
    state = training_state(model, progress=Progress(3))
    save_checkpoint(tmp_path / "new", state)
    content = read_pickle_checked(tmp_path / "new")
    content["progress"] = {"epoch": 3, "best_score": 1.5, "best_epoch": 2, "history": [{"epoch": 2}]}
    (tmp_path / "checkpoint").write_bytes(pickle.dumps(content, protocol=4))
    load_checkpoint(tmp_path, state)
    progress = state.progress
    state.follow(BatchSampler(15, 4, True).order)
    assert (progress.epoch, progress.iteration, progress.best_score, progress.history) == (3, 0, 1.5, [{"epoch": 2}])


def test_checkpoints_rotate_and_scratch_files_of_a_killed_process_go(tmp_path):
    model = PoseResNet(18, 1, deconv_filters=(8,), deconv_kernels=(4,))
    state = training_state(model)
    (tmp_path / "checkpoint.0a1b2c3d.part").write_bytes(b"half")
    progress = state.progress
    keeper = CheckpointKeeper(tmp_path, state, dict, every_steps=2, keep=3)
    keeper.clean_up()
    for progress.iteration in range(1, 11):
        if keeper.is_due():
            keeper.save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint.1", "checkpoint.2"]
    kept = []
    for name in sorted(os.listdir(tmp_path)):
        load_checkpoint(tmp_path / name, state)
        kept.append(state.progress.iteration)
    assert kept == [10, 8, 6]


def test_a_checkpoint_is_due_by_time(tmp_path, monkeypatch):
    model = PoseResNet(18, 1, deconv_filters=(8,), deconv_kernels=(4,))
    now = 0.0
    monkeypatch.setattr("simplepose.training.checkpoint.time.monotonic", lambda: now)
    keeper = CheckpointKeeper(tmp_path, training_state(model), dict, every_seconds=60)
    saves = []
    monkeypatch.setattr(keeper, "_written", lambda *arguments: saves.append(now))
    for now in (30.0, 59.9, 60.1, 100.0, 120.2):  # noqa: B007 - the clock reads it
        if keeper.is_due():
            keeper.save()
    assert saves == [60.1, 120.2]


def test_killed_between_any_two_writes_an_epoch_leaves_what_a_whole_one_does(tmp_path, monkeypatch):
    """Files take their names in `os.replace`; a kill comes before the first of them, the second, ..."""
    model = PoseResNet(18, 1, deconv_filters=(8,), deconv_kernels=(4,))
    replace = os.replace

    class Killed(BaseException):
        pass

    def life(folder: Path, writes: int) -> bool:
        """From the checkpoint to the end of epoch 0, or to the kill after so many writes; whether it was killed."""
        state = training_state(model)
        if (folder / "checkpoint").exists():
            load_checkpoint(folder, state)
        progress = state.progress
        keeper = CheckpointKeeper(folder, state, dict)
        left = iter(range(writes))

        def replace_or_die(source, target) -> None:
            if next(left, None) is None:
                raise Killed
            replace(source, target)

        monkeypatch.setattr(os, "replace", replace_or_die)
        try:
            if progress.epoch == 0:
                keeper.finish_epoch({"train_loss": 0.5}, {"Mean": 30.0}, "Mean")
            keeper.finish()
        except Killed:
            return True
        return False

    def left_in(folder: Path) -> dict[str, bytes]:
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        return {name: content for name, content in files.items() if not name.startswith("checkpoint")}

    assert not life(tmp_path / "whole", 99)
    whole = left_in(tmp_path / "whole")
    assert sorted(whole) == ["final_state.pdparams", "history.json", "model_best.pdparams"]
    kills = 0
    while life(tmp_path / f"{kills}", kills):
        if (tmp_path / f"{kills}" / "checkpoint").exists():  # whoever looks now finds the epoch that it is after
            assert (tmp_path / f"{kills}" / "history.json").read_bytes() == whole["history.json"]
        assert not life(tmp_path / f"{kills}", 99)
        assert left_in(tmp_path / f"{kills}") == whole, kills
        kills += 1
    assert kills >= 4


@pytest.fixture
def small_disk(tmp_path, request):
    """A file system of so many kB."""
    place = tmp_path / "disk"
    place.mkdir()
    size = f"size={request.param}k"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("small_disk", [150_000], indirect=True)  # a checkpoint and a file of weights, no more
def test_a_full_disk_stops_the_saving_and_not_the_training(workplace, small_disk, run_command):
    args = (f"OUTPUT_DIR={small_disk}", "TRAIN.END_EPOCH=1")
    finished = run_command("train.py", "--cfg", "tiny.yaml", *args, cwd=workplace)
    folder = small_disk / "mpii/pose_resnet_18/tiny"
    assert "Traceback" not in finished.stderr, finished.stderr
    assert "No space left on device; going on" in finished.stdout
    assert "Epoch: [0][3/4]" in finished.stdout
    assert not list(folder.glob("*.part"))
    again = run_command("train.py", "--cfg", "tiny.yaml", *args[:1], "TRAIN.RESUME=true", "TRAIN.KEEP_CHECKPOINTS=1",
                        cwd=workplace)  # fmt: skip
    assert "=> resuming" in again.stdout, again.stderr


@pytest.mark.parametrize("small_disk", [8], indirect=True)  # configuration and log, not even predictions
def test_a_disk_without_a_byte_left_stops_no_training_but_a_validation(workplace, small_disk, straight, run_command):
    args = ("--cfg", "tiny.yaml", f"OUTPUT_DIR={small_disk}")
    folder = small_disk / "mpii/pose_resnet_18/tiny"
    debug = ("DEBUG.DEBUG=true", "DEBUG.SAVE_BATCH_IMAGES_GT=true")
    finished = run_command("train.py", *args, *debug, cwd=workplace)
    assert finished.returncode == 2  # at the end, for its weights are nowhere
    assert finished.stderr.splitlines()[-1].endswith("history.json: No space left on device")
    assert "Epoch: [1][3/4]" in finished.stdout
    for name in ("pred.mat", "model_best.pdparams", "history.json", "checkpoint", "train_0_gt.jpg", "val_0_gt.jpg"):
        assert f"=> cannot write {folder / name}: No space left on device; going on" in finished.stdout, name
    valid = run_command("valid.py", *args, "--model-file", straight / "model_best.pdparams", cwd=workplace)
    assert valid.returncode == 2
    assert "| 32x32_pose_resnet_18_d8d8d8 |" in valid.stdout  # the scores are told all the same
    assert valid.stderr.splitlines()[-1] == f"error: cannot write {folder}/pred.mat: No space left on device"


def test_a_folder_that_takes_nothing_is_named_before_anything_starts(workplace, run_command):
    (workplace / "output").write_text("a file where the folder should be")
    finished = run_command("train.py", "--cfg", "tiny.yaml", cwd=workplace)
    assert finished.returncode == 2
    assert "cannot write to output/mpii/pose_resnet_18/tiny" in finished.stderr
    assert "set OUTPUT_DIR to a folder you may write to" in finished.stderr


def test_a_failed_start_leaves_the_earlier_run_alone(workplace, run_command):
    folder = workplace / RUN
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_bytes(b"of an earlier run")
    (workplace / "nowhere").write_text("a file where the folder should be")
    for wrong in ("MODEL.PRETRAINED=nowhere.pth", "DATASET.TEST_SET=nowhere", "LOG_DIR=nowhere"):
        finished = run_command("train.py", "--cfg", "tiny.yaml", wrong, cwd=workplace)
        assert finished.returncode == 2
        assert "nowhere" in finished.stderr
        assert [path.name for path in folder.parent.rglob("*")] == ["tiny", "checkpoint"]


def test_a_dry_run_tries_everything_and_keeps_nothing(workplace, straight, run_command):
    folder = workplace / RUN
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_bytes(b"of an earlier run")
    pretrained = f"MODEL.PRETRAINED={straight / 'model_best.pdparams'}"
    args = ("--cfg", "tiny.yaml", "--dry-run", "TRAIN.EMA=0.9", "TRAIN.ACCUMULATE=2", pretrained)
    finished = run_command("train.py", *args, cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    said = finished.stdout
    assert re.search(r"=> pretrained: \d+ arrays from .*model_best.pdparams; new: none", said), said
    assert said.count("Epoch: [0]") == 4  # two steps of the optimiser
    assert said.count("Test: [") == 2
    assert re.search(r"dry run: [\d.]+ s an iteration, [\d.]+ s a batch of validation, [\d.]+ s and 135\.", said), said
    assert "for 2 epochs of 4 iterations and 2 batches of validation" in said
    # Three checkpoints (two kept, one new) of weights, velocities and average, two files of weights: 3 x 135 + 2 x 45.
    (disk_mb,) = re.findall(r"=> disk: up to ([\d.]+) MB in output", said)
    assert float(disk_mb) == pytest.approx(495, abs=2) and re.search(r"=> memory: .*(GB|MB)", said)
    assert {path.relative_to(workplace).as_posix() for path in workplace.rglob("*") if "data" not in path.parts} == {
        "tiny.yaml", "output", *(parent.as_posix() for parent in list(RUN.parents)[:-2]), RUN.as_posix(),
        (RUN / "checkpoint").as_posix(),
    }  # fmt: skip
    assert (folder / "checkpoint").read_bytes() == b"of an earlier run"
    broken = run_command(
        "train.py", "--cfg", "tiny.yaml", "--dry-run", "TRAIN.LR=1000", "TRAIN.RESUME=true", cwd=workplace
    )
    assert broken.returncode == 2
    assert "checkpoint" in broken.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows does not lock folders")
def test_a_second_training_keeps_out_of_a_folder_where_one_is_at_work(workplace, train_in_background, run_command):
    process = train_in_background("TRAIN.END_EPOCH=1000")
    try:
        wait_for((workplace / RUN / "checkpoint").exists, process)
        for resume in ("false", "true"):
            second = run_command("train.py", "--cfg", "tiny.yaml", f"TRAIN.RESUME={resume}", cwd=workplace)
            assert second.returncode == 2, second.stdout
            assert second.stderr.splitlines()[-1] == (
                f"error: another training is at work in {RUN}; wait for its end, stop it, or set OUTPUT_DIR"
            )
            assert "=> load" not in second.stdout, "said before minutes of reading"
            assert [path.name for path in (workplace / RUN).parent.iterdir()] == ["tiny"]
        tried = run_command("train.py", "--cfg", "tiny.yaml", "--dry-run", cwd=workplace)
        assert tried.returncode == 0, tried.stderr  # it takes nothing away from the one at work
    finally:
        process.kill()
        process.communicate()
    after = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.END_EPOCH=1", cwd=workplace)
    assert after.returncode == 0, after.stderr  # the lock went with the process, and the killed run's folder aside
    assert len(list((workplace / RUN).parent.iterdir())) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows does not lock folders")
def test_the_folder_in_the_place_of_one_set_aside_is_claimed_as_well(tmp_path):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "checkpoint").touch()
    claim(run_folder)
    assert set_aside(run_folder, [run_folder / "checkpoint"])
    with pytest.raises(UserError, match="another training is at work in"):
        claim(run_folder)


@pytest.mark.parametrize("end", [Stopped, KeyError])
def test_the_curves_file_is_closed_whatever_ends_the_training(workplace, monkeypatch, listening, end):
    closed = []

    class Writer:
        def add_scalar(self, *arguments) -> None:
            raise end  # in the middle of the first epoch

        def close(self) -> None:
            closed.append(True)

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(logs, "open_visual_log", lambda *arguments: Writer())
    monkeypatch.setattr(logs, "set_up_logging", lambda: None)
    monkeypatch.setattr(logs, "log_to", lambda file: None)
    monkeypatch.setattr("sys.argv", ["train.py", "--cfg", "tiny.yaml"])
    with nullcontext() if end is Stopped else pytest.raises(end):
        train.main()
    assert closed == [True]


# --- Standard output that nobody reads any more


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux's")
@pytest.mark.parametrize("output", ["a full disk", "a closed pipe"])
def test_a_training_goes_on_without_standard_output(workplace, straight, output):
    line = [sys.executable, str(ROOT / "pose_estimation" / "train.py"), "--cfg", "tiny.yaml"]
    if output == "a full disk":
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)  # as `| head -0` does
    finished = subprocess.run(line, cwd=workplace, stdout=stdout, stderr=subprocess.PIPE, text=True)
    os.close(stdout)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("cannot write to standard output") == finished.stderr.count("\n") == 1
    require_same_run(workplace / RUN, straight)
    (log,) = (workplace / RUN).glob("*_train.log")
    assert "Epoch: [1][3/4]" in log.read_text()


# --- Signals


@pytest.fixture
def train_in_background(workplace, start_command):
    return lambda *arguments: start_command("train.py", "--cfg", "tiny.yaml", *arguments, cwd=workplace)


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, bundled, run_command) -> Path:
    """The run folder of a training that nobody interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    shutil.copytree(bundled, folder / "data")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    finished = run_command("train.py", "--cfg", "tiny.yaml", cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return folder / RUN


def test_a_signal_ends_the_training_after_the_step_and_a_resumed_one_is_the_same(
    workplace, straight, train_in_background, run_command
):
    process = train_in_background("TRAIN.CHECKPOINT_EVERY=1")
    wait_for((workplace / RUN / "checkpoint").exists, process)
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 0, complained
    assert "and saving; once more ends at once" in complained
    stopped = re.search(r"=> stopped at epoch (\d)(, iteration (\d))?; the same command with TRAIN.RESUME", said)
    assert stopped, said
    rest = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.RESUME=true", cwd=workplace)
    assert rest.returncode == 0, rest.stderr
    assert f"at epoch {stopped[1]}{stopped[2] or ''}" in rest.stdout
    require_same_run(workplace / RUN, straight)


def test_the_second_signal_ends_at_once(workplace, train_in_background):
    process = train_in_background("TRAIN.END_EPOCH=9")
    wait_for((workplace / RUN / "checkpoint").exists, process)
    while process.poll() is None:  # the first asks, another is not patient
        process.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert process.returncode == 128 + signal.SIGINT
    process.communicate()


def require_same_run(folder: Path, straight: Path) -> None:
    assert json.loads((folder / "history.json").read_text()) == json.loads((straight / "history.json").read_text())
    for name in ("final_state.pdparams", "model_best.pdparams"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name


def test_killed_before_its_last_writes_a_resumed_training_makes_up_for_them(workplace, straight, run_command):
    """The weights at hand are those of an earlier end, from before TRAIN.END_EPOCH was raised."""
    folder = workplace / RUN
    shutil.copytree(straight, folder)
    last, history = folder / "final_state.pdparams", folder / "history.json"
    weights = read_weights(last)
    write_weights(last, weights.state, {**weights.metadata, "epoch": 0})
    history.write_text(json.dumps(json.loads(history.read_text())[:1]))
    rest = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.RESUME=true", cwd=workplace)
    assert rest.returncode == 0, rest.stderr
    require_same_run(folder, straight)
    again = run_command("train.py", "--cfg", "tiny.yaml", "TRAIN.RESUME=true", cwd=workplace)
    assert again.returncode == 2
    assert "has finished epoch 1 and TRAIN.END_EPOCH is 2; raise it to train on" in again.stderr


# --- kill -9. A server loads Paddle once and forks a training for each life.

SERVER = """
import os, sys
sys.path[:0] = [{lib!r}, {commands!r}]
from simplepose.machine.paddle_start import start_paddle
start_paddle()
from simplepose.commands import train
import simplepose.build.training, simplepose.training.watchers, simplepose.training.health
import simplepose.models.pose_resnet, visualdl
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["train.py", *line.split()]
        sys.stdout = sys.stderr
        from simplepose.core.errors import run_command
        os._exit(run_command(train.main))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILLS = 20


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_twenty_times_killed_and_nothing_lost(workplace, straight):
    """Every other time in the middle of writing a checkpoint."""
    script = SERVER.format(lib=str(ROOT / "lib"), commands=str(ROOT / "pose_estimation"))
    with (
        open(workplace / "said.txt", "w") as said,
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=workplace,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as server,
    ):

        def begin(output: str) -> int:
            server.stdin.write(f"--cfg tiny.yaml OUTPUT_DIR={output} TRAIN.RESUME=true\n")
            server.stdin.flush()
            return int(server.stdout.readline())

        rng = np.random.default_rng(0)
        kills = kills_while_saving = runs = 0
        while kills < KILLS or runs == 0:
            output = f"output{runs}"
            folder = workplace / output / RUN.relative_to("output")
            child = begin(output)
            saving = kills % 2 == 0
            saves, ready = int(rng.integers(0, 3)), time.monotonic() + rng.uniform(0.2, 1.5)
            seen: set[str] = set()
            while kills < KILLS and os.path.exists(f"/proc/{child}/cmdline") and not is_zombie(child):
                parts = [path.name for path in folder.glob("checkpoint.*.part")]
                seen.update(parts)
                if (len(seen) > saves and parts) if saving else time.monotonic() > ready:
                    os.kill(child, signal.SIGKILL)
                    break
                time.sleep(0.001)
            code = int(server.stdout.readline())
            assert code in (0, -signal.SIGKILL), (workplace / "said.txt").read_text()[-3000:]
            if code == 0 or (folder / "final_state.pdparams").exists():
                require_same_run(folder, straight)
                runs += 1
            if code != 0:
                kills += 1
                kills_while_saving += bool(list(folder.glob("checkpoint.*.part")))
        server.stdin.close()
    assert kills_while_saving >= KILLS // 4


def is_zombie(process_id: int) -> bool:
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
