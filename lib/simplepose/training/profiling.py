"""Profiles training iterations: time by phase, and a trace of every kernel. What is learnt is discarded."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import paddle
from paddle import nn
from paddle.profiler import Profiler, RecordEvent

from simplepose.core.errors import UserError
from simplepose.data.loader import BatchLoader
from simplepose.machine.distributed import ranks
from simplepose.training.loop import LoopSettings, Watcher, train_one_epoch
from simplepose.training.state import Progress, TrainingState

logger = logging.getLogger("simplepose")

WARM_UP = 2  # steps that are not counted
TRACE = "profile.json"  # in the run folder


class Phases:
    """Adds up the time of each phase of an iteration; a phase waits for the device, so that its own work is counted."""

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


class _Steps(Watcher):
    """The time of the phases after the warm-up, without what the profiler does at its start and end."""

    def __init__(self, phases: Phases, profiler: Profiler):
        self.phases, self.profiler = phases, profiler
        self.stamps = [0.0]
        self.split: dict[str, float] = {}

    def after_step(self, steps: int) -> None:
        self.stamps.append(time.perf_counter())
        self.split.update(self.phases.seconds)
        self.profiler.step()
        if len(self.stamps) == WARM_UP + 1:
            self.phases.seconds.clear()
            self.stamps[WARM_UP] = time.perf_counter()


def profile(
    state: TrainingState,
    trained: nn.Layer,
    loader: BatchLoader,
    loop: LoopSettings,
    frozen: nn.Layer | None,
    iterations: int,
    folder: Path,
) -> None:
    """Train `iterations` iterations, rounded up to whole steps with accumulated gradients; write <folder>/profile.json,
    and log the split.

    Args:
        trained, frozen: as `train_one_epoch` takes them.

    Raises:
        UserError: fewer than one iteration asked for, or an epoch too short for it.
    """
    if iterations < 1:
        raise UserError(f"--profile {iterations} leaves nothing to measure; give a number of iterations above zero")
    steps = math.ceil(iterations / loop.accumulate)
    iterations, warm_up = steps * loop.accumulate, WARM_UP * loop.accumulate
    if len(loader) < warm_up + iterations:
        raise UserError(
            f"--profile {iterations} needs an epoch of {warm_up + iterations} iterations, {warm_up} of them to warm "
            f"up, and this one has {len(loader)}; ask for fewer, or lower TRAIN.BATCH_SIZE"
        )
    phases = Phases()
    tried = replace(state, progress=Progress(state.progress.epoch))
    with Profiler(scheduler=(WARM_UP, WARM_UP + steps), on_trace_ready=lambda profiler: None) as profiler:
        watcher = _Steps(phases, profiler)
        settings = replace(loop, print_freq=warm_up + iterations, read_every=1)
        train_one_epoch(trained, loader.take(warm_up + iterations), tried, settings, [watcher], frozen, phases)
    stamps, split = watcher.stamps, watcher.split
    if ranks()[0] != 0:
        return
    seconds = stamps[-1] - stamps[WARM_UP]
    split["the rest"] = seconds - sum(split.values())
    logger.info(
        "=> profile of %d iterations, %.3f s each: %s", iterations, seconds / iterations,
        ", ".join(f"{name} {part / iterations:.3f} s ({part / seconds:.0%})" for name, part in split.items()),
    )  # fmt: skip
    trace = folder / TRACE
    profiler.export(str(trace), format="json")
    logger.info("=> every kernel's time is in %s, for chrome://tracing or ui.perfetto.dev", trace.as_posix())
