"""Health checks during training: a NaN loss, or a network that does not learn."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
from paddle import Tensor, nn

from simplepose.core.errors import UserError
from simplepose.core.files import written_whole
from simplepose.data.dataset import Batch, PoseDataset
from simplepose.machine.distributed import ranks
from simplepose.training.loop import Iteration, Reading, Watcher

logger = logging.getLogger("simplepose")

PATIENCE = 20  # steps without an expected change before a warning


class Health(Watcher):
    """Checks a training's losses, and its steps between the gradient and the optimiser.

    Args:
        model: whose gradients are checked.
        dataset: the training set.
        folder: for the dump of a batch whose loss is NaN or infinite.
    """

    def __init__(self, model: nn.Layer, dataset: PoseDataset, folder: Path):
        self.dataset = dataset
        self.folder = folder
        self._steps = 0
        self._parameters = dict(model.named_parameters())
        self._without_gradient = self._parameters
        self._any_label = False
        self._last_loss, self._times_equal = math.nan, 0
        labelled = np.any([sample.visible > 0 for sample in dataset.samples], axis=0)  # (K,)
        never = [joint for joint, seen in zip(dataset.skeleton.joints, labelled) if not seen]
        if never:
            logger.warning("=> no training sample labels %s: the network cannot learn it", ", ".join(never))

    def wants_every_loss(self) -> bool:
        """True until the check for a network that does not learn is over."""
        return self._steps < PATIENCE

    def late_loss(self, epoch: int, reading: Reading) -> None:
        """Raises UserError as `before_step` does."""
        if not math.isfinite(reading.loss):
            batch = self.dataset.load_batch(reading.rows.tolist(), epoch)
            raise self._not_finite("loss", reading.loss, batch, None, reading.lr, epoch, reading.iteration)
        self._compare(reading.loss)

    def before_step(self, iteration: Iteration) -> None:
        """Raises UserError if the loss or the gradient is NaN or infinite; it names the images and the dump."""
        now, loss = iteration, iteration.losses.value
        where = (now.batch, now.heatmaps, now.lr, now.epoch, now.index)
        if not math.isfinite(loss):
            raise self._not_finite("loss", loss, *where)
        # Paddle's ReLU maps NaN to 0, so that the loss can stay finite although the network is full of NaN; the
        # gradient of its first layer shows it.
        first = next((parameter.grad for parameter in self._parameters.values() if parameter.grad is not None), None)
        slope = 0.0 if first is None else float(first.abs().sum())
        if not math.isfinite(slope) and now.loss_scale <= 1:  # else a smaller scale is tried next
            raise self._not_finite("gradient", slope, *where)
        self._compare(loss)
        if self.wants_every_loss():
            self._steps += 1
            self._look_at_the_start(now.batch)

    def _compare(self, loss: float) -> None:
        self._times_equal = self._times_equal + 1 if loss == self._last_loss else 0
        self._last_loss = loss
        if self._times_equal == PATIENCE:
            logger.warning("=> the loss has been exactly %g for %d iterations: nothing is learnt", loss, PATIENCE + 1)

    def _look_at_the_start(self, batch: Batch) -> None:
        self._any_label = self._any_label or bool(batch.weights.any())
        self._without_gradient = {
            name: parameter
            for name, parameter in self._without_gradient.items()
            if not parameter.stop_gradient and (parameter.grad is None or not bool((parameter.grad != 0).any()))
        }
        if self._steps == PATIENCE:
            if not self._any_label:
                logger.warning(
                    "=> no labelled joint lay in any crop of %d iterations: do the annotations' centers, boxes and "
                    "joints fit the images?",
                    PATIENCE,
                )
            if self._without_gradient:
                logger.warning(
                    "=> %d arrays have had a gradient of exactly zero for %d iterations, and do not learn: %s",
                    len(self._without_gradient), PATIENCE, ", ".join(self._without_gradient),
                )  # fmt: skip

    def _not_finite(
        self, what: str, value: float, batch: Batch, heatmaps: Tensor | None, lr: float, epoch: int, iteration: int
    ) -> UserError:
        rank, num_ranks = ranks()
        arrays = {**vars(batch), **({} if heatmaps is None else {"predicted": heatmaps.numpy()})}
        names = [self.dataset.samples[row].image for row in batch.indices]
        path = self.folder / (
            f"{what}_{value}_epoch{epoch}_iteration{iteration}" + f"_rank{rank}" * (num_ranks > 1) + ".npz"
        )
        try:
            with written_whole(path) as scratch, open(scratch, "wb") as stream:
                np.savez_compressed(stream, **arrays, names=np.array(names))
            where = f"all of it is in {path.as_posix()}"
        except UserError as error:
            where = str(error)
        return UserError(
            f"the {what} is {value} at epoch {epoch}, iteration {iteration}, learning rate {lr:g}; {where}; lower "
            f"TRAIN.LR, or look at these images and their annotations: {', '.join(names)}"
        )
