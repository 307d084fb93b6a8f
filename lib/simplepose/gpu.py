"""What a GPU adds to the training loop: half precision, and batches that arrive while the last one is at work."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.optimizer import Optimizer

from simplepose.data.dataset import Batch
from simplepose.errors import UserError


class MixedPrecision:
    """Forward passes in float16, with a scaled loss so that small gradients survive (Micikevicius et al., ICLR 2018).

    Weights, their gradients, the loss, the optimiser and everything saved stay float32 at every level: a checkpoint
    does not tell, and need not know, at which level it was made.

    Args:
        level: "O0": float32 throughout, the loss as it is. "O1": convolutions in float16. "O2": all but what float16
            cannot do.

    Raises:
        UserError: O1 or O2 without a GPU. Paddle would train in float32, and say nothing of it.
    """

    def __init__(self, level: str = "O0"):
        self.level = level
        self.enabled = level != "O0"
        if self.enabled and not paddle.get_device().startswith("gpu"):
            raise UserError(f"TRAIN.AMP {level} needs a GPU: on a CPU Paddle trains in float32; set TRAIN.AMP to O0")
        self.scaler = paddle.amp.GradScaler(enable=self.enabled)

    def forward(self, model: nn.Layer, images: Tensor) -> Tensor:
        """What the model makes of the images, in float32."""
        # Float32 weights would promote all of O2 back to float32.
        with paddle.amp.auto_cast(self.enabled, level=self.level, use_promote=False):
            output = model(images)
        return output.astype("float32") if self.enabled else output

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """One step with the gradients at their true scale, or none if one of them overflowed; then the next scale."""
        self.scaler.step(optimizer)
        self.scaler.update()

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied with; an overflow lowers it, at the least to 1."""
        return self.scaler.state_dict()["scale"].item() if self.enabled else 1.0

    def state_dict(self) -> dict[str, Any]:
        """The loss scale and what its next change hangs on; empty at O0."""
        return self.scaler.state_dict()

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that scale. One from the other kind of level says nothing here, and is left alone."""
        if self.enabled and state:
            self.scaler.load_state_dict(state)


class _Passing(paddle.io.IterableDataset):
    """Hands on a batch's arrays, and keeps the batch for whoever receives their tensors."""

    def __init__(self, batches: Iterable[Batch]):
        super().__init__()
        self.batches = batches
        self.passed: deque[Batch] = deque()
        self.error: BaseException | None = None

    def __iter__(self) -> Iterator[tuple]:
        try:
            for batch in self.batches:
                self.passed.append(batch)
                yield batch.images, batch.heatmaps, batch.weights
        except BaseException as error:  # Paddle's reader would wait forever for a thread that raised
            self.error = error


def on_device(batches: Iterable[Batch]) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor]]:
    """Each batch, and its images, heatmaps and weights as tensors on the current device.

    For a GPU, Paddle's reader copies the next batch from page-locked memory while this one is at work.
    """
    kind, _, number = paddle.get_device().partition(":")
    if kind == "gpu":
        yield from read_ahead(batches, paddle.CUDAPlace(int(number)))
        return
    for batch in batches:
        yield batch, *(paddle.to_tensor(array) for array in (batch.images, batch.heatmaps, batch.weights))


def read_ahead(batches: Iterable[Batch], place: Any) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor]]:
    """As `on_device`, for a place that copying to takes time."""
    source = _Passing(batches)
    reader = paddle.io.DataLoader(source, batch_size=None, places=[place], use_buffer_reader=True, return_list=True)
    for tensors in reader:
        yield source.passed.popleft(), *tensors
    if source.error is not None:
        raise source.error
