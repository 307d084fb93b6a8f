"""Train a PoseResNet on an experiment file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.commands.cli import add_loop_flags, config_parser, parse_config
from simplepose.core.errors import UserError

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.training.state import TrainingState

EXAMPLES = """examples:
  python pose_estimation/train.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml
  python pose_estimation/train.py --cfg ... --workers 2 TRAIN.LR=5e-4 MODEL.IMAGE_SIZE=[192,256]
  python -m paddle.distributed.launch --gpus 0,1 pose_estimation/train.py --cfg ...
"""

logger = logging.getLogger("simplepose")


def main() -> int | None:
    parser = config_parser(__doc__, EXAMPLES)
    add_loop_flags(parser)
    parser.add_argument("--batch-size", "--batch_size", type=int, metavar="N", help="per device, TRAIN.BATCH_SIZE")
    parser.add_argument(
        "--resume-model", "--resume_model", metavar="PATH", help="go on from this checkpoint file or run folder"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--dry-run", action="store_true", help="try every part, estimate time, memory and disk; no run"
    )
    instead.add_argument("--profile", type=int, metavar="N", help="where the time of N iterations goes; no run")
    args, config = parse_config(parser)

    from simplepose.machine.distributed import first_failure_first
    from simplepose.machine.paddle_start import start_paddle

    settings = start_paddle()  # before anything else imports it
    with first_failure_first():
        train(args, config, settings)


def train(args, config, settings: str) -> None:
    """Configuration, data, network, loop."""
    import paddle

    from simplepose.build.data import build_evaluator, build_train_loader, build_valid_loader
    from simplepose.build.model import run_folder_of
    from simplepose.build.training import (
        build_checkpoint_keeper,
        build_debug_pictures,
        build_kernels,
        build_loop_settings,
        build_training_state,
        build_validation_settings,
    )
    from simplepose.config.load import dump_config, inert_warnings
    from simplepose.core.files import written_whole
    from simplepose.inference.network import paddle_network
    from simplepose.machine import logs
    from simplepose.machine.device import set_cudnn, set_device, set_seeds
    from simplepose.machine.distributed import broadcast, ranks, share_statistics
    from simplepose.machine.provenance import git_commit
    from simplepose.machine.signals import StopRequest
    from simplepose.training.checkpoint import find_checkpoints
    from simplepose.training.dry_run import dry_run
    from simplepose.training.evaluation import evaluate_and_report
    from simplepose.training.health import Health
    from simplepose.training.profiling import profile
    from simplepose.training.run_folder import claim, make_run_folder, set_aside
    from simplepose.training.trainer import run_epochs
    from simplepose.training.watchers import Checkpoints, Curves, LogLines, Pictures

    # The run folder, the log, the device.
    run_folder = make_run_folder(run_folder_of(config, args.cfg))
    if not args.dry_run and args.profile is None:  # they leave an earlier training alone
        claim(run_folder)
    logs.set_up_logging()
    device = set_device(config.GPUS)
    set_cudnn(config.CUDNN.BENCHMARK, config.CUDNN.DETERMINISTIC)
    set_seeds(config.TRAIN.SEED)
    rank, num_ranks = ranks()
    if num_ranks > 1:
        paddle.distributed.init_parallel_env()
    kernels, named = build_kernels(config)
    logger.info("=> simplepose %s, Paddle %s on %s. %s. %s", git_commit(), paddle.__version__, device, settings, named)
    for warning in inert_warnings(config):
        logger.warning("=> %s", warning)

    # Data, and what scores it: a missing gt_*.mat shows now, not after an epoch.
    train_loader = build_train_loader(config)
    valid_loader = build_valid_loader(config)
    evaluator = build_evaluator(config, valid_loader.dataset.samples)

    # The network, its optimiser, and where they start.
    state = build_training_state(config, kernels, len(train_loader))
    found = find_checkpoints(run_folder)
    resumed = broadcast(args.resume_model or (config.TRAIN.RESUME and found and run_folder))
    begin(state, config, run_folder, resumed)
    state.follow({**train_loader.sampler.order, "accumulated": config.TRAIN.ACCUMULATE})
    trained = state.model
    if num_ranks > 1:
        trained = paddle.DataParallel(trained, find_unused_parameters=config.TRAIN.FREEZE_BACKBONE_EPOCHS > 0)
    keeper = build_checkpoint_keeper(config, run_folder, state)
    loop, validation = build_loop_settings(config), build_validation_settings(config)

    frozen = state.model.freeze_backbone(state.progress.epoch < config.TRAIN.FREEZE_BACKBONE_EPOCHS)
    if args.dry_run:
        network = paddle_network(state.validated, config.TRAIN.CPU_KERNELS)
        dry_run(keeper, trained, network, train_loader, valid_loader, evaluator, loop, validation, frozen)
        return
    if args.profile is not None:
        profile(state, trained, train_loader, loop, frozen, args.profile, run_folder)
        return

    # Nothing has touched the run folder so far: a mistake above leaves an earlier training as it was.
    writer = logs.open_visual_log(config.LOG_DIR, run_folder)
    if not resumed or run_folder.resolve() not in (Path(resumed).resolve(), Path(resumed).resolve().parent):
        earlier = set_aside(run_folder, found)
        if earlier:
            logger.info(
                "=> an earlier training was here; it is now in %s (TRAIN.RESUME=True resumes one)", earlier.as_posix()
            )
    logs.log_to(run_folder / f"{run_folder.name}_{logs.start_time()}_train.log")
    if rank == 0:
        with written_whole(run_folder / "config.yaml") as scratch:
            scratch.write_text(dump_config(config), encoding="utf-8")
    keeper.clean_up()
    pictures = build_debug_pictures(config, run_folder) if rank == 0 else None
    watchers = [Health(state.model, train_loader.dataset, run_folder), LogLines(loop.end_epoch)]
    watchers += [Curves(writer)] if writer else []
    watchers += [Pictures(pictures)] if pictures else []
    try:
        with StopRequest() as stop:

            def validate() -> tuple[dict[str, float], dict[str, float]]:
                share_statistics(state.validated)
                network = paddle_network(state.validated, config.TRAIN.CPU_KERNELS)
                epoch = state.progress.epoch
                return evaluate_and_report(
                    validation, network, valid_loader, evaluator, run_folder, writer, epoch, pictures, stop
                )

            run_epochs(
                trained, train_loader, keeper, loop, [*watchers, Checkpoints(keeper, stop)], validate,
                evaluator.primary, config.TRAIN.FREEZE_BACKBONE_EPOCHS,
            )  # fmt: skip
    finally:
        if writer is not None:
            writer.close()


def begin(state: TrainingState, config: EasyDict, run_folder: Path, resumed: str | Path | None) -> None:
    """Load the checkpoint of `resumed`, a file or run folder; without one the pretrained weights, if any are wanted."""
    from simplepose.build.training import find_pretrained
    from simplepose.training.checkpoint import LAST_WEIGHTS, load_checkpoint
    from simplepose.weights import read_weights
    from simplepose.weights.network import load_pretrained

    if resumed:
        load_checkpoint(resumed, state)
        epoch = state.progress.epoch
        logger.info("=> resuming %s at %s", resumed, state.progress)
        last = run_folder / LAST_WEIGHTS  # of this epoch, unless the training was killed before it wrote them
        is_finished = epoch >= config.TRAIN.END_EPOCH and last.exists()
        if is_finished and read_weights(last).metadata.get("epoch") == epoch - 1:
            raise UserError(
                f"{resumed} has finished epoch {epoch - 1} and TRAIN.END_EPOCH is {config.TRAIN.END_EPOCH}; raise it "
                "to train on"
            )
    elif config.MODEL.PRETRAINED:
        pretrained = find_pretrained(config)
        loaded, new = load_pretrained(state.model, pretrained)
        logger.info("=> pretrained: %d arrays from %s; new: %s", loaded, pretrained, ", ".join(new) or "none")
