"""Command-line parsing: accepted spellings of flags, and the flags that several commands share, each a config key."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from simplepose.core.errors import UserError

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.weights import WeightFile


class Parser(argparse.ArgumentParser):
    """Accepts --batch_size for --batch-size and --bbox -60,-10,400,512; an error is one line that suggests a flag."""

    def __init__(self, **settings: Any):
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None):
        self._words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if re.match(r"-\.?\d", word) and self._words and re.fullmatch(r"--[\w-]+", self._words[-1]):
                self._words[-1] += f"={word}"  # a number, not a flag
            elif word.startswith("--"):
                name, *value = word.split("=", 1)
                self._words.append("=".join([name.replace("_", "-"), *value]))
            else:
                self._words.append(word)
        return super().parse_known_args(self._words, namespace)

    def error(self, message: str) -> NoReturn:
        flags = [flag.replace("_", "-") for flag in self._option_string_actions]
        for name in (word.split("=")[0] for word in self._words if re.match("--[a-z]", word)):
            if not any(flag.startswith(name) for flag in flags):
                nearest = difflib.get_close_matches(name, flags, n=1)
                message = f"there is no {name}" + (f"; did you mean {nearest[0]}?" if nearest else "")
                break
        self.exit(2, f"error: {message} ({self.prog} --help)\n")


def not_negative(text: str) -> int:
    """A whole number from 0, as `type` of a flag."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return int(text)


def config_parser(description: str, epilog: str = "", needs_cfg: bool = True) -> Parser:
    """A parser with --cfg and free SECTION.KEY=value overrides."""
    parser = Parser(description=description, epilog=epilog)
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


def add_loop_flags(parser: Parser) -> None:
    parser.add_argument("--workers", type=int, metavar="N", help="data loading threads, WORKERS")
    parser.add_argument("--frequent", type=int, metavar="N", help="iterations between two log lines, PRINT_FREQ")


def add_inference_flags(parser: Parser) -> None:
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


def parse_config(parser: Parser) -> tuple[argparse.Namespace, EasyDict]:
    """Parse the command line and load the configuration it names; flags take precedence over SECTION.KEY=value."""
    args, flags = parse_flags(parser)

    from simplepose.config.load import load_config

    return args, load_config(args.cfg, args.overrides, flags)


def name_bundled(args: argparse.Namespace, flags: dict[str, Any]) -> None:
    """Fill in the bundled network where neither an experiment nor weights are named, and say so."""
    if args.cfg or args.model_file or any(text.startswith("TEST.MODEL_FILE=") for text in args.overrides):
        return
    from simplepose.core.bundled import bundled_network

    args.model_file = flags["TEST.MODEL_FILE"] = str(bundled_network())
    print(f"=> no --model-file and no --cfg: the bundled network, {args.model_file}")


def parse_config_and_weights(
    parser: Parser, bundled: bool = False
) -> tuple[argparse.Namespace, EasyDict, WeightFile, list[str]]:
    """As `parse_config`, with the weights and messages about them; see `build.model.load_config_and_weights`.

    Args:
        bundled: use the bundled network where none is named.
    """
    args, flags = parse_flags(parser)
    if bundled:
        name_bundled(args, flags)

    from simplepose.build.model import load_config_and_weights

    config, weights, notes = load_config_and_weights(args.cfg, args.overrides, flags)
    for flag in ("use_detect_bbox", "coco_bbox_file"):
        if getattr(args, flag, None) and config.DATASET.DATASET != "coco":
            raise UserError(
                f"--{flag.replace('_', '-')} goes with COCO, and DATASET.DATASET is {config.DATASET.DATASET}: its "
                "people are scored in the boxes of the annotation; leave it out"
            )
    return args, config, weights, notes


def parse_flags(parser: Parser) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The arguments, and those that stand for a configuration key, by key."""
    args = parser.parse_intermixed_args()
    flags = {key: getattr(args, flag, None) for flag, key in FLAG_KEYS.items()}
    if getattr(args, "use_detect_bbox", False):
        flags["TEST.USE_GT_BBOX"] = False
    return args, {key: value for key, value in flags.items() if value is not None}
