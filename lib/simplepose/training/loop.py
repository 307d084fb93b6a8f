"""One epoch of training: data, forward, loss, backward, step. Logs, pictures and checkpoints are `Watcher`s."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Callable, NamedTuple

import numpy as np
import paddle
from paddle import Tensor, nn

from simplepose.data.dataset import Batch
from simplepose.data.loader import BatchLoader
from simplepose.machine.logs import progress_bar
from simplepose.metrics.accuracy import heatmap_accuracy
from simplepose.training.losses import joints_mse_loss
from simplepose.training.prefetch import on_device
from simplepose.training.state import TrainingState


@dataclass(frozen=True)
class LoopSettings:
    """How an epoch is run (sections TRAIN and LOSS).

    Attributes:
        end_epoch: the first epoch that is not run.
        print_freq: iterations between two lines in the log.
        use_target_weight: joints that are not labelled do not count.
        accumulate: iterations whose gradients are averaged to one step; at the end of an epoch maybe fewer.
        read_every: iterations between two times that losses are read, besides those that are printed. Reading waits
            for the device, so a GPU runs on for a while; 1 reads every loss before its step is taken.
    """

    end_epoch: int = 1
    print_freq: int = 20
    use_target_weight: bool = True
    accumulate: int = 1
    read_every: int = 1


class Average:
    """A running mean and the value last added. It can start from another's total and count."""

    def __init__(self, total: float = 0.0, count: float = 0.0) -> None:
        self.value, self.total, self.count = 0.0, total, count

    def add(self, value: float, count: float = 1) -> None:
        self.value = value
        self.total += value * count
        self.count += count

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass
class Iteration:
    """An iteration as a watcher sees it.

    Attributes:
        epoch, index, count: which it is, of how many in the epoch.
        batch, heatmaps: its batch, and (N, K, h, w) that the network made of it.
        lr, loss_scale: of its gradient.
        losses, accuracy, seconds, data_seconds: over the epoch so far, this one's as their value.
        speed: samples a second since the last line.
    """

    epoch: int
    index: int
    count: int
    batch: Batch
    heatmaps: Tensor
    lr: float
    loss_scale: float
    losses: Average
    accuracy: Average
    seconds: Average
    data_seconds: Average
    speed: float = 0.0


class Reading(NamedTuple):
    """A loss, read maybe some iterations after it was computed."""

    iteration: int
    rows: np.ndarray  # of the batch, in the data set
    lr: float
    loss: float


class Watcher:
    """Observes a training. Subclasses override the events that concern them."""

    def wants_every_loss(self) -> bool:
        """Whether, for now, each loss must be read before its step is taken."""
        return False

    def late_loss(self, epoch: int, reading: Reading) -> None:
        """A loss whose step was taken before it was read."""

    def before_step(self, iteration: Iteration) -> None:
        """The loss is read, the gradient is there, the step is not taken yet. May raise UserError."""

    def line_due(self, iteration: Iteration) -> None:
        """Every `print_freq` iterations, and after the last."""

    def after_step(self, steps: int) -> None:
        """After a step whose loss was read; `steps` since the last call. May raise `Stopped`: calling `train_one_epoch`
        again then continues the epoch."""


def _read_losses(unread: list[tuple[int, np.ndarray, float, Tensor]]) -> list[Reading]:
    """The losses that are still on the device, in order; waits for it, and empties the list."""
    values = paddle.stack([loss for *_, loss in unread]).tolist()
    readings = [Reading(*known, value) for (*known, _), value in zip(unread, values)]
    unread.clear()
    return readings


