"""Export a trained PoseResNet as ONNX, or for Paddle Inference, and check that the file finds the same keypoints.

The file describes itself: infer.py, deploy.py and PosePredictor need nothing else.
"""

from __future__ import annotations

import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simplepose.commands.cli import config_parser, parse_config_and_weights
from simplepose.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from simplepose.core.codecs.base import Codec
    from simplepose.export.parity import Parity
    from simplepose.inference.network import InferenceSettings, PoseNetwork
    from simplepose.inference.sources import Frame, ImageFiles

EXAMPLES = """examples:
  python pose_estimation/export.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml
  python pose_estimation/export.py --model-file weights.pdparams --output output/onnx/resnet50.onnx
  python pose_estimation/export.py --model-file weights.pdparams --with-preprocess --with-flip-test --with-decode
  python pose_estimation/export.py --model-file weights.pdparams --precision int8 --calibrate photos/
"""

CHECKOUT = Path(__file__).resolve().parents[3]
PHOTOGRAPH, MINI_SET = CHECKOUT / "images" / "test.jpg", CHECKOUT / "data" / "mpii.zip"
PARITY_CROPS, CALIBRATION_CROPS = 64, 128
PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8"}


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add = parser.add_argument
    add("--model-file", metavar="FILE", help="weights; default: those of --cfg's run, else the bundled network")
    add("--format", choices=("onnx", "paddle"), default="onnx", help="default: %(default)s")
    add("--output", metavar="FILE", help="default: output/onnx/posenet.onnx, output/paddle/posenet.json")
    add("--opset", type=int, metavar="N", help="of ONNX; default: 13")
    add("--dynamic-size", action="store_true", help="any height and width in multiples of 32")
    graph = parser.add_argument_group("in the graph, so that nobody has to write it in another language")
    graph.add_argument("--with-preprocess", action="store_true", help="normalise: input is a uint8 crop (N, H, W, 3)")
    graph.add_argument("--pixels", choices=("bgr", "rgb"), help="channel order of that crop; default: bgr")
    graph.add_argument("--with-flip-test", action="store_true", help="average with the mirrored crop")
    graph.add_argument("--with-decode", action="store_true", help="output is keypoints (N, K, 2) and scores (N, K)")
    light = parser.add_argument_group("lighter")
    light.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32", help="default: %(default)s")
    light.add_argument("--calibrate", metavar="SOURCE", help="int8: typical images, as --images takes them; default: "
        "the training set of --data, else bundled pictures")  # fmt: skip
    check = parser.add_argument_group("what to compare the two networks on")
    people = check.add_mutually_exclusive_group()
    people.add_argument("--images", metavar="SOURCE", help="image, folder, glob or list; default: bundled pictures")
    people.add_argument("--data", metavar="FOLDER", help="the people of a data set, DATASET.ROOT")
    check.add_argument("--bbox-file", metavar="FILE", help="people in these images, as for infer.py; default: whole")
    add("--card", metavar="FILE", help="write a model card in Markdown; with --cfg, --data and a --precision")
    args, config, weights, notes = parse_config_and_weights(parser, bundled=True)
    if args.format == "onnx" and args.output and Path(args.output).suffix.lower() != ".onnx":
        raise UserError(f"--output is {args.output}; the name of an ONNX file ends in .onnx")
    if args.pixels and not args.with_preprocess:
        raise UserError("--pixels is the order of a uint8 crop; add --with-preprocess")
    if args.format != "onnx" and (args.opset or args.precision != "fp32"):
        raise UserError("--opset and --precision go with --format onnx")
    if args.calibrate and args.precision != "int8":
        raise UserError("--calibrate goes with --precision int8")
    if args.card and not (args.cfg and args.data and args.precision != "fp32"):
        raise UserError("--card tells recipe and scores; add --cfg, --data, and --precision fp16 or int8")
    if args.bbox_file and not (args.images or args.calibrate):
        raise UserError("--bbox-file says where people are in --images or --calibrate; name one of them")

    from simplepose.machine.paddle_start import start_paddle

    start_paddle()  # before anything else imports it
    for note in notes:
        print(f"=> {note}")
    return export(args, config, weights)


