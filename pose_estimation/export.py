"""Export a trained PoseResNet as ONNX, or for Paddle Inference, and check that the file finds the same keypoints.

The file describes itself: infer.py, deploy.py and PosePredictor need nothing else.
"""

from __future__ import annotations

import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _init_paths  # noqa: F401
from parity import load_deployed
from simplepose.cli import config_parser, parse_config_and_weights
from simplepose.errors import UserError, run_command

if TYPE_CHECKING:
    import numpy as np

    from simplepose.inference import PoseNetwork
    from simplepose.parity import Parity
    from simplepose.sources import Frame, ImageFiles

EXAMPLES = """examples:
  python pose_estimation/export.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml
  python pose_estimation/export.py --model-file weights.pdparams --output output/onnx/resnet50.onnx
  python pose_estimation/export.py --model-file weights.pdparams --with-preprocess --with-flip-test --with-decode
"""

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPH, MINI_SET = ROOT / "images" / "test.jpg", ROOT / "data" / "mpii.zip"
PARITY_CROPS = 64


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add = parser.add_argument
    add("--model-file", metavar="FILE", help="weights; default: the run's own model_best.pdparams")
    add("--format", choices=("onnx", "paddle"), default="onnx", help="default: %(default)s")
    add("--output", metavar="FILE", help="default: output/onnx/posenet.onnx, output/paddle/posenet.json")
    add("--opset", type=int, metavar="N", help="of ONNX; default: 13")
    add("--dynamic-size", action="store_true", help="any height and width in multiples of 32")
    graph = parser.add_argument_group("in the graph, so that nobody has to write it in another language")
    graph.add_argument("--with-preprocess", action="store_true", help="normalise: input is a uint8 crop (N, H, W, 3)")
    graph.add_argument("--pixels", choices=("bgr", "rgb"), help="channel order of that crop; default: bgr")
    graph.add_argument("--with-flip-test", action="store_true", help="average with the mirrored crop")
    graph.add_argument("--with-decode", action="store_true", help="output is keypoints (N, K, 2) and scores (N, K)")
    check = parser.add_argument_group("what to compare the two networks on")
    check.add_argument("--images", metavar="SOURCE", help="image, folder, glob or list file; default: bundled pictures")
    check.add_argument("--bbox-file", metavar="FILE", help="people in --images, as infer.py takes them; default: whole")
    check.add_argument("--data", metavar="FOLDER", help="the people of a data set, DATASET.ROOT, instead of --images")
    args, config, weights, notes = parse_config_and_weights(parser)
    if args.pixels and not args.with_preprocess:
        raise UserError("--pixels is the order of a uint8 crop; add --with-preprocess")

    if args.opset and args.format != "onnx":
        raise UserError("--opset goes with --format onnx")

    from simplepose.runtime import start_paddle

    start_paddle()  # before anything else imports it
    for note in notes:
        print(f"=> {note}")
    return export(args, config, weights)


def export(args, config, weights) -> int:
    """Network, graph options, file, parity.

    Returns:
        0, or 1 if the exported network finds something else.
    """
    from simplepose import build
    from simplepose.export import OPSET, export_onnx, export_paddle
    from simplepose.inference import GraphOptions, load_pose_network
    from simplepose.parity import compare

    model = build.load_model(config, weights)
    original = build.build_pose_network(config, model)
    settings = build.build_inference_settings(config)
    graph = GraphOptions(
        preprocess=args.with_preprocess,
        pixels=args.pixels or "bgr",
        flip_test=args.with_flip_test,
        shift_heatmap=settings.shift_heatmap,
        decode=args.with_decode,
        post_process=settings.post_process,
        dynamic_size=args.dynamic_size,
    )
    crops, shown = choose_crops(args, config)
    metadata = {**weights.metadata, **build.weights_metadata(config)}
    described = replace(original, graph=graph)
    if args.format == "onnx":
        path = Path(args.output or "output/onnx/posenet.onnx")
        export_onnx(model, path, described, metadata, args.opset or OPSET)
        exported = load_pose_network(path)
        print(f"=> {weights.path} -> {path}: {signature(exported)}")
    else:
        files = export_paddle(model, args.output or "output/paddle/posenet.json", described, metadata)
        path = files[0]
        exported = load_deployed(path, "Paddle")
        print(f"=> {weights.path} -> {', '.join(map(str, files))}")
    parity = compare(original, exported, crops, replace(settings, flip_test=False))
    report = {"file": str(path), "model_file": str(weights.path), "crops_of": shown}
    return tell(path, {"float32": parity}, report)


def choose_crops(args, config) -> tuple[np.ndarray, str]:
    """The crops to compare on, (N, H, W, 3) uint8 BGR, and where they are from."""
    from simplepose import build
    from simplepose.boxes import boxes_of_file, whole_image
    from simplepose.parity import crops_of_dataset, crops_of_images
    from simplepose.sources import open_source

    size_wh = tuple(config.MODEL.IMAGE_SIZE)
    if args.data:
        return crops_of_dataset(build.build_valid_loader(config).dataset, PARITY_CROPS), args.data
    if args.images:
        boxes = boxes_of_file(args.bbox_file) if args.bbox_file else whole_image
        return crops_of_images(open_source(args.images), boxes, size_wh, PARITY_CROPS), args.images
    return crops_of_images(bundled_pictures(), whole_and_parts, size_wh, PARITY_CROPS), "bundled pictures"


def bundled_pictures() -> ImageFiles:
    """A photograph, and the drawn people of the mini set."""
    from simplepose.sources import ImageFiles

    with zipfile.ZipFile(MINI_SET) as archive:
        drawn = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
    return ImageFiles("bundled pictures", [str(PHOTOGRAPH), *(f"{MINI_SET}@{name}" for name in drawn)], True)


def whole_and_parts(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """An image as one box, and two boxes somewhere in it."""
    import numpy as np

    height, width = frame.image.shape[:2]
    corners = np.random.default_rng(frame.index).uniform(0, 0.5, (2, 2))
    parts = np.hstack([corners, np.full((2, 2), 0.5)]) * (width, height, width, height)
    return np.vstack([[0, 0, width, height], parts]), np.ones(3)


def tell(output: Path, results: dict[str, Parity], report: dict[str, Any]) -> int:
    """Print the comparison and write it beside the exported file.

    Returns:
        0, or 1 if the float32 network is not the original.
    """
    from simplepose.parity import moved_lines, parity_table
    from simplepose.runtime import write_json

    parity = results["float32"]
    for line in [*parity_table(results), *moved_lines(parity)]:
        print(line)
    path = output.with_suffix(".parity.json")
    write_json(path, {**report, "parity": {name: result.record() for name, result in results.items()}})
    verdict = "the same network" if parity.passed else "NOT the same network: do not use this file"
    print(f"=> {verdict}, on {parity.crops} crops of {report['crops_of']}; report: {path}")
    return 0 if parity.passed else 1


def signature(network: PoseNetwork) -> str:
    """What an exported network takes and gives."""
    ends = (network.run.session.get_inputs(), network.run.session.get_outputs())
    return " -> ".join(", ".join(f"{end.name} {end.shape} {end.type[7:-1]}" for end in side) for side in ends)


if __name__ == "__main__":
    sys.exit(run_command(main))
