"""Saving and loading: weights for everybody, and checkpoints with which a training goes on."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.optimizer import Optimizer

from simplepose.errors import UserError
from simplepose.files import remove_scratch, written_or_said, written_whole
from simplepose.gpu import MixedPrecision
from simplepose.optim import WeightAverage
from simplepose.runtime import broadcast, finite_or_none, ranks, write_json
from simplepose.weights import (
    METADATA_KEY,
    WeightFile,
    compare,
    read_pickle_checked,
    read_weights,
    write_checked,
    write_weights,
)

logger = logging.getLogger("simplepose")

# In the run folder:
CHECKPOINT = "checkpoint"  # the newest; checkpoint.1 is the one before
BEST_WEIGHTS = "model_best.pdparams"
LAST_WEIGHTS = "final_state.pdparams"
HISTORY = "history.json"


@dataclass
class Progress:
    """How far a training has come: with weights and optimiser, all that it needs to go on.

    Order and augmentation follow from seed, epoch and row, so no state of a random generator is among it.

    Attributes:
        epoch: the one under way, or the next one to run.
        best_score, best_epoch: of the evaluator's primary metric; None before the first evaluation.
        history: one dictionary of figures per finished epoch.
        iteration: batches of the epoch that the weights have seen.
        averages: of the epoch so far, as the log prints them: name -> [total, count].
        order: what the epoch's batches follow from; see `BatchSampler.order`.
    """

    epoch: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    iteration: int = 0
    averages: dict[str, list[float]] = field(default_factory=dict)
    order: dict[str, Any] | None = None

    def fit_order(self, order: dict[str, Any], optimizer: Optimizer) -> None:
        """Go on with the batches of `order`; if they were others before, from the start of the epoch, which is said.

        The learning rate, which counts iterations, becomes that of where this is.
        """
        before, self.order = self.order, order
        changed = [name for name, value in order.items() if before is not None and before.get(name) != value]
        if changed and self.iteration:
            changes = ", ".join(f"{name} {before.get(name)} -> {order[name]}" for name in changed)
            logger.warning("=> epoch %d starts anew: its batches are others now (%s)", self.epoch, changes)
            self.iteration, self.averages = 0, {}
        optimizer._learning_rate.step(self.epoch * order["iterations"] + self.iteration)

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f", iteration {self.iteration}" if self.iteration else "")


def load_weights(model: nn.Layer, weights: WeightFile | str | os.PathLike) -> dict[str, Any]:
    """Load a weight file, or its path, into the network, every name and shape or nothing.

    Returns:
        The metadata saved with the weights.

    Raises:
        UserError: unreadable file, or one whose names or shapes are not the network's; it lists them.
    """
    if not isinstance(weights, WeightFile):
        weights = read_weights(weights)
    _set_strictly(model, weights.state, weights.path)
    return weights.metadata


def imagenet_weights(depth: int) -> Path:
    """Paddle's own ImageNet weights of a ResNet (stride in the 3x3 convolution): from its cache, or fetched into it.

    Raises:
        UserError: not in the cache and not to be had; it says which file to place where.
    """
    from paddle.utils import download
    from paddle.vision.models.resnet import model_urls

    url, md5 = model_urls[f"resnet{depth}"]
    place = Path(download.WEIGHTS_HOME, url.rsplit("/", 1)[-1])
    if not place.exists():
        logger.info("=> fetching %s", url)
    try:
        return Path(download.get_weights_path_from_url(url, md5))
    except (OSError, RuntimeError):
        found = "found with another checksum" if place.exists() else "not there"
        raise UserError(
            f"MODEL.PRETRAINED imagenet needs {place}, which is {found}, and {url} cannot be fetched: place it there, "
            "or set MODEL.PRETRAINED to a local file such as torchvision's .pth, or MODEL.PRETRAINED= to train from "
            "scratch"
        ) from None


HEAD = ("deconv_layers.", "final_layer.")


def load_pretrained(model: nn.Layer, path: str | os.PathLike) -> tuple[int, list[str]]:
    """Load pretrained weights: the whole backbone, and of the head what the file has by that name and in that shape.

    Source: `init_weights` of the original, which loads a pose network's head as well, and fails on another shape.

    Returns:
        How many arrays were loaded; the names of those that start anew, or "deconv_layers" for all of its.

    Raises:
        UserError: unreadable file, one that lacks a part of the backbone or holds another, or NaN.
    """
    weights = read_weights(path)
    backbone = {name: array for name, array in weights.state.items() if name.startswith("backbone.")}
    matched = _require_fit(model, backbone, path, may_miss=HEAD)
    own = model.state_dict()
    head = [name for name in own if name.startswith(HEAD)]
    fitting = [name for name in head if name in weights.state and weights.state[name].shape == tuple(own[name].shape)]
    loaded = {name: weights.state[name] for name in (*matched, *fitting)}
    require_finite(loaded, path)
    for name, array in loaded.items():
        own[name].set_value(array)
    anew = []
    for part in HEAD:
        names = [name for name in head if name.startswith(part)]
        missing = [name for name in names if name not in loaded]
        anew += [part[:-1]] if missing == names else missing
    return len(loaded), anew


def require_finite(state: Mapping[str, np.ndarray], path: str | os.PathLike) -> None:
    """Raises UserError if an array holds NaN or infinite numbers: what such a network says means nothing."""
    broken = [name for name, array in state.items() if not np.isfinite(array).all()]
    if broken:
        more = f" and {len(broken) - 1} more arrays" if len(broken) > 1 else ""
        raise UserError(f"{path} holds NaN or infinite numbers in {broken[0]}{more}; take weights from before that")


def save_weights(model: nn.Layer, path: str | os.PathLike, metadata: dict[str, Any]) -> None:
    """Write the network's weights, beside their old version until they are whole."""
    write_weights(path, _arrays(model), metadata)


