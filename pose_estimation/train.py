"""Train a PoseResNet on an experiment file."""

from __future__ import annotations

import sys
from pathlib import Path

import _init_paths  # noqa: F401
from simplepose.cli import add_loop_flags, config_parser, parse_config
from simplepose.errors import UserError, run_command

EXAMPLES = """examples:
  python pose_estimation/train.py --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml
  python pose_estimation/train.py --cfg ... --workers 2 TRAIN.LR=5e-4 MODEL.IMAGE_SIZE=[192,256]
  python -m paddle.distributed.launch --gpus 0,1 pose_estimation/train.py --cfg ...
"""

MOST_UNSEEN = 20  # iterations a GPU runs on before its losses are read, and Ctrl-C or a due checkpoint are seen to


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

    from simplepose.runtime import first_failure_first, start_paddle

    settings = start_paddle()  # before anything else imports it
    with first_failure_first():
        train(args, config, settings)


def train(args, config, settings: str) -> None:
    """Configuration, data, network, loop."""
    import paddle

    from simplepose import build, runtime
    from simplepose.checkpoint import LAST_WEIGHTS, Progress, find_checkpoints, load_checkpoint, load_pretrained
    from simplepose.config import dump_config, inert_warnings
    from simplepose.dry_run import dry_run
    from simplepose.engine import train_one_epoch
    from simplepose.evaluation import evaluate_and_report
    from simplepose.files import written_whole
    from simplepose.gpu import MixedPrecision
    from simplepose.inference import paddle_network
    from simplepose.profiling import profile
    from simplepose.watch import Watch
    from simplepose.weights import read_weights

    run_folder = runtime.make_run_folder(build.run_folder(config, args.cfg))
    if not args.dry_run and args.profile is None:  # they leave an earlier training alone
        runtime.claim(run_folder)
    runtime.set_up_logging()
    logger = runtime.logger
    device = runtime.set_device(config.GPUS)
    runtime.set_cudnn(config.CUDNN.BENCHMARK, config.CUDNN.DETERMINISTIC)
    runtime.set_seeds(config.TRAIN.SEED)
    rank, num_ranks = runtime.ranks()
    if num_ranks > 1:
        paddle.distributed.init_parallel_env()
    kernels, named = build.build_kernels(config)
    logger.info(
        "=> simplepose %s, Paddle %s on %s. %s. %s", runtime.git_commit(), paddle.__version__, device, settings, named
    )
    for warning in inert_warnings(config):
        logger.warning("=> %s", warning)

    precision = MixedPrecision(config.TRAIN.AMP)
    train_loader = build.build_train_loader(config)
    valid_loader = build.build_valid_loader(config)
    evaluator = build.build_evaluator(
        config, valid_loader.dataset.samples
    )  # a missing gt_*.mat shows now, not after an epoch

    model = build.build_model(config)
    model.kernels = kernels
    if config.TRAIN.SYNC_BN:
        model = build.synchronize_batch_norm(model)
    optimizer = build.build_optimizer(config, model, len(train_loader))
    average = build.build_average(config)
    progress = Progress(epoch=config.TRAIN.BEGIN_EPOCH)
    found = find_checkpoints(run_folder)
    resume = runtime.broadcast(args.resume_model or (config.TRAIN.RESUME and found and run_folder))
    if resume:
        progress = load_checkpoint(resume, model, optimizer, average, precision)
        logger.info("=> going on from %s at %s", resume, progress)
        last = run_folder / LAST_WEIGHTS  # of this epoch, unless the training was killed before it wrote them
        if (
            progress.epoch >= config.TRAIN.END_EPOCH
            and last.exists()
            and read_weights(last).metadata.get("epoch") == progress.epoch - 1
        ):
            raise UserError(
                f"{resume} has finished epoch {progress.epoch - 1} and TRAIN.END_EPOCH is {config.TRAIN.END_EPOCH}; "
                "raise it to train on"
            )
    elif config.MODEL.PRETRAINED:
        pretrained = build.find_pretrained(config)
        loaded, anew = load_pretrained(model, pretrained)
        logger.info("=> pretrained: %d arrays from %s; new: %s", loaded, pretrained, ", ".join(anew) or "none")
    progress.fit_order({**train_loader.sampler.order, "accumulated": config.TRAIN.ACCUMULATE}, optimizer)
    trained = model
    if num_ranks > 1:
        trained = paddle.DataParallel(model, find_unused_parameters=config.TRAIN.FREEZE_BACKBONE_EPOCHS > 0)
    validated = model if average is None else average.network
    keeper = build.build_checkpoint_keeper(config, run_folder, model, optimizer, progress, average, precision)
    if args.dry_run:
        dry_run(config, keeper, trained, train_loader, valid_loader, evaluator)
        return
    if args.profile is not None:
        profile(config, keeper, trained, train_loader, args.profile)
        return

    writer = runtime.open_visual_log(config.LOG_DIR, run_folder)
    # Nothing has touched the run folder so far: a mistake above leaves an earlier training as it was.
    if not resume or run_folder.resolve() not in (Path(resume).resolve(), Path(resume).resolve().parent):
        earlier = runtime.set_aside(run_folder, found)
        if earlier:
            logger.info(
                "=> an earlier training was here; it is now in %s (TRAIN.RESUME=True goes on with one)",
                earlier.as_posix(),
            )
    runtime.log_to(run_folder / f"{run_folder.name}_{runtime.start_time()}_train.log")
    if rank == 0:
        with written_whole(run_folder / "config.yaml") as scratch:
            scratch.write_text(dump_config(config), encoding="utf-8")
    keeper.clean_up()
    pictures = build.build_debug_pictures(config, run_folder) if rank == 0 else None
    watch = Watch(model, train_loader.dataset, run_folder)
    look_every = min(config.PRINT_FREQ, MOST_UNSEEN) if device.startswith("gpu") else 1
    with runtime.StopRequest() as stop:

        def after_step(steps: int) -> None:
            stops, saves = runtime.anybody(stop.requested, keeper.is_due(steps))
            if stops:
                raise runtime.Stopped
            if saves:
                keeper.save()
                runtime.wait_for_all()

        try:
            while progress.epoch < config.TRAIN.END_EPOCH:
                frozen = model.freeze_backbone(progress.epoch < config.TRAIN.FREEZE_BACKBONE_EPOCHS)
                figures = train_one_epoch(
                    trained, train_loader, optimizer, progress, config.TRAIN.END_EPOCH, config.PRINT_FREQ,
                    config.LOSS.USE_TARGET_WEIGHT, config.TRAIN.ACCUMULATE, average, frozen, writer, pictures, watch,
                    after_step, precision, look_every=look_every,
                )  # fmt: skip
                runtime.share_statistics(validated)
                network = paddle_network(validated, config.TRAIN.CPU_KERNELS)
                valid_figures, metrics = evaluate_and_report(
                    config, network, valid_loader, evaluator, run_folder, writer, progress.epoch,
                    pictures, stop,
                )  # fmt: skip
                keeper.finish_epoch({**figures, **valid_figures}, metrics, evaluator.primary)
                runtime.wait_for_all()
        except runtime.Stopped:
            if not keeper.save():
                raise UserError(
                    f"stopped at {progress}, which could not be saved; an older checkpoint is there"
                ) from None
            logger.info("=> stopped at %s; the same command with TRAIN.RESUME=True goes on from there", progress)
            return
        finally:
            if writer is not None:
                writer.close()
    keeper.finish()
    if progress.best_score is not None:  # or none could be written
        logger.info("=> best %s %.3f at epoch %d", evaluator.primary, progress.best_score, progress.best_epoch)


if __name__ == "__main__":
    sys.exit(run_command(main))
