"""The commands on data in COCO's format: train, validate on both kinds of boxes, evaluate, infer; any skeleton."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import yaml
from mini_coco import COCO_FROM_MPII, detections_of, write_mini_coco

from simplepose.commands.coco_files import read_ids
from simplepose.core.errors import UserError
from simplepose.core.skeletons import COCO, MPII, Skeleton, skeleton_from
from simplepose.metrics.coco_ap import COLUMNS
from simplepose.weights import read_weights

FIVE = Skeleton(
    name="star",
    joints=("top", "hand_l", "hand_r", "foot_l", "foot_r"),
    pairs=(("hand_l", "hand_r"), ("foot_l", "foot_r")),
    limbs=(("top", "hand_l"), ("top", "foot_r")),
    sigmas=(0.1, 0.1, 0.1, 0.1, 0.1),
)
FIVE_FROM_MPII = [
    MPII.joints.index(name) for name in ("head_top", "left_wrist", "right_wrist", "left_ankle", "right_ankle")
]
TINY = {
    "WORKERS": 1,
    "PRINT_FREQ": 1,
    "DATASET": {"DATASET": "coco", "ROOT": "data", "TRAIN_SET": "train", "TEST_SET": "val"},
    "MODEL": {"DEPTH": 18, "IMAGE_SIZE": [64, 96], "EXTRA": {"SIGMA": 1, "NUM_DECONV_FILTERS": [8, 8, 8]}},
    "TRAIN": {"BATCH_SIZE": 8, "END_EPOCH": 1},
    "TEST": {"BATCH_SIZE": 8, "USE_GT_BBOX": True, "IN_VIS_THRE": 0.2, "OKS_THRE": 0.9},
}


def workplace_of(folder, skeleton, from_mpii, **dataset):
    write_mini_coco(folder / "data", skeleton, from_mpii, {"train": 8, "val": 6})
    experiment = {**TINY, "DATASET": {**TINY["DATASET"], **dataset}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(experiment))
    return folder


def run_folder(workplace):
    return workplace / "output" / "coco" / "pose_resnet_18" / "tiny"


def metrics_of(workplace):
    return json.loads((run_folder(workplace) / "metrics.json").read_text())


@pytest.fixture(scope="module")
def persons(tmp_path_factory, run_command):
    """A tiny experiment with COCO's joints, trained for an epoch; and what training printed."""
    workplace = workplace_of(tmp_path_factory.mktemp("persons"), COCO, COCO_FROM_MPII)
    finished = run_command("train.py", "--cfg", "tiny.yaml", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    return workplace, finished


@pytest.fixture(scope="module")
def stars(tmp_path_factory, run_command):
    """The same with a five-joint skeleton from a YAML file."""
    workplace = workplace_of(tmp_path_factory.mktemp("stars"), FIVE, FIVE_FROM_MPII, SKELETON="star.yaml")
    (workplace / "star.yaml").write_text(yaml.safe_dump(FIVE.definition()))
    finished = run_command("train.py", "--cfg", "tiny.yaml", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    return workplace


def test_training_prints_the_originals_table_with_its_recipe(persons):
    workplace, finished = persons
    lines = finished.stdout.splitlines()
    assert "=> load 12 samples" in lines
    assert "=> load 9 samples" in lines
    table = lines.index("| Arch | " + " | ".join(COLUMNS) + " |")
    recipe = "=> test_set val, boxes annotated, flip_test False, shift_heatmap True, post_process True, decoder quarter"
    assert lines[table - 1] == recipe
    assert lines[table + 2].startswith("| 96x64_pose_resnet_18_d8d8d8 | 0.")
    history = json.loads((run_folder(workplace) / "history.json").read_text())
    assert 0 <= history[0]["AP"] <= history[0]["AR"] <= 1
    assert read_weights(run_folder(workplace) / "model_best.pdparams").description["DATASET.SKELETON"] == ""
    assert list((workplace / "log" / "coco" / "pose_resnet_18").glob("tiny_*/vdlrecords.*.log"))


def test_validation_on_annotated_boxes_and_evaluation_of_its_results_agree(persons, run_command):
    workplace, _ = persons
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "--flip-test", cwd=workplace)
    assert finished.returncode == 0, finished.stderr
    metrics = metrics_of(workplace)
    assert (metrics["boxes"], metrics["flip_test"], metrics["samples"]) == ("annotated", True, 9)
    results = run_folder(workplace) / "results" / "keypoints_val_results.json"
    scored = run_command("evaluate.py", "--dataset", "coco", "--gt", "data/annotations/val.json", "--pred", results,
                         "--json", "scores.json", cwd=workplace)  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((workplace / "scores.json").read_text())
    assert scores == {name: metrics[name] for name in COLUMNS}


@pytest.mark.parametrize("soft", [False, True])
def test_validation_on_detected_boxes(persons, run_command, soft):
    workplace, _ = persons
    detections = detections_of(workplace / "data/annotations/val.json", scores=(0.9, 0.8, 0.05))
    detections += [{**detections[0], "category_id": 2}, {**detections[0], "image_id": 77}]
    (workplace / "boxes.json").write_text(json.dumps(detections))
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "--use-detect-bbox", "--coco-bbox-file", "boxes.json",
                           "TEST.IMAGE_THRE=0.1", "TEST.OKS_THRE=0.5", f"TEST.SOFT_NMS={soft}",
                           cwd=workplace)  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert (
        "skipped 1 of another category, 1 for an image that the annotation file does not list, of 29 "
        in finished.stdout
    )
    assert "=> 18 of 27 detections score 0.1 or more" in finished.stdout
    assert "boxes boxes.json" in finished.stdout
    metrics = metrics_of(workplace)
    assert (metrics["boxes"], metrics["samples"]) == ("boxes.json", 18)
    assert "valid_loss" not in metrics  # a detected box has no joints to compare with
    written = json.loads((run_folder(workplace) / "results" / "keypoints_val_results.json").read_text())
    # Boxes two pixels apart find nearly the same pose: suppression leaves about one each, the soft one all.
    assert len(written) == 18 if soft else 9 <= len(written) < 18


