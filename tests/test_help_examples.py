"""The examples that `--help` prints: each is parsed by its command, and run if the bundled data are enough for it."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from mini_coco import COCO_FROM_MPII, detections_of, write_mini_coco
from tiny import experiment

from simplepose.config.load import load_config
from simplepose.core.skeletons import COCO
from simplepose.data.mpii import load_mpii
from simplepose.weights import read_weights, write_weights

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = sorted(path.stem for path in (ROOT / "pose_estimation").glob("[a-z]*.py"))
EXAMPLE = re.compile(r"python (?:-m paddle\S+ .*?)?pose_estimation/(\w+)\.py (.*)")


class Parsed(BaseException):
    """Thrown instead of going on with the command."""


def module_of(command: str):
    return importlib.import_module("deploy" if command == "deploy" else f"simplepose.commands.{command}")


def examples_of(command: str) -> list[tuple[str, list[str]]]:
    text = Path(module_of(command).__file__).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"  python |.*\"example: python ", line)]
    return [(found[1], shlex.split(found[2].rstrip('",'))) for found in map(EXAMPLE.search, lines)]


EXAMPLES = [example for command in COMMANDS for example in examples_of(command)]


def name_of(example: tuple[str, list[str]]) -> str:
    return " ".join([example[0], *example[1]])


@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_are_parsed(example, monkeypatch):
    command, words = example
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def parse_and_stop(*arguments, parse=parse):
            raise Parsed(parse(*arguments))

        monkeypatch.setattr(argparse.ArgumentParser, name, parse_and_stop)
    monkeypatch.setattr("sys.argv", [command, *words])
    monkeypatch.chdir(ROOT)
    with pytest.raises(Parsed) as stopped:
        module_of(command).main()
    args = stopped.value.args[0]
    if getattr(args, "cfg", "...") != "...":
        load_config(args.cfg, args.overrides)


def test_there_are_examples():
    assert len(EXAMPLES) >= 25
    assert {command for command, _ in EXAMPLES} >= {"train", "valid", "infer", "export", "parity", "convert"}


# What these need is not at hand: a camera, a video, detectors, days of training, another folder, a cluster.
BEYOND = (
    "--img-file 0", "clip.mp4", "nanodet", "reproduce", "--gpus", "u12_1.mat", "s3://", "poses.parquet", "posetrack",
)  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, bundled, posenet) -> Path:
    """A folder in which the files of the examples are there, by their names."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.copytree(bundled, folder / "data" / "mpii")
    shutil.copytree(bundled / "images", folder / "photos")
    tiny = experiment(END_EPOCH=1, LR_STEP=[], BATCH_SIZE=8)
    tiny["DATASET"]["ROOT"], tiny["MODEL"]["IMAGE_SIZE"] = "data/mpii", [64, 96]
    name = "256x256_d256x3_adam_lr1e-3"
    (folder / f"experiments/mpii/resnet50/{name}.yaml").parent.mkdir(parents=True)
    (folder / f"experiments/mpii/resnet50/{name}.yaml").write_text(yaml.safe_dump(tiny))
    best = folder / f"output/mpii/pose_resnet_18/{name}/model_best.pdparams"
    best.parent.mkdir(parents=True)
    for copy in (best, folder / "weights.pdparams", folder / "best.pdparams"):
        shutil.copy(posenet[0], copy)
    for copy in ("posenet.onnx", "int8.onnx"):
        shutil.copy(posenet[1], folder / copy)
    weights = read_weights(posenet[0])
    write_weights(folder / "a.pth", weights.state)
    (folder / "a.pth").rename(folder / "pose_resnet_50_256x192.pth.tar")
    for copy in ("photo.jpg", "us.jpg"):
        shutil.copy(ROOT / "images" / "test.jpg", folder / copy)

    from scipy.io import savemat

    joints = [sample.joints for sample in load_mpii(bundled, "valid")]
    for copy in ("pred.mat", "other.mat"):
        savemat(str(folder / copy), {"preds": joints})
    write_mini_coco(folder / "coco", COCO, COCO_FROM_MPII, {"val": 1})
    annotations = folder / "coco" / "annotations" / "val.json"
    content = json.loads(annotations.read_text())
    for key, named in (("images", "id"), ("annotations", "image_id")):  # one picture under 500 numbers
        content[key] = [{**entry, "id": n, named: n} for n in range(1, 501) for entry in content[key][:1]]
    annotations.write_text(json.dumps(content))
    for copy in ("person_keypoints_val2017.json", "instances_val2017.json"):
        shutil.copy(annotations, folder / copy)
    results = [{**entry, "score": 1.0} for entry in content["annotations"]]
    (folder / "keypoints_results.json").write_text(json.dumps(results))
    (folder / "ids.txt").write_text("1 2 3")
    (folder / "poses.csv").write_text("image,nose_x,nose_y\nphoto,9,9\n".replace("photo", "100000001.jpg"))
    for copy in ("a.json", "b.json"):
        (folder / copy).write_text(json.dumps(detections_of(annotations)))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=name_of)
def test_examples_run(example, workplace, run_command):
    """In the order of the files, as they are printed: what one writes, the next may read."""
    command, words = example
    line = name_of(example)
    if any(beyond in line for beyond in BEYOND):
        pytest.skip("not with the bundled data")
    cfg, truth = "experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml", "data/mpii/annot/gt_valid.mat"
    words = [{"--cfg": cfg, "--gt": truth}[words[n - 1]] if word == "..." else word for n, word in enumerate(words)]
    if command == "make_mini":
        words += ["--train-images=8", "--valid-images=4"]
    if command == "coco_files" and words[0] == "check":
        shutil.copy(workplace / "a.json", workplace / "detections.json")
    finished = run_command(f"{command}.py", *words, cwd=workplace)
    assert finished.returncode == 0, finished.stdout + finished.stderr
