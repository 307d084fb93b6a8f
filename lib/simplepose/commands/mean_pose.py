"""Score the mean training pose on TEST_SET: the baseline that a trained network must beat."""

from __future__ import annotations

from simplepose.commands.cli import config_parser, parse_config
from simplepose.core.errors import UserError


def main() -> int | None:
    _, config = parse_config(config_parser(__doc__))

    import numpy as np

    from simplepose.build.data import build_evaluator, build_train_samples, build_valid_samples
    from simplepose.metrics.mean_pose import mean_pose, place_pose

    train_samples = build_train_samples(config)
    valid_samples = build_valid_samples(config)
    evaluator = build_evaluator(config, valid_samples)
    joints = place_pose(mean_pose(train_samples), valid_samples)
    evaluator.add(np.arange(len(valid_samples)), joints, np.ones(joints.shape[:2]))
    metrics = evaluator.compute()
    if not metrics:
        raise UserError(f"{config.DATASET.TEST_SET} has no labels to score against; set DATASET.TEST_SET")
    for line in evaluator.table("mean training pose", metrics):
        print(line)