def test_detected_boxes_need_a_file(persons, run_command):
    workplace, _ = persons
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "--use-detect-bbox", cwd=workplace)
    assert finished.returncode == 2
    assert "TEST.COCO_BBOX_FILE names no detections" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_another_skeletons_annotations_are_refused_in_one_line(persons, stars, run_command):
    workplace, _ = persons
    finished = run_command("train.py", "--cfg", "tiny.yaml", f"DATASET.ROOT={stars}/data", "OUTPUT_DIR=o",
                           cwd=workplace)  # fmt: skip
    assert finished.returncode == 2
    errors = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert (
        "has 5 keypoints and the coco skeleton 17 joints; describe its joints in a DATASET.SKELETON file" in errors[0]
    )
    assert "Traceback" not in finished.stderr


def test_five_joints_of_ones_own_train_and_validate(stars, run_command):
    finished = run_command("valid.py", "--cfg", "tiny.yaml", "--flip-test", cwd=stars)
    assert finished.returncode == 0, finished.stderr
    metrics = metrics_of(stars)
    results = run_folder(stars) / "results" / "keypoints_val_results.json"
    assert {len(entry["keypoints"]) for entry in json.loads(results.read_text())} == {15}
    scored = run_command("evaluate.py", "--dataset", "coco", "--gt", "data/annotations/val.json", "--pred", results,
                         "--skeleton", "star.yaml", "--json", "scores.json", cwd=stars)  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    assert json.loads((stars / "scores.json").read_text())["AP"] == metrics["AP"]

    guess = run_command("mean_pose.py", "--cfg", "tiny.yaml", cwd=stars)
    assert guess.returncode == 0, guess.stderr
    assert "| mean training pose | " in guess.stdout


