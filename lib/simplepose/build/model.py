"""Builds networks, codecs and skeletons from a configuration or a weight file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplepose.config.load import (
    arch_name,
    disagreements,
    find_skeleton,
    get_key,
    load_config,
    model_name,
    parse_override,
)
from simplepose.config.schema import DESCRIBED
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import (
    INPUT_FORMATS,
)
from simplepose.core.run_files import BEST_WEIGHTS, LAST_WEIGHTS
from simplepose.core.skeletons import SKELETONS, Skeleton
from simplepose.inference.network import InferenceSettings, PoseNetwork
from simplepose.metrics.calibration import Calibration
from simplepose.weights import CONFIG_KEY, WeightFile, infer_joints, read_weights

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.models.pose_resnet import PoseResNet


def build_skeleton(config: EasyDict) -> Skeleton:
    return find_skeleton(config.DATASET)


def build_codec(config: EasyDict) -> HeatmapCodec:
    extra = config.MODEL.EXTRA
    sizes = tuple(config.MODEL.IMAGE_SIZE), tuple(extra.HEATMAP_SIZE)
    return HeatmapCodec(*sizes, extra.SIGMA, extra.UNBIASED, config.TEST.DECODER)


def build_inference_settings(config: EasyDict) -> InferenceSettings:
    test = config.TEST
    shift = test.SHIFT_HEATMAP and not config.MODEL.EXTRA.UNBIASED
    return InferenceSettings(test.FLIP_TEST, shift, test.POST_PROCESS)


def build_model(config: EasyDict) -> PoseResNet:
    """The network with randomly initialised weights; nothing is read from disk."""
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


def load_model(config: EasyDict, weights: WeightFile) -> PoseResNet:
    """The network with these weights, loaded strictly: every name and shape must match."""
    from simplepose.weights.network import load_weights

    model = build_model(config)
    load_weights(model, weights)
    return model


def build_pose_network(config: EasyDict, model: PoseResNet) -> PoseNetwork:
    """The network, with its preprocessing and decoding as configured."""
    from simplepose.inference.network import paddle_network

    network, input_format = paddle_network(model, config.TRAIN.CPU_KERNELS), INPUT_FORMATS[config.MODEL.INPUT_FORMAT]
    calibration = Calibration.from_pairs(config.MODEL.CALIBRATION)
    return PoseNetwork(network, build_skeleton(config), build_codec(config), input_format, calibration=calibration)


def weights_metadata(config: EasyDict, **figures: Any) -> dict[str, Any]:
    """The metadata of a weight file: enough to rebuild the network and to preprocess its input."""
    from simplepose.machine.provenance import git_commit

    return {
        "format": 1,
        "arch": arch_name(config),
        CONFIG_KEY: {key: get_key(config, key) for key in DESCRIBED},
        "commit": git_commit(),
        **figures,
    }


def run_folder_of(config: EasyDict, named_after: str | os.PathLike) -> Path:
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

    Without an experiment file, the weight file's metadata define the network and the data set to score it on. With an
    experiment file, its values and those of the command line take precedence over the weight file, and the weight file
    over the defaults.

    Args:
        cfg, overrides, flags: as `load_config` takes them.

    Returns:
        The configuration, with TEST.MODEL_FILE filled in; the weights; messages for the user about every key in which
        weight file and experiment file differ, and about assumed values.
    """
    overridden = {**dict(parse_override(text) for text in overrides), **flags}
    written = load_config(cfg, overrides, flags) if cfg else None
    if written:
        path = find_model_file(written.TEST.MODEL_FILE, run_folder_of(written, cfg))
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
    """The most likely values of keys that nothing else describes: configuration key -> value.

    Raises:
        UserError: not a pose network, or too much about it is unknown.
    """
    joints = infer_joints({name: array.shape for name, array in weights.state.items()})
    if not weights.description or joints is None:
        raise UserError(f"{weights.path} holds no pose network: deconv_layers and final_layer are not in it")
    if "MODEL.IMAGE_SIZE" not in known:  # a wrong guess would run, and silently score worse
        raise UserError(
            f"{weights.path} does not say the input size of its network; add it in pixels (width, height), as "
            "MODEL.IMAGE_SIZE=[192,256], or name the experiment file with --cfg"
        )
    assumed = {}
    if "DATASET.DATASET" not in known and "DATASET.SKELETON" in known:
        assumed["DATASET.DATASET"] = "coco"  # custom skeletons come in COCO's format
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
    """Default data sets to score a network in COCO's format on, where nothing else names them: key -> value.

    COCO's own sets, or "train" and "val" for custom joints; with annotated boxes unless a detection file is named.
    """
    if known.get("DATASET.DATASET") != "coco":
        return {}
    year = "" if known.get("DATASET.SKELETON") else "2017"
    usual = {"DATASET.TRAIN_SET": f"train{year}", "DATASET.TEST_SET": f"val{year}"}
    if not known.get("TEST.COCO_BBOX_FILE"):
        usual["TEST.USE_GT_BBOX"] = True
    return {key: value for key, value in usual.items() if key not in known}


def find_model_file(model_file: str, folder: Path | None = None) -> Path:
    """The named file; without a name the run's best weights, else its last ones."""
    if model_file:
        path = Path(model_file)
        if not path.exists():
            raise UserError(f"no such weight file: {path}")
        return path
    for name in (BEST_WEIGHTS, LAST_WEIGHTS):
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"no weights in {os.fspath(folder)}; train first, or name a file with --model-file")
