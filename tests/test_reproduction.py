"""A reproduction held against a reference, and the command that runs one from data to page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from mini_coco import COCO_FROM_MPII, detections_of, write_mini_coco
from tiny import experiment

from simplepose.commands import reproduce
from simplepose.config.load import dump_config, load_config
from simplepose.core.errors import UserError
from simplepose.core.skeletons import COCO
from simplepose.metrics.compare import bootstrap_intervals
from simplepose.metrics.pckh import PckhGroundTruth, pckh_metrics, person_hits
from simplepose.reports.reproduction import (
    Run,
    Scored,
    best_run,
    checks,
    draw_curves,
    notes_of,
    read_reference,
    relative_distance,
    write_page,
)

ROOT = Path(__file__).resolve().parent.parent
HEAD = "seed,epoch,train_loss,Mean\n"
REFERENCE = HEAD + "0,0,9,1\n0,1,8,2\n0,2,2.0,10\n0,3,1.0,20\n1,0,9,1\n1,1,8,2\n1,2,2.2,11\n1,3,1.1,22\n"


def run_with(losses: list[float], mean: float) -> Run:
    history = [{"epoch": epoch, "train_loss": loss, "Mean": mean} for epoch, loss in enumerate(losses)]
    scored = Scored(len(losses) - 1, {"Mean": mean, "valid_loss": 0.1}, None, Path())
    return Run(0, "abc", 1.0, history, scored, scored)


@pytest.fixture
def reference(tmp_path):
    (tmp_path / "reference.csv").write_text(REFERENCE)
    return read_reference(tmp_path / "reference.csv", "Mean")


@pytest.mark.parametrize(
    ("losses", "mean", "passed"),
    [
        ([50, 50, 2.1, 1.05], 21.0, [True, True]),  # inside; the first two epochs do not count
        ([9, 8, 2.22, 1.05], 25.0, [True, True]),  # 0.9 % above 2.2; 3 points above 22
        ([9, 8, 2.23, 1.05], 17.0, [False, True]),  # 1.4 % above 2.2; 3 points below 20
        ([9, 8, 2.1, 0.98], 16.9, [False, False]),  # 2 % below 1.0; 3.1 points below 20
    ],
)
def test_checks_hold_losses_and_score_against_the_range(reference, losses, mean, passed):
    assert [check.passed for check in checks([run_with(losses, mean)], reference, "Mean")] == passed


def test_points_of_ap_are_hundredths(tmp_path):
    (tmp_path / "x.csv").write_text("seed,epoch,train_loss,AP\n0,0,9,0.700\n")
    reference = read_reference(tmp_path / "x.csv", "AP")
    runs = [run_with([9], 5.0), run_with([9], 5.0)]
    for run, score in zip(runs, (0.672, 0.668)):  # 2.8 and 3.2 points below
        run.last.metrics["AP"] = score
    near, far = checks(runs, reference, "AP")
    assert (near.passed, far.passed) == (True, False) and far.found == "0.668; the reference has 0.700"
    write_page(tmp_path / "page.md", "a/b.yaml", "command", [], runs, reference, "AP", {"Curves": "x.svg"})
    assert "spreads over 0.40 points" in (tmp_path / "page.md").read_text()


def test_the_best_run_is_the_one_with_the_best_last_weights():
    runs = [run_with([9, 8, 2.1], mean) for mean in (20.0, 22.0, 21.0)]
    assert best_run(runs, "Mean") is runs[1]


def test_relative_distance_is_of_the_nearer_end():
    assert relative_distance(2.0, 1.0, 3.0) == 0
    assert relative_distance(3.3, 1.0, 3.0) == pytest.approx(0.1)
    assert relative_distance(0.9, 1.0, 3.0) == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "0,0,x,1\n", "is no reference"),
        ("a,b\n1,2\n", "is no reference"),
        ("seed,epoch,Mean\n0,0,5\n", "is no reference"),
        (HEAD + "0,0,,5\n", "is no reference"),
        (HEAD + "0,0,nan,5\n", "is no reference"),
        (HEAD, "holds no epochs"),
        ("", "holds no epochs"),
        (HEAD + "0,1,9,1\n", "the epochs of seed 0 are not 0, 1, 2"),
        ("seed,epoch,train_loss,AP\n0,0,9,1\n", "the last epoch of seed 0 has no Mean"),
        (HEAD + "0,0,9,1\n0,1,8,\n", "the last epoch of seed 0 has no Mean"),
        (HEAD + "0,0,9,1\n0,1,8,nan\n", "the last epoch of seed 0 has no Mean"),
    ],
)
def test_a_reference_that_is_none(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_reference(tmp_path / "x.csv", "Mean")


def test_every_seed_is_drawn_and_gaps_are_gaps(tmp_path):
    (tmp_path / "x.csv").write_text(HEAD + "".join(f"{seed},0,9,\n{seed},1,8,2\n" for seed in range(4)))
    reference = read_reference(tmp_path / "x.csv", "Mean")
    runs = [replace(run_with([9, 8], 5.0), seed=seed) for seed in range(11)]
    runs[3].history[0]["Mean"] = None
    draw_curves(tmp_path / "curves.svg", runs, reference, "Mean")
    drawn = (tmp_path / "curves.svg").read_text()
    assert all(f"here, seed {seed}<" in drawn for seed in range(11))
    assert all(f"reference, seed {seed}<" in drawn for seed in range(4))


def test_a_page_of_scores_on_detected_boxes_which_have_no_loss(tmp_path):
    run = run_with([9, 8], 5.0)
    run.last.metrics.clear()
    run.last.metrics.update(AP=0.5, AR=0.25, test_set="val2017", boxes="detections.json")
    write_page(tmp_path / "page.md", "a/b.yaml", "command", [], [run], {}, "AP", {"Curves": "x.svg"})
    assert "|  | AP | AR | 95 % of AP |" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("file", "name"),
    [("experiments/lspet/resnet18/a.yaml", "lspet_resnet18_a"), ("a.yaml", "a"), ("/tmp/a.yaml", "tmp_a")],
)
def test_a_page_is_named_after_its_experiment_file(file, name):
    assert reproduce.page_name(file) == name


def test_the_versions_on_a_machine_with_paddles_gpu_package(monkeypatch):
    """It is called otherwise, as OpenCV's without windows is: no reason to fail when all is trained."""

    def version(name: str) -> str:
        if name in ("paddlepaddle", "opencv-python"):
            raise metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(metadata, "version", version)
    versions = dict(reproduce.facts(load_config(None), []))["versions"]
    assert versions.endswith(", paddlepaddle-gpu 1.2, numpy 1.2, opencv-python-headless 1.2")


