"""Score a trained PoseResNet on the experiment's TEST_SET."""

from __future__ import annotations

import sys

import _init_paths  # noqa: F401
from simplepose.cli import add_inference_flags, add_loop_flags, config_parser, parse_config_and_weights
from simplepose.errors import run_command

EXAMPLES = """examples:
  python pose_estimation/valid.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml --flip-test
  python pose_estimation/valid.py --cfg ... --flip-test --no-shift-heatmap --model-file weights.pdparams
  python pose_estimation/valid.py --model-file weights.pdparams DATASET.ROOT=data/mpii
"""


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add_loop_flags(parser)
    add_inference_flags(parser)
    parser.add_argument("--use-detect-bbox", action="store_true", help="COCO: detected boxes, not the annotated ones")
    parser.add_argument("--coco-bbox-file", metavar="FILE", help="COCO: the detections, TEST.COCO_BBOX_FILE")
    args, config, weights, notes = parse_config_and_weights(parser)

    from simplepose.runtime import first_failure_first, start_paddle

    settings = start_paddle()  # before anything else imports it
    with first_failure_first():
        validate(args, config, weights, notes, settings)


def validate(args, config, weights, notes: list[str], settings: str) -> None:
    """Configuration, data, network, evaluation."""
    import paddle

    from simplepose import build, runtime
    from simplepose.checkpoint import load_weights, require_finite
    from simplepose.config import inert_warnings
    from simplepose.evaluation import evaluate_and_report
    from simplepose.inference import paddle_network

    run_folder = runtime.make_run_folder(build.run_folder(config, args.cfg or weights.path))
    runtime.set_up_logging()
    runtime.log_to(run_folder / f"{run_folder.name}_{runtime.start_time()}_valid.log")
    device = runtime.set_device(config.GPUS)
    runtime.logger.info("=> Paddle %s on %s. %s", paddle.__version__, device, settings)
    for warning in [*notes, *inert_warnings(config)]:
        runtime.logger.warning("=> %s", warning)
    require_finite(weights.state, weights.path)
    model = build.build_model(config)
    load_weights(model, weights)
    runtime.logger.info("=> loading model from %s", weights.path)
    loader = build.build_valid_loader(config)
    evaluator = build.build_evaluator(config, loader.dataset.samples)
    if runtime.ranks()[1] > 1:
        paddle.distributed.init_parallel_env()
    pictures = build.build_debug_pictures(config, run_folder)
    evaluate_and_report(config, paddle_network(model), loader, evaluator, run_folder, pictures=pictures)


if __name__ == "__main__":
    sys.exit(run_command(main))
