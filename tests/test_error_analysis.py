"""What did it get wrong: kinds of errors planted and found again, calibration, comparison, the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from simplepose.commands import evaluate
from simplepose.core.errors import UserError
from simplepose.core.skeletons import COCO, MPII, Skeleton
from simplepose.data.coco import read_coco
from simplepose.data.mpii_mat import JOINT_NAMES
from simplepose.metrics import calibration as cal
from simplepose.metrics.analysis import OksSet, PckhSet, analyze, compare
from simplepose.metrics.coco_ap import coco_metrics, keypoint_evaluation
from simplepose.metrics.compare import ApSampler, bootstrap_intervals, sign_test, verdict
from simplepose.metrics.conditions import conditions, crowd_index, trunk_angle
from simplepose.metrics.error_kinds import KINDS, UNLABELLED, joint_kinds, right_joints
from simplepose.metrics.pckh import NOT_IN_MEAN, person_hits
from simplepose.metrics.people import OKS_REACH, PCKH_REACH, People, Predictions
from simplepose.reports.analysis import write_report

PAIR = Skeleton("pair", ("nose", "left", "right"), (("left", "right"),), (), (0.1, 0.1, 0.1))
NOSE, LEFT, RIGHT = range(3)


def people_of(joints, reach=PCKH_REACH, unit: float = 10, labelled=None, image_of=None) -> People:
    """Persons of nose, left and right; a unit is ten pixels."""
    joints = np.asarray(joints, float)
    number = len(joints)
    return People(
        skeleton=PAIR,
        joints=joints,
        labelled=np.ones(joints.shape[:2], bool) if labelled is None else np.asarray(labelled, bool),
        units=np.full(joints.shape[:2], float(unit)),
        reach=reach,
        sizes=np.full(number, float(unit)),
        size_of="unit",
        image_of=np.zeros(number, int) if image_of is None else np.asarray(image_of),
        in_score=np.ones(3, bool),
        first_pixel=0,
        names=[""] * number,
        image_sizes=np.zeros((number, 2)),
    )


def kinds_of(predicted, people: People, found=None) -> list[list[str]]:
    found = np.ones(len(people), bool) if found is None else np.asarray(found)
    kinds = joint_kinds(Predictions("p", np.asarray(predicted, float), None, found), people)
    return [[KINDS[kind] if kind != UNLABELLED else "" for kind in row] for row in kinds]


TWO = [[[0, 0], [100, 0], [200, 0]], [[0, 500], [100, 500], [200, 500]]]  # far apart, in one image


@pytest.mark.parametrize(
    ("joint", "at", "kind"),
    [
        (LEFT, (105, 0), "good"),  # 0.5 head sizes: within, as PCKh counts it
        (LEFT, (106, 0), "jitter"),
        (LEFT, (110, 0), "jitter"),  # 1 head size: the last that is near
        (LEFT, (111, 0), "miss"),
        (LEFT, (205, 0), "inversion"),
        (LEFT, (206, 0), "miss"),  # near the right one is not at it
        (LEFT, (100, 505), "swap"),
        (LEFT, (200, 500), "swap"),  # the other person's mirrored joint
        (LEFT, (0, 0), "miss"),  # at a nose, which no left joint is taken for
        (NOSE, (0, 500), "swap"),
        (NOSE, (100, 0), "miss"),  # a joint without a mirror is never inverted
    ],
)
def test_each_kind_planted_is_recognised(joint, at, kind):
    predicted = np.array(TWO, float)
    predicted[0, joint] = at
    expected = [["good"] * 3, ["good"] * 3]
    expected[0][joint] = kind
    assert kinds_of(predicted, people_of(TWO)) == expected


@pytest.mark.parametrize(("similarity", "kind"), [(0.86, "good"), (0.84, "jitter"), (0.51, "jitter"), (0.49, "miss")])
def test_the_kinds_of_oks_are_ronchis_and_peronas(similarity, kind):
    predicted = np.array(TWO, float)
    predicted[1, NOSE, 1] += 10 * np.sqrt(-np.log(similarity))
    assert kinds_of(predicted, people_of(TWO, OKS_REACH))[1][NOSE] == kind


def test_the_nearest_joint_decides_and_ties_go_to_the_person():
    people = people_of([[[0, 0], [100, 0], [108, 0]], [[0, 500], [104, 6], [300, 500]]])
    assert (
        kinds_of([[[0, 0], [107, 0], [108, 0]], people.joints[1]], people)[0][LEFT] == "inversion"
    )  # 0.7 from its own
    # The other person's left is 0.4 away, the own right 0.4 as well, the own left 0.57.
    assert kinds_of([[[0, 0], [104, 4], [108, 0]], people.joints[1]], people)[0][LEFT] == "swap"
    tie = people_of([[[0, 0], [100, 0], [108, 0]], [[0, 500], [108, 0], [300, 500]]])
    assert kinds_of([[[0, 0], [106, 0], [108, 0]], tie.joints[1]], tie)[0][LEFT] == "inversion"
    close = people_of([[[0, 0], [100, 0], [108, 0]]])
    assert kinds_of([[[0, 0], [104, 0], [108, 0]]], close)[0] == ["good"] * 3  # what the score counts is good


def test_joints_without_labels_count_neither_as_errors_nor_as_targets():
    predicted = np.array(TWO, float)
    predicted[0, LEFT] = TWO[0][RIGHT]
    predicted[0, NOSE] = TWO[1][NOSE]
    labelled = [[1, 1, 0], [0, 1, 1]]
    assert kinds_of(predicted, people_of(TWO, labelled=labelled)) == [["miss", "miss", ""], ["", "good", "good"]]


def test_people_of_other_images_are_not_swapped_with():
    predicted = np.array(TWO, float)
    predicted[0, NOSE] = TWO[1][NOSE]
    assert kinds_of(predicted, people_of(TWO, image_of=[0, 1]))[0][NOSE] == "miss"


def test_a_person_without_a_pose_or_without_a_size():
    assert kinds_of(TWO, people_of(TWO), found=[True, False]) == [["good"] * 3, ["no pose"] * 3]
    flat = replace(people_of(TWO), units=np.array([[0.0] * 3, [10.0] * 3]))  # a head box of no size
    assert kinds_of(TWO, flat) == [["miss"] * 3, ["good"] * 3]
    nobody = people_of(np.zeros((0, 3, 2)))
    assert kinds_of(np.zeros((0, 3, 2)), nobody) == []


# ---- Conditions ----------------------------------------------------------------------------------------


def test_crowding_counts_others_joints_in_the_own_box():
    boxes = [[[0, 0], [10, 10], [5, 5]], [[2, 2], [3, 3], [4, 50]], [[5, 5], [6, 6], [7, 7]]]
    people = people_of(boxes, image_of=[0, 0, 1])
    np.testing.assert_allclose(crowd_index(people), [2 / 3, 0, 0])  # only the second is partly inside the first


@pytest.mark.parametrize(("shoulders_at", "degrees"), [((0, -10), 0), ((10, -10), 45), ((-10, 0), 90), ((0, 10), 180)])
def test_the_trunk_is_measured_from_upright(shoulders_at, degrees):
    joints = np.zeros((1, 16, 2))
    for name in ("left_shoulder", "right_shoulder"):
        joints[0, MPII.joints.index(name)] = shoulders_at
    people = replace(people_of(np.zeros((1, 3, 2))), skeleton=MPII, joints=joints, labelled=np.ones((1, 16), bool))
    assert trunk_angle(people)[0] == pytest.approx(degrees)
    assert np.isnan(trunk_angle(people_of(TWO))).all()  # no hips


# ---- PCKh ----------------------------------------------------------------------------------------------


def write_mpii(folder: Path, number: int = 60, wrong: float = 0.2, seed: int = 0, scores: bool = True) -> tuple:
    """A ground truth of random persons, two in an image, and predictions of which a share is wrong: two files."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform(100, 900, (number, 16, 2))
    labelled = rng.random((number, 16)) < 0.9
    corners = np.stack([np.zeros((2, number)), np.full((2, number), 100 / np.sqrt(2) / 0.6)])  # head size 100
    names = np.array([[np.array([name]) for name in JOINT_NAMES]], dtype=object)
    truth = {"dataset_joints": names.reshape(1, 16), "jnt_missing": (~labelled).T.astype(float),
             "pos_gt_src": joints.transpose(1, 2, 0), "headboxes_src": corners}  # fmt: skip
    savemat(str(folder / "gt_valid.mat"), truth)
    (folder / "valid.json").write_text(json.dumps([{"image": f"{row // 2}.jpg"} for row in range(number)]))
    moved = rng.random((number, 16)) < wrong
    predicted = joints + np.where(moved[..., None], rng.normal(0, 150, joints.shape), rng.normal(0, 10, joints.shape))
    content = {"preds": predicted}
    if scores:
        content["scores"] = np.where(moved, rng.beta(2, 4, moved.shape), rng.beta(4, 2, moved.shape))
    savemat(str(folder / f"pred_{seed}_{wrong}.mat"), content)
    return folder / "gt_valid.mat", folder / f"pred_{seed}_{wrong}.mat"