def test_person_hits_add_up_to_the_mean():
    rng = np.random.default_rng(0)
    names = ("rank", "lank", "lhip", "rhip", "lkne", "rkne", "pelv", "thor", "head", "lsho", "rsho", "lelb", "relb")
    names += ("lwri", "rwri", "neck")
    joints = rng.uniform(0, 200, (9, 16, 2))
    truth = PckhGroundTruth(names, joints, rng.random((9, 16)) < 0.8, np.full(9, 20.0))
    predictions = joints + rng.normal(0, 8, joints.shape)
    hits, counts = person_hits(predictions, truth)
    assert 100 * hits.sum() / counts.sum() == pytest.approx(pckh_metrics(predictions, truth)["Mean"])
    assert 0 < hits.sum() < counts.sum()


def test_bootstrap_interval_is_that_of_a_mean():
    # 400 persons with one joint each, half of them found: the share's deviation is sqrt(0.25 / 400) = 2.5 points.
    hits = np.arange(400) % 2
    low, high = bootstrap_intervals(hits, np.ones(400), np.random.default_rng(0), 10000)[0]
    assert low == pytest.approx(50 - 1.96 * 2.5, abs=0.5)
    assert high == pytest.approx(50 + 1.96 * 2.5, abs=0.5)


def test_notes_of_an_experiment_file_are_for_the_page(tmp_path):
    (tmp_path / "a.yaml").write_text("# Score:     1\n# Note:      not to be compared\nWORKERS: 2  # Note: no\n")
    assert notes_of(tmp_path / "a.yaml") == [("note", "not to be compared")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to pass on")
def test_asked_to_stop_it_lets_the_training_save(tmp_path, bundled):
    shutil.copytree(bundled, tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment(END_EPOCH=1000)))
    line = [sys.executable, str(ROOT / "pose_estimation" / "reproduce.py"), "--cfg", "tiny.yaml"]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "Epoch: [1]" not in process.stdout.readline():
            assert process.poll() is None
        process.terminate()
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "=> stopped at epoch" in said
    assert complained.splitlines()[-1] == "error: train.py was stopped; the same command resumes it"
    folder = tmp_path / "output/seed0/mpii/pose_resnet_18/tiny"
    assert (folder / "checkpoint").exists()
    assert json.loads((folder / "seconds.json").read_text())["seconds"] > 0  # this experiment's, no other's


