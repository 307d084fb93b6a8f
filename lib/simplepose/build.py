"""Where the configuration meets the library: each function reads its keys and hands on plain arguments."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplepose.config import (
    DESCRIBED,
    arch_name,
    disagreements,
    find_skeleton,
    get_key,
    load_config,
    model_name,
    parse_interval,
    parse_override,
)
from simplepose.data.augment import AugmentationSettings
from simplepose.data.coco import annotation_file, load_coco, read_coco
from simplepose.data.crop_cache import CropCache, open_crop_cache
from simplepose.data.dataset import BatchLoader, BatchSampler, DealtBatches, PoseDataset
from simplepose.data.mpii import load_mpii
from simplepose.data.sample import PoseSample, is_test_set, select_well_framed
from simplepose.errors import UserError
from simplepose.heatmaps import HeatmapCodec
from simplepose.inference import InferenceSettings, PoseNetwork
from simplepose.metrics.coco_ap import CocoEvaluator
from simplepose.metrics.pckh import PckhEvaluator, load_pckh_ground_truth
from simplepose.preprocessing import INPUT_FORMATS
from simplepose.runtime import ranks
from simplepose.skeletons import SKELETONS, Skeleton
from simplepose.weights import CONFIG_KEY, WeightFile, infer_joints, read_weights

if TYPE_CHECKING:
    from easydict import EasyDict
    from paddle.optimizer import Optimizer

    from simplepose.checkpoint import CheckpointKeeper, Progress
    from simplepose.engine import DebugPictures, Evaluator
    from simplepose.gpu import MixedPrecision
    from simplepose.models.onednn_training import TrainingKernels
    from simplepose.models.pose_resnet import PoseResNet
    from simplepose.optim import WeightAverage

logger = logging.getLogger("simplepose")


def build_skeleton(config: EasyDict) -> Skeleton:
    return find_skeleton(config)


def build_codec(config: EasyDict) -> HeatmapCodec:
    extra = config.MODEL.EXTRA
    return HeatmapCodec(tuple(config.MODEL.IMAGE_SIZE), tuple(extra.HEATMAP_SIZE), extra.SIGMA)


def build_inference_settings(config: EasyDict) -> InferenceSettings:
    test = config.TEST
    return InferenceSettings(test.FLIP_TEST, test.SHIFT_HEATMAP, test.POST_PROCESS)


def build_model(config: EasyDict) -> PoseResNet:
    """The network with fresh weights; nothing is read from disk."""
    from simplepose.models.pose_resnet import PoseResNet

    extra = config.MODEL.EXTRA
    return PoseResNet(
        depth=config.MODEL.DEPTH,
        num_joints=config.MODEL.NUM_JOINTS,
        style=config.MODEL.STYLE,
        deconv_filters=extra.NUM_DECONV_FILTERS,
        deconv_kernels=extra.NUM_DECONV_KERNELS,
        deconv_bias=extra.DECONV_WITH_BIAS,
        final_kernel=extra.FINAL_CONV_KERNEL,
    )


def build_kernels(config: EasyDict) -> tuple[TrainingKernels | None, str]:
    """What the network trains with on a CPU (TRAIN.CPU_KERNELS, TRAIN.AMP), None for Paddle's own; and its name."""
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
    """The network with batch norm over all processes (TRAIN.SYNC_BN); the names in its state stay."""
    import paddle

    if not paddle.get_device().startswith("gpu"):
        raise UserError("TRAIN.SYNC_BN needs GPUs: Paddle has no synchronised batch norm for CPUs; set it to false")
    return paddle.nn.SyncBatchNorm.convert_sync_batchnorm(model)


def load_model(config: EasyDict, weights: WeightFile) -> PoseResNet:
    """The network with these weights, every name and shape of them."""
    from simplepose.checkpoint import load_weights

    model = build_model(config)
    load_weights(model, weights)
    return model


def build_pose_network(config: EasyDict, model: PoseResNet) -> PoseNetwork:
    """A network, and what the configuration says about feeding and reading it."""
    from simplepose.inference import paddle_network

    network, input_format = paddle_network(model, config.TRAIN.CPU_KERNELS), INPUT_FORMATS[config.MODEL.INPUT_FORMAT]
    return PoseNetwork(network, build_skeleton(config), build_codec(config), input_format)


