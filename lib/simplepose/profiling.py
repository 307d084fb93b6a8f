"""Where the time of a training iteration goes: by phase, and as a trace of every kernel. What it learns is not kept."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import paddle
from paddle.profiler import Profiler, RecordEvent

from simplepose.checkpoint import CheckpointKeeper, Progress
from simplepose.data.dataset import BatchLoader
from simplepose.engine import train_one_epoch
from simplepose.errors import UserError
from simplepose.runtime import ranks

if TYPE_CHECKING:
    from easydict import EasyDict
    from paddle import nn

logger = logging.getLogger("simplepose")

WARM_UP = 2  # steps that are not counted
TRACE = "profile.json"  # in the run folder


class Phases:
    """Adds up what the phases of an iteration take; each waits for the device, so that it is charged with its own."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._waits = paddle.get_device().startswith("gpu")

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with RecordEvent(name):
            yield
            if self._waits:
                paddle.device.cuda.synchronize()
        self.seconds[name] += time.perf_counter() - start


def profile(
    config: EasyDict, keeper: CheckpointKeeper, trained: nn.Layer, loader: BatchLoader, iterations: int
) -> None:
    """Train `iterations` iterations, with TRAIN.ACCUMULATE as many as whole steps have; write
    <run folder>/profile.json, and log the split.

    Args:
        keeper: of the training, with its network, optimiser and folder.
        trained: its network, wrapped if there are several processes.

    Raises:
        UserError: fewer than one iteration asked for, or an epoch too short for it.
    """
    if iterations < 1:
        raise UserError(f"--profile {iterations} leaves nothing to measure; give a number of iterations above zero")
    accumulate = config.TRAIN.ACCUMULATE
    steps = math.ceil(iterations / accumulate)
    iterations, warm_up = steps * accumulate, WARM_UP * accumulate
    if len(loader) < warm_up + iterations:
        raise UserError(
            f"--profile {iterations} needs an epoch of {warm_up + iterations} iterations, {warm_up} of them to warm "
            f"up, and this one has {len(loader)}; ask for fewer, or lower TRAIN.BATCH_SIZE"
        )
    phases = Phases()
    stamps = [0.0]  # after each step, what the profiler itself does at its start and end left out
    split: dict[str, float] = {}

    def after_step(steps: int) -> None:
        stamps.append(time.perf_counter())
        split.update(phases.seconds)
        profiler.step()
        if len(stamps) == WARM_UP + 1:
            phases.seconds.clear()
            stamps[WARM_UP] = time.perf_counter()

    with Profiler(scheduler=(WARM_UP, WARM_UP + steps), on_trace_ready=lambda profiler: None) as profiler:
        train_one_epoch(
            trained, loader.take(warm_up + iterations), keeper.optimizer, Progress(keeper.progress.epoch),
            config.TRAIN.END_EPOCH, warm_up + iterations, config.LOSS.USE_TARGET_WEIGHT, accumulate, keeper.average,
            frozen=keeper.model.freeze_backbone(keeper.progress.epoch < config.TRAIN.FREEZE_BACKBONE_EPOCHS),
            after_step=after_step, precision=keeper.precision, phase=phases,
        )  # fmt: skip
    if ranks()[0] != 0:
        return
    seconds = stamps[-1] - stamps[WARM_UP]
    split["the rest"] = seconds - sum(split.values())
    logger.info(
        "=> profile of %d iterations, %.3f s each: %s", iterations, seconds / iterations,
        ", ".join(f"{name} {part / iterations:.3f} s ({part / seconds:.0%})" for name, part in split.items()),
    )  # fmt: skip
    trace = keeper.folder / TRACE
    profiler.export(str(trace), format="json")
    logger.info("=> every kernel's time is in %s, for chrome://tracing or ui.perfetto.dev", trace.as_posix())
