"""A training in miniature: every part of it once, and what the whole will take. Nothing of it is kept."""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.checkpoint import (
    CHECKPOINT,
    LAST_WEIGHTS,
    CheckpointKeeper,
    Progress,
    load_checkpoint,
    save_checkpoint,
    save_weights,
)
from simplepose.data.dataset import BatchLoader
from simplepose.engine import evaluate, train_one_epoch
from simplepose.files import size_text
from simplepose.inference import paddle_network
from simplepose.runtime import ranks
from simplepose.watch import Watch

if TYPE_CHECKING:
    from easydict import EasyDict
    from paddle import nn

    from simplepose.engine import Evaluator

logger = logging.getLogger("simplepose")

ROUNDS = 2  # of training, a step of the optimiser each, and of validation; the first one warms up, the second is timed


def dry_run(
    config: EasyDict,
    keeper: CheckpointKeeper,
    trained: nn.Layer,
    train_loader: BatchLoader,
    valid_loader: BatchLoader,
    evaluator: Evaluator,
) -> None:
    """Two steps of training, two batches of validation, a checkpoint saved and loaded; then the estimates, in the log.

    Args:
        keeper: of the training; what it keeps goes to a temporary folder inside its own.
        trained: its network, wrapped if there are several processes.
    """
    from simplepose.build import build_inference_settings

    rank, _ = ranks()
    model, optimizer, average, progress = keeper.model, keeper.optimizer, keeper.average, keeper.progress
    tried = Progress(progress.epoch)
    stamps = [(0, time.perf_counter())]  # iterations and time
    train_one_epoch(
        trained, train_loader.take(ROUNDS * config.TRAIN.ACCUMULATE), optimizer, tried, config.TRAIN.END_EPOCH, 1,
        config.LOSS.USE_TARGET_WEIGHT, config.TRAIN.ACCUMULATE, average,
        frozen=model.freeze_backbone(progress.epoch < config.TRAIN.FREEZE_BACKBONE_EPOCHS),
        watch=Watch(model, train_loader.dataset, keeper.folder),
        after_step=lambda steps: stamps.append((tried.iteration, time.perf_counter())), precision=keeper.precision,
    )  # fmt: skip
    (first, began), (last, ended) = stamps[-2:]
    iteration_seconds = (ended - began) / (last - first)

    few = valid_loader.take(ROUNDS)
    start = time.perf_counter()
    evaluate(
        paddle_network(model if average is None else average.network),
        few, evaluator, build_inference_settings(config), 1, config.LOSS.USE_TARGET_WEIGHT,
    )  # fmt: skip
    valid_seconds = (time.perf_counter() - start) / max(1, len(few))

    with tempfile.TemporaryDirectory(prefix=".dry_run_", dir=keeper.folder if rank == 0 else None) as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        if rank == 0:
            save_checkpoint(
                folder / CHECKPOINT, model, optimizer, progress, keeper.describe(), 1, average, keeper.precision
            )
        save_seconds = time.perf_counter() - start
        load_checkpoint(folder, model, optimizer, average, keeper.precision)
        if rank != 0:
            return
        checkpoint_bytes = sum(path.stat().st_size for path in folder.iterdir())
        save_weights(model, folder / LAST_WEIGHTS, {})
        weights_bytes = (folder / LAST_WEIGHTS).stat().st_size
        free_bytes = shutil.disk_usage(folder).free

    iterations, batches = len(train_loader), len(valid_loader)
    epochs = config.TRAIN.END_EPOCH - progress.epoch
    seconds = epochs * (iterations * iteration_seconds + batches * valid_seconds + save_seconds)
    # A new checkpoint is whole before the oldest goes; best and last weights stay beside them.
    disk_bytes = (config.TRAIN.KEEP_CHECKPOINTS + 1) * checkpoint_bytes + 2 * weights_bytes
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
    """The most that this process has used so far."""
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
