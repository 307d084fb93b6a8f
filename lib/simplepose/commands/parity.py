"""Compare exported networks with the weights they came from, on a data set: pixels and PCKh or AP, runtime by runtime.

The runtimes are those of deploy.py, called in the same way, and the demo page's onnxruntime-web.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from simplepose.commands.cli import add_inference_flags, config_parser, parse_config_and_weights
from simplepose.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from simplepose.inference.network import PoseNetwork

CHECKOUT = Path(__file__).resolve().parents[3]
EXAMPLES = """examples:
  python pose_estimation/parity.py --cfg ... --model-file best.pdparams --onnx posenet.onnx --data data/mpii
  python pose_estimation/parity.py --model-file best.pdparams --onnx posenet.onnx --onnx int8.onnx --data data/mpii
  python pose_estimation/parity.py --model-file best.pdparams --onnx posenet.onnx --data data/mpii --flip-test
"""


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add_inference_flags(parser)
    add = parser.add_argument
    add("--onnx", action="append", default=[], metavar="FILE", help="ONNX file of export.py; may be repeated")
    add("--paddle", action="append", default=[], metavar="FILE", help="program of export.py --format paddle")
    add("--runtime", action="append", choices=("ONNX", "OpenVINO", "OpenCV", "Web"),
        help="for the ONNX files; may be repeated; default: all installed but Web, which is slow")  # fmt: skip
    add("--data", metavar="FOLDER", help="DATASET.ROOT; the people of DATASET.TEST_SET are used")
    add("--use-detect-bbox", action="store_true", help="COCO: detected boxes, not the annotated ones")
    add("--coco-bbox-file", metavar="FILE", help="COCO: the detections, TEST.COCO_BBOX_FILE")
    add("--most", type=int, metavar="N", help="only so many people, evenly spread, and no scores")
    add("--output", default="output/parity.json", metavar="FILE", help="report; default: %(default)s")
    args, config, weights, notes = parse_config_and_weights(parser)
    if not args.onnx and not args.paddle:
        raise UserError("name what to compare with --onnx or --paddle; export.py makes both")
    if not config.DATASET.ROOT:
        raise UserError("name the folder of the people to compare on with --data, or DATASET.ROOT")
    if args.most is not None and args.most < 1:
        raise UserError(f"--most is {args.most}; it is a number of people, at least 1")

    from simplepose.machine.paddle_start import start_paddle

    start_paddle()  # before anything else imports it
    for note in notes:
        print(f"=> {note}")
    return measure(args, config, weights)


def measure(args, config, weights) -> int:
    """Open the original and the exported networks, run the data set, print the tables.

    Returns:
        0, or 1 if a float32 network finds different keypoints or a runtime failed.
    """
    from simplepose.build.data import box_source, build_evaluator, build_valid_loader
    from simplepose.build.model import build_inference_settings, build_pose_network, load_model
    from simplepose.config.load import arch_name
    from simplepose.core.files import write_json
    from simplepose.export.parity import compare, crops_of_dataset, parity_table, score_networks
    from simplepose.machine.logs import progress_bar
    from simplepose.machine.provenance import git_commit

    original = build_pose_network(config, load_model(config, weights))
    settings = build_inference_settings(config)
    dataset = build_valid_loader(config).dataset
    evaluator = build_evaluator(config, dataset.samples)
    networks, exact, failures = open_all(args, crops_of_dataset(dataset, 1))
    metrics: dict[str, dict[str, float]] = {}  # by network, the original's first
    if args.most:
        crops = crops_of_dataset(dataset, args.most)
        parities = {name: compare(original, network, crops, settings) for name, network in networks.items()}
    else:
        originals, scored = score_networks(
            original, networks, dataset, lambda: build_evaluator(config, dataset.samples), settings,
            lambda batches: progress_bar(batches, len(batches), "parity"),
        )  # fmt: skip
        parities = {name: parity for name, (parity, _) in scored.items()}
        for wanted, figures in originals.items():
            metrics[f"{weights.path}, {'flip test' if wanted.flip_test else 'no flip test'}"] = figures
        metrics.update((name, figures) for name, (_, figures) in scored.items())

    for line in parity_table(parities):
        print(line)
    tables = [evaluator.table(name, figures) for name, figures in metrics.items() if figures]
    for line in (tables[0] if tables else []) + [row for _, _, row in tables[1:]]:
        print(line)
    report = {
        "model_file": str(weights.path),
        "arch": arch_name(config),
        "data": config.DATASET.ROOT,
        "test_set": config.DATASET.TEST_SET,
        "boxes": box_source(config),
        **vars(settings),
        "parity": {name: parity.record() for name, parity in parities.items()},
        "metrics": metrics,
        "failures": failures,
        "commit": git_commit(),
    }
    write_json(Path(args.output), report)
    broken = [name for name, parity in parities.items() if name in exact and not parity.passed]
    for line in [*failures, *(f"{name} is float32, and not the same network" for name in broken)]:
        print(f"failed: {line}", file=sys.stderr)
    print(f"=> report: {args.output}")
    return 1 if broken or failures else 0


def open_all(args, crops: np.ndarray) -> tuple[dict[str, PoseNetwork], set[str], list[str]]:
    """Open every file in every installed runtime.

    Args:
        crops: (1, H, W, 3) uint8, to check that each one runs.

    Returns:
        Networks by name; the names of the float32 ones, which must match exactly; the failures.
    """
    from simplepose.inference.network import InferenceSettings

    deploy = deploy_module()

    wanted = [(file, runtime) for file in args.onnx for runtime in args.runtime or ("ONNX", "OpenVINO", "OpenCV")]
    wanted += [(file, "Paddle") for file in args.paddle]
    networks, exact, failures = {}, set(), []
    for file, runtime in wanted:
        name = f"{file}, {runtime}"
        needed = deploy.RUNTIMES.get(runtime)
        if not args.runtime and importlib.util.find_spec(needed.module) is None:
            print(f"=> {runtime} is not installed and left out: python -m pip install {needed.package}")
            continue
        network = load_deployed(file, runtime)
        try:
            network.predict(network.prepare(crops), InferenceSettings())
        except Exception as error:  # each runtime raises its own classes
            failures.append(f"{name}: {' '.join(str(error).split())[:200]}")
            continue
        networks[name] = network
        if deploy.read_description(Path(file)).get("precision") == "float32":
            exact.add(name)
    if not networks:
        raise UserError(f"nothing runs: {'; '.join(failures) or 'no runtime is installed'}")
    return networks, exact, failures


def deploy_module() -> ModuleType:
    """pose_estimation/deploy.py, a standalone script that only a checkout contains."""
    path = CHECKOUT / "pose_estimation" / "deploy.py"
    if not path.exists():
        raise UserError(
            "networks are compared as pose_estimation/deploy.py runs them: do it in a checkout, which has it"
        )
    if "deploy" not in sys.modules:
        spec = importlib.util.spec_from_file_location("deploy", path)
        sys.modules["deploy"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["deploy"])
    return sys.modules["deploy"]


def load_deployed(path: Path, runtime: str) -> PoseNetwork:
    """An exported network, run as deploy.py runs it, or by onnxruntime-web."""
    from simplepose.export.web import web_network
    from simplepose.inference.network import PoseNetwork

    deploy = deploy_module()
    try:
        described = deploy.read_description(Path(path))
        if runtime == "Web":
            return PoseNetwork.from_description(web_network(path), described, path)
        run = deploy.open_runtime(runtime, Path(path))
    except deploy.DeployError as error:
        raise UserError(str(error)) from None

    def network(images):
        outputs = run(images)
        return outputs[0] if len(outputs) == 1 else outputs

    return PoseNetwork.from_description(network, described, path)
