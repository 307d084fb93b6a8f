"""Dry run: every part of a training once, and estimates of time, memory and disk space. Nothing is kept."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from paddle import nn

from simplepose.core.files import size_text
from simplepose.core.run_files import CHECKPOINT, LAST_WEIGHTS
from simplepose.data.loader import BatchLoader
from simplepose.inference.network import Network
from simplepose.machine.distributed import ranks
from simplepose.training.checkpoint import CheckpointKeeper, load_checkpoint, save_checkpoint
from simplepose.training.evaluation import Evaluator, ValidationSettings, evaluate
from simplepose.training.health import Health
from simplepose.training.loop import LoopSettings, Watcher, train_one_epoch
from simplepose.training.state import Progress
from simplepose.training.watchers import LogLines
from simplepose.weights.network import save_weights

logger = logging.getLogger("simplepose")

ROUNDS = 2  # of training, a step each, of which the second is timed; and of validation, timed together


class _Clock(Watcher):
    """When each step ended: iterations so far, and the time."""

    def __init__(self, progress: Progress):
        self.progress = progress
        self.stamps = [(0, time.perf_counter())]

    def after_step(self, steps: int) -> None:
        self.stamps.append((self.progress.iteration, time.perf_counter()))


def dry_run(
    keeper: CheckpointKeeper,
    trained: nn.Layer,
    network: Network,
    train_loader: BatchLoader,
    valid_loader: BatchLoader,
    evaluator: Evaluator,
    loop: LoopSettings,
    validation: ValidationSettings,
    frozen: nn.Layer | None,
) -> None:
    """Two steps of training, two batches of validation, a checkpoint saved and loaded; then the estimates, in the log.

    Args:
        keeper: of the training; here it writes to a temporary folder inside its own.
        trained, network: its network, as it is trained and as it is validated.
        frozen: as `train_one_epoch` takes it.
    """
    rank, _ = ranks()
    state = keeper.state
    tried = replace(state, progress=Progress(state.progress.epoch))
    clock = _Clock(tried.progress)
    train_one_epoch(
        trained, train_loader.take(ROUNDS * loop.accumulate), tried, replace(loop, print_freq=1, read_every=1),
        [Health(state.model, train_loader.dataset, keeper.folder), LogLines(loop.end_epoch), clock], frozen,
    )  # fmt: skip
    (first, began), (last, ended) = clock.stamps[-2:]
    iteration_seconds = (ended - began) / (last - first)

    few = valid_loader.take(ROUNDS)
    start = time.perf_counter()
    evaluate(network, few, evaluator, validation.inference, 1, validation.use_target_weight)
    valid_seconds = (time.perf_counter() - start) / max(1, len(few))

    with tempfile.TemporaryDirectory(prefix=".dry_run_", dir=keeper.folder if rank == 0 else None) as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        if rank == 0:
            save_checkpoint(folder / CHECKPOINT, state, keeper.describe())
        save_seconds = time.perf_counter() - start
        load_checkpoint(folder, state)
        if rank != 0:
            return
        checkpoint_bytes = sum(path.stat().st_size for path in folder.iterdir())
        save_weights(state.model, folder / LAST_WEIGHTS, {})
        weights_bytes = (folder / LAST_WEIGHTS).stat().st_size
        free_bytes = shutil.disk_usage(folder).free

    iterations, batches = len(train_loader), len(valid_loader)
    epochs = loop.end_epoch - state.progress.epoch
    seconds = epochs * (iterations * iteration_seconds + batches * valid_seconds + save_seconds)
    # A new checkpoint is complete before the oldest is deleted; best and last weights stay beside them.
    disk_bytes = (keeper.keep + 1) * checkpoint_bytes + 2 * weights_bytes
    logger.info(
        "=> dry run: %.3f s an iteration, %.3f s a batch of validation, %.2f s and %s a checkpoint",
        iteration_seconds, valid_seconds, save_seconds, size_text(checkpoint_bytes),
    )  # fmt: skip
    logger.info(
        "=> time: about %s for %d epochs of %d iterations and %d batches of validation",
        timedelta(seconds=round(seconds)), epochs, iterations, batches,
    )  # fmt: skip
    logger.info("=> memory: %s", _memory())
    logger.info(
        "=> disk: up to %s in %s, where %s are free",
        size_text(disk_bytes),
        keeper.folder.as_posix(),
        size_text(free_bytes),
    )
    if disk_bytes > free_bytes:
        logger.warning("=> that is too little: free some, set OUTPUT_DIR, or lower TRAIN.KEEP_CHECKPOINTS")
    logger.info("=> all parts work; nothing was kept")


def _memory() -> str:
    """The peak memory of this process so far."""
    import paddle

    parts = []
    if paddle.get_device().startswith("gpu"):
        parts.append(f"{size_text(paddle.device.cuda.max_memory_reserved())} of the GPU's")
    try:
        import resource
    except ImportError:  # Windows
        return ", ".join(parts) or "not known on this system"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return ", ".join([*parts, f"{size_text(peak)} of this process's at the most"])
