"""The loops: one epoch of training, one evaluation."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Protocol

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.optimizer import Optimizer

from simplepose.checkpoint import Progress
from simplepose.data.dataset import Batch, BatchLoader
from simplepose.files import written_or_said
from simplepose.geometry import apply_affine
from simplepose.gpu import MixedPrecision, on_device
from simplepose.heatmaps import HeatmapCodec, argmax_cells
from simplepose.inference import InferenceSettings, Network, predict_heatmaps
from simplepose.losses import joints_mse_loss
from simplepose.metrics.accuracy import heatmap_accuracy
from simplepose.optim import WeightAverage
from simplepose.preprocessing import InputFormat, denormalize
from simplepose.runtime import Stopped, StopRequest, gather, progress_bar, wait_for_all
from simplepose.skeletons import Skeleton
from simplepose.visualize import draw_crops, draw_heatmaps, write_image
from simplepose.watch import Watch

logger = logging.getLogger("simplepose")


class Evaluator(Protocol):
    """Collects predictions by sample index and scores them."""

    primary: str
    predictions_file: str  # inside the run folder

    def add(self, indices: np.ndarray, joints: np.ndarray, scores: np.ndarray) -> None: ...

    def compute(self) -> dict[str, float]: ...

    def save(self, folder: Path) -> None: ...


class Average:
    """A running mean and the value last added. It can start from another's total and count."""

    def __init__(self, total: float = 0.0, count: float = 0.0) -> None:
        self.value, self.total, self.count = 0.0, total, count

    def add(self, value: float, count: float = 1) -> None:
        self.value = value
        self.total += value * count
        self.count += count

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0


