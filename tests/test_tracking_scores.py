"""PoseTrack's files and scores, by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simplepose import UserError
from simplepose.data.posetrack import JOINTS, PeopleOfFrame, read_sequence
from simplepose.metrics.tracking import above, pair_frames

KNEES = [JOINTS.index("right_knee"), JOINTS.index("left_knee")]


def frame(name: str, people: dict[int, float], head: float = 10.0) -> PeopleOfFrame:
    """People by id, each with two knees, 30 pixels apart, at an x."""
    joints, known = np.zeros((len(people), 15, 2)), np.zeros((len(people), 15), bool)
    for row, x in enumerate(people.values()):
        joints[row, KNEES], known[row, KNEES] = [[x, 50], [x + 30, 80]], True
    scores = np.tile(0.9 - 0.1 * np.arange(len(people))[:, None], (1, 15))
    return PeopleOfFrame(name, np.array(list(people), int), joints, known, scores, np.full(len(people), head))


def five_frames() -> tuple[list[PeopleOfFrame], list[PeopleOfFrame]]:
    """Two people stand at 10 and 100. The tracker misses one in frame 1, exchanges them in frame 2, and in frame 4
    sees a third who is not there. Once it is 2 pixels off, a fifth of a head.
    """
    truth = [frame(f"a/{index}.jpg", {7: 10, 8: 100}) for index in range(5)]
    found = [{0: 10, 1: 100}, {0: 12}, {1: 10, 0: 100}, {1: 10, 0: 100}, {1: 10, 0: 100, 5: 300}]
    return truth, [frame(f"b/{index}.png", people) for index, people in enumerate(found)]


def test_scores_of_five_frames_by_hand():
    pytest.importorskip("trackeval", reason='TrackEval is not installed: pip install ".[tracking]"')
    from simplepose.metrics.tracking import tracking_metrics, tracking_table

    metrics = tracking_metrics([pair_frames(*five_frames(), "b")])
    # 10 annotated; 1 missed, 1 false, 2 switches.
    assert metrics["MOTA"] == pytest.approx(100 * (1 - 4 / 10)) and metrics["MOTA right_knee"] == metrics["MOTA"]
    assert metrics["switches"] == 4 and metrics["switches left_knee"] == 2, "the total is of both knees"
    assert metrics["fragments left_knee"] == 1
    # 9 right, of which one a fifth of a head away.
    assert metrics["MOTP"] == pytest.approx(100 * (1 - 0.2 / 9))
    # The best assignment of tracks is that of the last three frames: 6 of 10 annotated and of 10 predicted.
    assert metrics["IDF1"] == pytest.approx(60)
    # By score: the first of each frame are right (5), the second (4) too, the third is not: recall 9 / 10, precision 1.
    assert metrics["AP"] == pytest.approx(90)
    assert metrics["people MOTA"] == pytest.approx(60) and metrics["people switches"] == 2
    # HOTA is the mean over 19 thresholds, of sqrt(detection x association). Up to 0.8 nine are right of 9 + 1 + 1; the
    # pairs of tracks (7,0), (8,1), (7,1), (8,0) share 2, 1, 3, 3 of 8, 8, 6, 7 frames. Beyond, one is not right.
    lower = np.sqrt(9 / 11 * (2 * 2 / 8 + 1 / 8 + 3 * 3 / 6 + 3 * 3 / 7) / 9)
    upper = np.sqrt(8 / 12 * (1 / 9 + 1 / 8 + 3 * 3 / 6 + 3 * 3 / 7) / 8)
    assert metrics["HOTA"] == pytest.approx(100 * (16 * lower + 3 * upper) / 19)
    assert np.isnan(metrics["MOTA nose"])
    knee = tracking_table(metrics)[3].split("|")[7]
    assert knee.strip() == "60.0"


def test_half_a_head_is_the_limit():
    pytest.importorskip("trackeval", reason='TrackEval is not installed: pip install ".[tracking]"')
    from simplepose.metrics.tracking import tracking_metrics

    for distance, mota in ((5.0, 100), (5.1, -100)):  # beyond it one is missed and one false
        pairs = pair_frames([frame("0.jpg", {1: 0})], [frame("0.jpg", {4: distance})], "b")
        assert tracking_metrics([pairs])["MOTA"] == pytest.approx(mota)


def test_frames_are_paired_by_name_and_regions_ignored():
    truth, found = five_frames()
    pairs = pair_frames(truth, found[1:], "b")
    assert len(pairs) == 5 and len(pairs[0][1].ids) == 0 and pairs[1][1].ids.tolist() == [0]
    assert len(pair_frames([*truth, frame("a/9.jpg", {})], found, "b")) == 5, "frames without annotated people"
    renamed = [frame(f"video/{index:06d}.jpg", {1: 10}) for index in range(100, 105)]
    assert len(pair_frames(truth, renamed, "b")) == 5, "by order"
    with pytest.raises(UserError, match="3 frames that cannot be told"):
        pair_frames(truth, renamed[:3], "b")
    region = np.array([[90.0, 0], [400, 0], [400, 200], [90, 200]])
    ignoring = [PeopleOfFrame(**{**vars(each), "ignored": (region,)}) for each in truth]
    for right, left in pair_frames(ignoring, found, "b"):
        assert right.ids.tolist() == [7] and left.joints[left.known].max() <= 90
    assert above(found[4], 0.75).ids.tolist() == [1, 0]


def as_2018(people: dict[int, float]) -> dict:
    each = frame("", people)
    annotations = []
    for number, joints, known in zip(each.ids, each.joints, each.known):
        keypoints = np.column_stack([joints, known]).ravel().tolist()
        entry = {"image_id": 3, "track_id": int(number), "keypoints": keypoints, "bbox_head": [0, 0, 6, 8]}
        annotations.append(entry)
    images = [{"id": 3, "file_name": "a/0.jpg", "ignore_regions_x": [[1, 2, 3]], "ignore_regions_y": [[1, 2, 1]]}]
    return {"images": images, "annotations": annotations, "categories": [{"keypoints": list(JOINTS)}]}


def as_2017(people: dict[int, float]) -> dict:
    each = frame("", people)
    rects = []
    for number, joints, known in zip(each.ids, each.joints, each.known):
        points = [{"id": [int(k)], "x": [joints[k, 0]], "y": [joints[k, 1]]} for k in np.flatnonzero(known)]
        head = {"x1": [0], "y1": [0], "x2": [6], "y2": [8]}
        rects.append({"track_id": [int(number)], **head, "annopoints": [{"point": points}]})
    corners = [{"x": [x], "y": [y]} for x, y in ((1, 1), (2, 2), (3, 1))]
    image = {"image": [{"name": "a/0.jpg"}], "annorect": rects, "ignore_regions": [{"point": corners}]}
    return {"annolist": [image]}


@pytest.mark.parametrize("form", [as_2017, as_2018])
def test_both_forms_are_read(form, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(form({7: 10, 8: 100})))
    (each,) = read_sequence(tmp_path / "a.json")
    assert each.image == "a/0.jpg" and each.ids.tolist() == [7, 8]
    assert each.head_sizes.tolist() == [6, 6]  # 0.6 x the diagonal of 6 x 8
    assert np.flatnonzero(each.known[0]).tolist() == KNEES and each.joints[1, KNEES[0]].tolist() == [100, 50]
    assert each.ignored[0].tolist() == [[1, 1], [2, 2], [3, 1]]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda content: content.pop("images"), "not in PoseTrack's form"),
        (lambda content: content.pop("categories"), "must list the names"),
        (lambda content: content["images"].append(content["images"][0]), "the id 3 of an earlier one"),
        (lambda content: content["annotations"][0].update(image_id=9), "of the image 9"),
        (lambda content: content["annotations"][0].update(track_id="7"), "no track_id"),
        (lambda content: content["annotations"].append(content["annotations"][0]), "two people of the image a/0.jpg"),
        (lambda content: content["annotations"][0].update(keypoints=[1, 2]), "keypoints is a list of 2"),
        (lambda content: content["annotations"][0].update(keypoints=[float("nan")] * 45), "is nan"),
        (lambda content: content["annotations"][0].update(bbox_head=None), "bbox_head is None"),
        (lambda content: content["categories"][0].update(keypoints=["tail"]), "none of its joints"),
        (lambda content: content["images"][0].update(ignore_regions_x=7), "ignore_regions_x"),
        (lambda content: content.update(annolist=[{"image": []}]), "form of 2017"),
        (lambda content: content.update(annolist=7), "form of 2017"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_a_line(change, message, tmp_path):
    content = as_2018({7: 10})
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        read_sequence(tmp_path / "a.json")


def test_evaluate_scores_folders(tmp_path, run_command):
    pytest.importorskip("trackeval", reason='TrackEval is not installed: pip install ".[tracking]"')
    for folder, people in (("gt", {7: 10, 8: 100}), ("pred", {0: 10, 1: 100})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.json").write_text(json.dumps(as_2018(people)))
    arguments = ("--dataset", "posetrack", "--gt", "gt", "--pred", "pred")
    finished = run_command("evaluate.py", *arguments, "--json", "scores.json", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["MOTA"] == scores["IDF1"] == scores["people HOTA"] == 100 and scores["MOTA nose"] is None
    (tmp_path / "gt" / "b.json").write_text("{}")
    finished = run_command("evaluate.py", *arguments, cwd=tmp_path)
    assert finished.returncode == 2 and "pred has no b.json" in finished.stderr
