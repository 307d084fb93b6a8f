"""Real predictions, real annotations, real photographs: figures that must come out."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from simplepose.core.images import read_image
from simplepose.data.mpii import load_mpii
from simplepose.metrics.pckh import load_pckh_ground_truth, pckh_metrics

# Head, Shoulder, Elbow, Wrist, Hip, Knee, Ankle (as published), Mean, at 0.10 and at 0.11
HOURGLASS = {
    "hourglass_stack2": [95.80, 94.57, 88.12, 83.31, 86.24, 80.88, 77.44, 87.299, 23.91, 28.08],
    "hourglass_stack8": [96.79, 95.19, 90.08, 85.32, 87.48, 84.26, 80.73, 89.092, 24.49, 28.90],
}


@pytest.mark.parametrize("name", HOURGLASS)
def test_hourglass_predictions_score_what_their_authors_published(real_data, run_command, name, tmp_path):
    mpii = real_data / "mpii"
    finished = run_command(
        "evaluate.py", "--dataset", "mpii", "--gt", mpii / "annot/gt_valid.mat",
        "--pred", mpii / f"predictions/{name}.mat", "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    figures = list(json.loads((tmp_path / "scores.json").read_text()).values())
    np.testing.assert_allclose(figures, HOURGLASS[name], atol=0.0051)  # two decimals
    assert figures[7] == pytest.approx(HOURGLASS[name][7], abs=0.0005)  # three
    table = finished.stdout.splitlines()[2]
    assert [float(value) for value in re.findall(r"\d+\.\d{3}", table)] == [
        round(f, 3) for f in figures[:8] + figures[9:]
    ]


def test_mpii_annotations_score_as_their_own_predictions(real_data):
    truth = load_pckh_ground_truth(real_data / "mpii/annot/gt_valid.mat")
    joints = np.stack([sample.joints for sample in load_mpii(real_data / "mpii", "valid")]) + 1
    # Not 100: 13 entries of pos_gt_src have a coordinate of 0.
    assert pckh_metrics(joints, truth)["Mean"] == pytest.approx(99.969, abs=5e-4)


def test_lspet_loads_and_reads(real_data):
    samples = load_mpii(real_data / "lspet", "valid")
    assert len(samples) == 779
    assert read_image(samples[0].image).ndim == 3
    assert len(load_mpii(real_data / "lspet", "train")) == 8000


@pytest.mark.slow
def test_five_real_persons_are_learnt_by_heart(real_data, run_command, tmp_path):
    annot = tmp_path / "mpii" / "annot"
    annot.mkdir(parents=True)
    persons = json.loads((real_data / "mpii/annot/valid_with_images.json").read_text())
    shutil.copytree(real_data / "mpii/images", tmp_path / "mpii/images")
    (annot / "train.json").write_text(json.dumps(persons * 20))  # 20 iterations an epoch
    (annot / "valid.json").write_text(json.dumps(persons))
    shutil.copy(real_data / "mpii/annot/gt_valid_with_images.mat", annot / "gt_valid.mat")
    finished = run_command(
        "train.py", "--cfg", "experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml", "MODEL.PRETRAINED=",
        f"DATASET.ROOT={annot.parent.as_posix()}", "DATASET.FLIP=false", "DATASET.ROT_FACTOR=0",
        "DATASET.SCALE_FACTOR=0", "MODEL.DEPTH=18", "MODEL.EXTRA.NUM_DECONV_FILTERS=[64,64,64]",
        "TRAIN.BATCH_SIZE=5", "TRAIN.END_EPOCH=11", "TRAIN.LR_STEP=[9]",
        f"OUTPUT_DIR={tmp_path.as_posix()}", f"LOG_DIR={tmp_path.as_posix()}",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    (history,) = tmp_path.rglob("history.json")
    assert max(epoch["Mean"] for epoch in json.loads(history.read_text())) == 100, finished.stdout[-2000:]
