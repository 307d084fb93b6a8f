"""The commands as a user types them: on the bundled mini set, and on everything that can be wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from simplepose.metrics.pckh import load_predictions
from simplepose.weights import read_weights, write_weights

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = sorted(path.name for path in (ROOT / "pose_estimation").glob("[a-z]*.py"))

TINY = {
    "WORKERS": 1,
    "PRINT_FREQ": 1,
    "DATASET": {"DATASET": "mpii", "ROT_FACTOR": 30},
    "MODEL": {
        "DEPTH": 18,
        "IMAGE_SIZE": 64,
        "EXTRA": {"SIGMA": 1, "NUM_DECONV_FILTERS": [8, 8, 8]},
    },
    "TRAIN": {"BATCH_SIZE": 8, "END_EPOCH": 2, "LR_STEP": [1]},
    "TEST": {"BATCH_SIZE": 4},
    "DEBUG": {
        "DEBUG": True,
        "SAVE_BATCH_IMAGES_GT": True,
        "SAVE_BATCH_IMAGES_PRED": True,
        "SAVE_HEATMAPS_GT": True,
        "SAVE_HEATMAPS_PRED": True,
    },
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, bundled):
    """A folder with a tiny experiment on the bundled data, trained for two epochs; and what training printed."""
    folder = tmp_path_factory.mktemp("workplace")
    shutil.copytree(bundled, folder / "data")
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "DATASET": {**TINY["DATASET"], "ROOT": "data"}}))
    return folder


@pytest.fixture(scope="module")
def trained(workplace, run_command):
    finished = run_command("train.py", "--cfg", "tiny.yaml", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    return workplace / "output" / "mpii" / "pose_resnet_18" / "tiny", finished


@pytest.mark.parametrize("command", COMMANDS)
def test_help_answers_without_paddle(command, run_command, tmp_path):
    (tmp_path / "paddle.py").write_text("raise SystemExit('paddle was imported')")
    if command != "deploy.py":  # a file of its own, which imports at its top what it is made of
        (tmp_path / "cv2.py").write_text("raise SystemExit('cv2 was imported')")
    path = ROOT / "pose_estimation" / command
    script = (
        f"import sys, runpy; sys.path[:0] = {[str(tmp_path), str(path.parent)]!r}; sys.argv = [{command!r}, '--help']; "
        f"runpy.run_path({str(path)!r}, run_name='__main__')"
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert "usage:" in finished.stdout


def test_weights_that_hold_nan_get_no_score(trained, workplace, run_command):
    weights = read_weights(trained[0] / "model_best.pdparams")
    weights.state["deconv_layers.0.weight"][0, 0, 0, 0] = np.nan
    write_weights(workplace / "nan.pdparams", weights.state, weights.metadata)
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "--model-file", "nan.pdparams", cwd=workplace)
    assert finished.returncode == 2
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: nan.pdparams holds NaN or infinite numbers in deconv_layers.0.weight")


def test_training_prints_what_people_know(trained):
    _, finished = trained
    lines = finished.stdout.splitlines()
    assert "=> load 15 samples" in lines
    assert "=> load 8 samples" in lines
    number, pair = r"[0-9.]+", r"[0-9.]+ \([0-9.]+\)"
    epoch = re.compile(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\tEpoch: \[1\]\[1/2\]\t"
        rf"Time {number}s \({number}s\)\tSpeed {number} samples/s\tData {number}s \({number}s\)\t"
        rf"Lr 0\.00010 \(0\.00010\)\tLoss {pair}\tAccuracy {pair}\teta: 0:00:00"
    )
    assert any(epoch.fullmatch(line) for line in lines), finished.stdout
    test = re.compile(rf"Test: \[0/2\]\tTime {pair}\tLoss {pair}\tAccuracy {pair}")
    assert sum(bool(test.fullmatch(line)) for line in lines) == 2
    header = "| Arch | Head | Shoulder | Elbow | Wrist | Hip | Knee | Ankle | Mean | Mean@0.1 |"
    assert lines.count(header) == 2
    assert "=> saving checkpoint to output/mpii/pose_resnet_18/tiny" in lines
    assert any(line.startswith("| 64x64_pose_resnet_18_d8d8d8 | ") for line in lines)


def test_run_folder_is_complete(trained, workplace):
    folder, finished = trained
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "checkpoint", "model_best.pdparams", "final_state.pdparams", "pred.mat"} <= names
    assert {"metrics.json", "history.json"} <= names
    (log,) = folder.glob("tiny_*_train.log")
    assert log.read_text(encoding="utf-8").splitlines() == finished.stdout.splitlines()
    history = json.loads((folder / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [0, 1]
    assert history[1]["lr"] == pytest.approx(1e-4)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["samples"] == 8
    assert 0 <= metrics["Mean@0.10"] <= metrics["Mean@0.11"] <= metrics["Mean"] <= 100
    assert load_predictions(folder / "pred.mat").shape == (8, 16, 2)
    assert list((workplace / "log" / "mpii" / "pose_resnet_18").glob("tiny_*/vdlrecords.*.log"))


def test_debug_pictures(trained):
    folder, _ = trained
    for prefix in ("train_0", "train_1", "val_0", "val_1"):
        for kind in ("gt", "pred", "hm_gt", "hm_pred"):
            assert cv2.imread(str(folder / f"{prefix}_{kind}.jpg")) is not None
    # 4 validation crops a row of pictures; 4 rows of a crop and 16 heatmaps
    assert cv2.imread(str(folder / "val_0_gt.jpg")).shape == (66, 4 * 66, 3)
    assert cv2.imread(str(folder / "val_0_hm_gt.jpg")).shape == (4 * 16, 17 * 16, 3)


def test_the_same_seed_trains_the_same_network_at_any_worker_count(trained, workplace, run_command):
    args = ("--cfg", "tiny.yaml", "--workers", 3, "OUTPUT_DIR=again")
    again = run_command("train.py", *args, cwd=workplace)
    assert again.returncode == 0, again.stderr
    first, second = (
        json.loads((workplace / where / "mpii/pose_resnet_18/tiny/history.json").read_text())
        for where in ("output", "again")
    )
    assert first == second


def test_validation_finds_the_runs_own_weights_and_repeats_its_score(trained, workplace, run_command):
    folder, _ = trained
    history = json.loads((folder / "history.json").read_text())
    best = max(history, key=lambda epoch: epoch["Mean"])
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "--no-flip-test", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["Mean"] == pytest.approx(best["Mean"])
    assert metrics["model_file"].endswith("model_best.pdparams")
    assert metrics["flip_test"] is False

    again = run_command("valid.py", "--cfg", "tiny.yaml", "--flip-test", "--no-shift-heatmap", cwd=workplace)
    assert again.returncode == 0, again.stderr
    flipped = json.loads((folder / "metrics.json").read_text())
    assert (flipped["flip_test"], flipped["shift_heatmap"]) == (True, False)
    assert flipped["valid_loss"] != metrics["valid_loss"]

    # The weight file alone says what its network is; nothing reaches for pretrained weights.
    alone = ("--model-file", folder / "model_best.pdparams", "MODEL.PRETRAINED=nowhere.pth", "DATASET.ROOT=data")
    described = run_command("valid.py", *alone, "--flip-test", "--no-shift-heatmap", cwd=workplace)
    assert described.returncode == 0, described.stderr
    own_folder = workplace / "output/mpii/pose_resnet_18/model_best"
    assert json.loads((own_folder / "metrics.json").read_text())["Mean"] == flipped["Mean"]

    scored = run_command(
        "evaluate.py", "--dataset", "mpii", "--gt", "data/annot/gt_valid.mat", "--pred", folder / "pred.mat",
        "--json", "scores.json", "--plot", "curve.png", cwd=workplace,
    )  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    assert json.loads((workplace / "scores.json").read_text())["Mean"] == pytest.approx(flipped["Mean"])
    assert cv2.imread(str(workplace / "curve.png")) is not None


def test_inference_draws_and_writes_coordinates(trained, workplace, run_command):
    image = sorted((workplace / "data" / "images").glob("*.jpg"))[0]
    args = ("--cfg", "tiny.yaml", "--img-file", image, "--flip-test", "--kpt-thr", "-1")
    finished = run_command("infer.py", *args, "--output", "out/a b.png", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    assert "the network itself" in finished.stdout
    drawn = cv2.imread(str(workplace / "out" / "a b.png"))
    original = cv2.imread(str(image))
    assert drawn.shape == original.shape
    assert (drawn != original).any()
    result = json.loads((workplace / "out" / "a b.json").read_text())
    (person,) = result["people"]
    assert len(person["keypoints"]) == 16
    assert set(person["keypoints"]["left_wrist"]) == {"x", "y", "score"}

    for weights in ("pose.pth", "pose.safetensors"):  # a file alone says what its network is, in any format
        to = ("--from", trained[0] / "model_best.pdparams", "--to", f"converted/{weights}")
        converted = run_command("convert.py", *to, cwd=workplace)
        assert converted.returncode == 0, converted.stderr
        alone = ("--model-file", f"converted/{weights}", *args[2:], "--output", "out/alone.png", "--overwrite")
        described = run_command("infer.py", *alone, "MODEL.PRETRAINED=nowhere.pth", cwd=workplace)
        assert described.returncode == 0, described.stderr
        assert json.loads((workplace / "out" / "alone.json").read_text())["people"] == result["people"]

    boxed = run_command("infer.py", *args, "--bbox", "10,20,100,150", cwd=workplace)
    assert boxed.returncode == 0, boxed.stderr
    assert "the network itself" not in boxed.stdout
    assert json.loads((workplace / f"{image.stem}_pose.json").read_text())["people"][0]["bbox"] == [10, 20, 100, 150]


def test_resuming_goes_on_and_ends_where_a_straight_run_ends(trained, workplace, run_command):
    straight = trained[0]
    half = run_command("train.py", "--cfg", "tiny.yaml", "OUTPUT_DIR=halves", "TRAIN.END_EPOCH=1", cwd=workplace)
    assert half.returncode == 0, half.stderr
    args = ("OUTPUT_DIR=halves", "TRAIN.RESUME=true", "MODEL.PRETRAINED=nowhere.pth")  # a resumed training has weights
    rest = run_command("train.py", "--cfg", "tiny.yaml", *args, cwd=workplace)
    assert rest.returncode == 0, rest.stderr
    assert "=> resuming halves/mpii/pose_resnet_18/tiny at epoch 1" in rest.stdout
    histories = [
        json.loads((folder / "history.json").read_text())
        for folder in (straight, workplace / "halves/mpii/pose_resnet_18/tiny")
    ]
    assert histories[0] == histories[1]
    done = run_command("train.py", "--cfg", "tiny.yaml", "--resume_model", straight, cwd=workplace)
    assert done.returncode == 2
    assert "raise it to train on" in done.stderr


def test_a_fresh_training_sets_the_earlier_one_aside(trained, workplace, run_command):
    shutil.copytree(workplace / "output", workplace / "twice")
    finished = run_command("train.py", "--cfg", "tiny.yaml", "OUTPUT_DIR=twice", "TRAIN.END_EPOCH=1", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    assert "an earlier training was here; it is now in twice/mpii/pose_resnet_18/tiny_until_" in finished.stdout
    (earlier,) = (workplace / "twice/mpii/pose_resnet_18").glob("tiny_until_*")
    for path in trained[0].iterdir():
        assert (earlier / path.name).read_bytes() == path.read_bytes()


def test_validation_warns_where_experiment_and_weights_differ(trained, workplace, run_command):
    args = ("--cfg", "tiny.yaml", "MODEL.IMAGE_SIZE=96", "OUTPUT_DIR=w", "--model-file", trained[0] / "checkpoint")
    finished = run_command("valid.py", *args, cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    line = f"=> MODEL.IMAGE_SIZE: [96, 96] is configured and used, {trained[0] / 'checkpoint'} was made with [64, 64]"
    assert line in finished.stdout.splitlines()


def test_training_names_pretrained_weights_that_are_missing(workplace, run_command):
    args = ("--cfg", "tiny.yaml", "MODEL.PRETRAINED=models/resnet50-19c8e357.pth", "OUTPUT_DIR=p")
    finished = run_command("train.py", *args, cwd=workplace)
    assert finished.returncode == 2
    assert "MODEL.PRETRAINED names models/resnet50-19c8e357.pth, which does not exist" in finished.stderr


def test_a_set_without_labels_is_predicted_not_scored(trained, workplace, run_command):
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "DATASET.TEST_SET=test", "OUTPUT_DIR=t",
                           "--model-file", trained[0] / "model_best.pdparams", cwd=workplace)  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "has no labels; predictions go to" in finished.stdout
    assert len(load_predictions(workplace / "t/mpii/pose_resnet_18/tiny/pred.mat")) == 4


def damage(workplace: Path, tmp_path: Path, what: str) -> list[object]:
    """A copy of the workplace with one thing wrong; returns the arguments of the command that meets it."""
    data, weights = tmp_path / "data", tmp_path / "weights.pdparams"
    shutil.copytree(workplace / "data", data)
    shutil.copy(workplace / "output/mpii/pose_resnet_18/tiny/final_state.pdparams", weights)
    common = [
        "--cfg",
        workplace / "tiny.yaml",
        f"DATASET.ROOT={data.as_posix()}",
        f"OUTPUT_DIR={tmp_path.as_posix()}/o",
    ]
    valid = json.loads((data / "annot" / "valid.json").read_text())
    image = data / "images" / valid[0]["image"]
    if what == "missing image":
        image.unlink()
    elif what == "truncated JPEG":
        image.write_bytes(image.read_bytes()[:5000])
    elif what == "empty image":
        image.write_bytes(b"")
    elif what == "malformed JSON":
        (data / "annot" / "valid.json").write_text("[{")
    elif what == "joint count":
        valid[3]["joints"].append([1, 1])
        (data / "annot" / "valid.json").write_text(json.dumps(valid))
    elif what == "missing gt_valid.mat":
        (data / "annot" / "gt_valid.mat").unlink()
    elif what == "another gt_valid.mat":
        (data / "annot" / "valid.json").write_text(json.dumps(valid[:5]))
    elif what == "damaged gt_valid.mat":
        (data / "annot" / "gt_valid.mat").write_bytes(b"MATLAB?" * 40)
    elif what == "zero samples":
        (data / "annot" / "valid.json").write_text("[]")
    elif what == "unknown key":
        common.append("MODEL.DPTH=18")
    elif what == "missing weights":
        weights.unlink()
    elif what == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif what == "weights of another depth":
        common.append("MODEL.DEPTH=34")
    elif what == "a file for a folder":
        (tmp_path / "o").write_text("")
    return [*common, "--model-file", weights]


WRONG = {
    "missing image": r"no such image: .*jpg",
    "truncated JPEG": r"jpg is a truncated JPEG \(5000 bytes",
    "empty image": r"jpg is empty",
    "malformed JSON": r"valid\.json is not valid JSON",
    "joint count": r"valid\.json: entry 3: joints is a list of 17, expected 16",
    "missing gt_valid.mat": r"no such MATLAB file: .*gt_valid\.mat",
    "another gt_valid.mat": r"5 persons of 16 joints, its gt_\*\.mat 8",
    "damaged gt_valid.mat": r"gt_valid\.mat is not a readable MATLAB",
    "zero samples": r"valid\.json holds no persons",
    "unknown key": r"MODEL\.DPTH is not a config key .*did you mean MODEL\.DEPTH",
    "missing weights": r"no such weight file: .*weights\.pdparams",
    "truncated weights": r"weights\.pdparams",
    "weights of another depth": r"ResNet-18; this configuration asks for a ResNet-34",
    "a file for a folder": r"cannot write to .*OUTPUT_DIR",
}


@pytest.mark.parametrize("what", WRONG)
def test_one_clear_line_for_everything_that_can_be_wrong(trained, workplace, tmp_path, run_command, what):
    finished = run_command("valid.py", *damage(workplace, tmp_path, what), cwd=workplace)
    assert finished.returncode == 2, finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, finished.stderr
    assert re.search(WRONG[what], lines[0]), lines[0]
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--img-file", "none.jpg"], "no such image: none.jpg"),
        (["--img-file", "tiny.yaml"], "not an image that OpenCV can read"),
        (["--img-file", "a.png", "--bbox", "1,2,3"], "write left,top,width,height"),
        (["--img-file", "a.png", "--bbox", "5,5,0,10"], "--bbox 5,5,0,10 has no area"),
        (["--img-file", "a.png", "--output", "x.docx"], "use an extension such as"),
    ],
)
def test_inference_refuses_in_one_line(trained, workplace, run_command, arguments, message):
    cv2.imwrite(str(workplace / "a.png"), np.zeros((20, 30, 3), np.uint8))
    finished = run_command("infer.py", "--cfg", "tiny.yaml", *arguments, cwd=workplace)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_training_that_fails_keeps_what_was_written(trained, workplace, tmp_path, run_command):
    folder = tmp_path / "o/mpii/pose_resnet_18/tiny"
    shutil.copytree(trained[0], folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments = damage(workplace, tmp_path, "missing image")[:-2]
    finished = run_command("train.py", *arguments, "TRAIN.RESUME=true", "TRAIN.END_EPOCH=3", cwd=workplace)
    assert finished.returncode == 2
    for name in ("checkpoint", "model_best.pdparams", "final_state.pdparams", "history.json"):
        assert (folder / name).read_bytes() == before[name]
