"""Evaluating and telling: the table in the log, metrics.json in the run folder, curves in VisualDL."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplepose.config import arch_name
from simplepose.engine import DebugPictures, Evaluator, evaluate
from simplepose.files import written_or_said
from simplepose.preprocessing import denormalize
from simplepose.runtime import StopRequest, git_commit, ranks, write_json

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.data.dataset import BatchLoader
    from simplepose.inference import Network

logger = logging.getLogger("simplepose")

NUM_PICTURES = 16  # crops with predictions shown in VisualDL


def evaluate_and_report(
    config: EasyDict,
    network: Network,
    loader: BatchLoader,
    evaluator: Evaluator,
    run_folder: Path,
    writer: Any = None,
    epoch: int | None = None,
    pictures: DebugPictures | None = None,
    stop: StopRequest | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """Evaluate with the configuration's settings; log the table, write the predictions and metrics.json.

    Args:
        epoch: of the training that this belongs to, which goes on where a file cannot be written.

    Returns:
        valid_loss and valid_accuracy; the evaluator's metrics, computed by the first process alone. Each is empty
        without labels to compare with.

    Raises:
        UserError: outside of a training, a file cannot be written.
    """
    from simplepose import build

    figures, first = evaluate(
        network, loader, evaluator, build.build_inference_settings(config), config.PRINT_FREQ,
        config.LOSS.USE_TARGET_WEIGHT, pictures, stop,
    )  # fmt: skip
    if ranks()[0] != 0:
        return figures, {}
    metrics = evaluator.compute()
    recipe = {
        "test_set": config.DATASET.TEST_SET,
        "boxes": build.box_source(config),
        "flip_test": config.TEST.FLIP_TEST,
        "shift_heatmap": config.TEST.SHIFT_HEATMAP,
        "post_process": config.TEST.POST_PROCESS,
    }
    # Scores on annotated and on detected boxes, with and without the flip test, differ: never one without its recipe.
    logger.info("=> %s", ", ".join(f"{name} {value}" for name, value in recipe.items()))
    if metrics:
        for line in evaluator.table(arch_name(config), metrics):
            logger.info(line)
    else:
        predictions = (run_folder / evaluator.predictions_file).as_posix()
        logger.info("=> %s has no labels; predictions go to %s", config.DATASET.TEST_SET, predictions)

    def write() -> None:
        evaluator.save(run_folder)
        write_json(
            run_folder / "metrics.json",
            {
                **metrics,
                **figures,
                **recipe,
                "arch": arch_name(config),
                "samples": len(loader.dataset),
                "epoch": epoch,
                "model_file": config.TEST.MODEL_FILE,
                "commit": git_commit(),
            },
        )

    if epoch is None:
        write()
    else:
        written_or_said(write)
    if writer is not None:
        for name, value in {**figures, **metrics}.items():
            writer.add_scalar(f"valid/{name.removeprefix('valid_')}", value, epoch)
        batch, heatmaps = first
        shown = build.build_debug_pictures(config, run_folder)
        crops = denormalize(batch.images[:NUM_PICTURES], shown.input_format)
        picture = shown.draw(crops, heatmaps[:NUM_PICTURES], batch.weights[:NUM_PICTURES])
        writer.add_image("valid/predictions", picture[..., ::-1].copy(), epoch)
    return figures, metrics