def _arrays(model: nn.Layer) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def save_checkpoint(
    path: str | os.PathLike,
    model: nn.Layer,
    optimizer: Optimizer,
    progress: Progress,
    metadata: dict[str, Any] | None = None,
    keep: int = 1,
    average: WeightAverage | None = None,
    precision: MixedPrecision | None = None,
) -> None:
    """Write everything that a training needs to go on; with metadata it is a weight file that describes itself too.

    The file takes its name when it is whole and on the disk; the `keep` - 1 before it stay as <path>.1, <path>.2, ...
    """
    content = {
        "model": _arrays(model),
        "optimizer": _optimizer_state(model, optimizer),
        "progress": dict(vars(progress)),
        METADATA_KEY: json.dumps(metadata or {}),
    }
    if average is not None:
        content["average"] = {"model": _arrays(average.network), "steps": average.steps}
    if precision is not None:
        content["precision"] = precision.state_dict()
    with written_whole(path, keep) as scratch:
        write_checked(scratch, content)


def find_checkpoints(run_folder: Path) -> list[Path]:
    """The checkpoints in a run folder, newest first."""
    older = [path for path in run_folder.glob(f"{CHECKPOINT}.*") if path.suffix[1:].isdecimal()]
    newest = [path for path in (run_folder / CHECKPOINT,) if path.exists()]
    return newest + sorted(older, key=lambda path: int(path.suffix[1:]))


def load_checkpoint(
    path: str | os.PathLike,
    model: nn.Layer,
    optimizer: Optimizer,
    average: WeightAverage | None = None,
    precision: MixedPrecision | None = None,
) -> Progress:
    """Load what `save_checkpoint` wrote, on every process what the first one reads.

    Args:
        path: a checkpoint; or a run folder, whose newest undamaged one is taken.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another network or kind of optimiser.
    """
    path, content = broadcast(_read_checkpoint(Path(path)) if ranks()[0] == 0 else None)
    _require_same_optimizer(optimizer, content["optimizer"], path)
    _set_strictly(model, content["model"], path)
    _set_optimizer_state(model, optimizer, content["optimizer"])
    if average is not None:
        if "average" not in content:
            logger.warning("=> %s was made without TRAIN.EMA: the average starts from its weights", path)
        saved = content.get("average", {"model": content["model"], "steps": 0})
        _set_strictly(average.network, saved["model"], path)
        average.steps = saved["steps"]
    if precision is not None:
        precision.set_state_dict(content.get("precision", {}))
    return Progress(**content["progress"])