def export(args, config, weights) -> int:
    """Build the network and its graph options, write the file, check parity.

    Returns:
        0, or 1 if the exported network finds different keypoints.
    """
    from simplepose.build.data import build_evaluator, build_valid_samples
    from simplepose.build.model import build_inference_settings, build_pose_network, load_model, weights_metadata
    from simplepose.build.predictor import load_pose_network
    from simplepose.commands.parity import load_deployed
    from simplepose.export.onnx import OPSET, export_onnx, export_paddle
    from simplepose.export.parity import compare
    from simplepose.inference.network import GraphOptions
    from simplepose.reports.model_card import write_card

    model = load_model(config, weights)
    original = build_pose_network(config, model)
    settings = build_inference_settings(config)
    graph = GraphOptions(
        preprocess=args.with_preprocess,
        pixels=args.pixels or "bgr",
        flip_test=args.with_flip_test,
        shift_heatmap=settings.shift_heatmap,
        decode=args.with_decode,
        post_process=settings.post_process,
        dynamic_size=args.dynamic_size,
    )
    described = replace(original, graph=graph)
    settings = replace(settings, flip_test=False)  # except the one inside the graph
    crops, shown = choose_crops(args, config)
    metadata = {**weights.metadata, **weights_metadata(config)}
    report = {"model_file": str(weights.path), "crops_of": shown}
    if args.format == "paddle":
        files = export_paddle(model, args.output or "output/paddle/posenet.json", described, metadata)
        print(f"=> {weights.path} -> {', '.join(map(str, files))}")
        parity = compare(original, load_deployed(files[0], "Paddle"), crops, settings)
        return report_parity(files[0], {"float32": parity}, report)

    path = Path(args.output or "output/onnx/posenet.onnx")
    with tempfile.TemporaryDirectory() as folder:
        exact = path if args.precision == "fp32" else Path(folder, "float32.onnx")
        export_onnx(model, exact, described, metadata, args.opset or OPSET)
        results = {"float32": compare(original, load_pose_network(exact), crops, settings)}
        columns = {}
        if args.precision != "fp32" and results["float32"].passed:
            parity, columns, more = lighten(args, config, original, exact, path, crops, settings)
            results[PRECISIONS[args.precision]] = parity
            report.update(more)
            if args.card:
                evaluator = build_evaluator(config, samples := build_valid_samples(config))
                commit = str(weights.metadata.get("commit", "unknown"))
                write_card(args.card, path, config, args.cfg, commit, len(samples), more["metrics"], evaluator.primary)
                print(f"=> card: {args.card}")
    if args.precision == "fp32" or len(results) > 1:
        print(f"=> {weights.path} -> {path}: {signature(load_pose_network(path))}")
    return report_parity(path, results, report, columns)


def lighten(
    args, config, original: PoseNetwork, exact: Path, path: Path, crops: np.ndarray, settings: InferenceSettings
) -> tuple[Parity, dict[str, dict[str, str]], dict[str, Any]]:
    """Write the float32 file `exact` as float16 or int8, and measure parity, size, latency and, with --data, scores.

    Returns:
        Its parity with the original; columns for the table; entries for the report.
    """
    from simplepose.build.data import build_evaluator, build_valid_loader
    from simplepose.build.predictor import load_pose_network
    from simplepose.export.parity import compare, latency_ratio, score_networks
    from simplepose.export.quantize import FLOAT16_MAX_RELATIVE_DIFFERENCE, write_float16, write_int8

    name = PRECISIONS[args.precision]
    more: dict[str, Any] = {}
    if name == "float16":
        parity, kept = write_float16(
            exact, path, lambda file: compare(original, load_pose_network(file), crops, settings)
        )
        if not parity.max_relative_difference <= FLOAT16_MAX_RELATIVE_DIFFERENCE:  # NaN, too
            print("=> warning: float16 does not hold this network's numbers; compare the table before using the file")
    else:
        examples, of = choose_calibration(args, config)
        kept = write_int8(exact, path, load_pose_network(exact).prepare(examples), of)
        parity = compare(original, load_pose_network(path), crops, settings)
        more["calibration"] = {"crops": len(examples), "of": of}
        print(f"=> calibrated on {len(examples)} crops of {of}")
    print(f"=> {len(kept)} layers stay float32{': ' if kept else ''}{', '.join(kept)}")
    networks = {"float32": load_pose_network(exact), name: load_pose_network(path)}
    sizes = {"float32": exact.stat().st_size, name: path.stat().st_size}
    one = networks[name].prepare(crops[:1])
    ratio = latency_ratio(networks["float32"].run, networks[name].run, one)
    columns = {
        "MB": {key: f"{size / 1e6:.1f}" for key, size in sizes.items()},
        "latency": {"float32": "1", name: f"{ratio:.2f}"},
    }
    more.update(size_bytes=sizes, latency_ratio=ratio, float32_layers=kept)
    if args.data:
        dataset = build_valid_loader(config).dataset
        _, scored = score_networks(
            original, networks, dataset, lambda: build_evaluator(config, dataset.samples), settings
        )
        primary = build_evaluator(config, dataset.samples).primary
        figures = {key: metrics[primary] for key, (_, metrics) in scored.items()}
        columns[primary] = {key: f"{figure:.3f}" for key, figure in figures.items()}
        columns["change"] = {key: f"{figure - figures['float32']:+.3f}" for key, figure in figures.items()}
        more["metrics"] = {key: metrics for key, (_, metrics) in scored.items()}
    return parity, columns, more


