"""Flags that several commands share. Every flag ends up as a configuration override."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.weights import WeightFile


def config_parser(description: str, epilog: str = "", needs_cfg: bool = True) -> argparse.ArgumentParser:
    """A parser with --cfg and free SECTION.KEY=value overrides."""
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cfg_help = "experiment file (experiments/...yaml)"
    if not needs_cfg:
        cfg_help += "; without it the weight file says what its network is"
    parser.add_argument("--cfg", required=needs_cfg, metavar="FILE", help=cfg_help)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="SECTION.KEY=value",
        help="override any key, as TRAIN.LR=5e-4 MODEL.IMAGE_SIZE=[192,256]",
    )
    parser.add_argument("--gpus", metavar="0", help="GPU to use, GPUS")
    return parser


def add_loop_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="data loading threads, WORKERS")
    parser.add_argument("--frequent", type=int, metavar="N", help="iterations between two log lines, PRINT_FREQ")


def add_inference_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model-file", metavar="FILE", help="weights; default: the run's own model_best.pdparams")
    for flag, key, text in (
        ("--flip-test", "FLIP_TEST", "average with the mirrored image"),
        ("--post-process", "POST_PROCESS", "quarter-cell step after the maximum"),
        ("--shift-heatmap", "SHIFT_HEATMAP", "align the mirrored heatmaps by one cell"),
    ):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=f"{text}, TEST.{key}")


FLAG_KEYS = {
    "gpus": "GPUS",
    "workers": "WORKERS",
    "frequent": "PRINT_FREQ",
    "batch_size": "TRAIN.BATCH_SIZE",
    "model_file": "TEST.MODEL_FILE",
    "flip_test": "TEST.FLIP_TEST",
    "post_process": "TEST.POST_PROCESS",
    "shift_heatmap": "TEST.SHIFT_HEATMAP",
    "coco_bbox_file": "TEST.COCO_BBOX_FILE",
    "data": "DATASET.ROOT",
}


def parse_config(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, EasyDict]:
    """Parse the command line and load the configuration it names; flags win over SECTION.KEY=value."""
    args, flags = parse_flags(parser)

    from simplepose.config import load_config  # here, so that --help loads nothing heavy

    return args, load_config(args.cfg, args.overrides, flags)


def parse_config_and_weights(
    parser: argparse.ArgumentParser,
) -> tuple[argparse.Namespace, EasyDict, WeightFile, list[str]]:
    """As `parse_config`, with the weights to use and with lines about them; see `build.load_config_and_weights`."""
    args, flags = parse_flags(parser)

    from simplepose.build import load_config_and_weights

    return args, *load_config_and_weights(args.cfg, args.overrides, flags)


def parse_flags(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The arguments, and those of them that stand for a configuration key, by key."""
    args = parser.parse_intermixed_args()
    flags = {key: getattr(args, flag, None) for flag, key in FLAG_KEYS.items()}
    if getattr(args, "use_detect_bbox", False):
        flags["TEST.USE_GT_BBOX"] = False
    return args, {key: value for key, value in flags.items() if value is not None}