def _read_checkpoint(path: Path) -> tuple[Path, dict[str, Any]]:
    """The checkpoint and what is in it. Of a run folder a damaged one is named and the one before taken."""
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

    A file that cannot be written, as on a full disk, is said; the training goes on, and what was there stays.

    Args:
        folder: the run folder.
        average: its weights are the ones to keep, if there is one.
        precision: whose loss scale goes into the checkpoints.
        describe: makes the metadata of a weight file from some figures; see `build.weights_metadata`.
        every_seconds, every_steps: how often a checkpoint is due within an epoch; None for never.
        keep: how many remain.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Layer,
        optimizer: Optimizer,
        progress: Progress,
        describe: Callable[..., dict[str, Any]],
        every_seconds: float | None = None,
        every_steps: int | None = None,
        keep: int = 2,
        average: WeightAverage | None = None,
        precision: MixedPrecision | None = None,
    ):
        self.folder = folder
        self.model = model
        self.optimizer = optimizer
        self.progress = progress
        self.describe = describe
        self.every_seconds = every_seconds
        self.every_steps = every_steps
        self.keep = keep
        self.average = average
        self.precision = precision
        self._best = model if average is None else average.network
        self._is_writer = ranks()[0] == 0
        self._steps = 0
        self._saved_at = time.monotonic()

    def clean_up(self) -> None:
        """Remove what a training that was killed amid writing left in the folder."""
        for name in (CHECKPOINT, BEST_WEIGHTS, LAST_WEIGHTS, HISTORY) if self._is_writer else ():
            remove_scratch(self.folder, name)

    def is_due(self, steps: int = 1) -> bool:
        """Whether it is time for a checkpoint, `steps` steps of the optimiser after the last call."""
        self._steps += steps
        if self.every_seconds is not None:
            return time.monotonic() - self._saved_at >= self.every_seconds
        return self.every_steps is not None and self._steps >= self.every_steps

    def save(self) -> bool:
        """Write a checkpoint now; whether it could be written."""
        progress = self.progress
        metadata = self.describe(epoch=progress.epoch, iteration=progress.iteration)
        saved = self._written(
            save_checkpoint,
            self.folder / CHECKPOINT,
            self.model,
            self.optimizer,
            progress,
            metadata,
            self.keep,
            self.average,
            self.precision,
        )
        self._steps, self._saved_at = 0, time.monotonic()
        return saved

    def finish_epoch(self, figures: dict[str, float], metrics: dict[str, float], primary: str) -> None:
        """Note an epoch's figures and scores; keep its weights if they are the best so far; write a checkpoint."""
        progress, epoch = self.progress, self.progress.epoch
        progress.history.append({"epoch": epoch, **figures, **metrics})
        progress.epoch, progress.iteration, progress.averages = epoch + 1, 0, {}
        logger.info("=> saving checkpoint to %s", self.folder.as_posix())
        score = metrics.get(primary, float(epoch))  # a set without labels: the newest is the best
        better = progress.best_score is None or math.isnan(progress.best_score) or score > progress.best_score
        if better and self._written(save_weights, self._best, self.folder / BEST_WEIGHTS, self._describe_epoch()):
            progress.best_score, progress.best_epoch = score, epoch
        self._written(write_json, self.folder / HISTORY, progress.history)
        self.save()  # last: whoever goes on from it does not come by here again

    def finish(self) -> None:
        """Write the history, which a full disk may have kept back, and the weights after the last epoch.

        Raises:
            UserError: that failed; both are in the checkpoint.
        """
        if self._is_writer:
            write_json(self.folder / HISTORY, self.progress.history)
            path = self.folder / LAST_WEIGHTS
            save_weights(self._best, path, self._describe_epoch())
            logger.info("=> saving final model state to %s", path.as_posix())

    def _describe_epoch(self) -> dict[str, Any]:
        figures = finite_or_none(self.progress.history[-1])  # metadata are JSON
        return self.describe(epoch=figures.pop("epoch"), metrics=figures)

    def _written(self, write: Callable[..., None], *arguments: Any) -> bool:
        return not self._is_writer or written_or_said(write, *arguments)


