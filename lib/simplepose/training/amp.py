"""Mixed precision on a GPU: float16 passes and loss scaling."""

from __future__ import annotations

import math

import paddle
from paddle import Tensor, nn
from paddle.optimizer import Optimizer

from simplepose.core.errors import UserError


class LossScaler:
    """Multiplies the loss so that the small gradients of a float16 backward pass are not rounded to zero.

    A step whose gradient overflows is skipped and the scale halved, to no less than 1; after `patience` steps in a row
    without an overflow it doubles. Source: Micikevicius et al., Mixed Precision Training, ICLR 2018, section 3.2.
    """

    def __init__(self, scale: float = 2.0**15, patience: int = 2000):
        self.scale = scale
        self.patience = patience
        self.good_steps = 0

    def step(self, optimizer: Optimizer) -> bool:
        """Take a step with the gradients at their true scale; returns whether it was taken."""
        gradients = [parameter.grad for parameter in optimizer._parameter_list if parameter.grad is not None]
        with paddle.no_grad():
            finite = math.isfinite(float(paddle.add_n([gradient.sum() for gradient in gradients])))
            if finite:
                for gradient in gradients:
                    gradient.scale_(1 / self.scale)
        if finite:
            optimizer.step()
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.scale = max(1.0, self.scale / 2)
        elif self.good_steps % self.patience == 0:
            self.scale *= 2
        return finite


class MixedPrecision:
    """Forward and backward passes in float16 where that is faster.

    Weights, their gradients, the loss, the optimiser and everything saved stay float32 at every level: a checkpoint
    can be resumed at any level.

    Args:
        level: "O0": float32 throughout. "O1": convolutions and deconvolutions in float16; on a CPU nothing here, as the
            network's kernels do bfloat16. "O2": everything except what is unsafe in float16.

    Raises:
        UserError: O1 on a GPU without float16, where Paddle would train in float32; O2 on that or on a CPU.
    """

    def __init__(self, level: str = "O0"):
        self.level = level
        self.enabled = level != "O0" and not (level == "O1" and paddle.get_device() == "cpu")
        self.scaler = LossScaler() if self.enabled else None
        if self.enabled:
            _require_half_precision(level)

    @property
    def loss_scale(self) -> float:
        return self.scaler.scale if self.scaler else 1.0

    def forward(self, model: nn.Layer, images: Tensor) -> Tensor:
        """The model's output for the images, in float32."""
        if not self.enabled:
            return model(images)
        # Deconvolutions are not on Paddle's own list. With promotion, float32 weights would make all of O2 float32.
        with paddle.amp.auto_cast(level=self.level, custom_white_list={"conv2d_transpose"}, use_promote=False):
            return model(images).astype("float32")

    def backward(self, loss: Tensor) -> None:
        (loss * self.loss_scale if self.scaler else loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """One step with the gradients at their true scale; skipped if one of them overflowed."""
        if self.scaler:
            self.scaler.step(optimizer)
        else:
            optimizer.step()

    def state_dict(self) -> dict[str, float]:
        """The loss scale and the counter for its next change; empty at O0."""
        return {"scale": self.scaler.scale, "good_steps": self.scaler.good_steps} if self.scaler else {}

    def set_state_dict(self, state: dict[str, float]) -> None:
        """Restore the scale; a state from O0 has none, and O0 needs none."""
        if self.scaler and state:
            self.scaler.scale, self.scaler.good_steps = state["scale"], state["good_steps"]


def _require_half_precision(level: str) -> None:
    if not paddle.get_device().startswith("gpu"):
        raise UserError(f"TRAIN.AMP {level} needs a GPU; on a CPU there is O1 (bfloat16, where the processor has it)")
    major, minor = paddle.device.cuda.get_device_capability()
    if not paddle.is_compiled_with_rocm() and major < 7:
        raise UserError(
            f"TRAIN.AMP {level} needs a GPU of compute capability 7.0, and this one has {major}.{minor}: Paddle would "
            "train in float32; set TRAIN.AMP to O0"
        )
