"""Saving and loading: weights for everybody, and checkpoints with which a training goes on."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn
from paddle.optimizer import Optimizer

from simplepose.errors import UserError
from simplepose.files import written_whole
from simplepose.weights import METADATA_KEY, WeightFile, compare, read_pickle_checked, read_weights, write_weights

logger = logging.getLogger("simplepose")


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: the next one to run.
        best_score, best_epoch: of the evaluator's primary metric; None before the first evaluation.
        history: one dictionary of figures per finished epoch.
    """

    epoch: int = 0
    best_score: float | None = None
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


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


def load_backbone(model: nn.Layer, path: str | os.PathLike) -> int:
    """Load pretrained weights into the backbone; the head may be missing, nothing of the backbone may.

    Returns:
        How many arrays were loaded.
    """
    state = read_weights(path).state
    backbone = {name: array for name, array in state.items() if name.startswith("backbone.")}
    matched = _require_fit(model, backbone, path, may_miss=("deconv_layers.", "final_layer."))
    model.backbone.set_state_dict({name[len("backbone.") :]: backbone[name] for name in matched})
    return len(matched)


def save_weights(model: nn.Layer, path: str | os.PathLike, metadata: dict[str, Any]) -> None:
    """Write the network's weights, beside their old version until they are whole."""
    write_weights(path, {name: tensor.numpy() for name, tensor in model.state_dict().items()}, metadata)


def save_checkpoint(
    path: str | os.PathLike,
    model: nn.Layer,
    optimizer: Optimizer,
    progress: Progress,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write everything that a training needs to go on; with metadata it is a weight file that describes itself too."""
    content = {
        "model": {name: tensor.numpy() for name, tensor in model.state_dict().items()},
        "optimizer": _optimizer_state(model, optimizer),
        "progress": dict(vars(progress)),
        METADATA_KEY: json.dumps(metadata or {}),
    }
    with written_whole(path) as scratch, open(scratch, "wb") as stream:
        pickle.dump(content, stream, protocol=4)


def load_checkpoint(path: str | os.PathLike, model: nn.Layer, optimizer: Optimizer) -> Progress:
    """Load what `save_checkpoint` wrote. `path` may be a run folder.

    Raises:
        UserError: no checkpoint there, a damaged one, or one of another network.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "checkpoint"
    content = read_pickle_checked(path)
    if not isinstance(content, dict) or not {"model", "optimizer", "progress"} <= set(content):
        raise UserError(
            f"{path} is not a training checkpoint; weights alone belong to TEST.MODEL_FILE or MODEL.PRETRAINED"
        )
    _set_strictly(model, content["model"], path)
    _set_optimizer_state(model, optimizer, content["optimizer"])
    return Progress(**content["progress"])


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
    import paddle

    own_names = {name: parameter.name for name, parameter in model.named_parameters()}
    restored = {}
    for key, value in state.items():
        structured, separator, suffix = key.partition(_SEPARATOR)
        if separator:
            key, value = own_names[structured] + suffix, paddle.to_tensor(value)
        restored[key] = value
    optimizer.set_state_dict(restored)
