"""Find the poses of people in images, videos, a camera or a stream: drawings, and the coordinates beside them."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Callable

from simplepose.commands.cli import Parser, add_inference_flags, config_parser, name_bundled, parse_flags
from simplepose.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from simplepose.build.predictor import PosePredictor
    from simplepose.inference.box_sources import BoxSource
    from simplepose.inference.writers import Output
    from simplepose.tracking.tracker import PoseTracker

EXAMPLES = """examples:
  python pose_estimation/infer.py --img-file photo.jpg
  python pose_estimation/infer.py --model-file posenet.onnx --img-file photo.jpg --output drawn.jpg
  python pose_estimation/infer.py --model-file best.pdparams --img-file us.jpg --bbox 35,20,180,400 --bbox 200,30,90,380
  python pose_estimation/infer.py --model-file posenet.onnx --img-file photos/ --detector nanodet_m.onnx --output out/
  python pose_estimation/infer.py --model-file posenet.onnx --img-file clip.mp4 --detector yolox_s.onnx --format coco
  python pose_estimation/infer.py --model-file posenet.onnx --img-file 0 --show
"""


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    box_sources = add_run_flags(parser, "json", "coco", "csv", "npz")
    box_sources.add_argument(
        "--bbox", action="append", metavar="x,y,w,h", help="a person's box in pixels; may be repeated"
    )
    parser.add_argument("--draw-numbers", "--draw-ids", action="store_true",
        help="number the people of each frame, anew: a number does not follow anybody through a video")  # fmt: skip
    args, flags = parse_flags(parser)
    check(args)
    return infer(args, flags)


def add_run_flags(parser: Parser, *formats: str) -> argparse._MutuallyExclusiveGroup:
    """The flags that infer.py and track.py share, with the formats of the coordinates, the default first.

    Returns:
        The group of those that say where boxes come from.
    """
    add_inference_flags(parser)
    add = parser.add_argument
    add("--img-file", required=True, metavar="SOURCE",
        help="images, folder, glob, list file (.txt), video, camera number, or an rtsp or https address")  # fmt: skip
    add("--ignore-orientation", action="store_true", help="take pixels as stored, whatever EXIF says, as data sets do")
    box_sources = add_box_flags(parser)
    add("--output", metavar="PATH", help="file or folder for the drawings; default: <name>_pose... here")
    add("--overwrite", action="store_true", help="replace the results of an earlier run")
    add("--format", choices=formats, default=formats[0], help="coordinates; default: %(default)s")
    add("--draw", action=argparse.BooleanOptionalAction, default=True, help="write drawings")
    add("--kpt-thr", type=float, default=0.2, metavar="T", help="leave joints below this score undrawn")
    add("--draw-scores", action="store_true", help="write each person's score")
    add("--draw-plain", action="store_true", help="draw on a plain background: poses to show without the people")
    add("--smooth", action="store_true", help="videos: one-euro filter on every joint of a tracked or single person")
    add("--show", action="store_true", help="open a window with the drawing; q or Esc ends")
    return box_sources


def add_box_flags(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Where the people are, and how many of them go through the network at once; returns the group of the former."""
    add = parser.add_argument
    box_sources = parser.add_mutually_exclusive_group()
    box_sources.add_argument(
        "--bbox-file", metavar="FILE", help="boxes: COCO's results form, or CSV image,x,y,w,h,score"
    )
    box_sources.add_argument(
        "--detector", metavar="FILE", help="ONNX file of a person detector; default: the network finds one person"
    )
    add("--detector-type", metavar="TYPE", help="yolox, paddledetection, nanodet or fastestdet; default: recognised")
    add("--det-thr", type=float, metavar="T", help="leave boxes below this score out; default: 0.3, files: all")
    add("--batch-size", dest="people", type=int, default=16, metavar="N", help="people at once through the network")
    return box_sources


def check(args: argparse.Namespace) -> None:
    """Raise for flags that would have no effect; move files of an unquoted glob from the overrides to the images."""
    more = [text for text in args.overrides if not re.match(r"\w+(\.\w+)*=", text) and os.path.exists(text)]
    args.overrides = [text for text in args.overrides if text not in more]
    args.sources = [args.img_file, *more]
    check_boxes(args)
    if math.isnan(args.kpt_thr):
        raise UserError("--kpt-thr is nan; name a score, as 0.2")


def check_boxes(args: argparse.Namespace) -> None:
    """Raise for flags of `add_box_flags` that are out of range or would have no effect."""
    if args.det_thr is not None:
        if not 0 <= args.det_thr <= 1:
            raise UserError(f"--det-thr is {args.det_thr}; scores of boxes go from 0 to 1")
        if not (args.detector or args.bbox_file):
            raise UserError("--det-thr goes with --detector or --bbox-file; leave it out")
    if args.detector_type and not args.detector:
        raise UserError("--detector-type goes with --detector; leave it out")
    if args.people < 1:
        raise UserError(f"--batch-size is {args.people}; at least one person goes through the network")


