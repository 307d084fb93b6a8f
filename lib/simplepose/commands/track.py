"""Follow people through a video, a camera, a stream or a folder of frames: poses with ids, drawings beside them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from simplepose.commands.cli import config_parser, parse_flags
from simplepose.commands.infer import add_run_flags, check, infer
from simplepose.core.errors import UserError

if TYPE_CHECKING:
    from simplepose.build.predictor import PosePredictor
    from simplepose.tracking.tracker import PoseTracker

EXAMPLES = """examples:
  python pose_estimation/track.py --model-file posenet.onnx --img-file clip.mp4 --detector nanodet_m.onnx
  python pose_estimation/track.py --model-file posenet.onnx --img-file clip.mp4 --bbox-file boxes.csv --format csv
  python pose_estimation/track.py --model-file posenet.onnx --img-file frames/ --detector nanodet_m.onnx --output out/
  python pose_estimation/track.py --model-file posenet.onnx --img-file 0 --detector nanodet_m.onnx --show --draw-trails
"""
SETTINGS = ("similarity", "memory", "min_similarity", "max_overlap", "min_score")  # flags, and of TrackingSettings


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add_run_flags(parser, "posetrack", "json", "coco", "csv", "npz")
    parser.set_defaults(bbox=None, draw_numbers=True)
    add = parser.add_argument
    add("--draw-trails", action="store_true", help="draw each person's path over the last frames")
    add("--similarity", choices=("flow", "pose", "bbox"), help="what tells people apart; default: flow")
    add("--memory", type=int, metavar="N", help="frames remembered, so that who was hidden keeps the id; default: 10")
    add("--no-propagate", action="store_true", help="look only where the detector finds somebody")
    add("--hungarian", action="store_true", help="assign by the largest sum, not greedily")
    add("--min-similarity", type=float, metavar="T", help="a pose less similar is somebody new; default: 0.1")
    add("--max-overlap", type=float, metavar="T", help="carried boxes that overlap others by more go; default: 0.5")
    add("--min-score", type=float, metavar="T", help="poses with a lower score go; default: 0.15")
    args, flags = parse_flags(parser)
    check(args)
    if not (args.detector or args.bbox_file):
        raise UserError("tracking needs boxes of people: add --detector nanodet_m.onnx, or --bbox-file")
    return infer(args, flags, lambda predictor: make_tracker(args, predictor), args.draw_trails)


def make_tracker(args: argparse.Namespace, predictor: PosePredictor) -> PoseTracker:
    """The tracker that the flags ask for."""
    from simplepose.tracking.tracker import PoseTracker, TrackingSettings

    given = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    settings = TrackingSettings(propagate=not args.no_propagate, hungarian=args.hungarian, **given)
    return PoseTracker(predictor, settings=settings)