@dataclass(frozen=True)
class DebugPictures:
    """The original's debug pictures (section DEBUG): crops with joints and heatmaps, target and predicted."""

    folder: Path
    skeleton: Skeleton
    codec: HeatmapCodec
    input_format: InputFormat
    images_gt: bool
    images_pred: bool
    heatmaps_gt: bool
    heatmaps_pred: bool

    def save(self, prefix: str, batch: Batch, heatmaps: np.ndarray) -> None:
        """Write <folder>/<prefix>_{gt,pred,hm_gt,hm_pred}.jpg as far as they are asked for and the disk takes them."""
        crops = denormalize(batch.images, self.input_format)
        for name, wanted, maps in (("gt", self.images_gt, batch.heatmaps), ("pred", self.images_pred, heatmaps)):
            if wanted:
                picture = self.draw(crops, maps, batch.weights)
                written_or_said(write_image, self.folder / f"{prefix}_{name}.jpg", picture)
        for name, wanted, maps in (("gt", self.heatmaps_gt, batch.heatmaps), ("pred", self.heatmaps_pred, heatmaps)):
            if wanted:
                written_or_said(write_image, self.folder / f"{prefix}_hm_{name}.jpg", draw_heatmaps(crops, maps))

    def draw(self, crops: np.ndarray, heatmaps: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Crops (N, H, W, 3) with the maxima of heatmaps (N, K, h, w) where weights (N, K) are positive."""
        cells, _ = argmax_cells(heatmaps)
        return draw_crops(crops, cells * self.codec.stride_xy, weights, self.skeleton)


def train_one_epoch(
    model: nn.Layer,
    loader: BatchLoader,
    optimizer: Optimizer,
    progress: Progress,
    end_epoch: int,
    print_freq: int,
    use_target_weight: bool = True,
    accumulate: int = 1,
    average: WeightAverage | None = None,
    frozen: nn.Layer | None = None,
    writer: Any = None,
    pictures: DebugPictures | None = None,
    watch: Watch | None = None,
    after_step: Callable[[int], None] | None = None,
    precision: MixedPrecision | None = None,
    look_every: int = 1,
    phase: Callable[[str], AbstractContextManager] = nullcontext,
) -> dict[str, float]:
    """Train on every batch of the epoch that `progress` is at, or on what is left of them.

    Every `print_freq` iterations a line is logged, the accuracy measured, and scalars written to `writer` (a
    VisualDL LogWriter).

    Args:
        progress: kept up to date after every step of the optimiser that is looked at.
        accumulate: iterations whose gradients are averaged to one such step; at the end of an epoch maybe fewer.
        average: follows the weights after each step.
        frozen: part of the model that is run in eval mode; see `PoseResNet.freeze_backbone`.
        watch: looks at every iteration: on time, or late where `look_every` says so.
        after_step: called after a step that was looked at, with the number of steps since the last call. It may save a
            checkpoint, or raise what ends the epoch here; another call then does the rest.
        precision: of the forward pass; float32 if None.
        look_every: iterations between two looks at the loss, besides those that are printed. Looking waits for the
            device, so a GPU runs on for a while; 1 looks at every loss before the step is taken.
        phase: what the parts of an iteration run in, by name: data, forward, backward, optimiser.

    Returns:
        train_loss and train_accuracy, means over the epoch (the accuracy over the printed iterations), lr.
    """
    model.train()
    if frozen is not None:
        frozen.eval()
    precision = precision or MixedPrecision()
    epoch, first, last = progress.epoch, progress.iteration, len(loader) - 1
    batch_time, data_time = Average(), Average()
    losses, accuracy = (Average(*progress.averages.get(name, ())) for name in ("loss", "accuracy"))
    unread: list[tuple[int, np.ndarray, float, Tensor]] = []  # iteration, rows of its batch, rate, loss on the device
    steps, looked_at = 0, first - 1  # of the optimiser since, and the iteration of, the last step looked at
    schedule = optimizer._learning_rate
    recent = 0  # samples since the last line
    start = line_start = time.perf_counter()
    batches = on_device(progress_bar(loader.epoch(epoch, first), len(loader), f"epoch {epoch}", first))
    for i in range(first, len(loader)):
        with phase("data"):
            batch, images, target, weights = next(batches)
        data_time.add(time.perf_counter() - start)

        is_step = (i + 1) % accumulate == 0 or i == last
        in_step = min(accumulate, len(loader) - i // accumulate * accumulate)  # iterations
        with model.no_sync() if isinstance(model, paddle.DataParallel) and not is_step else nullcontext():
            with phase("forward"):
                heatmaps = precision.forward(model, images)  # (N, K, h, w)
                loss = joints_mse_loss(heatmaps, target, weights if use_target_weight else None)
            with phase("backward"):
                precision.backward(loss / in_step)
        lr = optimizer.get_lr()
        unread.append((i, batch.indices, lr, loss.detach()))
        printed = i % print_freq == 0 or i == last
        patience = 1 if watch is not None and watch.is_new else look_every
        looks = is_step and (printed or i - looked_at >= patience)
        if looks or printed or patience == 1:
            values = paddle.stack([unread_loss for *_, unread_loss in unread]).tolist()  # waits for the device
            for (iteration, rows, its_lr, _), value in zip(unread, values):
                losses.add(value, len(rows))
                if watch is not None and iteration < i:
                    watch.look_back(rows, value, its_lr, epoch, iteration)
            unread.clear()
            if watch is not None:
                watch.look(batch, heatmaps, losses.value, lr, epoch, i, precision.loss_scale)
        if is_step:
            with phase("optimiser"):
                precision.step(optimizer)
                optimizer.clear_grad()
                if average is not None:
                    average.update(model)
        schedule.step()

        if printed:
            predicted = heatmaps.detach().numpy()
            accuracy.add(*heatmap_accuracy(predicted, batch.heatmaps))
        batch_time.add(time.perf_counter() - start)
        recent += len(images)
        if printed:
            speed, line_start, recent = recent / (time.perf_counter() - line_start), time.perf_counter(), 0
            iteration = epoch * len(loader) + i
            remaining = timedelta(seconds=int((end_epoch * len(loader) - iteration - 1) * batch_time.mean))
            logger.info(
                f"Epoch: [{epoch}][{i}/{len(loader)}]\t"
                f"Time {batch_time.value:.3f}s ({batch_time.mean:.3f}s)\t"
                f"Speed {speed:.1f} samples/s\t"
                f"Data {data_time.value:.3f}s ({data_time.mean:.3f}s)\t"
                f"Lr {lr:.5f} ({lr:.5f})\t"
                f"Loss {losses.value:.5f} ({losses.mean:.5f})\t"
                f"Accuracy {accuracy.value:.3f} ({accuracy.mean:.3f})\t"
                f"eta: {remaining}"
            )
            if writer is not None:
                writer.add_scalar("train/loss", losses.value, iteration)
                writer.add_scalar("train/accuracy", accuracy.value, iteration)
                writer.add_scalar("train/lr", lr, iteration)
            if pictures is not None:
                pictures.save(f"train_{i}", batch, predicted)
        steps += is_step
        if looks:
            progress.iteration = i + 1
            progress.averages = {"loss": [losses.total, losses.count], "accuracy": [accuracy.total, accuracy.count]}
            if after_step is not None:
                after_step(steps)
            steps, looked_at = 0, i
        start = time.perf_counter()
    batches.close()
    lr = schedule.base_lr * schedule.lr_lambda(schedule.last_epoch - 1)  # of the last step, whoever made it
    return {"train_loss": losses.mean, "train_accuracy": accuracy.mean, "lr": lr}


def evaluate(
    network: Network,
    loader: BatchLoader,
    evaluator: Evaluator,
    settings: InferenceSettings,
    print_freq: int,
    use_target_weight: bool = True,
    pictures: DebugPictures | None = None,
    stop: StopRequest | None = None,
) -> tuple[dict[str, float], tuple[Batch, np.ndarray] | None]:
    """Predict every sample and hand it to the evaluator, in the image's own coordinates.

    Over several processes each predicts some of the batches, and every evaluator receives all of them in order.

    Returns:
        valid_loss and valid_accuracy, or nothing if no joint is labelled; this process's first batch and its heatmaps
        (N, K, h, w), to draw, or None if it had none.

    Raises:
        Stopped: on every process, if one of them was asked to.
    """
    dataset = loader.dataset
    batch_time, losses, accuracy = Average(), Average(), Average()
    results = []
    first = None
    start = time.perf_counter()
    for i, batch in enumerate(progress_bar(loader.epoch(), len(loader), "test")):
        if stop is not None and stop.requested:
            break
        heatmaps = predict_heatmaps(network, batch.images, dataset.skeleton.flip_permutation, settings)
        joints, scores = dataset.codec.decode(heatmaps, settings.post_process)  # (N, K, 2), (N, K)
        weights = paddle.to_tensor(batch.weights) if use_target_weight else None
        loss = joints_mse_loss(paddle.to_tensor(heatmaps), paddle.to_tensor(batch.heatmaps), weights)
        correct = heatmap_accuracy(heatmaps, batch.heatmaps)
        losses.add(float(loss), len(heatmaps))
        accuracy.add(*correct)
        results.append((batch.indices, apply_affine(batch.to_image, joints), scores, float(loss), correct))
        first = first or (batch, heatmaps)
        batch_time.add(time.perf_counter() - start)
        start = time.perf_counter()
        if i % print_freq == 0:
            logger.info(
                f"Test: [{i}/{len(loader)}]\t"
                f"Time {batch_time.value:.3f} ({batch_time.mean:.3f})\t"
                f"Loss {losses.value:.4f} ({losses.mean:.4f})\t"
                f"Accuracy {accuracy.value:.3f} ({accuracy.mean:.3f})"
            )
            if pictures is not None:
                pictures.save(f"val_{i}", batch, heatmaps)
    wait_for_all()
    shares = gather((results, stop is not None and stop.requested))
    if any(stopped for _, stopped in shares):
        raise Stopped
    losses, accuracy = Average(), Average()  # over everybody's batches, in the order of a single process
    for indices, joints, scores, loss, correct in sorted(
        (r for share, _ in shares for r in share), key=lambda r: r[0][0]
    ):
        evaluator.add(indices, joints, scores)
        losses.add(loss, len(indices))
        accuracy.add(*correct)
    labelled = any(sample.visible.any() for sample in dataset.samples)
    figures = {"valid_loss": losses.mean, "valid_accuracy": accuracy.mean} if labelled else {}
    return figures, first