def _set_strictly(model: nn.Layer, state: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    _require_fit(model, state, path)
    model.set_state_dict(state)


def _require_fit(
    model: nn.Layer, state: dict[str, np.ndarray], path: str | os.PathLike, may_miss: Sequence[str] = ()
) -> list[str]:
    """The names that fit; where they do not and no configuration key explains it, every name goes to the log."""
    report = compare({name: tensor.shape for name, tensor in model.state_dict().items()}, state)
    try:
        report.require(path, may_miss)
    except UserError:
        if not report.reasons:
            for line in report.explain(path):
                logger.warning(line)
        raise
    return report.matched


# Paddle names an optimiser's arrays after parameters whose own names count up over the process
# ("conv2d_0.w_0_moment1_0"). On disk they carry the network's names, which mean the same in every process.
_SEPARATOR = "//"


def _optimizer_state(model: nn.Layer, optimizer: Optimizer) -> dict[str, Any]:
    structured = {parameter.name: name for name, parameter in model.named_parameters()}
    state = {}
    for key, value in optimizer.state_dict().items():
        owner = max((name for name in structured if key.startswith(name + "_")), key=len, default=None)
        if hasattr(value, "numpy"):
            value = value.numpy()
        state[f"{structured[owner]}{_SEPARATOR}{key[len(owner) :]}" if owner else key] = value
    return state


def _set_optimizer_state(model: nn.Layer, optimizer: Optimizer, state: dict[str, Any]) -> None:
    own_names = {name: parameter.name for name, parameter in model.named_parameters()}
    restored = {}
    for key, value in state.items():
        structured, separator, suffix = key.partition(_SEPARATOR)
        if separator:
            key, value = own_names[structured] + suffix, paddle.to_tensor(value)
        restored[key] = value
    # A backbone that was frozen has no state yet, and Paddle would refuse to begin one beside what is restored.
    suffixes = {key.partition(_SEPARATOR)[2] for key in state if _SEPARATOR in key}
    for parameter in model.parameters():
        for suffix in suffixes if not parameter.stop_gradient else ():
            if parameter.name + suffix not in restored:
                restored[parameter.name + suffix] = _initial_state(optimizer, parameter, suffix)
    optimizer.set_state_dict(restored)


def _require_same_optimizer(optimizer: Optimizer, state: dict[str, Any], path: str | os.PathLike) -> None:
    kinds = {"moment1": "adam or adamw", "velocity": "sgd"}
    own = "velocity" if isinstance(optimizer, paddle.optimizer.Momentum) else "moment1"
    saved = {kind for kind in kinds for key in state if f"{_SEPARATOR}_{kind}_" in key}  # none before the first step
    if saved - {own}:
        raise UserError(
            f"{path} was made with TRAIN.OPTIMIZER {kinds[saved.pop()]}, and this is {kinds[own]}; set it back, or "
            f"start a training of its weights with TRAIN.RESUME=false MODEL.PRETRAINED={path}"
        )


def _initial_state(optimizer: Optimizer, parameter: Tensor, suffix: str) -> Tensor:
    """What an optimiser holds of a parameter before its first step."""
    for beta in ("beta1", "beta2"):
        if beta in suffix:  # "_beta1_pow_acc_0"
            return paddle.full([1], getattr(optimizer, f"_{beta}"))
    return paddle.zeros_like(parameter)  # moments and velocities