def _load_mpii(config: EasyDict, image_set: str, bbox_file: str | None) -> list[PoseSample]:
    del bbox_file  # MPII's people are annotated one by one
    return load_mpii(config.DATASET.ROOT, image_set, config.DATASET.DATA_FORMAT)


def _load_coco(config: EasyDict, image_set: str, bbox_file: str | None) -> list[PoseSample]:
    width, height = config.MODEL.IMAGE_SIZE
    return load_coco(
        config.DATASET.ROOT, image_set, build_skeleton(config), width / height, config.DATASET.DATA_FORMAT,
        bbox_file, config.TEST.IMAGE_THRE,
    )  # fmt: skip


DATASETS = {"mpii": _load_mpii, "coco": _load_coco}  # by DATASET.DATASET


def build_train_samples(config: EasyDict) -> list[PoseSample]:
    dataset = config.DATASET
    samples = DATASETS[dataset.DATASET](config, dataset.TRAIN_SET, None)
    if dataset.SELECT_DATA:
        count = len(samples)
        samples = select_well_framed(samples)
        logger.info("=> SELECT_DATA keeps %d of %d samples", len(samples), count)
        if not samples:
            raise UserError(
                f"DATASET.SELECT_DATA keeps none of the {count} samples of {dataset.TRAIN_SET}; set it to false"
            )
    logger.info("=> load %d samples", len(samples))
    return samples


def build_valid_samples(config: EasyDict) -> list[PoseSample]:
    dataset = config.DATASET
    samples = DATASETS[dataset.DATASET](config, dataset.TEST_SET, _bbox_file(config))
    logger.info("=> load %d samples", len(samples))
    return samples


def _bbox_file(config: EasyDict) -> str | None:
    """The detections to validate on; None for the annotated boxes."""
    if config.DATASET.DATASET != "coco" or config.TEST.USE_GT_BBOX:
        return None
    if not config.TEST.COCO_BBOX_FILE:
        raise UserError(
            "TEST.USE_GT_BBOX is false and TEST.COCO_BBOX_FILE names no detections; set one of them "
            "(TEST.USE_GT_BBOX=true takes the annotated boxes)"
        )
    return config.TEST.COCO_BBOX_FILE


def box_source(config: EasyDict) -> str:
    """Where the boxes of the validation come from, for people who compare scores."""
    return _bbox_file(config) or "annotated"


def build_train_loader(config: EasyDict) -> BatchLoader:
    settings = AugmentationSettings(config.DATASET.SCALE_FACTOR, config.DATASET.ROT_FACTOR, config.DATASET.FLIP)
    samples = build_train_samples(config)
    train, dataset, cache = config.TRAIN, config.DATASET, None
    if dataset.CACHE:
        size_wh = tuple(config.MODEL.IMAGE_SIZE)
        cache = open_crop_cache(dataset.CACHE, samples, settings, size_wh, config.WORKERS)
    sampler = BatchSampler(len(samples), train.BATCH_SIZE, train.SHUFFLE, train.SEED, *ranks())
    return BatchLoader(_dataset(config, samples, settings, cache), sampler, config.WORKERS)


def build_valid_loader(config: EasyDict) -> BatchLoader:
    samples = build_valid_samples(config)
    sampler = DealtBatches(len(samples), config.TEST.BATCH_SIZE, *ranks())
    return BatchLoader(_dataset(config, samples, None), sampler, config.WORKERS)


def _dataset(
    config: EasyDict,
    samples: list[PoseSample],
    augmentation: AugmentationSettings | None,
    cache: CropCache | None = None,
) -> PoseDataset:
    trains = augmentation is not None  # a score depends neither on REDUCED_DECODE nor on images left out
    return PoseDataset(
        samples,
        build_skeleton(config),
        build_codec(config),
        INPUT_FORMATS[config.MODEL.INPUT_FORMAT],
        augmentation,
        config.TRAIN.SEED,
        cache,
        trains and config.DATASET.REDUCED_DECODE,
        config.DATASET.MAX_BAD if trains else 0,
    )


def _pckh_evaluator(config: EasyDict, samples: list[PoseSample]) -> PckhEvaluator:
    truth = None
    if not is_test_set(config.DATASET.TEST_SET):
        truth = load_pckh_ground_truth(Path(config.DATASET.ROOT) / "annot" / f"gt_{config.DATASET.TEST_SET}.mat")
    return PckhEvaluator(len(samples), config.MODEL.NUM_JOINTS, truth)


