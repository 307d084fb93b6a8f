"""Prefetching: the next batch is copied to the device while the current one is processed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import paddle
from paddle import Tensor

from simplepose.data.dataset import Batch


class _Passing(paddle.io.IterableDataset):
    """Passes on a batch's arrays, and keeps the batch for the receiver of their tensors."""

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

    For a GPU, Paddle's reader copies the next batch from page-locked memory while the current one is processed.
    """
    kind, _, number = paddle.get_device().partition(":")
    if kind == "gpu":
        yield from read_ahead(batches, paddle.CUDAPlace(int(number)))
        return
    for batch in batches:
        yield batch, *(paddle.to_tensor(array) for array in (batch.images, batch.heatmaps, batch.weights))


def read_ahead(batches: Iterable[Batch], place: Any) -> Iterator[tuple[Batch, Tensor, Tensor, Tensor]]:
    """As `on_device`, for a device to which copying takes time."""
    source = _Passing(batches)
    reader = paddle.io.DataLoader(source, batch_size=None, places=[place], use_buffer_reader=True, return_list=True)
    for tensors in reader:
        yield source.passed.popleft(), *tensors
    if source.error is not None:
        raise source.error