def test_weights_bring_their_skeleton_along(stars, run_command, tmp_path):
    weights, picture = run_folder(stars) / "model_best.pdparams", stars / "data/images/val/picture_1.jpg"
    assert skeleton_from(read_weights(weights).description["DATASET.SKELETON"], "weights") == FIVE
    # neither the experiment nor the skeleton file is here
    inferred = run_command("infer.py", "--model-file", weights, "--img-file", picture, "--kpt-thr", "-1",
                           "--output", "drawn.png", cwd=tmp_path)  # fmt: skip
    assert inferred.returncode == 0, inferred.stderr
    assert (cv2.imread(str(tmp_path / "drawn.png")) != cv2.imread(str(picture))).any()
    (person,) = json.loads((tmp_path / "drawn.json").read_text())["people"]
    assert list(person["keypoints"]) == list(FIVE.joints)
    alone = run_command("valid.py", "--model-file", weights, f"DATASET.ROOT={stars}/data", cwd=tmp_path)
    assert alone.returncode == 0, alone.stderr
    assert "test_set val, boxes annotated" in alone.stdout
    again = run_command("valid.py", "--cfg", run_folder(stars) / "config.yaml", f"DATASET.ROOT={stars}/data",
                        "--model-file", weights, cwd=tmp_path)  # fmt: skip
    assert again.returncode == 0, again.stderr


def test_coco_files_from_the_command_line(persons, run_command, tmp_path):
    annotations = persons[0] / "data/annotations/val.json"
    cut = run_command("coco_files.py", "subset", annotations, "--count", 2, "--output", tmp_path / "two.json")
    assert cut.returncode == 0, cut.stderr
    assert len(json.loads((tmp_path / "two.json").read_text())["images"]) == 2
    (tmp_path / "a.json").write_text(json.dumps(detections_of(annotations)))
    merged = run_command("coco_files.py", "merge", tmp_path / "a.json", tmp_path / "a.json",
                         "--output", tmp_path / "b.json")  # fmt: skip
    assert merged.returncode == 0, merged.stderr
    assert "9 detections, 9 repeated boxes left out" in merged.stdout
    assert run_command("coco_files.py", "check", tmp_path / "b.json", "--annotations", annotations).returncode == 0
    short = run_command("coco_files.py", "check", tmp_path / "b.json", "--annotations", tmp_path / "two.json")
    assert short.returncode == 1
    assert "for an image that the annotation file does not list" in short.stdout
    persons_only = run_command("coco_files.py", "persons", annotations, "--output", tmp_path / "p.json")
    assert persons_only.returncode == 0, persons_only.stderr
    for arguments in (["check", annotations], ["subset", tmp_path / "a.json", "--count", 1, "--output", "x.json"]):
        wrong = run_command("coco_files.py", *arguments)
        assert wrong.returncode == 2
        assert wrong.stderr.startswith("error: ")


def test_image_ids_of_any_editor_are_read(tmp_path):
    """Windows' begins a file with a byte order mark."""
    file = tmp_path / "ids.txt"
    file.write_bytes("\ufeff139 285\r\n632\r\n".encode())
    assert read_ids(file) == [139, 285, 632]
    file.write_text("139 x")
    with pytest.raises(UserError, match="should hold image ids, whole numbers: .*'x'"):
        read_ids(file)
    with pytest.raises(UserError, match="is a folder, not a list file"):
        read_ids(tmp_path)


def test_the_drawing_of_cocos_joints_has_both_sides():
    from simplepose.core.drawing import LEFT_COLOR, MIDDLE_COLOR, RIGHT_COLOR, draw_pose

    image = np.zeros((400, 400, 3), np.uint8)
    keypoints = np.array([[20 + 20 * k, 380 - 20 * k] for k in range(17)], float)
    draw_pose(image, keypoints, np.ones(17), COCO)
    for joint, color in (("nose", MIDDLE_COLOR), ("left_knee", LEFT_COLOR), ("right_knee", RIGHT_COLOR)):
        x, y = keypoints[COCO.joints.index(joint)].astype(int)
        assert tuple(image[y, x]) == color
    keypoints[0] = np.nan  # not drawn, and no limb to it
    draw_pose(image, keypoints, np.ones(17), COCO)
