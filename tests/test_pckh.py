"""PCKh on arrays worked out by hand, and against the definition spelled out."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.io import savemat

from simplepose.core.errors import UserError
from simplepose.metrics.pckh import (
    CURVE_THRESHOLDS,
    PckhEvaluator,
    PckhGroundTruth,
    column_curves,
    load_pckh_ground_truth,
    load_predictions,
    pckh,
    pckh_metrics,
    pckh_table,
)

NAMES = ("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor",
         "neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri")  # fmt: skip


def truth_of(num: int, head_size: float = 10.0) -> PckhGroundTruth:
    joints = np.random.default_rng(0).uniform(50, 200, (num, 16, 2))
    return PckhGroundTruth(NAMES, joints, np.ones((num, 16), bool), np.full(num, head_size))


def test_perfect_predictions_score_100():
    truth = truth_of(3)
    metrics = pckh_metrics(truth.joints, truth)
    assert all(value == 100 for value in metrics.values())


def test_a_distance_of_exactly_half_a_head_counts():
    truth = PckhGroundTruth(("head",), np.zeros((3, 1, 2)), np.ones((3, 1), bool), np.full(3, 10.0))
    predictions = np.array([[[5.0, 0]], [[3.0, 4.0]], [[0, 5.0001]]])  # 5, 5 and a little more; half a head is 5
    np.testing.assert_allclose(pckh(predictions, truth, np.array([0.5])), [[200 / 3]])


def test_columns_and_mean_by_hand():
    truth = truth_of(4)
    predictions = truth.joints.copy()
    predictions[:2, NAMES.index("lwri")] += 100  # left wrist: 2 of 4; right wrist: all -> 75
    predictions[:, NAMES.index("pelv")] += 100  # in no column and not in the mean
    metrics = pckh_metrics(predictions, truth)
    assert metrics["Wrist"] == 75
    assert metrics["Elbow"] == 100
    assert metrics["Mean"] == pytest.approx(100 * (14 * 4 - 2) / (14 * 4))


def test_the_mean_weights_joints_by_their_number():
    truth = truth_of(4)
    truth.labelled[1:, NAMES.index("head")] = False  # one head, wrong; 13 joints x 4, right
    predictions = truth.joints.copy()
    predictions[:, NAMES.index("head")] += 100
    assert pckh_metrics(predictions, truth)["Mean"] == pytest.approx(100 * 52 / 53)


def test_a_joint_labelled_nowhere_is_nan_and_out_of_the_mean():
    truth = truth_of(2)
    truth.labelled[:, [NAMES.index("lank"), NAMES.index("rank"), NAMES.index("lkne")]] = False
    metrics = pckh_metrics(truth.joints, truth)
    assert np.isnan(metrics["Ankle"])
    assert metrics["Knee"] == 100  # the right one alone
    assert metrics["Mean"] == 100
    curves = column_curves(truth.joints, truth, CURVE_THRESHOLDS)
    assert np.isnan(curves["Ankle"]).all() and (curves["Knee"] == 100).all()


def test_curve_is_the_definition():
    rng = np.random.default_rng(5)
    truth = truth_of(30)
    truth.labelled[rng.random((30, 16)) < 0.3] = False
    predictions = truth.joints + rng.normal(size=truth.joints.shape) * 3
    curve = pckh(predictions, truth, CURVE_THRESHOLDS)
    errors = np.linalg.norm(predictions - truth.joints, axis=-1) / truth.head_sizes[:, None]
    for row, threshold in zip(curve, CURVE_THRESHOLDS):
        for joint in range(16):
            labelled = truth.labelled[:, joint]
            assert row[joint] == pytest.approx(100 * (errors[labelled, joint] <= threshold).mean())


def test_mean_at_a_tenth_is_printed_at_eleven_hundredths():
    truth = truth_of(2)
    predictions = truth.joints.copy()
    predictions[..., 0] += 1.05  # 0.105 head sizes
    metrics = pckh_metrics(predictions, truth)
    assert (metrics["Mean@0.10"], metrics["Mean@0.11"]) == (0, 100)
    lines = pckh_table("arch", metrics)
    assert lines[0].endswith("| Mean | Mean@0.1 |")
    assert lines[2].startswith("| arch | ")
    assert lines[2].endswith("| 100.000 | 100.000 |")


def test_a_head_box_without_size_counts_as_missed_and_says_nothing(recwarn):
    truth = truth_of(2)
    truth.head_sizes[0] = 0
    predictions = truth.joints.copy()
    predictions[0, 0] += 1  # a distance of 1 / 0; the others 0 / 0
    assert pckh_metrics(predictions, truth)["Mean"] == 50
    assert not recwarn.list


def test_predictions_of_another_set_are_refused():
    truth = truth_of(3)
    with pytest.raises(UserError, match="2 persons x 16 joints, the ground truth for 3 x 16"):
        pckh_metrics(truth.joints[:2], truth)


def mat(path, **arrays):
    savemat(str(path), arrays, appendmat=False)
    return path


def ground_truth(**changes):
    names = np.empty((1, 16), object)
    names[0, :] = NAMES
    arrays = {
        "dataset_joints": names,
        "jnt_missing": np.zeros((16, 3), np.uint8),
        "pos_gt_src": np.ones((16, 2, 3)),
        "headboxes_src": np.arange(12.0).reshape(2, 2, 3),
        **changes,
    }
    return {name: array for name, array in arrays.items() if array is not None}


def test_a_ground_truth_file_by_hand(tmp_path):
    truth = load_pckh_ground_truth(mat(tmp_path / "gt.mat", **ground_truth()))
    assert truth.joint_names == NAMES
    assert truth.joints.shape == (3, 16, 2) and truth.labelled.all()
    np.testing.assert_allclose(truth.head_sizes, 0.6 * np.hypot(6, 6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jnt_missing": None}, "no jnt_missing"),
        ({"jnt_missing": np.zeros((16, 2))}, r"jnt_missing has shape \(16, 2\), expected \(16, 3\)"),
        ({"jnt_missing": np.zeros((3, 16))}, "jnt_missing has shape"),
        ({"headboxes_src": np.zeros((2, 2))}, "headboxes_src has shape"),
        ({"headboxes_src": np.full((2, 2, 3), np.inf)}, r"headboxes_src\[0, 0, 0\] is inf"),
        ({"pos_gt_src": np.ones((16, 3))}, "pos_gt_src has shape"),
        ({"pos_gt_src": np.ones((15, 2, 3))}, "pos_gt_src has shape"),
        ({"pos_gt_src": np.full((16, 2, 3), np.nan)}, r"pos_gt_src\[0, 0, 0\] is nan"),
        ({"pos_gt_src": np.full((16, 2, 3), "x")}, "pos_gt_src"),
        ({"pos_gt_src": np.ones((16, 2, 3)) * 1j}, "pos_gt_src does not hold numbers"),
        ({"pos_gt_src": {"a": 1}}, "pos_gt_src"),
        ({"dataset_joints": "rank"}, "dataset_joints"),
        ({"dataset_joints": np.ones((1, 16))}, "dataset_joints"),
        ({"dataset_joints": np.array([["a"] * 16], object)}, "dataset_joints names no 'head'"),
    ],
)
def test_ground_truth_that_does_not_fit_together_is_named(tmp_path, changes, message):
    path = mat(tmp_path / "gt_valid.mat", **ground_truth(**changes))
    with pytest.raises(UserError, match=message) as caught:
        load_pckh_ground_truth(path)
    assert "gt_valid.mat" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.ones(3)}, "no array `preds`"),
        ({"preds": np.ones((3, 16))}, "expected \\(persons, joints, 2 or 3\\)"),
        ({"preds": np.where(np.arange(96).reshape(3, 16, 2) == 35, np.nan, 1)}, r"preds\[1, 1, 1\] is nan"),
        ({"preds": np.full((3, 16, 2), 1e308)}, r"preds\[0, 0, 0\] is 1e\+308"),
        ({"preds": np.full((3, 16, 2), "x", object)}, "preds does not hold numbers"),
        ({"preds": "text"}, "preds has shape"),
    ],
)
def test_predictions_of_no_use_are_named(tmp_path, arrays, message):
    with pytest.raises(UserError, match=message):
        load_predictions(mat(tmp_path / "pred.mat", **arrays))


def test_a_mat_file_that_states_more_than_memory_holds_is_not_read(tmp_path):
    path = mat(tmp_path / "pred.mat", preds=np.zeros((3, 16, 2)))
    data = path.read_bytes()
    path.write_bytes(data.replace(np.array([3, 16, 2], np.int32).tobytes(), np.array([2**30, 16, 2], "<i4").tobytes()))
    with pytest.raises(UserError, match="preds is too large"):
        load_predictions(path)
    savemat(str(path), {"preds": "text", "more": np.zeros((1, 11_000_000))}, do_compression=True)  # 88 MB in 86 kB
    assert path.stat().st_size < 1e5
    with pytest.raises(UserError, match="too large: a part of it has more than 80.0 MB unpacked"):
        load_predictions(path)
    path.write_bytes(data[:200])
    with pytest.raises(UserError, match="not a readable MATLAB"):
        load_predictions(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_is_no_mat_file(tmp_path):
    os.mkfifo(tmp_path / "pred.mat")
    with pytest.raises(UserError, match="pipe"):
        load_predictions(tmp_path / "pred.mat")


def test_a_ground_truth_of_other_joints_is_refused_before_the_evaluation():
    with pytest.raises(UserError, match="2 persons of 15 joints, its gt_.*2 of 16"):
        PckhEvaluator(2, 15, truth_of(2))


def test_evaluator_stores_by_row_and_saves_one_based(tmp_path):
    truth = truth_of(5)
    evaluator = PckhEvaluator(5, 16, truth)
    zero_based = truth.joints - 1
    for rows in ([3, 1], [0, 4, 2], [2]):  # any order, a row twice
        evaluator.add(np.array(rows), zero_based[rows], np.ones((len(rows), 16)))
    assert evaluator.compute()["Mean"] == 100
    evaluator.save(tmp_path)
    np.testing.assert_allclose(load_predictions(tmp_path / "pred.mat"), truth.joints)


def test_evaluator_notices_a_person_without_prediction():
    evaluator = PckhEvaluator(2, 16, truth_of(2))
    evaluator.add(np.array([0]), np.zeros((1, 16, 2)), np.zeros((1, 16)))
    with pytest.raises(RuntimeError, match="1 of 2"):
        evaluator.compute()


def test_evaluator_notices_a_person_that_only_the_epoch_before_predicted():
    evaluator = PckhEvaluator(2, 16, truth_of(2))
    both = np.arange(2), np.zeros((2, 16, 2)), np.zeros((2, 16))
    evaluator.add(*both)
    assert evaluator.compute() == evaluator.compute()  # asked twice of the same
    evaluator.add(*(array[:1] for array in both))
    with pytest.raises(RuntimeError, match="1 of 2"):
        evaluator.compute()
    evaluator.add(*(array[1:] for array in both))
    assert evaluator.compute()
