"""The state of a training: everything that its steps change, saved and restored together."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import paddle

from simplepose.core.errors import UserError
from simplepose.training.amp import MixedPrecision
from simplepose.training.optim import WeightAverage
from simplepose.weights.network import arrays_of, set_strictly

if TYPE_CHECKING:
    from paddle import Tensor, nn
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

logger = logging.getLogger("simplepose")


@dataclass
class Progress:
    """How far a training has come.

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

    def __str__(self) -> str:
        return f"epoch {self.epoch}" + (f", iteration {self.iteration}" if self.iteration else "")


@dataclass
class TrainingState:
    """Network, optimiser, learning rate and what goes with them.

    Attributes:
        model: the network that learns.
        optimizer: of its parameters.
        schedule: the optimiser's learning rate, which counts iterations.
        average: of its weights, or None.
        precision: of the forward and backward pass.
        progress: how far it has come.
    """

    model: nn.Layer
    optimizer: Optimizer
    schedule: LRScheduler
    average: WeightAverage | None = None
    precision: MixedPrecision = field(default_factory=MixedPrecision)
    progress: Progress = field(default_factory=Progress)

    @property
    def validated(self) -> nn.Layer:
        """The network whose scores count and whose weights are kept: the average, if there is one."""
        return self.model if self.average is None else self.average.network

    def step(self) -> None:
        """One step of the optimiser with the gradients that are there."""
        self.precision.step(self.optimizer)
        self.optimizer.clear_grad()
        if self.average is not None:
            self.average.update(self.model)

    def follow(self, order: dict[str, Any]) -> None:
        """Continue with the batches of `order`. If they differ from those so far, restart the epoch, with a warning.

        The learning rate is set to that of the current iteration.
        """
        progress = self.progress
        before, progress.order = progress.order, order
        changed = [name for name, value in order.items() if before is not None and before.get(name) != value]
        if changed and progress.iteration:
            changes = ", ".join(f"{name} {before.get(name)} -> {order[name]}" for name in changed)
            logger.warning("=> epoch %d starts anew: its batches are others now (%s)", progress.epoch, changes)
            progress.iteration, progress.averages = 0, {}
        self.schedule.step(progress.epoch * order["iterations"] + progress.iteration)

    def state_dict(self) -> dict[str, Any]:
        """All of it as arrays and plain values."""
        content = {
            "model": arrays_of(self.model),
            "optimizer": _optimizer_state(self.model, self.optimizer),
            "progress": dict(vars(self.progress)),
            "precision": self.precision.state_dict(),
        }
        if self.average is not None:
            content["average"] = {"model": arrays_of(self.average.network), "steps": self.average.steps}
        return content

    def load_state_dict(self, content: dict[str, Any], where: Any) -> None:
        """The other direction.

        Args:
            where: names the content in messages.

        Raises:
            UserError: of another network or kind of optimiser.
        """
        _require_same_optimizer(self.optimizer, content["optimizer"], where)
        set_strictly(self.model, content["model"], where)
        _set_optimizer_state(self.model, self.optimizer, content["optimizer"])
        if self.average is not None:
            if "average" not in content:
                logger.warning("=> %s was made without TRAIN.EMA: the average starts from its weights", where)
            saved = content.get("average", {"model": content["model"], "steps": 0})
            set_strictly(self.average.network, saved["model"], where)
            self.average.steps = saved["steps"]
        self.precision.set_state_dict(content.get("precision", {}))
        self.progress = Progress(**content["progress"])


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


def _require_same_optimizer(optimizer: Optimizer, state: dict[str, Any], path: Any) -> None:
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