def test_what_pckh_counts_is_good_and_the_costs_are_all_that_is_missing(tmp_path):
    truth, file = write_mpii(tmp_path)
    analysed = PckhSet(truth)
    analysis = analyze(analysed, analysed.read(file), np.random.default_rng(0))
    counted = analysed.people.labelled & analysed.people.in_score
    hits, _ = person_hits(analysis.predictions.joints, analysed.truth)
    np.testing.assert_array_equal(((analysis.kinds == 0) & counted).sum(axis=1), hits)
    mean = analysis.figures["metrics"]["Mean"]
    assert analysis.figures["shares"]["good"] == pytest.approx(mean)
    assert sum(cost["cost"] for cost in analysis.figures["costs"].values()) == pytest.approx(100 - mean)
    assert analysis.figures["shares"]["swap"] > 0  # valid.json was found beside it
    assert sum(name in NOT_IN_MEAN for name in JOINT_NAMES) == (~analysed.people.in_score).sum()
    assert {condition.name for condition in conditions(analysed.people)} == {
        "size", "crowding", "labelled joints", "trunk",
    }  # fmt: skip


def test_a_file_against_itself_and_against_a_better_one(tmp_path):
    truth, worse = write_mpii(tmp_path, wrong=0.3)
    _, better = write_mpii(tmp_path, wrong=0.1)  # the same persons
    analysed = PckhSet(truth)
    first, second = (analyze(analysed, analysed.read(f), np.random.default_rng(0)) for f in (worse, better))
    same = compare(analysed, first, first, np.random.default_rng(0))
    assert same["difference"] == 0 and same["verdict"].endswith("not shown")
    assert same["sign test"] == {"better": 0, "worse": 0, "equal": 60, "p": 1.0}
    found = compare(analysed, first, second, np.random.default_rng(0))
    means = [analysis.figures["metrics"]["Mean"] for analysis in (first, second)]
    assert found["difference"] == pytest.approx(means[1] - means[0])
    assert found["interval"][0] > 0 and found["verdict"].endswith(": shown")
    assert found["sign test"]["p"] < 0.001
    assert sum(row["difference"] for row in found["by kind"]) == pytest.approx(0)  # shares of one whole