def train_one_epoch(
    network: nn.Layer,
    loader: BatchLoader,
    state: TrainingState,
    settings: LoopSettings,
    watchers: Sequence[Watcher] = (),
    frozen: nn.Layer | None = None,
    phase: Callable[[str], AbstractContextManager] = nullcontext,
) -> dict[str, float]:
    """Train on every batch of the epoch that `state.progress` is at, or on what is left of them.

    Args:
        network: `state.model`, or what wraps it for several processes.
        frozen: part of it that is run in eval mode; see `PoseResNet.freeze_backbone`.
        phase: what the parts of an iteration run in, by name: data, forward, backward, optimiser.

    Returns:
        train_loss and train_accuracy, means over the epoch (the accuracy over the printed iterations), lr.
    """
    network.train()
    if frozen is not None:
        frozen.eval()
    progress, precision, schedule = state.progress, state.precision, state.schedule
    epoch, first, count = progress.epoch, progress.iteration, len(loader)
    losses, accuracy = (Average(*progress.averages.get(name, ())) for name in ("loss", "accuracy"))
    seconds, data_seconds = Average(), Average()
    unread: list[tuple[int, np.ndarray, float, Tensor]] = []
    steps, last_read, samples = 0, first - 1, 0
    start = line_start = time.perf_counter()
    batches = on_device(progress_bar(loader.epoch(epoch, first), count, f"epoch {epoch}", first))
    for i in range(first, count):
        with phase("data"):
            batch, images, target, weights = next(batches)  # (N, 3, H, W), (N, K, h, w), (N, K)
        data_seconds.add(time.perf_counter() - start)
        is_last = i == count - 1
        is_step = (i + 1) % settings.accumulate == 0 or is_last
        averaged = min(settings.accumulate, count - i // settings.accumulate * settings.accumulate)

        with nullcontext() if is_step else gradients_kept_here(network):
            with phase("forward"):
                heatmaps = precision.forward(network, images)  # (N, K, h, w)
                loss = joints_mse_loss(heatmaps, target, weights if settings.use_target_weight else None)
            with phase("backward"):
                precision.backward(loss / averaged)

        now = Iteration(
            epoch, i, count, batch, heatmaps, state.optimizer.get_lr(), precision.loss_scale, losses, accuracy, seconds,
            data_seconds,
        )  # fmt: skip
        unread.append((i, batch.indices, now.lr, loss.detach()))
        is_printed = i % settings.print_freq == 0 or is_last
        wait = 1 if any(watcher.wants_every_loss() for watcher in watchers) else settings.read_every
        is_read = is_step and (is_printed or i - last_read >= wait)
        if is_read or is_printed or wait == 1:
            for reading in _read_losses(unread):
                losses.add(reading.loss, len(reading.rows))
                if reading.iteration < i:
                    for watcher in watchers:
                        watcher.late_loss(epoch, reading)
            for watcher in watchers:
                watcher.before_step(now)
        if is_step:
            with phase("optimiser"):
                state.step()
        schedule.step()

        if is_printed:
            accuracy.add(*heatmap_accuracy(heatmaps.detach().numpy(), batch.heatmaps))
        seconds.add(time.perf_counter() - start)
        samples += len(images)
        if is_printed:
            now.speed, line_start, samples = samples / (time.perf_counter() - line_start), time.perf_counter(), 0
            for watcher in watchers:
                watcher.line_due(now)
        steps += is_step
        if is_read:
            progress.iteration = i + 1
            progress.averages = {"loss": [losses.total, losses.count], "accuracy": [accuracy.total, accuracy.count]}
            for watcher in watchers:
                watcher.after_step(steps)
            steps, last_read = 0, i
        start = time.perf_counter()
    batches.close()
    lr = schedule.base_lr * schedule.lr_lambda(schedule.last_epoch - 1)  # of the last step, whoever made it
    return {"train_loss": losses.mean, "train_accuracy": accuracy.mean, "lr": lr}


def gradients_kept_here(network: nn.Layer) -> AbstractContextManager:
    """Within, gradients are not averaged over processes; the last iteration of the step does that."""
    return network.no_sync() if isinstance(network, paddle.DataParallel) else nullcontext()