def infer(
    args: argparse.Namespace,
    flags: dict[str, Any],
    make_tracker: Callable[[PosePredictor], PoseTracker] | None = None,
    trails: bool = False,
) -> int:
    """Open source, boxes, network and outputs, process frame by frame, print a summary.

    Args:
        make_tracker: of track.py; None treats each frame alone.
        trails: draw the ways of tracked people.

    Returns:
        0, or 1 if one of several images failed.
    """
    from simplepose.inference.box_sources import found_person
    from simplepose.inference.pipeline import Summary, find_poses
    from simplepose.inference.smoothing import PoseSmoother
    from simplepose.inference.sources import open_sources
    from simplepose.inference.writers import Painter, choose_outputs, require_free
    from simplepose.machine.logs import progress_bar

    if args.show:
        require_display()
    source = open_sources(args.sources, args.ignore_orientation)
    where = (args.output, args.format, args.draw)
    require_free(source, *where, args.overwrite)
    box_sources = choose_boxes(args)
    predictor = load_predictor(args, flags)
    if box_sources is None:
        print("=> the network itself finds the person, one an image; a person detector is better: --detector FILE")
        box_sources = found_person(predictor)
    painter = Painter(predictor.skeleton, args.kpt_thr, args.draw_numbers, args.draw_scores, args.draw_plain, trails)
    smoother = PoseSmoother(source.fps, args.kpt_thr) if args.smooth and source.is_video else None

    outputs: list[Output] = []
    summary = Summary(args.kpt_thr)
    interrupted = False
    if make_tracker:
        from simplepose.tracking.pipeline import follow_people

        results = follow_people(source, box_sources, make_tracker(predictor), live=source.is_live)
    else:
        results = find_poses(source, box_sources, predictor, live=source.is_live)
    try:
        for frame, poses in progress_bar(results, len(source) or None, "poses"):
            if frame.failure and source.is_single:
                raise UserError(frame.failure)
            if not outputs:  # opened late, so that a run that fails at once leaves no empty table
                outputs = choose_outputs(source, predictor.skeleton, args.model_file, *where)
            poses = smoother(poses) if smoother else poses
            if frame.image is not None and (args.draw or args.show):
                painter.draw(frame.image, poses)
            for output in outputs:
                output.add(frame, poses)
            summary.add(frame, poses)
            if args.show and frame.image is not None and not show(frame.image, wait=not source.is_video):
                break
    except KeyboardInterrupt:  # outputs written so far stay complete
        interrupted = True
    finally:
        with contextlib.ExitStack() as closing:  # close all of them, even if one fails
            for part in (*reversed(outputs), source, results):
                closing.callback(part.close)
    print(f"=> {summary}")
    for output in outputs:
        print(f"=> {output}")
    if args.smooth and not smoother:
        print("=> --smooth is for videos; nothing was smoothed")
    elif smoother and smoother.skipped:
        print(f"=> not smoothed: {smoother.skipped} frames with several people; track.py tells them apart")
    if args.draw_numbers and source.is_video and not make_tracker:
        print("=> the numbers are those of each frame alone; track.py follows people through a video")
    for label, why in summary.failures:
        print(f"failed: {label}: {why}", file=sys.stderr)
    if interrupted:
        raise KeyboardInterrupt
    return 1 if summary.failures else 0


def choose_boxes(args: argparse.Namespace) -> BoxSource | None:
    """Where the people's boxes come from; None if the pose network is to find them."""
    from simplepose.inference import box_sources

    if args.bbox:
        return box_sources.fixed_boxes(args.bbox)
    if args.bbox_file:
        return box_sources.boxes_of_file(args.bbox_file, args.det_thr or 0.0)
    if args.detector:
        return box_sources.detected_boxes(args.detector, args.detector_type, args.det_thr)
    return None


def load_predictor(args: argparse.Namespace, flags: dict[str, Any]) -> PosePredictor:
    """The predictor for an ONNX file, which needs nothing else, or for weights and the configuration."""
    from simplepose.build.predictor import PosePredictor, load_pose_network
    from simplepose.inference.network import InferenceSettings

    name_bundled(args, flags)
    if (args.model_file or "").lower().endswith(".onnx"):
        if args.cfg or args.overrides:
            raise UserError(f"{args.model_file} says itself what it is; leave --cfg and SECTION.KEY=value out")
        given = {key.removeprefix("TEST.").lower(): value for key, value in flags.items()}
        if args.gpus:
            print(f"=> --gpus {args.gpus} is for weights that Paddle runs; {args.model_file} runs on the CPU")
        settings = InferenceSettings(**{name: given[name] for name in vars(InferenceSettings()) if name in given})
        network = load_pose_network(args.model_file, getattr(args, "device", None))
        name = network.graph.conflict(given)
        if name:
            flag = f"--{'' if given[name] else 'no-'}{name.replace('_', '-')}"
            raise UserError(f"{args.model_file} was exported to do otherwise; leave {flag} out, or export it again")
        return PosePredictor(network, settings, args.people)

    from simplepose.build.model import build_inference_settings, build_pose_network, load_config_and_weights, load_model
    from simplepose.machine.device import set_device
    from simplepose.machine.logs import set_up_logging
    from simplepose.machine.paddle_start import start_paddle

    config, weights, notes = load_config_and_weights(args.cfg, args.overrides, flags)
    start_paddle()  # before anything else imports it
    for note in notes:
        print(f"=> {note}")
    set_up_logging()
    set_device(config.GPUS)
    args.model_file = weights.path
    network = build_pose_network(config, load_model(config, weights))
    return PosePredictor(network, build_inference_settings(config), args.people)


def require_display() -> None:
    """Check that windows can be opened, in a subprocess: some toolkits abort the process when they cannot.

    Raises:
        UserError: no window can be opened.
    """
    line = [sys.executable, "-c", "import cv2; cv2.namedWindow('pose')"]
    if subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        raise UserError("--show: no window can be opened here (no display, or an OpenCV without windows); leave it out")


def show(image: np.ndarray, wait: bool) -> bool:
    """Show a picture; returns whether to continue: not after q, Esc or closing an image."""
    import cv2

    try:
        cv2.imshow("pose (q or Esc ends)", image)
        return cv2.waitKey(0 if wait else 1) & 0xFF not in (ord("q"), 27)
    except cv2.error:
        raise UserError("--show: this OpenCV cannot open a window here; leave --show out") from None
