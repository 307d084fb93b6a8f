"""A training from where its state is to its last epoch: train, validate, keep."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Callable

from paddle import nn

from simplepose.core.errors import UserError
from simplepose.data.loader import BatchLoader
from simplepose.machine.distributed import wait_for_all
from simplepose.machine.signals import Stopped
from simplepose.training.checkpoint import CheckpointKeeper
from simplepose.training.loop import LoopSettings, Watcher, train_one_epoch

logger = logging.getLogger("simplepose")


def run_epochs(
    network: nn.Layer,
    loader: BatchLoader,
    keeper: CheckpointKeeper,
    settings: LoopSettings,
    watchers: Sequence[Watcher],
    validate: Callable[[], tuple[dict[str, float], dict[str, float]]],
    primary: str,
    freeze_epochs: int = 0,
) -> None:
    """Train and validate epoch by epoch, until the last one or until a watcher or `validate` raises `Stopped`.

    Args:
        network: as it is trained: `keeper.state.model`, or what wraps it for several processes.
        validate: gives the figures and the scores of the network as it is, as `evaluate_and_report` does.
        primary: the score that decides which epoch is the best.
        freeze_epochs: in the first so many epochs the head alone learns.

    Raises:
        UserError: it was stopped, and could not be saved; or the weights after the last epoch could not be written.
    """
    state, progress = keeper.state, keeper.state.progress
    try:
        while progress.epoch < settings.end_epoch:
            frozen = state.model.freeze_backbone(progress.epoch < freeze_epochs)
            figures = train_one_epoch(network, loader, state, settings, watchers, frozen)
            valid_figures, scores = validate()
            keeper.finish_epoch({**figures, **valid_figures}, scores, primary)
            wait_for_all()
    except Stopped:
        if not keeper.save():
            raise UserError(f"stopped at {progress}, which could not be saved; an older checkpoint is there") from None
        logger.info("=> stopped at %s; the same command with TRAIN.RESUME=True resumes it", progress)
        return
    keeper.finish()
    if progress.best_score is not None:  # or none could be written
        logger.info("=> best %s %.3f at epoch %d", primary, progress.best_score, progress.best_epoch)