def _coco_evaluator(config: EasyDict, samples: list[PoseSample]) -> CocoEvaluator:
    skeleton, test = build_skeleton(config), config.TEST
    truth = read_coco(annotation_file(config.DATASET.ROOT, config.DATASET.TEST_SET), skeleton)
    return CocoEvaluator(
        samples, truth, skeleton, config.DATASET.TEST_SET, test.IN_VIS_THRE, test.OKS_THRE, test.SOFT_NMS
    )


EVALUATORS = {"mpii": _pckh_evaluator, "coco": _coco_evaluator}  # by DATASET.DATASET


def build_evaluator(config: EasyDict, samples: list[PoseSample]) -> Evaluator:
    """The scorer of TEST_SET, whose persons are `samples`."""
    return EVALUATORS[config.DATASET.DATASET](config, samples)


def build_optimizer(config: EasyDict, model: PoseResNet, iters_per_epoch: int) -> Optimizer:
    from simplepose import optim

    train = config.TRAIN
    schedule = optim.lr_schedule(
        train.LR_TYPE, iters_per_epoch, train.END_EPOCH, train.LR_STEP, train.LR_FACTOR, train.WARMUP_ITERS
    )
    return optim.build_optimizer(
        train.OPTIMIZER, model.parameters(), train.LR, schedule, train.WD, train.MOMENTUM, train.NESTEROV,
        train.CLIP_GRAD_NORM, train.EPSILON,
    )  # fmt: skip


def build_average(config: EasyDict) -> WeightAverage | None:
    """What is to follow the trained weights, if TRAIN.EMA asks for it."""
    from simplepose.optim import WeightAverage

    return WeightAverage(build_model(config), config.TRAIN.EMA) if config.TRAIN.EMA else None


def build_debug_pictures(config: EasyDict, folder: Path) -> DebugPictures:
    from simplepose.engine import DebugPictures

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


def build_checkpoint_keeper(
    config: EasyDict,
    folder: Path,
    model: PoseResNet,
    optimizer: Optimizer,
    progress: Progress,
    average: WeightAverage | None,
    precision: MixedPrecision,
) -> CheckpointKeeper:
    from simplepose.checkpoint import CheckpointKeeper

    seconds, steps = parse_interval(config.TRAIN.CHECKPOINT_EVERY)
    describe = partial(weights_metadata, config)
    return CheckpointKeeper(
        folder,
        model,
        optimizer,
        progress,
        describe,
        seconds,
        steps,
        config.TRAIN.KEEP_CHECKPOINTS,
        average,
        precision,
    )


def weights_metadata(config: EasyDict, **figures: Any) -> dict[str, Any]:
    """What a weight file says about itself: enough to rebuild the network and to feed it."""
    from simplepose.runtime import git_commit

    return {
        "format": 1,
        "arch": arch_name(config),
        CONFIG_KEY: {key: get_key(config, key) for key in DESCRIBED},
        "commit": git_commit(),
        **figures,
    }


def find_pretrained(config: EasyDict) -> Path:
    """The file that MODEL.PRETRAINED names; `imagenet` stands for Paddle's own."""
    from simplepose.checkpoint import imagenet_weights

    pretrained, style = config.MODEL.PRETRAINED, config.MODEL.STYLE
    if pretrained == "imagenet":
        if style != "pytorch":  # every name and shape would fit, and every feature would be another
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


def run_folder(config: EasyDict, named_after: str | os.PathLike) -> Path:
    """<OUTPUT_DIR>/<data set>/<model>/<name of the experiment file, or of the weight file if there is none>.

    A run's own config.yaml, in such a folder, stands for the experiment that the folder is named after.
    """
    place = (config.DATASET.DATASET, model_name(config))
    path = Path(named_after)
    stem = path.stem.removesuffix(".pth")  # of .pth.tar
    if path.name == "config.yaml" and path.resolve().parts[-4:-2] == place:
        stem = path.resolve().parent.name
    return Path(config.OUTPUT_DIR, *place, stem)


