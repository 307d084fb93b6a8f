"""One evaluation: predictions, the table in the log, metrics.json, curves in VisualDL."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import paddle

from simplepose.core.files import write_json, write_or_warn
from simplepose.core.geometry import apply_affine
from simplepose.core.images import denormalize
from simplepose.data.dataset import Batch
from simplepose.data.loader import BatchLoader
from simplepose.inference.network import InferenceSettings, Network, predict_heatmaps
from simplepose.machine.distributed import gather, ranks, wait_for_all
from simplepose.machine.logs import progress_bar
from simplepose.machine.provenance import git_commit
from simplepose.machine.signals import Stopped, StopRequest
from simplepose.metrics.accuracy import heatmap_accuracy
from simplepose.training.loop import Average
from simplepose.training.losses import joints_mse_loss
from simplepose.training.pictures import DebugPictures

logger = logging.getLogger("simplepose")


class Evaluator(Protocol):
    """Collects predictions by sample index and scores them."""

    primary: str
    predictions_file: str  # inside the run folder

    def add(self, indices: np.ndarray, joints: np.ndarray, scores: np.ndarray) -> None: ...

    def compute(self) -> dict[str, float]: ...

    def table(self, arch: str, metrics: dict[str, float]) -> list[str]: ...

    def save(self, folder: Path) -> None: ...


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
    """Predict every sample and pass it to the evaluator, in the image's own coordinates.

    Over several processes each predicts some of the batches, and every evaluator receives all of them in order.

    Returns:
        valid_loss and valid_accuracy, or nothing if no joint is labelled; this process's first batch and its heatmaps
        (N, K, h, w), to draw, or None if it had none.

    Raises:
        Stopped: on every process, if one of them was asked to stop.
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
    losses, accuracy = Average(), Average()  # over the batches of all processes, in the order of a single one
    for indices, joints, scores, loss, correct in sorted(
        (r for share, _ in shares for r in share), key=lambda r: r[0][0]
    ):
        evaluator.add(indices, joints, scores)
        losses.add(loss, len(indices))
        accuracy.add(*correct)
    labelled = any(sample.visible.any() for sample in dataset.samples)
    figures = {"valid_loss": losses.mean, "valid_accuracy": accuracy.mean} if labelled else {}
    return figures, first


NUM_PICTURES = 16  # crops with predictions shown in VisualDL


@dataclass(frozen=True)
class ValidationSettings:
    """How a set is scored, and how its scores are labelled.

    Attributes:
        inference: flip test and decoding.
        test_set, boxes: which set, and where its boxes come from.
        arch: the network's name in the table.
        model_file: the weight file; "" during a training.
        print_freq: batches between two lines in the log.
        use_target_weight: unlabelled joints do not count in the loss.
    """

    inference: InferenceSettings
    test_set: str
    boxes: str
    arch: str
    model_file: str = ""
    print_freq: int = 20
    use_target_weight: bool = True


def evaluate_and_report(
    settings: ValidationSettings,
    network: Network,
    loader: BatchLoader,
    evaluator: Evaluator,
    run_folder: Path,
    writer: Any = None,
    epoch: int | None = None,
    pictures: DebugPictures | None = None,
    stop: StopRequest | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Evaluate; log the table, write the predictions and metrics.json.

    Args:
        writer: VisualDL's, for scalars, and `pictures` of the first batch.
        epoch: of the training that this belongs to, which continues if a file cannot be written.

    Returns:
        valid_loss and valid_accuracy; the evaluator's metrics, computed by the first process alone. Each is empty
        without labels to compare with.

    Raises:
        UserError: outside of a training, a file cannot be written.
    """
    figures, first = evaluate(
        network, loader, evaluator, settings.inference, settings.print_freq, settings.use_target_weight, pictures, stop
    )
    if ranks()[0] != 0:
        return figures, {}
    metrics = evaluator.compute()
    recipe = {
        "test_set": settings.test_set,
        "boxes": settings.boxes,
        **asdict(settings.inference),
        "decoder": loader.dataset.codec.decoder,
    }
    # Scores on annotated and on detected boxes, with and without the flip test, differ: always log the recipe, too.
    logger.info("=> %s", ", ".join(f"{name} {value}" for name, value in recipe.items()))
    if metrics:
        for line in evaluator.table(settings.arch, metrics):
            logger.info(line)
    else:
        predictions = (run_folder / evaluator.predictions_file).as_posix()
        logger.info("=> %s has no labels; predictions go to %s", settings.test_set, predictions)

    def write() -> None:
        evaluator.save(run_folder)
        write_json(
            run_folder / "metrics.json",
            {
                **metrics,
                **figures,
                **recipe,
                "arch": settings.arch,
                "samples": len(loader.dataset),
                "epoch": epoch,
                "model_file": settings.model_file,
                "commit": git_commit(),
            },
        )

    if epoch is None:
        write()
    else:
        write_or_warn(write)
    if writer is not None and pictures is not None:
        for name, value in {**figures, **metrics}.items():
            writer.add_scalar(f"valid/{name.removeprefix('valid_')}", value, epoch)
        batch, heatmaps = first
        crops = denormalize(batch.images[:NUM_PICTURES], pictures.input_format)
        picture = pictures.draw(crops, heatmaps[:NUM_PICTURES], batch.weights[:NUM_PICTURES])
        writer.add_image("valid/predictions", picture[..., ::-1].copy(), epoch)
    return figures, metrics
