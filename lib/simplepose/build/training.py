"""Builds the training state, loop settings and checkpointing from a configuration."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.build.data import box_source
from simplepose.build.model import (
    build_codec,
    build_inference_settings,
    build_model,
    build_skeleton,
    weights_metadata,
)
from simplepose.config.load import arch_name, parse_interval
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.models.onednn_training import TrainingKernels
    from simplepose.models.pose_resnet import PoseResNet
    from simplepose.training.checkpoint import CheckpointKeeper
    from simplepose.training.evaluation import ValidationSettings
    from simplepose.training.loop import LoopSettings
    from simplepose.training.pictures import DebugPictures
    from simplepose.training.state import TrainingState

MOST_UNREAD = 20  # iterations a GPU may run ahead before losses are read and Ctrl-C or a due checkpoint is handled


def build_kernels(config: EasyDict) -> tuple[TrainingKernels | None, str]:
    """The kernels for training on a CPU (TRAIN.CPU_KERNELS, TRAIN.AMP), None for Paddle's own; and their name."""
    import paddle

    from simplepose.machine.onednn import Unavailable
    from simplepose.models.onednn_training import TrainingKernels

    if paddle.get_device() != "cpu" or config.TRAIN.CPU_KERNELS == "paddle":
        return None, "Paddle's own kernels"
    reasons = []
    for bfloat16 in (True, False) if config.TRAIN.AMP == "O1" else (False,):
        try:
            kernels = TrainingKernels(bfloat16)
            return kernels, "; ".join([*reasons, str(kernels)])
        except Unavailable as error:
            reasons.append(str(error))
    return None, "; ".join([*reasons, "Paddle's own kernels"])


def synchronize_batch_norm(model: PoseResNet) -> PoseResNet:
    """The network with batch norm synchronised over all processes (TRAIN.SYNC_BN); names in its state do not change."""
    import paddle

    if not paddle.get_device().startswith("gpu"):
        raise UserError("TRAIN.SYNC_BN needs GPUs: Paddle has no synchronised batch norm for CPUs; set it to false")
    return paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model)


def build_training_state(config: EasyDict, kernels: TrainingKernels | None, iters_per_epoch: int) -> TrainingState:
    """The initial training state: a randomly initialised network that trains on `kernels`, its optimiser etc."""
    from simplepose.training import optim
    from simplepose.training.amp import MixedPrecision
    from simplepose.training.state import Progress, TrainingState

    train = config.TRAIN
    model = build_model(config)
    model.kernels = kernels
    if train.SYNC_BN:
        model = synchronize_batch_norm(model)
    schedule = optim.lr_schedule(
        train.LR_TYPE, iters_per_epoch, train.END_EPOCH, train.LR_STEP, train.LR_FACTOR, train.WARMUP_ITERS
    )
    rate = optim.learning_rate(train.LR, schedule)
    optimizer = optim.build_optimizer(
        train.OPTIMIZER, model.parameters(), rate, train.WD, train.MOMENTUM, train.NESTEROV, train.CLIP_GRAD_NORM,
        train.EPSILON,
    )  # fmt: skip
    average = optim.WeightAverage(build_model(config), train.EMA) if train.EMA else None
    return TrainingState(model, optimizer, rate, average, MixedPrecision(train.AMP), Progress(epoch=train.BEGIN_EPOCH))


def build_loop_settings(config: EasyDict) -> LoopSettings:
    """How an epoch of training is run."""
    import paddle

    from simplepose.training.loop import LoopSettings

    on_gpu = paddle.get_device().startswith("gpu")
    return LoopSettings(
        config.TRAIN.END_EPOCH,
        config.PRINT_FREQ,
        config.LOSS.USE_TARGET_WEIGHT,
        config.TRAIN.ACCUMULATE,
        min(config.PRINT_FREQ, MOST_UNREAD) if on_gpu else 1,
    )


def build_validation_settings(config: EasyDict) -> ValidationSettings:
    """How TEST_SET is scored, and how its scores are labelled."""
    from simplepose.training.evaluation import ValidationSettings

    return ValidationSettings(
        build_inference_settings(config),
        config.DATASET.TEST_SET,
        box_source(config),
        arch_name(config),
        config.TEST.MODEL_FILE,
        config.PRINT_FREQ,
        config.LOSS.USE_TARGET_WEIGHT,
    )


def build_debug_pictures(config: EasyDict, folder: Path) -> DebugPictures:
    from simplepose.training.pictures import DebugPictures

    debug = config.DEBUG
    return DebugPictures(
        folder,
        build_skeleton(config),
        build_codec(config),
        INPUT_FORMATS[config.MODEL.INPUT_FORMAT],
        debug.SAVE_BATCH_IMAGES_GT and debug.DEBUG,
        debug.SAVE_BATCH_IMAGES_PRED and debug.DEBUG,
        debug.SAVE_HEATMAPS_GT and debug.DEBUG,
        debug.SAVE_HEATMAPS_PRED and debug.DEBUG,
    )


def build_checkpoint_keeper(config: EasyDict, folder: Path, state: TrainingState) -> CheckpointKeeper:
    from simplepose.training.checkpoint import CheckpointKeeper

    seconds, steps = parse_interval(config.TRAIN.CHECKPOINT_EVERY)
    return CheckpointKeeper(
        folder, state, partial(weights_metadata, config), seconds, steps, config.TRAIN.KEEP_CHECKPOINTS
    )


def find_pretrained(config: EasyDict) -> Path:
    """The file that MODEL.PRETRAINED names; `imagenet` stands for Paddle's own ImageNet weights."""
    from simplepose.weights.network import imagenet_weights

    pretrained, style = config.MODEL.PRETRAINED, config.MODEL.STYLE
    if pretrained == "imagenet":
        if style != "pytorch":  # names and shapes would match, but not the features
            raise UserError(
                f"MODEL.PRETRAINED imagenet are weights of MODEL.STYLE pytorch, and MODEL.STYLE is {style}; "
                f"name a file of {style} weights, or set MODEL.STYLE=pytorch"
            )
        return imagenet_weights(config.MODEL.DEPTH)
    if not Path(pretrained).exists():
        raise UserError(
            f"MODEL.PRETRAINED names {pretrained}, which does not exist; MODEL.PRETRAINED=imagenet fetches Paddle's "
            "weights, MODEL.PRETRAINED= trains from scratch"
        )
    return Path(pretrained)