def load_config_and_weights(
    cfg: str | None, overrides: list[str], flags: dict[str, Any]
) -> tuple[EasyDict, WeightFile, list[str]]:
    """The weights that a command is to use, and a configuration that fits them.

    Without an experiment file the weight file says what its network is, and its data set is what it is scored on. With
    one, what it or the command line writes wins over the weight file, and the weight file over the defaults.

    Args:
        cfg, overrides, flags: as `load_config` takes them.

    Returns:
        The configuration, TEST.MODEL_FILE filled in; the weights; lines for the user about every key in which
        weight file and experiment file differ, and about what had to be assumed.
    """
    overridden = {**dict(parse_override(text) for text in overrides), **flags}
    written = load_config(cfg, overrides, flags) if cfg else None
    if written:
        path = find_model_file(written.TEST.MODEL_FILE, run_folder(written, cfg))
    elif overridden.get("TEST.MODEL_FILE"):
        path = find_model_file(str(overridden["TEST.MODEL_FILE"]))
    else:
        raise UserError("name an experiment file with --cfg, or weights with --model-file, or both")
    weights = read_weights(path)
    description = weights.description
    assumed = {} if written else _assumed(weights, {*description, *overridden})
    sets = {} if written else _usual_sets({**description, **assumed, **overridden})
    flags = {**sets, **flags, "TEST.MODEL_FILE": str(path)}
    config = load_config(cfg, overrides, flags, (path, {**description, **assumed}))

    notes = [*weights.notes, *(f"{key}: {value} is assumed, {path} does not say" for key, value in assumed.items())]
    for key, configured, described in disagreements(config, description):
        notes.append(f"{key}: {configured} is configured and used, {path} was made with {described}")
    for key, configured, described in disagreements(written, description) if written else ():
        if get_key(config, key) == described:
            notes.append(f"{key}: {described}, as {path} says; {cfg} leaves it open (default {configured})")
    return config, weights, notes


def _assumed(weights: WeightFile, known: set[str]) -> dict[str, Any]:
    """What is most likely of a network that nothing else describes: configuration key -> value.

    Raises:
        UserError: no pose network, or one of which too much is unknown.
    """
    joints = infer_joints({name: array.shape for name, array in weights.state.items()})
    if not weights.description or joints is None:
        raise UserError(f"{weights.path} holds no pose network: deconv_layers and final_layer are not in it")
    if "MODEL.IMAGE_SIZE" not in known:  # a guess would run, and quietly score worse
        raise UserError(
            f"{weights.path} does not say the input size of its network; add it in pixels (width, height), as "
            "MODEL.IMAGE_SIZE=[192,256], or name the experiment file with --cfg"
        )
    assumed = {}
    if "DATASET.DATASET" not in known and "DATASET.SKELETON" in known:
        assumed["DATASET.DATASET"] = "coco"  # skeletons of one's own go with its format
    elif "DATASET.DATASET" not in known:
        skeletons = [name for name, skeleton in SKELETONS.items() if skeleton.num_joints == joints]
        if not skeletons:
            counts = ", ".join(f"{name} {skeleton.num_joints}" for name, skeleton in SKELETONS.items())
            raise UserError(f"{weights.path} predicts {joints} joints, as no skeleton that is known here ({counts})")
        assumed["DATASET.DATASET"] = skeletons[0]
    if "MODEL.STYLE" not in known:
        assumed["MODEL.STYLE"] = "pytorch"
    return assumed


def _usual_sets(known: dict[str, Any]) -> dict[str, Any]:
    """What to score a network of COCO's format on where nothing says so: configuration key -> value.

    COCO's own sets, or "train" and "val" of joints of one's own; in the annotated boxes unless detections are named.
    """
    if known.get("DATASET.DATASET") != "coco":
        return {}
    year = "" if known.get("DATASET.SKELETON") else "2017"
    usual = {"DATASET.TRAIN_SET": f"train{year}", "DATASET.TEST_SET": f"val{year}"}
    if not known.get("TEST.COCO_BBOX_FILE"):
        usual["TEST.USE_GT_BBOX"] = True
    return {key: value for key, value in usual.items() if key not in known}


def find_model_file(model_file: str, folder: Path | None = None) -> Path:
    """The file itself, or the run's own best weights, or its last."""
    if model_file:
        path = Path(model_file)
        if not path.exists():
            raise UserError(f"no such weight file: {path}")
        return path
    for name in ("model_best.pdparams", "final_state.pdparams"):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"no weights in {os.fspath(folder)}; train first, or name a file with --model-file")
