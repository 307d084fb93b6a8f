"""Optimisers, learning rates and averaged weights. A learning rate is a plain function of the iteration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from simplepose.machine.tensors import array_of, move_towards

if TYPE_CHECKING:
    from paddle import Tensor, nn
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

POLYNOMIAL_POWER = 0.9


def lr_schedule(
    kind: str, iters_per_epoch: int, epochs: int, steps: Sequence[int] = (), factor: float = 0.1, warmup_iters: int = 0
) -> Callable[[int], float]:
    """The factor on the base learning rate, as a function of the iteration (0-based).

    Args:
        kind: "MultiStepDecay" (times `factor` at each epoch in `steps`), "PolynomialDecay" (power 0.9, to 0)
            or "CosineAnnealingDecay" (to 0); the last two per iteration.
        warmup_iters: iterations over which the rate first climbs linearly; 0 for none.
    """
    total = max(1, iters_per_epoch * epochs)

    def multiplier(iteration: int) -> float:
        progress = min(1.0, iteration / total)
        if kind == "MultiStepDecay":
            value = factor ** sum(iteration // iters_per_epoch >= step for step in steps)
        elif kind == "PolynomialDecay":
            value = (1 - progress) ** POLYNOMIAL_POWER
        elif kind == "CosineAnnealingDecay":
            value = 0.5 * (1 + math.cos(math.pi * progress))
        else:
            raise ValueError(f"unknown schedule {kind!r}")
        return value * min(1.0, (iteration + 1) / warmup_iters) if warmup_iters else value

    return multiplier


def learning_rate(base_lr: float, schedule: Callable[[int], float]) -> LRScheduler:
    """base_lr * schedule(iteration); call its `step` after each iteration."""
    from paddle.optimizer.lr import LambdaDecay

    return LambdaDecay(base_lr, schedule)


def build_optimizer(
    kind: str,
    parameters: Sequence[Tensor],
    rate: LRScheduler,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    max_grad_norm: float = 0.0,
    epsilon: float = 1e-8,
) -> Optimizer:
    """An optimiser.

    Args:
        kind: "adam" (without weight decay, as the original), "adamw", or "sgd" (momentum, L2 decay).
        rate: its learning rate; see `learning_rate`.
        max_grad_norm: maximum norm of the gradient of all parameters together; 0: no clipping.
        epsilon: of Adam and AdamW; gradients much smaller than it have hardly any effect.
    """
    import paddle

    clip = paddle.nn.ClipGradByGlobalNorm(max_grad_norm) if max_grad_norm else None
    if kind == "adam":
        return paddle.optimizer.Adam(rate, epsilon=epsilon, parameters=parameters, grad_clip=clip)
    if kind == "adamw":
        return paddle.optimizer.AdamW(
            rate, epsilon=epsilon, parameters=parameters, weight_decay=weight_decay, grad_clip=clip
        )
    if kind == "sgd":
        return paddle.optimizer.Momentum(
            rate, momentum, parameters=parameters, use_nesterov=nesterov, weight_decay=weight_decay,
            grad_clip=clip,
        )  # fmt: skip
    raise ValueError(f"unknown optimiser {kind!r}")


class WeightAverage:
    """An exponential moving average of a network's weights and batch-norm statistics, held by a second network.

    After step n (from 0), average = d * average + (1 - d) * weights with d = min(decay, n / (10 + n)): it starts as the
    weights after the first step, and follows faster in the first steps.

    Args:
        network: of the same architecture; its weights are overwritten.
        decay: 0.999 looks back over about a thousand steps.
    """

    def __init__(self, network: nn.Layer, decay: float):
        self.network = network
        self.decay = decay
        self.steps = 0

    def update(self, model: nn.Layer) -> None:
        """Update the average with the weights after one more step."""
        import paddle

        decay = min(self.decay, self.steps / (10 + self.steps))
        self.steps += 1
        current = model.state_dict()
        on_cpu = paddle.get_device() == "cpu"
        with paddle.no_grad():
            for name, tensor in self.network.state_dict().items():
                if on_cpu and tensor.dtype == paddle.float32:
                    move_towards(array_of(tensor), array_of(current[name]), 1 - decay)
                else:
                    paddle.assign(decay * tensor + (1 - decay) * current[name], tensor)