def test_a_place_that_takes_no_page_is_named_before_anything_is_trained(tmp_path, bundled, run_command):
    shutil.copytree(bundled, tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment()))
    (tmp_path / "taken").write_text("a file where the folder should be")
    finished = run_command("reproduce.py", "--cfg", "tiny.yaml", "--results", "taken", cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stderr == (
        "error: cannot write to taken: File exists; set --results to a folder you may write to\n"
    )
    assert not (tmp_path / "output").exists()


def test_the_gpu_is_handed_on(tmp_path, bundled, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment()))
    lines: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run_to_its_end", lambda line: lines.append(line) or 1)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--cfg", "tiny.yaml", "--gpus", "3", f"DATASET.ROOT={bundled}"])
    with pytest.raises(UserError, match="train.py failed with exit code 1"):
        reproduce.main()
    (line,) = lines
    assert line[line.index("--gpus") + 1] == "3"


def test_an_empty_log_folder_is_this_one_and_not_the_root(tmp_path, bundled, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment()))
    lines: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run_to_its_end", lambda line: lines.append(line) or 1)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--cfg", "tiny.yaml", "LOG_DIR=", f"DATASET.ROOT={bundled}"])
    with pytest.raises(UserError):
        reproduce.main()
    assert [word for word in lines[0] if word.startswith("LOG_DIR=")] == ["LOG_DIR=", "LOG_DIR=seed0"]


def test_a_seed_that_is_named_twice_is_trained_once(tmp_path, bundled, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run_seed", lambda args, config, seed, evaluator: seed)
    asked = []

    def checks(runs, *_):
        asked.extend(runs)
        raise UserError("enough")

    monkeypatch.setattr("simplepose.reports.reproduction.checks", checks)
    line = ["reproduce.py", "--cfg", "tiny.yaml", f"DATASET.ROOT={bundled}", "--seeds", "3", "0", "3"]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(UserError, match="enough"):
        reproduce.main()
    assert asked == [3, 0]


def test_a_reference_without_the_score_is_refused_before_anything_is_trained(tmp_path, bundled, run_command):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment()))
    (tmp_path / "tiny.reference.csv").write_text("seed,epoch,train_loss,AP\n0,0,9,1\n")
    finished = run_command("reproduce.py", "--cfg", "tiny.yaml", f"DATASET.ROOT={bundled}", cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert "the last epoch of seed 0 has no Mean" in finished.stderr and finished.stderr.count("\n") == 1


@pytest.mark.parametrize(("labelled", "message"), [(True, "train.py failed"), (False, "val has no labels to score")])
def test_detected_boxes_are_not_taken_for_missing_labels(tmp_path, monkeypatch, labelled, message):
    """The samples come from a detector, and none has a joint; the people they are scored against may."""
    write_mini_coco(tmp_path / "data", COCO, COCO_FROM_MPII, {"train": 1, "val": 1})
    file = tmp_path / "data/annotations/val.json"
    (tmp_path / "boxes.json").write_text(json.dumps(detections_of(file)))
    if not labelled:
        file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    settings = {"TEST": {"USE_GT_BBOX": False, "COCO_BBOX_FILE": "boxes.json"}}
    data = {"DATASET": "coco", "ROOT": "data", "TRAIN_SET": "train", "TEST_SET": "val"}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**experiment(), **settings, "DATASET": data}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduce, "run_to_its_end", lambda line: 1)
    monkeypatch.setattr("sys.argv", ["reproduce.py", "--cfg", "tiny.yaml"])
    with pytest.raises(UserError, match=message):
        reproduce.main()