# ---- AP ------------------------------------------------------------------------------------------------


def write_coco(folder: Path, images: int = 12, seed: int = 0) -> tuple[Path, Path]:
    """Two persons an image, well apart, a crowd and somebody without keypoints; noisy results, some of nobody."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        for person in range(2):
            joints = rng.uniform(0, 100, (17, 2)) + 300 * person
            visible = np.where(rng.random(17) < 0.8, rng.integers(1, 3, 17), 0)
            visible[0] = 2
            annotations.append({"id": len(annotations), "image_id": image, "category_id": 1, "iscrowd": 0,
                "area": 10000.0, "bbox": [300 * person, 300 * person, 100, 100],
                "keypoints": np.column_stack([joints, visible]).ravel().tolist()})  # fmt: skip
            noisy = joints + rng.normal(0, rng.choice([1, 6, 15]), (17, 2))
            results.append({"image_id": image, "category_id": 1, "score": float(rng.random()),
                "keypoints": np.column_stack([noisy, rng.random(17)]).ravel().tolist()})  # fmt: skip
        annotations.append({**annotations[-1], "id": len(annotations), "iscrowd": image % 2, "keypoints": [0] * 51})
        results.append({**results[-1], "score": float(rng.random()) / 2, "keypoints": [900.0, 900.0, 0.3] * 17})
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": 640, "height": 480} for n in range(1, images + 1)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}],
        "annotations": annotations,
    }
    (folder / "val.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))
    return folder / "val.json", folder / "results.json"


def test_sampled_ap_is_pycocotools_own(tmp_path):
    annotations, file = write_coco(tmp_path)
    truth, results = read_coco(annotations, COCO), json.loads(file.read_text())
    sampler = ApSampler(keypoint_evaluation(truth, results, COCO))
    metrics = coco_metrics(truth, results, COCO)
    assert sampler.value() == pytest.approx(metrics["AP"], abs=1e-12)
    assert sampler.by_threshold()[5] == pytest.approx(metrics["AP .75"], abs=1e-12)
    # An image that counts twice is the same as the image and a copy of it.
    content = json.loads(annotations.read_text())
    content["images"].append({**content["images"][0], "id": 99})
    content["annotations"] += [{**a, "image_id": 99} for a in content["annotations"] if a["image_id"] == 1]
    (tmp_path / "twice.json").write_text(json.dumps(content))
    twice = results + [{**r, "image_id": 99} for r in results if r["image_id"] == 1]
    expected = coco_metrics(read_coco(tmp_path / "twice.json", COCO), twice, COCO)["AP"]
    assert sampler.value(np.array([2] + [1] * 11)) == pytest.approx(expected, abs=0.02)  # up to the order of equals


def test_mended_aps(tmp_path):
    annotations, file = write_coco(tmp_path)
    analysed = OksSet(annotations)
    assert len(analysed.people) == 24  # neither the crowd nor whoever has no keypoints
    analysis = analyze(analysed, analysed.read(file), np.random.default_rng(0))
    figures = analysis.figures
    assert figures["costs"]["jitter"]["cost"] > 0 and figures["costs"]["nobody there"]["cost"] >= 0
    assert all(cost["cost"] > -1e-9 for kind, cost in figures["costs"].items() if kind != "order of scores")
    results = json.loads(file.read_text())
    results = [result for result in results if result["image_id"] != 3]  # two people are lost
    file.write_text(json.dumps(results))
    lost = analyze(analysed, analysed.read(file), np.random.default_rng(0)).figures
    assert lost["persons without a pose"] >= 2 and lost["costs"]["no pose"]["cost"] > 0
    assert lost["confidence"]["score if rescored"] is not None


def test_nobody_to_compare_with(tmp_path):
    annotations, _ = write_coco(tmp_path)
    content = json.loads(annotations.read_text())
    annotations.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(UserError, match="no annotated persons"):
        OksSet(annotations)


# ---- Confidence ----------------------------------------------------------------------------------------


def test_a_higher_score_never_promises_less():
    scores = np.repeat([0.2, 0.5, 0.8], [100, 50, 100])
    right = np.repeat([1, 0, 1, 0, 1, 0], [80, 20, 10, 40, 90, 10])  # shares 0.8, 0.2 and 0.9
    fitted = cal.fit_calibration(scores, right).pairs()  # the first two are pooled: 90 of 150
    assert fitted == pytest.approx([0.2, 0.6, 0.5, 0.6, 0.8, 0.9])


def test_two_scores_have_the_shares_of_their_own_joints():
    scores, right = np.array([0.9] * 300 + [0.4] * 100), np.array([1] * 270 + [0] * 30 + [1] * 20 + [0] * 80)
    assert cal.fit_calibration(scores, right).pairs() == pytest.approx([0.4, 0.2, 0.9, 0.9])
    assert cal.fit_calibration(np.array([0.5]), np.array([1])).pairs() == [0.5, 1.0]


def test_calibrated_scores_keep_their_promise():
    rng = np.random.default_rng(0)
    scores = rng.random(20000)
    right = rng.random(20000) < scores**2  # a score of 0.8 holds 64 %
    image_of = np.arange(20000) // 16
    raw = cal.reliability(scores, right)
    assert raw.error == pytest.approx(1 / 6, abs=0.01)  # the mean of s - s^2
    even, odd = cal.calibrations_by_halves(scores, right, image_of)
    made = np.where(image_of % 2 == 1, odd(scores), even(scores))
    assert cal.reliability(made, right).error < 0.02
    assert right[made >= 0.8].mean() > 0.85 and np.abs(made - scores**2).mean() < 0.03
    assert (np.diff(even(np.linspace(-1, 2, 50))) >= 0).all()


@pytest.mark.parametrize(
    "pairs", [[0.1], "0.1", [0.5, 0.1, 0.4, 0.2], [0.1, 0.9, 0.2, 0.1], [0.1, 1.5], [0.1, float("nan")], [0.1] * 200]
)
def test_a_calibration_of_a_stranger_is_checked(pairs):
    with pytest.raises(ValueError):
        cal.Calibration.from_pairs(pairs)


def test_a_calibration_goes_from_weights_to_the_exported_file_and_to_deployment(posenet, tmp_path, run_command):
    import deploy
    from simplepose.build.predictor import load_pose_network
    from simplepose.inference.network import InferenceSettings
    from simplepose.inference.onnx_network import read_metadata
    from simplepose.weights import read_weights

    pairs = [0.0, 0.1, 0.5, 0.3, 1.0, 0.9]
    (tmp_path / "figures.json").write_text(json.dumps({"files": [{"confidence": {"calibration": pairs}}]}))
    calibrated, exported = tmp_path / "calibrated.pdparams", tmp_path / "calibrated.onnx"
    finished = run_command(
        "convert.py", "--from", posenet[0], "--to", calibrated, "--calibration", tmp_path / "figures.json"
    )
    assert finished.returncode == 0, finished.stderr
    assert read_weights(calibrated).description["MODEL.CALIBRATION"] == pairs

    import onnx

    network = load_pose_network(calibrated)
    content = onnx.load(str(posenet[1]))  # as an export of the calibrated weights has it
    described = {**json.loads(content.metadata_props[0].value), **json.loads(json.dumps(network.description()))}
    onnx.helper.set_model_props(content, {"simplepose": json.dumps(described)})
    onnx.save(content, str(exported))
    crops = np.random.default_rng(0).integers(0, 256, (3, 96, 64, 3), dtype=np.uint8)
    plain, ours = load_pose_network(posenet[1]), load_pose_network(exported)
    assert read_metadata(ours.run.session, exported)["score_calibration"] == pairs
    joints, raw = plain.predict(plain.prepare(crops), InferenceSettings())
    same, scores = ours.predict(ours.prepare(crops), InferenceSettings())
    np.testing.assert_array_equal(same, joints)
    np.testing.assert_allclose(scores, np.interp(raw, pairs[::2], pairs[1::2]), rtol=1e-6)
    assert scores.dtype == raw.dtype
    np.testing.assert_allclose(deploy.PoseModel(exported).predict(crops)[1], scores, atol=1e-6)
    described["score_calibration"] = [0.5, 0.9, 0.4, 0.1]
    with pytest.raises(ValueError, match="calibration"):
        deploy.check_description(described)


# ---- Is it luck? ---------------------------------------------------------------------------------------


def test_the_sign_test_is_the_binomial_one():
    assert sign_test(np.array([1, 1, 1, 1, 1, 0, 0])) == (5, 0, pytest.approx(2 / 32))
    assert sign_test(np.array([0.0, 0.0])) == (0, 0, 1.0)
    assert sign_test(np.array([])) == (0, 0, 1.0)


def test_the_paired_interval_finds_differences_and_few_that_are_not_there():
    """400 comparisons of 150 persons with 10 joints: of models that are equal 5 % may look different."""
    rng = np.random.default_rng(0)
    counts = np.full(150, 10)

    def shown(gain: float) -> float:
        found = 0
        for _ in range(200):
            skill = rng.beta(8, 2, 150)
            first, second = rng.binomial(10, skill), rng.binomial(10, np.minimum(skill + gain, 1))
            low, high = bootstrap_intervals(second - first, counts, rng, 200)[0]
            found += low > 0 or high < 0
        return found / 200

    assert shown(0.0) < 0.10
    assert shown(0.05) > 0.80


def test_intervals_of_nothing_and_of_several_columns():
    rng = np.random.default_rng(0)
    intervals = bootstrap_intervals(np.array([[1, 0], [0, 0]]), np.array([[1, 0], [1, 0]]), rng)
    assert intervals[0].tolist() == [0, 100] and np.isnan(intervals[1]).all()
    assert bootstrap_intervals([3], [4], rng).tolist() == [[75, 75]]  # one person says nothing about others


def test_a_verdict_says_whether_the_difference_is_shown():
    assert verdict(0.4, (-0.2, 1.0), "points") == "better by 0.40 points [-0.20, +1.00]: not shown"
    assert verdict(-0.012, (-0.02, -0.004), "AP") == "worse by 0.012 AP [-0.020, -0.004]: shown"


# ---- The page ------------------------------------------------------------------------------------------


def test_the_page_of_one_file_and_of_two(tmp_path):
    truth, first = write_mpii(tmp_path, 40)
    _, second = write_mpii(tmp_path, 40, wrong=0.1, scores=False)
    lines = write_report(PckhSet(truth), [first], tmp_path / "one")
    assert 5 <= len(lines) <= 10 and lines[0].startswith("pred_0_0.2: Mean")
    (figures,) = json.loads((tmp_path / "one/figures.json").read_text())["files"]
    assert figures["persons"] == 40 and figures["confidence"]["expected calibration error"]["calibrated"] < 0.15
    text = (tmp_path / "one/index.html").read_text(encoding="utf-8")
    assert all(f">{name} (" in text for name in ("worst", "median", "best", "jitter"))
    assert text.count("<svg") == 4 and "data:image/" in text
    lines = write_report(PckhSet(truth), [first, second], tmp_path / "two")
    assert len(lines) <= 10 and any("paired" in line for line in lines)
    assert "Persons on whom they differ most" in (tmp_path / "two/index.html").read_text(encoding="utf-8")


def test_a_page_can_be_made_again(tmp_path):
    truth, file = write_mpii(tmp_path, 3)
    for name in ("first", "again"):
        write_report(PckhSet(truth), [file], tmp_path / name)
    assert (tmp_path / "first/index.html").read_bytes() == (tmp_path / "again/index.html").read_bytes()


@pytest.mark.parametrize("number", [1, 2])
def test_the_page_of_one_person(tmp_path, number):
    truth, file = write_mpii(tmp_path, number)
    assert len(write_report(PckhSet(truth), [file], tmp_path / "page")) >= 4


def test_the_page_with_photographs(tmp_path):
    import cv2

    annotations, file = write_coco(tmp_path)
    cv2.imwrite(str(tmp_path / "1.jpg"), np.full((480, 640, 3), 90, np.uint8))  # the others are missing
    lines = write_report(OksSet(annotations), [file], tmp_path / "page", tmp_path)
    assert lines[0].startswith("results: AP")


def test_what_does_not_go_together_is_one_line(tmp_path, run_command):
    truth, file = write_mpii(tmp_path, 4)
    for arguments, message in (
        (["--pred", file, "--pred", file, "--pred", file], "3 files"),
        (["--pred", file, "--images", tmp_path / "nowhere"], "no such folder"),
        (["--pred", file, "--skeleton", file], "goes with --dataset coco"),
    ):
        finished = run_command("analyze.py", "--dataset", "mpii", "--gt", truth, *arguments, "--output", tmp_path / "o")
        assert finished.returncode == 2 and message in finished.stderr and finished.stderr.count("\n") == 1
    (tmp_path / "valid.json").write_text('[{"image": "1.jpg"}]')
    with pytest.raises(UserError, match="different sets"):
        PckhSet(truth)


def test_a_curve_is_drawn_where_it_is_wanted(tmp_path, monkeypatch, capsys):
    """In a folder that is made, as for the figures, and under the very name, which need not end in a form's."""
    truth, file = write_mpii(tmp_path, 4)
    line = ["evaluate.py", "--dataset", "mpii", "--gt", str(truth), "--pred", str(file), "--plot"]
    for name in ("new/curve.svg", "curve"):
        monkeypatch.setattr("sys.argv", [*line, str(tmp_path / name)])
        evaluate.main()
        assert (tmp_path / name).stat().st_size > 1000 and f"=> curve: {tmp_path / name}\n" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [*line, str(tmp_path / "curve.xyz")])
    with pytest.raises(UserError, match="cannot draw to .*curve.xyz: Format 'xyz' is not supported"):
        evaluate.main()
    assert not list(tmp_path.glob("curve.*"))


