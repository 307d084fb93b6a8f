"""Reads experiment files: YAML with the original's section and key names, checked strictly, and overrides."""

from __future__ import annotations

import copy
import difflib
import math
import os
import re
from collections.abc import Iterable
from typing import Any

import yaml
from easydict import EasyDict

from simplepose.config.schema import (
    BILLION,
    DEFAULTS,
    DESCRIBED,
    KEYS,
    MAX_ENTRIES,
    MAX_PART_BYTES,
    SECONDS,
    SET_KEYS,
)
from simplepose.core.description import (
    BACKBONE_STRIDE,
    range_text,
)
from simplepose.core.errors import UserError, has_control, shown
from simplepose.core.files import parse_yaml, read_yaml
from simplepose.core.skeletons import SKELETONS, Skeleton, load_skeleton, skeleton_from
from simplepose.metrics.calibration import Calibration


def load_config(
    path: str | os.PathLike | None,
    overrides: Iterable[str] = (),
    flags: dict[str, Any] | None = None,
    described: tuple[str | os.PathLike, dict[str, Any]] | None = None,
) -> EasyDict:
    """Read an experiment file.

    Args:
        path: YAML file with the sections and keys of `DEFAULTS`; what it leaves out keeps its default. None: no
            experiment file.
        overrides: "SECTION.KEY=value" strings, the value in YAML; they take precedence over the file.
        flags: "SECTION.KEY" -> value, from a command's own flags; they take precedence over both.
        described: a weight file and its description of the network ("SECTION.KEY" -> value, the keys `DESCRIBED`);
            it replaces the defaults, so everything that is set explicitly takes precedence over it.

    Returns:
        The complete configuration; sizes are (width, height) lists, nothing is None.

    Raises:
        UserError: unreadable file, unknown key, wrong type or value, or values that contradict each other.
    """
    file, description = described or (None, {})
    foreign = [key for key in description if key not in DESCRIBED]
    if foreign:  # a weight file must not choose folders, devices or data
        raise UserError(f"{file} sets {shown(foreign[0])}, which is no property of a network; it was not read")
    skeleton = description.get("DATASET.SKELETON")
    if isinstance(skeleton, str) and skeleton:  # nor name files
        raise UserError(
            f"{file} names the file {shown(skeleton)} as its DATASET.SKELETON, which was not opened: weights carry "
            "the definition itself; name the file on the command line, as DATASET.SKELETON=skeleton.yaml"
        )
    overridden = {**dict(parse_override(text) for text in overrides), **(flags or {})}
    config = copy.deepcopy(DEFAULTS)
    for where, layer in ((file, description), (path, _read_yaml(path)), ("command line", overridden)):
        for key, value in layer.items():
            _set(config, key, value, str(where))
        for name, key in KEYS.items():
            if name not in layer and any(source in layer for source in key.derived_from):
                _set(config, name, None, str(where))
    where = str(path or file or "command line")
    _derive(config, where)
    _check(config, where)
    return EasyDict(config)


def disagreements(config: EasyDict, described: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(key, configured value, described value) for every key in which a configuration differs from a description.

    The description is a weight file's, or the `recipe` of another run.
    """
    return [(key, get_key(config, key), value) for key, value in described.items() if get_key(config, key) != value]


def recipe(config: EasyDict) -> dict[str, Any]:
    """Dotted key -> value of every key that affects the result of an experiment, except the seed."""
    return {key: value for key, value in _leaves(config, "") if not KEYS[key].circumstance}


def _read_yaml(path: str | os.PathLike | None) -> dict[str, Any]:
    """Dotted key -> value of every entry in an experiment file."""
    if path is None:
        return {}
    written = read_yaml(path, "configuration")
    if not isinstance(written, dict):
        raise UserError(f"{path} holds no configuration: expected sections such as DATASET and MODEL")
    sets = written.get("DATASET")
    if isinstance(sets, list) and sets and isinstance(sets[0], dict):  # several: the first one is the section
        written["DATASET"] = {**sets[0], "MORE": sets[1:]}
    return dict(_leaves(written, str(path)))


def parse_override(text: str) -> tuple[str, Any]:
    """Split "TRAIN.LR=5e-4" into its key and its value, read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UserError(f"{shown(text)} is not an override; write SECTION.KEY=value, for example TRAIN.LR=5e-4")
    return key.strip(), parse_yaml(value, f"the value of {shown(text)}")


def parse_interval(value: Any) -> tuple[float | None, int | None] | None:
    """TRAIN.CHECKPOINT_EVERY as (seconds, steps), one of them None, or both for never; None if it is neither."""
    if _is_int(value):
        return (None, value or None) if 0 <= value <= BILLION else None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) *(s|min|h)", value) if isinstance(value, str) else None
    return (float(match[1]) * SECONDS[match[2]], None) if match else None


