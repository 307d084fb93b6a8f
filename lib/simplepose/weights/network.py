"""Loads a network's weights from files, and saves them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from paddle import nn

from simplepose.core.errors import UserError
from simplepose.weights import (
    WeightFile,
    compare,
    read_weights,
    write_weights,
)

logger = logging.getLogger("simplepose")


def load_weights(model: nn.Layer, weights: WeightFile | str | os.PathLike) -> dict[str, Any]:
    """Load a weight file, or its path, into the network, strictly: every name and shape must match.

    Returns:
        The metadata saved with the weights.

    Raises:
        UserError: unreadable file, or one whose names or shapes are not the network's; it lists them.
    """
    if not isinstance(weights, WeightFile):
        weights = read_weights(weights)
    set_strictly(model, weights.state, weights.path)
    return weights.metadata


def imagenet_weights(depth: int) -> Path:
    """Paddle's own ImageNet weights of a ResNet (stride in the 3x3 convolution): from its cache, or downloaded into it.

    Raises:
        UserError: neither cached nor downloadable; the message says which file to place where.
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
    """Load pretrained weights: the whole backbone, and those of the head that match in name and shape.

    Source: `init_weights` of the original, which loads a pose network's head as well, and fails on another shape.

    Returns:
        How many arrays were loaded; the names of those that keep their random start, or "deconv_layers" for all of its.

    Raises:
        UserError: unreadable file, one whose backbone is incomplete or of another shape, or NaN.
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
    """Raises UserError if an array holds NaN or infinite numbers: the output of such a network is meaningless."""
    broken = [name for name, array in state.items() if not np.isfinite(array).all()]
    if broken:
        more = f" and {len(broken) - 1} more arrays" if len(broken) > 1 else ""
        raise UserError(f"{path} holds NaN or infinite numbers in {broken[0]}{more}; take weights from before that")


def save_weights(model: nn.Layer, path: str | os.PathLike, metadata: dict[str, Any]) -> None:
    """Write the network's weights; an old file is replaced only when the new one is complete."""
    write_weights(path, arrays_of(model), metadata)


def arrays_of(model: nn.Layer) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def set_strictly(model: nn.Layer, state: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    _require_fit(model, state, path)
    model.set_state_dict(state)


def _require_fit(
    model: nn.Layer, state: dict[str, np.ndarray], path: str | os.PathLike, may_miss: Sequence[str] = ()
) -> list[str]:
    """The matching names; on a mismatch that no configuration key explains, every name is logged before it raises."""
    report = compare({name: tensor.shape for name, tensor in model.state_dict().items()}, state)
    try:
        report.require(path, may_miss)
    except UserError:
        if not report.reasons:
            for line in report.explain(path):
                logger.warning(line)
        raise
    return report.matched
