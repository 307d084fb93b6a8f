"""Export a trained PoseResNet as ONNX. The file describes itself: infer.py and PosePredictor need nothing else."""

from __future__ import annotations

import sys

import _init_paths  # noqa: F401
from simplepose.cli import config_parser, parse_config_and_weights
from simplepose.errors import run_command

EXAMPLES = """examples:
  python pose_estimation/export.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml
  python pose_estimation/export.py --model-file weights.pdparams --output output/onnx/resnet50.onnx
"""


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    parser.add_argument("--model-file", metavar="FILE", help="weights; default: the run's own model_best.pdparams")
    parser.add_argument("--output", default="output/onnx/posenet.onnx", metavar="FILE", help="default: %(default)s")
    args, config, weights, notes = parse_config_and_weights(parser)

    from simplepose.runtime import start_paddle

    start_paddle()  # before anything else imports it
    for note in notes:
        print(f"=> {note}")
    export(args, config, weights)


def export(args, config, weights) -> None:
    """Network, description, file."""
    from simplepose import build
    from simplepose.export import export_onnx

    model = build.load_model(config, weights)
    described = build.build_pose_network(config, model).description()
    width, height = config.MODEL.IMAGE_SIZE
    metadata = {**weights.metadata, **build.weights_metadata(config), **described}
    export_onnx(model, args.output, metadata, (width, height))
    print(f"=> {weights.path} -> {args.output}: input (N, 3, {height}, {width}), any N")


if __name__ == "__main__":
    sys.exit(run_command(main))