def test_a_run_of_another_recipe_is_not_taken_for_this_one(tmp_path, bundled, run_command):
    """Seed 1 has been trained; then the experiment changes."""
    shutil.copytree(bundled, tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment(END_EPOCH=12)))
    folder = tmp_path / "output/seed1/mpii/pose_resnet_18/tiny"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump_config(load_config(tmp_path / "tiny.yaml", ["TRAIN.END_EPOCH=8"])))
    (folder / "final_state.pdparams").touch()
    finished = run_command("reproduce.py", "--cfg", "tiny.yaml", cwd=tmp_path)
    assert finished.returncode == 2
    assert finished.stdout == "", "before seed 0 is trained"
    assert finished.stderr == (
        "error: output/seed1/mpii/pose_resnet_18/tiny was trained with TRAIN.END_EPOCH 8, this is 12; take it away, or "
        "set OUTPUT_DIR to another folder\n"
    )


@pytest.mark.slow
def test_from_data_to_page_and_again(tmp_path, bundled, run_command):
    shutil.copytree(bundled, tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(experiment(BATCH_SIZE=8)))
    (tmp_path / "tiny.reference.csv").write_text(HEAD + "0,0,0.1,1\n0,1,0.1,2\n")
    args = ("--cfg", "tiny.yaml", "--seeds", 3, 4, "--results", "out")
    finished = run_command("reproduce.py", *args, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "=> results: out/tiny.md" in finished.stdout
    assert "final Mean within 3 points of the reference's range" in finished.stdout
    page = (tmp_path / "out" / "tiny.md").read_text(encoding="utf-8")
    for seed in (3, 4):
        folder = tmp_path / "output" / f"seed{seed}"
        history = json.loads((folder / "mpii/pose_resnet_18/tiny/history.json").read_text())
        last = json.loads((folder / "last/mpii/pose_resnet_18/tiny/metrics.json").read_text())
        assert last["Mean"] == history[-1]["Mean"]
        assert f"seed {seed}, last (epoch 1) | " in page
        assert f"{history[1]['train_loss']:.6f}" in page
    assert "reference, seed 0, last (epoch 1)" in page
    assert cv2.imread(str(tmp_path / "out" / "tiny_poses.png")).shape == (3 * (24 + 160), 8 * 160, 3)
    curves = (tmp_path / "out" / "tiny_curves.svg").read_bytes()
    assert b"reference, seed 0" in curves

    (tmp_path / "out" / "tiny_curves.svg").unlink()
    again = run_command("reproduce.py", *args, cwd=tmp_path)  # all is trained and scored: only the page is written
    assert again.returncode == 0, again.stderr
    assert "Epoch:" not in again.stdout
    assert "Test:" not in again.stdout
    assert (tmp_path / "out" / "tiny_curves.svg").read_bytes() == curves
    assert (tmp_path / "out" / "tiny.md").read_text(encoding="utf-8") == page

    # One training is taken away and done anew: its old scores are there still, and not to be taken for the new ones.
    scores = tmp_path / "output/seed3/last/mpii/pose_resnet_18/tiny/metrics.json"
    right = scores.read_text()
    scores.write_text(right.replace('"Mean": ', '"Mean": 9'))
    os.utime(scores, (0, 0))
    anew = run_command("reproduce.py", *args, cwd=tmp_path)
    assert anew.returncode == 0, anew.stderr
    assert anew.stdout.count(": valid.py in ") == 1 and "train.py in" not in anew.stdout
    assert (tmp_path / "out" / "tiny.md").read_text(encoding="utf-8") == page