def dump_config(config: dict[str, Any]) -> str:
    """The configuration as YAML that `load_config` reads back to an equal one."""
    return yaml.safe_dump(_plain(config), sort_keys=False, default_flow_style=None, allow_unicode=True)


def inert_warnings(config: dict[str, Any]) -> list[str]:
    """One line for each key that was set and has no effect."""
    inert = {name: key.inert for name, key in KEYS.items() if key.inert}
    if config["TRAIN"]["OPTIMIZER"] == "adam":
        inert["TRAIN.WD"] = "Adam runs without weight decay, as in the original; TRAIN.OPTIMIZER adamw uses it"
    if config["TRAIN"]["OPTIMIZER"] == "sgd":
        inert["TRAIN.EPSILON"] = "it is Adam's"
    return [
        f"{key} has no effect here: {advice}"
        for key, advice in inert.items()
        if get_key(config, key) != get_key(DEFAULTS, key)
    ]


def get_key(config: dict[str, Any], key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def model_name(config: EasyDict) -> str:
    """Name of the run folder's parent, as "pose_resnet_50"."""
    return f"{config.MODEL.NAME}_{config.MODEL.DEPTH}"


def find_skeleton(dataset: dict[str, Any], where: str = "DATASET.SKELETON") -> Skeleton:
    """The joints that SKELETON defines in the section DATASET, or an entry of DATASET.MORE; else the data set's."""
    return skeleton_from(dataset["SKELETON"], where) if dataset["SKELETON"] else SKELETONS[dataset["DATASET"]]


def arch_name(config: EasyDict) -> str:
    """First column of the results table, as "256x256_pose_resnet_50_d256d256d256" (height first)."""
    width, height = config.MODEL.IMAGE_SIZE
    style = "_caffe" if config.MODEL.STYLE == "caffe" else ""
    deconvs = "".join(f"d{filters}" for filters in config.MODEL.EXTRA.NUM_DECONV_FILTERS)
    return f"{height}x{width}_{model_name(config)}{style}_{deconvs}"


def _leaves(tree: dict, where: str, prefix: str = "", known: dict | None = None) -> Iterable[tuple[str, Any]]:
    """(dotted key, value) of every entry, the section's name included in the key."""
    known = DEFAULTS if known is None else known
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(known.get(name), dict):
            if value is None:  # a section header with nothing under it
                continue
            if not isinstance(value, dict):
                keys = ", ".join(known[name])
                raise UserError(f"{key} is a section ({where}), found {shown(value)}; its keys: {keys}")
            yield from _leaves(value, where, f"{key}.", known[name])
        else:
            yield key, value


def _set(config: dict, key: str, value: Any, where: str) -> None:
    parent, known, parts = config, DEFAULTS, key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(known, dict) or part not in known:
            raise UserError(_unknown_key(key, where))
        known = known[part]
        if depth < len(parts) - 1 and isinstance(known, dict):
            parent = parent[part]
    if isinstance(known, dict):
        raise UserError(f"{key} is a section ({where}); set one of its keys: {', '.join(known)}")
    parent[parts[-1]] = _typed(key, value, where)


def _unknown_key(key: str, where: str) -> str:
    key = key[:100]  # keeps the search below fast
    every = [name for name, _ in _leaves(DEFAULTS, "")] + list(DEFAULTS)
    same_name = [name for name in every if name.rsplit(".", 1)[-1] == key.rsplit(".", 1)[-1]]
    nearest = same_name or difflib.get_close_matches(key, every, n=1, cutoff=0.5)
    if not nearest:  # the right key in another section, or the other way round
        nearest = [
            n for n in every if difflib.SequenceMatcher(None, n.split(".")[-1], key.split(".")[-1]).ratio() > 0.7
        ]
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"{key} is not a config key ({where}){hint}"


def _typed(key: str, value: Any, where: str) -> Any:
    """The value converted to the type of its default; otherwise an error with the expected type."""
    default = KEYS[key].default

    def wrong(expected: str) -> UserError:
        return UserError(f"{key} must be {expected} ({where}), found {shown(value)}")

    if KEYS[key].derived_from and value is None:
        return None
    if KEYS[key].is_size:
        size = [value, value] if isinstance(value, int) else value
        if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(_is_int(x) and x > 0 for x in size):
            raise wrong("one positive whole number or [width, height]")
        return list(_within_limits(key, size, where))
    if key == "GPUS":  # "0,1", 0 and [0, 1] are all in use
        parts = value if isinstance(value, (list, tuple)) else [value]
        text = ",".join(part if isinstance(part, str) else shown(part) for part in parts)
        if text and not re.fullmatch(r" *[0-9]{1,4} *(, *[0-9]{1,4} *)*", text):
            raise wrong('device numbers such as "0,1"')
        return text
    if key == "DATASET.SKELETON" and isinstance(value, dict):  # as in a weight file; validated when all keys are known
        return dict(value)
    if key == "DATASET.MORE":
        if not isinstance(value, (list, tuple)) or not all(isinstance(entry, dict) for entry in value):
            raise wrong("a list of sets, as [{DATASET: coco, ROOT: data/coco, TRAIN_SET: train2017}]")
        return [_another_set(entry, where) for entry in _within_limits(key, value, where)]
    if key == "TRAIN.CHECKPOINT_EVERY":
        if parse_interval(value) is None:
            raise wrong('a time such as "10min", "30s" or "2h", or a number of steps')
        return value
    if key == "MODEL.CALIBRATION":
        try:
            calibration = Calibration.from_pairs(value)
        except ValueError as error:
            raise UserError(f"{key}: {error} ({where}), found {shown(value)}") from None
        return calibration.pairs() if calibration else []
    if key == "MODEL.STYLE" and value == "paddle":  # the earlier Paddle port's word for the same network
        return "pytorch"
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise wrong("true or false")
    elif isinstance(default, list):
        if not isinstance(value, (list, tuple)) or not all(_is_int(x) for x in value):
            raise wrong("a list of whole numbers")
        value = list(value)
    elif isinstance(default, float) or key in ("DATASET.ROT_FACTOR", "MODEL.EXTRA.SIGMA"):
        number = _number(value)  # YAML 1.1 reads 1e-3 as a string
        if number is None:
            raise wrong("a number")
        value = number
    elif isinstance(default, int) or default is None:  # derived ones, HEATMAP_SIZE apart, are whole numbers
        if not _is_int(value):
            raise wrong("a whole number")
    elif isinstance(default, str):
        if value is None:
            return ""
        if not isinstance(value, str):
            raise wrong("text")
        if has_control(value) or any(len(part.encode()) > MAX_PART_BYTES for part in re.split(r"[/\\]", value)):
            raise wrong(f"text in UTF-8 without control characters, of at most {MAX_PART_BYTES} bytes between slashes")
    choices = KEYS[key].choices
    if choices and value not in choices:
        raise wrong("one of " + ", ".join(map(str, choices)))
    return _within_limits(key, value, where)


def _another_set(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """An entry of DATASET.MORE, checked, and with the defaults of what it leaves out."""
    foreign = next((name for name in entry if name not in SET_KEYS), None)
    if foreign is not None:
        raise UserError(
            f"{shown(foreign)} is set for another data set than the first ({where}); of its own it has "
            f"{', '.join(SET_KEYS)}, everything else is the first one's"
        )
    names = [f"DATASET.{name}" for name in SET_KEYS]
    return {key.split(".")[1]: _typed(key, entry.get(key.split(".")[1], KEYS[key].default), where) for key in names}


def _within_limits(key: str, value: Any, where: str) -> Any:
    entries = value if isinstance(value, (list, tuple)) else [value]
    if len(entries) > MAX_ENTRIES:
        raise UserError(f"{key} has {len(entries)} entries ({where}); it has at most {MAX_ENTRIES}")
    if KEYS[key].limits:
        low, high = KEYS[key].limits
        outside = [entry for entry in entries if not low <= entry <= high]
        if outside:
            raise UserError(f"{key} must be {range_text(low, high)} ({where}), found {shown(outside[0])}")
    return value


def _derive(config: dict, where: str) -> None:
    """Fill in derived keys; raise for contradictory values."""
    model, extra = config["MODEL"], config["MODEL"]["EXTRA"]
    depth, layers = model["DEPTH"], extra["NUM_LAYERS"]
    if depth and layers and depth != layers:
        raise UserError(
            f"MODEL.DEPTH is {depth} and MODEL.EXTRA.NUM_LAYERS {layers} ({where}); they name the same depth"
        )
    model["DEPTH"] = extra["NUM_LAYERS"] = _typed("MODEL.DEPTH", depth or layers or 50, where)

    num_deconvs = extra["NUM_DECONV_LAYERS"]
    for key in ("NUM_DECONV_FILTERS", "NUM_DECONV_KERNELS"):
        if len(extra[key]) != num_deconvs:
            raise UserError(
                f"MODEL.EXTRA.{key} has {len(extra[key])} entries and MODEL.EXTRA.NUM_DECONV_LAYERS is "
                f"{num_deconvs} ({where}); give one entry per layer"
            )
    not_whole = [side for side in model["IMAGE_SIZE"] if side % BACKBONE_STRIDE]
    if not_whole:
        raise UserError(
            f"MODEL.IMAGE_SIZE has a side of {not_whole[0]} ({where}); sides are multiples of {BACKBONE_STRIDE}"
        )
    drawn = [side // BACKBONE_STRIDE * 2**num_deconvs for side in model["IMAGE_SIZE"]]
    if extra["HEATMAP_SIZE"] not in (None, drawn):
        raise UserError(
            f"MODEL.EXTRA.HEATMAP_SIZE is {extra['HEATMAP_SIZE']} ({where}), but {num_deconvs} deconvolutions draw "
            f"{drawn} for MODEL.IMAGE_SIZE {model['IMAGE_SIZE']}; leave HEATMAP_SIZE out to derive it"
        )
    extra["HEATMAP_SIZE"] = drawn

    skeletons = []
    for dataset in (config["DATASET"], *config["DATASET"]["MORE"]):
        if dataset["SKELETON"] and dataset["DATASET"] != "coco":
            raise UserError(
                f"DATASET.SKELETON goes with annotations in COCO's format ({where}); set DATASET.DATASET to coco, "
                f"found {dataset['DATASET']}"
            )
        if isinstance(dataset["SKELETON"], str) and dataset["SKELETON"]:
            dataset["SKELETON"] = load_skeleton(dataset["SKELETON"]).definition()  # so that config.yaml is complete
        dataset["SKELETON"] = dataset["SKELETON"] or ""
        skeletons.append(find_skeleton(dataset, where))
    skeleton, *others = skeletons
    stranger = next((other for other in others if not set(other.joints) & set(skeleton.joints)), None)
    if stranger:
        raise UserError(
            f"DATASET.MORE has a set with the {stranger.name} skeleton ({where}), none of whose joints has the name of "
            f"one of the {skeleton.name} skeleton; name the same joints the same in its SKELETON"
        )
    if model["NUM_JOINTS"] not in (None, skeleton.num_joints):
        raise UserError(
            f"MODEL.NUM_JOINTS is {model['NUM_JOINTS']} ({where}), but the {skeleton.name} skeleton has "
            f"{skeleton.num_joints} joints; leave NUM_JOINTS out to derive it"
        )
    model["NUM_JOINTS"] = skeleton.num_joints


def _check(config: dict, where: str) -> None:
    if config["TRAIN"]["BEGIN_EPOCH"] >= config["TRAIN"]["END_EPOCH"]:
        begin, end = config["TRAIN"]["BEGIN_EPOCH"], config["TRAIN"]["END_EPOCH"]
        raise UserError(f"TRAIN.BEGIN_EPOCH is {begin} and TRAIN.END_EPOCH {end} ({where}): no epoch to train")
    if config["DATASET"]["MORE"] and not config["LOSS"]["USE_TARGET_WEIGHT"]:
        raise UserError(
            f"LOSS.USE_TARGET_WEIGHT is false ({where}): joints that a set of DATASET.MORE lacks would be taught to be "
            "nowhere; set it to true"
        )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> float | int | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or isinstance(value, bool):
        return None
    return value if _is_int(value) else number


def _plain(value: Any) -> Any:
    """EasyDict and tuples as plain dictionaries and lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