def choose_crops(args, config) -> tuple[np.ndarray, str]:
    """The crops to compare on, (N, H, W, 3) uint8 BGR, and their origin."""
    from simplepose.build.data import build_valid_loader
    from simplepose.build.model import build_codec
    from simplepose.export.parity import crops_of_dataset

    if args.data:
        return crops_of_dataset(build_valid_loader(config).dataset, PARITY_CROPS), args.data
    return image_crops(args.images, args.bbox_file, build_codec(config), PARITY_CROPS)


def choose_calibration(args, config) -> tuple[np.ndarray, str]:
    """The crops to calibrate on, (N, H, W, 3) uint8 BGR, and their origin."""
    from simplepose.build.data import build_train_loader
    from simplepose.build.model import build_codec
    from simplepose.export.parity import crops_of_dataset

    if args.data and not args.calibrate:
        crops = crops_of_dataset(build_train_loader(config).dataset, CALIBRATION_CROPS)
        return crops, f"{config.DATASET.ROOT}, {config.DATASET.TRAIN_SET}"
    return image_crops(args.calibrate, args.bbox_file, build_codec(config), CALIBRATION_CROPS)


def image_crops(source: str | None, bbox_file: str | None, codec: Codec, most: int) -> tuple[np.ndarray, str]:
    """Crops (N, H, W, 3) uint8 BGR of a source, or of the bundled pictures without one; and its name."""
    from simplepose.export.parity import crops_of_images
    from simplepose.inference.box_sources import boxes_of_file, whole_image
    from simplepose.inference.sources import open_source

    if source:
        boxes = boxes_of_file(bbox_file) if bbox_file else whole_image
        return crops_of_images(open_source(source), boxes, codec, most), source
    return crops_of_images(bundled_pictures(), whole_and_parts, codec, most), "bundled pictures"


def bundled_pictures() -> ImageFiles:
    """A photograph, and the drawn people of the mini set."""
    from simplepose.inference.sources import ImageFiles

    if not MINI_SET.exists():
        raise UserError("the pictures to compare on come with a checkout; name some of your own with --images")
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


def report_parity(
    output: Path, results: dict[str, Parity], report: dict[str, Any], columns: dict[str, dict[str, str]] | None = None
) -> int:
    """Print the comparison, with additional columns if given, and write it beside the exported file.

    Returns:
        0, or 1 if the float32 network differs from the original.
    """
    from simplepose.core.files import write_json
    from simplepose.export.parity import moved_lines, parity_table

    parity = results["float32"]
    for line in [*parity_table(results, columns), *moved_lines(parity)]:
        print(line)
    path = output.with_suffix(".parity.json")
    write_json(
        path, {"file": str(output), **report, "parity": {name: result.record() for name, result in results.items()}}
    )
    verdict = "the same network" if parity.passed else "NOT the same network: do not use this file"
    print(f"=> float32: {verdict}, on {parity.crops} crops of {report['crops_of']}; report: {path}")
    return 0 if parity.passed else 1


def signature(network: PoseNetwork) -> str:
    """Inputs and outputs of an exported network, as text."""
    ends = (network.run.session.get_inputs(), network.run.session.get_outputs())
    return " -> ".join(", ".join(f"{end.name} {end.shape} {end.type[7:-1]}" for end in side) for side in ends)