@pytest.mark.slow
def test_a_validation_reports_what_it_got_wrong(bundled, posenet, run_command, tmp_path):
    finished = run_command(
        "valid.py", "--model-file", posenet[0], "--report", f"DATASET.ROOT={bundled}", cwd=tmp_path,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    (page,) = tmp_path.rglob("report/index.html")
    figures = json.loads(page.with_name("figures.json").read_text())["files"][0]
    assert figures["metrics"]["Mean"] == json.loads((page.parent.parent / "metrics.json").read_text())["Mean"]


# ---- Real predictions ----------------------------------------------------------------------------------


def test_hourglass_of_two_and_eight_stacks(real_data):
    analysed = PckhSet(real_data / "mpii/annot/gt_valid.mat")
    files = [real_data / f"mpii/predictions/hourglass_stack{stacks}.mat" for stacks in (2, 8)]
    first, second = (analyze(analysed, analysed.read(file), np.random.default_rng(0)) for file in files)
    for analysis, expected in ((first, [87.30, 5.64, 3.02, 0.04, 4.00]), (second, [89.09, 5.10, 2.45, 0.03, 3.32])):
        np.testing.assert_allclose(list(analysis.figures["shares"].values())[:5], expected, atol=0.0051)
    found = compare(analysed, first, second, np.random.default_rng(0))
    assert found["difference"] == pytest.approx(1.793, abs=0.001)
    np.testing.assert_allclose(found["interval"], [1.42, 2.16], atol=0.05)
    assert (found["sign test"]["better"], found["sign test"]["worse"]) == (813, 490)


def test_faults_injected_into_coco_are_counted_exactly(real_data, tmp_path):
    analysed = OksSet(real_data / "coco/annotations/person_keypoints_val2017.json")
    people, rng = analysed.people, np.random.default_rng(0)
    joints, planted = people.joints.copy(), dict.fromkeys(KINDS[1:5], 0)
    mirror = COCO.flip_permutation
    for row, joint in rng.permutation(np.argwhere(people.labelled)):
        kind = KINDS[1 + rng.integers(4)]
        if people.labelled[row].sum() < 6 or (joints[row] != people.joints[row]).any(axis=1).sum() > 1:
            continue  # most of a person stays right, so that the result still belongs to it
        unit, own = people.units[row, joint], people.joints[row, joint]
        other = [n for n in np.flatnonzero(people.image_of == people.image_of[row]) if n != row]
        places = {
            "jitter": own + (0.6 * unit, 0),
            "inversion": people.joints[row, mirror[joint]],
            "swap": people.joints[other[0], joint] if other else own,
            "miss": own + (3 * unit, 0),
        }
        joints[row, joint] = places[kind]
        found = Predictions("planted", joints, None, np.ones(len(people), bool))
        if KINDS[joint_kinds(found, people)[row, joint]] == kind:
            planted[kind] += 1
        else:  # nobody else is there, or another joint is as near
            joints[row, joint] = own
    assert min(planted.values()) >= 4
    results = []
    for row, place in enumerate(analysed.rows):
        entry = analysed.truth.annotations[place]
        numbers = np.column_stack([joints[row], np.ones(17)]).ravel().tolist()
        results.append({"image_id": entry["image_id"], "category_id": 1, "keypoints": numbers, "score": 0.9})
    (tmp_path / "results.json").write_text(json.dumps(results))
    predictions = analysed.read(tmp_path / "results.json")
    kinds = joint_kinds(predictions, people)
    assert {kind: int((kinds == place).sum()) for place, kind in enumerate(KINDS[:5])} == {
        "good": int(people.labelled.sum()) - sum(planted.values()), **planted,
    }  # fmt: skip
    assert right_joints(predictions, people).sum() >= people.labelled.sum() - sum(planted.values())
