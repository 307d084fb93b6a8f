"""Watchers of a training: log lines, curves, pictures, checkpoints. `health.Health` is another one."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from simplepose.machine.distributed import any_rank, wait_for_all
from simplepose.machine.signals import Stopped, StopRequest
from simplepose.training.checkpoint import CheckpointKeeper
from simplepose.training.loop import Iteration, Watcher
from simplepose.training.pictures import DebugPictures

logger = logging.getLogger("simplepose")


class LogLines(Watcher):
    """The original's lines."""

    def __init__(self, end_epoch: int):
        self.end_epoch = end_epoch

    def line_due(self, iteration: Iteration) -> None:
        it = iteration
        to_come = self.end_epoch * it.count - (it.epoch * it.count + it.index) - 1  # iterations
        logger.info(
            f"Epoch: [{it.epoch}][{it.index}/{it.count}]\t"
            f"Time {it.seconds.value:.3f}s ({it.seconds.mean:.3f}s)\t"
            f"Speed {it.speed:.1f} samples/s\t"
            f"Data {it.data_seconds.value:.3f}s ({it.data_seconds.mean:.3f}s)\t"
            f"Lr {it.lr:.5f} ({it.lr:.5f})\t"
            f"Loss {it.losses.value:.5f} ({it.losses.mean:.5f})\t"
            f"Accuracy {it.accuracy.value:.3f} ({it.accuracy.mean:.3f})\t"
            f"eta: {timedelta(seconds=int(to_come * it.seconds.mean))}"
        )


class Curves(Watcher):
    """Scalars for VisualDL's LogWriter."""

    def __init__(self, writer: Any):
        self.writer = writer

    def line_due(self, iteration: Iteration) -> None:
        step = iteration.epoch * iteration.count + iteration.index
        self.writer.add_scalar("train/loss", iteration.losses.value, step)
        self.writer.add_scalar("train/accuracy", iteration.accuracy.value, step)
        self.writer.add_scalar("train/lr", iteration.lr, step)


class Pictures(Watcher):
    """Section DEBUG: crops and heatmaps."""

    def __init__(self, pictures: DebugPictures):
        self.pictures = pictures

    def line_due(self, iteration: Iteration) -> None:
        self.pictures.save(f"train_{iteration.index}", iteration.batch, iteration.heatmaps.detach().numpy())


class Checkpoints(Watcher):
    """Saves when a checkpoint is due, and raises `Stopped` on request: in all processes after the same step."""

    def __init__(self, keeper: CheckpointKeeper, stop: StopRequest):
        self.keeper, self.stop = keeper, stop

    def after_step(self, steps: int) -> None:
        stops, saves = any_rank(self.stop.requested, self.keeper.is_due(steps))
        if stops:
            raise Stopped
        if saves:
            self.keeper.save()
            wait_for_all()
