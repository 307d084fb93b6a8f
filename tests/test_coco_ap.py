"""OKS, suppression and rescoring on cases worked out by hand; AP beside pycocotools used plainly."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval

from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.geometry import apply_affine, crop_affine, invert_affine
from simplepose.core.oks import oks
from simplepose.core.skeletons import COCO, Skeleton
from simplepose.data.coco import CocoAnnotations, load_coco, read_coco
from simplepose.data.sample import PoseSample
from simplepose.metrics.coco_ap import (
    COLUMNS,
    CocoEvaluator,
    coco_metrics,
    coco_table,
    load_results,
    oks_nms,
    rescore,
    soft_oks_nms,
)

ROOT = Path(__file__).resolve().parent.parent
HALF = np.array([0.5])  # a sigma that makes (2 sigma)^2 = 1
DOT = Skeleton("dot", joints=("dot",), pairs=(), limbs=(), sigmas=(0.5,))

# Three poses of one joint on a line, areas 20, 80 and 50. With (2 sigma)^2 = 1, OKS is exp(-d^2 / (2 area)):
#   a --3-- b ------7------ c     a-b: area 50, exp(-0.09) = 0.914
#                                 a-c: area 35, exp(-100/70) = 0.240    b-c: area 65, exp(-49/130) = 0.686
LINE = np.array([[[0.0, 5.0]], [[3.0, 5.0]], [[10.0, 5.0]]])
AREAS = np.array([20.0, 80.0, 50.0])
SCORES = np.array([0.9, 0.8, 0.7])


def test_oks_by_hand():
    here, there = np.array([[0.0, 0.0], [10, 10]]), np.array([[0.0, 4.0], [10, 10]])
    # d = 4, area 8: exp(-16 / 16) for the first joint, 1 for the second
    sigmas = np.array([0.5, 0.5])
    assert oks(here, there, np.array(8), sigmas) == pytest.approx((np.exp(-1) + 1) / 2)
    assert oks(here, there, np.array(8), sigmas, labelled=np.array([2, 0])) == pytest.approx(np.exp(-1))
    assert oks(here, there, np.array(8), sigmas, labelled=np.zeros(2)) == 0
    # A joint with half the fall-off forgives half the distance.
    assert oks(here[:1], there[:1] / 2, np.array(8), HALF / 2) == pytest.approx(np.exp(-1))


def test_oks_is_pycocotools_own():
    rng = np.random.default_rng(3)
    truth, guess = rng.uniform(0, 200, (4, 17, 2)), rng.uniform(0, 200, (5, 17, 2))
    guess[:4] = truth + rng.normal(size=truth.shape) * 8
    area = 9000.0  # the same for all; pycocotools takes the annotation's, suppression the mean of both
    evaluation = COCOeval(iouType="keypoints")
    evaluation._gts[1, 1] = [
        {"keypoints": np.insert(pose, 2, 2, axis=1).ravel(), "bbox": [0, 0, 1, 1], "area": area} for pose in truth
    ]
    evaluation._dts[1, 1] = [
        {"keypoints": np.insert(pose, 2, 1, axis=1).ravel(), "score": 1.0 - 0.1 * k} for k, pose in enumerate(guess)
    ]
    ours = oks(guess[:, None], truth[None], np.full((5, 4), area), np.array(COCO.sigmas))
    np.testing.assert_allclose(ours, evaluation.computeOks(1, 1), rtol=1e-12)
    assert 0.3 < ours.diagonal().min() < ours.diagonal().max() < 1


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.92, [0, 1, 2]),  # nobody is that alike
        (0.9, [0, 2]),  # b goes; gone, it takes nobody along
        (0.6, [0, 2]),  # b is alike c, but b is gone before its turn
        (0.2, [0]),
    ],
)
def test_oks_nms_on_paper(threshold, kept):
    assert oks_nms(LINE, SCORES, AREAS, HALF, threshold).tolist() == kept


def test_oks_nms_goes_by_score():
    assert oks_nms(LINE, SCORES[::-1], AREAS, HALF, 0.6).tolist() == [2, 0]  # c takes b; a stays
    assert oks_nms(LINE[:1], SCORES[:1], AREAS[:1], HALF, 0.6).tolist() == [0]
    assert oks_nms(LINE[:0], SCORES[:0], AREAS[:0], HALF, 0.6).tolist() == []


def test_a_similarity_of_exactly_the_threshold_stays():
    twins = np.zeros((2, 1, 2))
    assert oks_nms(twins, np.array([0.5, 0.6]), np.ones(2), HALF, 1.0).tolist() == [1, 0]
    assert oks_nms(twins, np.array([0.5, 0.6]), np.ones(2), HALF, 0.999).tolist() == [1]


def test_soft_oks_nms_on_paper():
    # a first: b falls to 0.8 exp(-0.914^2 / 0.5) = 0.150, c to 0.7 exp(-0.240^2 / 0.5) = 0.624; then c lowers b.
    ab, ac, bc = np.exp(-0.09), np.exp(-100 / 70), np.exp(-49 / 130)
    expected = [0.9, 0.8 * np.exp(-(ab**2 + bc**2) / 0.5), 0.7 * np.exp(-(ac**2) / 0.5)]
    np.testing.assert_allclose(soft_oks_nms(LINE, SCORES, AREAS, HALF, 0.5), expected)
    assert SCORES.tolist() == [0.9, 0.8, 0.7]


def test_rescoring_by_hand():
    joints = np.array([[0.9, 0.5, 0.1], [0.2, 0.1, 0.0], [1.0, 1.0, 1.0]])
    # above 0.2: (0.9 + 0.5) / 2; none, 0.2 is not above; all
    np.testing.assert_allclose(rescore(np.array([0.5, 0.9, 0.8]), joints, 0.2), [0.35, 0, 0.8])


def truth_of(*annotations, images=(1, 2)):
    defaults = {"category_id": 1, "iscrowd": 0, "num_keypoints": 1, "bbox": [0, 0, 50, 50], "area": 2500.0}
    people = [{**defaults, "id": number, **entry} for number, entry in enumerate(annotations)]
    return CocoAnnotations(
        Path("truth.json"),
        {image: {"id": image} for image in images},
        [{"id": 1, "name": "person"}],
        people,
        np.array([person["keypoints"] for person in people], float).reshape(-1, 1, 3),
        np.array([person["bbox"] for person in people], float).reshape(-1, 4),
    )


def result(image_id, x, score=1.0):
    return {"image_id": image_id, "category_id": 1, "keypoints": [x, 0.0, 1.0], "score": score}


def test_ap_of_one_person_found_and_one_missed():
    truth = truth_of({"image_id": 1, "keypoints": [10, 0, 2]}, {"image_id": 2, "keypoints": [10, 0, 2]})
    metrics = coco_metrics(truth, [result(1, 10.0)], DOT)
    assert metrics["AP"] == pytest.approx(51 / 101)  # precision 1 up to recall 0.5, at 51 of 101 steps
    assert metrics["AR"] == 0.5
    assert np.isnan(metrics["AP (L)"])  # nobody is large; pycocotools says -1
    # the first annotation's id is 0, which pycocotools alone would count as missed
    both = [result(1, 10.0), result(2, 10.0)]
    assert coco_metrics(truth, both, DOT)["AP"] == pytest.approx(1)
    for extra in ({"bbox": [0, 0, 1, 1]}, {"bbox": None}, {"caption": "a"}, {"segmentation": []}):
        assert coco_metrics(truth, [{**both[0], **extra}, both[1]], DOT)["AP"] == pytest.approx(1)


def test_ap_depends_on_the_skeletons_sigmas():
    truth = truth_of({"image_id": 1, "keypoints": [10, 0, 2]}, images=(1,))
    # d = 30, area 2500: exp(-900 / 5000) = 0.835 with sigma 0.5, found at 0.50 ... 0.80; nothing with 0.05
    assert coco_metrics(truth, [result(1, 40.0)], DOT)["AP"] == pytest.approx(0.7)
    sharp = Skeleton("sharp", joints=("dot",), pairs=(), limbs=(), sigmas=(0.05,))
    assert coco_metrics(truth, [result(1, 40.0)], sharp)["AP"] == 0


def plain_pycocotools(annotation_file, results):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = CocoApi(str(annotation_file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def noisy_results(truth):
    """Poses a little off, twice over, with arbitrary scores, and some persons missed."""
    rng = np.random.default_rng(0)
    results = []
    for entry in truth.annotations:
        for _ in range(rng.integers(0, 3)):
            keypoints = np.array(entry["keypoints"], float).reshape(-1, 3)
            keypoints[:, :2] += rng.normal(size=(17, 2)) * np.sqrt(entry["area"]) * 0.05
            common = {"image_id": entry["image_id"], "category_id": 1}
            results.append({**common, "keypoints": keypoints.ravel().tolist(), "score": float(rng.random())})
    return results


def test_figures_are_those_of_pycocotools_alone(real_data, tmp_path, run_command):
    annotations = real_data / "coco/annotations/person_keypoints_val2017.json"
    truth = read_coco(annotations, COCO)
    results = tmp_path / "results.json"
    results.write_text(json.dumps(noisy_results(truth)))
    expected = plain_pycocotools(annotations, results)
    assert 0.2 < expected[0] < 0.9
    figures = coco_metrics(truth, load_results(results, truth, COCO), COCO)
    np.testing.assert_array_equal(list(figures.values()), expected)
    finished = run_command(
        "evaluate.py", "--dataset", "coco", "--gt", annotations, "--pred", results, "--json", tmp_path / "scores.json"
    )
    assert finished.returncode == 0, finished.stderr
    np.testing.assert_array_equal(list(json.loads((tmp_path / "scores.json").read_text()).values()), expected)
    assert finished.stdout.splitlines()[2] == "| results | " + " | ".join(f"{value:.3f}" for value in expected) + " |"


def test_ground_truth_as_predictions_is_perfect(real_data):
    truth = read_coco(real_data / "coco/annotations/person_keypoints_val2017.json", COCO)
    results = [
        {**entry, "score": 1.0} for entry in truth.annotations if entry["num_keypoints"] and not entry["iscrowd"]
    ]
    results = [{key: r[key] for key in ("image_id", "category_id", "keypoints", "score")} for r in results]
    assert set(coco_metrics(truth, results, COCO).values()) == {1.0}


def test_the_table_is_the_originals():
    lines = coco_table("256x192_pose_resnet_50", dict.fromkeys(COLUMNS, 0.7041))
    assert lines[0] == ("| Arch | AP | Ap .5 | AP .75 | AP (M) | AP (L) | AR | AR .5 | AR .75 | AR (M) | AR (L) |")
    assert lines[2].startswith("| 256x192_pose_resnet_50 | 0.704 | ")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "is an empty list"),
        ({}, "holds a dict"),
        ([result(1, 0.0), result(3, 0.0), result(4, 0.0)], "2 for images that are not annotated, of 3 .*entry 1 is"),
        ([{**result(1, 0.0), "category_id": 2}], "1 of another category"),
        ([{**result(1, 0.0), "keypoints": [1, 2]}], "1 without 3 keypoint numbers"),
        ([result(1, float("nan"))], "1 with numbers that are not finite"),
        ([result(1, 10**400)], "malformed.*entry 0 is"),
        ([result(1, 1e308)], "1 with numbers that are not finite or much too large.*entry 0 is"),
        ([result([1], 0.0)], "malformed"),
        ([{**result(1, 0.0), "keypoints": "xyz"}], "malformed"),
        ([result(1, "12")], "malformed"),
        ([result(1, 0.0, float("inf"))], "1 with numbers that are not finite"),
        ([{"image_id": 1}, "pose"], "2 malformed"),
    ],
)
def test_results_of_another_set_are_refused(tmp_path, results, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    with pytest.raises(UserError, match=message):
        load_results(path, truth_of({"image_id": 1, "keypoints": [10, 0, 2]}), DOT)


def sample_of(image_id, box_score=1.0):
    return PoseSample("", np.zeros(2), np.array([5.0, 10.0]), np.zeros((1, 2)), np.zeros(1), image_id, 1, box_score)


@pytest.mark.parametrize(("soft", "scores"), [(False, [0.45, 0.1, 0.4]), (True, [0.45, 0.02, 0.1, 0.4])])
def test_evaluator_rescores_and_thins_out_image_by_image(tmp_path, soft, scores):
    # The first two poses coincide on image 1, the third is far off; image 2 has the same pose as the first.
    samples = [sample_of(1, 0.5), sample_of(1, 0.2), sample_of(1, 0.2), sample_of(2, 0.5)]
    truth = truth_of({"image_id": 1, "keypoints": [10, 0, 2]})
    threshold = 1 / np.log(9) if soft else 0.9  # soft: a twin keeps a ninth of its score
    evaluator = CocoEvaluator(samples, truth, DOT, "val", 0.2, threshold, soft)
    joints = np.array([[[10.0, 0]], [[10.0, 0]], [[99.0, 0]], [[10.0, 0]]])
    joint_scores = np.array([[0.9], [0.9], [0.5], [0.8]])
    for rows in ([3, 1], [0, 2], [0]):  # any order, a row twice
        evaluator.add(np.array(rows), joints[rows], joint_scores[rows])
    metrics = evaluator.compute()
    evaluator.save(tmp_path)
    assert metrics["AP"] == pytest.approx(1)
    written = json.loads((tmp_path / "results" / "keypoints_val_results.json").read_text())
    np.testing.assert_allclose([entry["score"] for entry in written], scores)
    assert [entry["image_id"] for entry in written] == [1] * (len(scores) - 1) + [2]
    assert written[0]["keypoints"] == [10.0, 0.0, 0.9]
    assert set(written[0]) == {"image_id", "category_id", "keypoints", "score"}
    evaluator.add(np.arange(4), joints + 99, joint_scores)  # the next epoch's, all of them wrong
    assert evaluator.compute()["AP"] == 0


def test_a_set_without_labels_is_written_not_scored(tmp_path):
    evaluator = CocoEvaluator([sample_of(1)], truth_of(), DOT, "test-dev2017", 0.2, 0.9)
    evaluator.add(np.array([0]), np.zeros((1, 1, 2)), np.ones((1, 1)))
    assert evaluator.compute() == {}
    evaluator.save(tmp_path)
    assert (tmp_path / "results" / "keypoints_test-dev2017_results.json").is_file()


def test_the_install_check_knows_right_from_wrong(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "cocoapi")
    import check

    monkeypatch.setattr(sys, "argv", ["check.py"])
    assert check.main() == 0
    monkeypatch.setattr(check, "OKS_OF_THE_LARGE_PERSON", 0.76)  # found at one more threshold than the figures say
    assert check.main() == 1
    assert "AP      0.801980  expected 0.752475  WRONG" in capsys.readouterr().out


def test_a_perfect_network_on_real_boxes(real_data):
    """Heatmaps drawn from the annotations instead of a network's: all that is between a box and its AP is ours."""
    root = real_data / "coco"
    truth = read_coco(root / "annotations/person_keypoints_val2017.json", COCO)
    people = load_coco(root, "val2017", COCO, 0.75)
    codec = HeatmapCodec((192, 256), (48, 64), 2)
    scores = {}
    for bbox_file in (None, root / "person_detection_results/val2017_nanodet_m_416.json"):
        samples = load_coco(root, "val2017", COCO, 0.75, bbox_file=bbox_file)
        evaluator = CocoEvaluator(samples, truth, COCO, "val2017", in_vis_threshold=0.2, oks_threshold=0.9)
        for row, sample in enumerate(samples):
            crop = np.concatenate([sample.center, sample.size])
            there = [person for person in people if person.image_id == sample.image_id] or [sample]
            nearest = min(there, key=lambda person: np.abs([*person.center, *person.size] - crop).sum())
            affine = crop_affine(sample.center, sample.size[0], 0.0, codec.extent_wh)
            heatmaps, _ = codec.encode(apply_affine(affine, nearest.joints), nearest.visible)
            joints, peaks = codec.decode(heatmaps)
            evaluator.add(np.array([row]), apply_affine(invert_affine(affine), joints)[None], peaks[None])
        scores[bbox_file is None] = evaluator.compute()["AP"]
    assert scores[True] > 0.97  # 1 but for the heatmap's cells
    assert 0.8 < scores[False] < 0.9  # the detector misses people and finds others twice
