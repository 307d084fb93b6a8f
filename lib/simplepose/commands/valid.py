"""Score a trained PoseResNet on the experiment's TEST_SET."""

from __future__ import annotations

import logging

from simplepose.commands.cli import add_inference_flags, add_loop_flags, config_parser, parse_config_and_weights

logger = logging.getLogger("simplepose")

EXAMPLES = """examples:
  python pose_estimation/valid.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml --flip-test
  python pose_estimation/valid.py --cfg ... --flip-test --no-shift-heatmap --model-file weights.pdparams
  python pose_estimation/valid.py --model-file weights.pdparams --report DATASET.ROOT=data/mpii
"""


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES, needs_cfg=False)
    add_loop_flags(parser)
    add_inference_flags(parser)
    parser.add_argument("--use-detect-bbox", action="store_true", help="COCO: detected boxes, not the annotated ones")
    parser.add_argument("--coco-bbox-file", metavar="FILE", help="COCO: the detections, TEST.COCO_BBOX_FILE")
    parser.add_argument("--report", action="store_true", help="also show what it gets wrong: report/index.html in the "
        "run folder, as analyze.py makes it")  # fmt: skip
    args, config, weights, notes = parse_config_and_weights(parser)

    from simplepose.machine.distributed import first_failure_first
    from simplepose.machine.paddle_start import start_paddle

    settings = start_paddle()  # before anything else imports it
    with first_failure_first():
        validate(args, config, weights, notes, settings)


def validate(args, config, weights, notes: list[str], machine: str) -> None:
    """Load configuration, data and network, then evaluate."""
    import paddle

    from simplepose.build.data import build_analysed_set, build_evaluator, build_valid_loader
    from simplepose.build.model import build_model, run_folder_of
    from simplepose.build.training import build_debug_pictures, build_validation_settings
    from simplepose.config.load import inert_warnings
    from simplepose.inference.network import paddle_network
    from simplepose.machine.device import set_device
    from simplepose.machine.distributed import ranks
    from simplepose.machine.logs import log_to, set_up_logging, start_time
    from simplepose.reports.analysis import write_report
    from simplepose.training.evaluation import evaluate_and_report
    from simplepose.training.run_folder import make_run_folder
    from simplepose.weights.network import load_weights, require_finite

    run_folder = make_run_folder(run_folder_of(config, args.cfg or weights.path))
    set_up_logging()
    log_to(run_folder / f"{run_folder.name}_{start_time()}_valid.log")
    device = set_device(config.GPUS)
    logger.info("=> Paddle %s on %s. %s", paddle.__version__, device, machine)
    for warning in [*notes, *inert_warnings(config)]:
        logger.warning("=> %s", warning)
    require_finite(weights.state, weights.path)
    model = build_model(config)
    load_weights(model, weights)
    logger.info("=> loading model from %s", weights.path)
    analysed = build_analysed_set(config) if args.report else None
    loader = build_valid_loader(config)
    evaluator = build_evaluator(config, loader.dataset.samples)
    if ranks()[1] > 1:
        paddle.distributed.init_parallel_env()
    pictures = build_debug_pictures(config, run_folder)
    network = paddle_network(model, config.TRAIN.CPU_KERNELS)
    settings = build_validation_settings(config)
    evaluate_and_report(settings, network, loader, evaluator, run_folder, pictures=pictures)
    if analysed and ranks()[0] == 0:
        truth, images = analysed
        report = run_folder / "report"
        for line in write_report(truth, [run_folder / evaluator.predictions_file], report, images):
            logger.info(line)
        logger.info("=> what it gets wrong: %s", (report / "index.html").as_posix())
