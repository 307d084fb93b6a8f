"""Checkpoints: everything that is needed to resume a training."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path
from typing import Any, Callable

from simplepose.core.errors import UserError, shown
from simplepose.core.files import UNFORESEEN, finite_or_none, remove_scratch, write_json, write_or_warn, written_whole
from simplepose.core.run_files import BEST_WEIGHTS, CHECKPOINT, HISTORY, LAST_WEIGHTS
from simplepose.machine.distributed import broadcast, ranks, wait_for_all
from simplepose.training.state import TrainingState
from simplepose.weights import METADATA_KEY, read_pickle_checked, write_checked
from simplepose.weights.network import save_weights

logger = logging.getLogger("simplepose")


def save_checkpoint(
    path: str | os.PathLike, state: TrainingState, metadata: dict[str, Any] | None = None, keep: int = 1
) -> None:
    """Write everything that is needed to resume a training; with metadata it is also a self-describing weight file.

    The file gets its name when it is complete and on the disk; the `keep` - 1 before it stay as <path>.1, <path>.2, ...
    """
    with written_whole(path, keep) as scratch:
        write_checked(scratch, {**state.state_dict(), METADATA_KEY: json.dumps(metadata or {})})


def find_checkpoints(run_folder: Path) -> list[Path]:
    """The checkpoints in a run folder, newest first."""
    older = [path for path in run_folder.glob(f"{CHECKPOINT}.*") if path.suffix[1:].isdecimal()]
    newest = [path for path in (run_folder / CHECKPOINT,) if path.exists()]
    return newest + sorted(older, key=lambda path: int(path.suffix[1:]))


def load_checkpoint(path: str | os.PathLike, state: TrainingState) -> None:
    """Load a checkpoint: the first process reads it, and all processes get the same content.

    Args:
        path: a checkpoint; or a run folder, whose newest undamaged one is taken.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another network or kind of optimiser.
    """
    found = _read_checkpoint(Path(path)) if ranks()[0] == 0 else None
    wait_for_all()  # a gigabyte from a slow disk may take longer than a collective waits
    path, content = broadcast(found)
    try:
        state.load_state_dict(content, path)
    except (AssertionError, *UNFORESEEN) as error:
        raise UserError(f"{path} is not a checkpoint that this version can read ({shown(str(error))})") from None


def _read_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint and its content. In a run folder, a damaged one is reported and the one before it is taken."""
    candidates = find_checkpoints(path) if path.is_dir() else [path]
    for candidate, before in zip(candidates, [*candidates[1:], None]):
        try:
            return candidate, _read_whole_checkpoint(candidate)
        except UserError as error:
            if before is None:
                raise
            logger.warning("=> %s; taking the one before, %s", error, before)
    raise UserError(f"{path} holds no checkpoint")


def _read_whole_checkpoint(path: Path) -> dict[str, Any]:
    content = read_pickle_checked(path)
    if not isinstance(content, dict) or not {"model", "optimizer", "progress"} <= set(content):
        raise UserError(
            f"{path} is not a training checkpoint; weights alone belong to TEST.MODEL_FILE or MODEL.PRETRAINED"
        )
    return content


class CheckpointKeeper:
    """Keeps a training's checkpoints, best weights and history on disk; the first process alone writes.

    If a file cannot be written, as on a full disk, a warning is logged and the training continues; the old file stays.

    Args:
        folder: the run folder.
        describe: makes the metadata of a weight file from some figures; see `build.model.weights_metadata`.
        every_seconds, every_steps: how often a checkpoint is due within an epoch; None for never.
        keep: how many checkpoints remain.
    """

    def __init__(
        self,
        folder: Path,
        state: TrainingState,
        describe: Callable[..., dict[str, Any]],
        every_seconds: float | None = None,
        every_steps: int | None = None,
        keep: int = 2,
    ):
        self.folder = folder
        self.state = state
        self.describe = describe
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self.keep = keep
        self._is_writer = ranks()[0] == 0
        self._steps = 0
        self._saved_at = time.monotonic()

    def clean_up(self) -> None:
        """Remove scratch files of a training that was killed while writing."""
        for name in (CHECKPOINT, BEST_WEIGHTS, LAST_WEIGHTS, HISTORY) if self._is_writer else ():
            remove_scratch(self.folder, name)

    def is_due(self, steps: int = 1) -> bool:
        """Whether it is time for a checkpoint, `steps` steps of the optimiser after the last call."""
        self._steps += steps
        if self.every_seconds is not None:
            return time.monotonic() - self._saved_at >= self.every_seconds
        return self.every_steps is not None and self._steps >= self.every_steps

    def save(self) -> bool:
        """Write a checkpoint now; returns whether it could be written."""
        progress = self.state.progress
        metadata = self.describe(epoch=progress.epoch, iteration=progress.iteration)
        saved = self._written(save_checkpoint, self.folder / CHECKPOINT, self.state, metadata, self.keep)
        self._steps, self._saved_at = 0, time.monotonic()
        return saved

    def finish_epoch(self, figures: dict[str, float], metrics: dict[str, float], primary: str) -> None:
        """Record an epoch's figures and scores; keep its weights if they are the best so far; write a checkpoint."""
        progress = self.state.progress
        epoch = progress.epoch
        progress.history.append({"epoch": epoch, **figures, **metrics})
        progress.epoch, progress.iteration, progress.averages = epoch + 1, 0, {}
        logger.info("=> saving checkpoint to %s", self.folder.as_posix())
        score = metrics.get(primary, float(epoch))  # a set without labels: the newest is the best
        better = progress.best_score is None or math.isnan(progress.best_score) or score > progress.best_score
        if better and self._written(
            save_weights, self.state.validated, self.folder / BEST_WEIGHTS, self._describe_epoch()
        ):
            progress.best_score, progress.best_epoch = score, epoch
        self._written(write_json, self.folder / HISTORY, progress.history)
        self.save()  # last: resuming from it does not repeat the above

    def finish(self) -> None:
        """Write the history, which may have failed on a full disk before, and the weights after the last epoch.

        Raises:
            UserError: writing failed; both are in the checkpoint.
        """
        if self._is_writer:
            write_json(self.folder / HISTORY, self.state.progress.history)
            path = self.folder / LAST_WEIGHTS
            save_weights(self.state.validated, path, self._describe_epoch())
            logger.info("=> saving final model state to %s", path.as_posix())

    def _describe_epoch(self) -> dict[str, Any]:
        figures = finite_or_none(self.state.progress.history[-1])  # metadata is JSON
        return self.describe(epoch=figures.pop("epoch"), metrics=figures)

    def _written(self, write: Callable[..., None], *arguments: Any) -> bool:
        return not self._is_writer or write_or_warn(write, *arguments)
