"""Tracking: drawn people whose ids are known, and a network and a detector that see what is drawn."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from simplepose import PoseTracker, TrackingSettings, UserError
from simplepose.core.drawing import track_color
from simplepose.core.skeletons import COCO, MPII
from simplepose.inference.box_sources import detected_boxes
from simplepose.inference.detectors import person
from simplepose.inference.predictor import Crops, Pose
from simplepose.inference.smoothing import PoseSmoother
from simplepose.inference.sources import Frame, ImageFiles
from simplepose.inference.writers import Painter, PoseTrackResults
from simplepose.tracking.flow import Motion, dis_flow, is_cut
from simplepose.tracking.matching import (
    NONE,
    box_similarity,
    joint_boxes,
    match_greedily,
    match_optimally,
    pose_similarity,
    sigmas_of,
)
from simplepose.tracking.pipeline import follow_people

WIDTH, HEIGHT = 320, 200
PERSON_WH = (40, 90)
CORNERS = np.random.default_rng(7).uniform(0.1, 0.9, (16, 2))  # where the joints of everybody are in their box


def texture(seed: int, width: int, height: int) -> np.ndarray:
    """Spots that flow can follow."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


class Scene:
    """A film of drawn people, and in one a predictor and a detector that know what is in it.

    Args:
        frames: of each the people, name -> left and top; later ones are drawn over earlier ones.
        pan: how far the camera moves a frame, to the right.
        missed: (frame, name) that the detector does not find.
        unseen: (frame, name) that are drawn, but neither the detector nor the network find.
        scene_of: the number of the background of a frame, another one after a cut.
    """

    skeleton, detector = MPII, None

    def __init__(self, frames, pan: int = 0, missed=(), unseen=(), scene_of=lambda index: 0):
        self.frames, self.pan, self.scene_of = frames, pan, scene_of
        self.missed, self.unseen = set(missed), set(unseen)
        self.looked_at = 0  # frames that the network ran on

    def image(self, index: int) -> np.ndarray:
        self.now = index
        shift = self.pan * index
        wide = texture(self.scene_of(index), WIDTH + self.pan * len(self.frames), HEIGHT)
        image = np.ascontiguousarray(wide[:, shift : shift + WIDTH])
        for name, (left, top) in self.frames[index].items():
            left, top = round(left - shift), round(top)
            patch = texture(100 + ord(name), *PERSON_WH)
            inside = max(left, 0), min(left + PERSON_WH[0], WIDTH)
            if inside[0] < inside[1]:
                image[top : top + PERSON_WH[1], inside[0] : inside[1]] = patch[:, inside[0] - left : inside[1] - left]
        noise = np.random.default_rng(index).integers(0, 4, image.shape, dtype=np.uint8)  # no frame repeats another
        return cv2.add(image, noise)

    def boxes(self) -> dict[str, np.ndarray]:
        shift = self.pan * self.now
        return {
            name: np.array([x - shift, y, *PERSON_WH], float)
            for name, (x, y) in self.frames[self.now].items()
            if (self.now, name) not in self.unseen
        }

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [box for name, box in self.boxes().items() if (self.now, name) not in self.missed]
        return np.array(found).reshape(-1, 4), np.full(len(found), 0.8)

    def crop(self, image, boxes, scores) -> Crops:
        return Crops(np.zeros(0), np.zeros(0), np.asarray(boxes, float).reshape(-1, 4), np.asarray(scores))

    def predict(self, people):
        """The pose of whoever fills a box best; where nobody is, a pose with low scores."""
        self.looked_at += 1
        true = np.array(list(self.boxes().values())).reshape(-1, 4)
        poses = []
        for box, score in zip(people[0].boxes, people[0].box_scores):
            overlaps = box_similarity(box[None], true)[0]
            there = len(true) and overlaps.max() > 0.3
            shown = true[overlaps.argmax()] if there else box
            joints = shown[:2] + CORNERS * shown[2:]
            poses.append(Pose(joints, np.full(16, 0.9 if there else 0.05), box, float(score), MPII))
        return [poses]

    def tracks(self, settings: TrackingSettings | None = None, tracker: PoseTracker | None = None):
        """For each frame the ids by name."""
        tracker = tracker or PoseTracker(self, self.detect, settings)
        tracks = []
        for index in range(len(self.frames)):
            poses = tracker(self.image(index))
            places = {name: box[:2] + CORNERS[0] * PERSON_WH for name, box in self.boxes().items()}
            tracks.append(
                {
                    name: pose.track_id
                    for pose in poses
                    for name, place in places.items()
                    if np.linalg.norm(pose.keypoints[0] - place) < 3
                }
            )
            assert len(poses) == len(tracks[-1]), f"frame {index}: {len(poses)} poses for {tracks[-1]}"
        return tracks


def test_one_person_for_a_hundred_frames():
    scene = Scene([{"a": (20 + 2 * index, 50)} for index in range(100)])
    assert scene.tracks() == [{"a": 0}] * 100


def test_two_who_cross_keep_their_ids():
    """b goes behind a, and is not found for the five frames in which a quarter of it or more is covered."""
    frames = [{"b": (240 - 6 * index, 54), "a": (60 + 6 * index, 50)} for index in range(25)]
    unseen = [(index, "b") for index in range(25) if abs(180 - 12 * index) < 30]
    assert len(unseen) == 5
    tracks = Scene(frames, unseen=unseen).tracks()
    assert set(one_id_each(tracks).values()) == {0, 1} and sum("b" in ids for ids in tracks) == 20


def one_id_each(tracks: list[dict[str, int]]) -> dict[str, int]:
    """The id of each person, who has no other in any frame."""
    pairs = {pair for ids in tracks for pair in ids.items()}
    assert len({name for name, _ in pairs}) == len(pairs) == len({number for _, number in pairs}), pairs
    return dict(pairs)


@pytest.mark.parametrize("memory, comes_back", [(10, True), (5, False)])
def test_somebody_hidden_for_five_frames_comes_back(memory, comes_back):
    """a walks behind a pillar, p, and is hidden for as many frames as are remembered, or fewer; b stands."""
    frames = [{"a": (40 + 4 * index, 52), "p": (90, 50), "b": (200, 60)} for index in range(20)]
    unseen = [(index, "p") for index in range(20)] + [(index, "a") for index in range(10, 15)]
    tracks = Scene(frames, unseen=unseen).tracks(TrackingSettings(memory=memory))
    if comes_back:
        assert set(one_id_each(tracks).values()) == {0, 1}
    else:
        assert tracks[9]["a"] in (0, 1) and tracks[15]["a"] == 2
    assert sum("a" in ids for ids in tracks) == 15


def test_carried_boxes_find_whom_the_detector_misses():
    frames = [{"a": (40 + 4 * index, 50)} for index in range(12)]
    missed = [(index, "a") for index in range(3, 9)]
    assert Scene(frames, missed=missed).tracks() == [{"a": 0}] * 12
    tracks = Scene(frames, missed=missed).tracks(TrackingSettings(propagate=False))
    assert [bool(ids) for ids in tracks] == [True] * 3 + [False] * 6 + [True] * 3


def test_detected_boxes_come_before_carried_ones_whatever_their_scores():
    """Scores of a box file, in percent, that fall from frame to frame."""
    scene = Scene([{"a": (40 + 2 * index, 50)} for index in range(3)])
    tracker = PoseTracker(scene)
    for index, score in enumerate((90, 60, 30)):
        image = scene.image(index)
        (pose,) = tracker(image, scene.detect(image)[0], [score])
        assert pose.box_score == score


def test_a_false_detection_does_not_stay():
    """The network scores low there, so nothing is carried on."""
    scene = Scene([{"a": (40, 50)}] * 4)
    real = scene.detect

    def detect(image):
        boxes, scores = real(image)
        return np.vstack([boxes, [[200, 60, *PERSON_WH]]]), np.append(scores, 0.8)

    scene.detect = detect
    assert scene.tracks() == [{"a": 0}] * 4


def test_two_boxes_of_one_person_are_one_person():
    """They overlap by a third, too little for the suppression of boxes; the network finds one pose twice."""
    scene = Scene([{"a": (40 + 2 * index, 50)} for index in range(4)])
    real = scene.detect

    def detect(image):
        boxes, scores = real(image)
        return np.vstack([boxes - [10, 0, 0, 0], boxes + [10, 0, 0, 0]]), np.append(scores, 0.7)

    scene.detect = detect
    assert scene.tracks() == [{"a": 0}] * 4


def test_one_leaves_and_another_enters():
    frames = [{"a": (280 + 8 * index, 50)} for index in range(5)]
    frames += [{}] * 15
    frames += [{"b": (280 - 6 * index, 50)} for index in range(10)]
    tracks = Scene(frames).tracks()
    assert [ids for ids in tracks if ids] == [{"a": 0}] * 5 + [{"b": 1}] * 10, "an id is never used again"


def test_a_cut_starts_new_ids():
    scene = Scene([{"a": (60, 50), "b": (200, 60)}] * 8, scene_of=lambda index: 0 if index < 4 else 50)
    tracks = scene.tracks()
    assert [set(ids.values()) for ids in tracks] == [{0, 1}] * 4 + [{2, 3}] * 4


@pytest.mark.parametrize("similarity", ["flow", "pose", "bbox"])
def test_a_camera_that_moves(similarity):
    """24 pixels a frame, of the people's 40: boxes overlap by a quarter, and poses are alike only after the flow."""
    frames = [{"a": (90, 50), "b": (250, 60)}] * 2
    settings = TrackingSettings(similarity=similarity, propagate=False, min_similarity=0.3)
    first, second = Scene(frames, pan=24).tracks(settings)
    assert set(first.values()) == {0, 1}
    assert (first == second) == (similarity == "flow")


def test_short_and_empty_clips():
    assert Scene([{"a": (60, 50)}]).tracks() == [{"a": 0}]
    assert Scene([{}] * 3).tracks() == [{}] * 3
    assert list(follow_people([], lambda frame: None, PoseTracker(Scene([])))) == []


def test_a_repeated_frame_costs_nothing():
    scene = Scene([{"a": (60, 50)}] * 3)
    tracker = PoseTracker(scene, scene.detect)
    image = scene.image(0)
    first = tracker(image)
    assert tracker(image.copy()) is first and scene.looked_at == 1
    assert tracker(scene.image(1)) is not first and scene.looked_at == 2
    calls = []

    def boxes(frame):
        calls.append(frame.index)
        return scene.detect(frame.image)

    frames = [Frame(index, "clip", image.copy(), is_video=True) for index in range(3)]
    poses = [[pose.track_id for pose in poses] for _, poses in follow_people(frames, boxes, PoseTracker(scene))]
    assert poses == [[0]] * 3 and scene.looked_at == 3


def test_a_detector_looks_once_at_a_frame_that_a_video_repeats(monkeypatch):
    scene = Scene([{"a": (60, 50)}] * 2)
    calls = []
    monkeypatch.setattr(person, "PersonDetector", lambda *_: lambda image: calls.append(1) or scene.detect(image))
    image = scene.image(0)
    frames = [Frame(index, "clip", image.copy(), is_video=True) for index in range(3)]
    poses = [
        [pose.track_id for pose in poses]
        for _, poses in follow_people(frames, detected_boxes("d.onnx"), PoseTracker(scene))
    ]
    assert poses == [[0]] * 3 and len(calls) == scene.looked_at == 1
    boxes = detected_boxes("d.onnx")
    for name in ("a.jpg", "b.jpg"):  # of images, each is looked at
        boxes(Frame(0, name, image))
    assert len(calls) == 3


def test_a_repeated_frame_with_other_boxes_is_looked_at():
    scene = Scene([{"a": (60, 50)}])
    tracker, image = PoseTracker(scene), scene.image(0)
    boxes, scores = scene.detect(image)
    assert tracker(image, np.zeros((0, 4)), []) == []
    first = tracker(image, boxes, scores)
    assert [pose.track_id for pose in first] == [0] and tracker(image, boxes, scores) is first
    with pytest.raises(UserError):
        tracker(scene.image(0) // 2, [[60, 50, np.nan, 40]])
    again = tracker(scene.image(0) // 2, boxes, scores)
    assert len(again) == 1 and again is not first, "the answer to the frame before the one that failed"


def test_a_damaged_frame_is_passed_over():
    scene = Scene([{"a": (60 + 3 * index, 50)} for index in range(4)])
    tracker = PoseTracker(scene, scene.detect)
    frames = []
    for index in range(4):
        bad = index == 2
        frames.append(Frame(index, "clip", None if bad else scene.image(index), "torn" if bad else "", True))

    def boxes(frame):
        scene.now = frame.index
        return scene.detect(frame.image)

    found = list(follow_people(frames, boxes, tracker, live=True))
    assert [[pose.track_id for pose in poses] for _, poses in found] == [[0], [0], [], [0]]


def test_frames_of_another_size():
    """A stream that goes to half its resolution: the same ids; to another shape: a cut."""
    scene = Scene([{"a": (60, 50)}] * 3)
    motion = Motion()
    motion.see(scene.image(0))
    motion.see(cv2.resize(scene.image(1), (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(motion.carry(np.array([[80.0, 90.0]])), [[39.75, 44.75]], atol=0.3)
    motion.see(scene.image(2)[:100])
    assert motion.carry(np.array([[40.0, 45.0]])) is None


def test_flow_moves_points_with_the_picture():
    wide = texture(3, 400, 200)
    motion = Motion()
    motion.see(np.ascontiguousarray(wide[:, 20:340]))
    motion.see(np.ascontiguousarray(wide[:, 15:335]))  # the picture moves 5 to the right
    points = np.array([[100.0, 60.0], [200.0, 140.0], [500.0, 60.0]])  # the last one is outside
    np.testing.assert_allclose(motion.carry(points) - points, [[5, 0]] * 3, atol=0.6)
    assert motion.carry(np.zeros((0, 2))).shape == (0, 2)


def test_brightness_is_no_cut():
    grey = cv2.cvtColor(texture(1, 320, 200), cv2.COLOR_BGR2GRAY)
    assert not is_cut(grey, cv2.convertScaleAbs(grey, alpha=0.6, beta=40))
    assert is_cut(grey, cv2.cvtColor(texture(2, 320, 200), cv2.COLOR_BGR2GRAY))


def test_another_flow_is_a_plain_function():
    calls = []

    def flow(before, after):
        calls.append(before.shape)
        return dis_flow(before, after)

    scene = Scene([{"a": (60 + 3 * index, 50)} for index in range(4)])
    tracker = PoseTracker(scene, scene.detect, motion=Motion(flow))
    assert scene.tracks(tracker=tracker) == [{"a": 0}] * 4
    regions = [shape for shape in calls if shape != (64, 96)]
    assert len(calls) == 6 and all(width < WIDTH for _, width in regions), "once for the cut, once where people are"


# --- similarities by hand ------------------------------------------------------------------------------------------


def test_similarities_by_hand():
    boxes = box_similarity(np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 5, 5]]))
    np.testing.assert_allclose(boxes, [[1 / 3, 1, 0]])
    tracked = np.array([[[0.0, 0], [30, 40], [999, 999]]])
    known = np.array([[True, True, False]])
    np.testing.assert_allclose(joint_boxes(tracked, known), [[0, 0, 30, 40]])
    moved = tracked + [12.0, 0]
    sigma = 12 / (2 * np.sqrt(1200 * 2))  # so that 12 pixels are exp(-1) on an area of 30 x 40
    similarity = pose_similarity(np.stack([tracked[0], moved[0]]), tracked, known, np.full(3, sigma))
    np.testing.assert_allclose(similarity, [[1], [np.exp(-1)]])
    assert pose_similarity(tracked, tracked, np.zeros((1, 3), bool), np.full(3, sigma)) == 0
    np.testing.assert_allclose(joint_boxes(tracked, np.zeros((1, 3), bool)), [[0, 0, 0, 0]])


def test_greedy_and_hungarian_by_hand():
    similarity = np.array([[0.9, 0.8], [0.8, 0.1]])
    assert match_greedily(similarity, 0.05).tolist() == [0, 1], "0.9 first, then what is left"
    assert match_optimally(similarity, 0.05).tolist() == [1, 0], "0.8 + 0.8 is more"
    assert match_greedily(similarity, 0.5).tolist() == [0, NONE]
    assert match_greedily(np.array([[0.9, -2], [-3, 0.1]]), -5).tolist() == [0, 1]
    assert match_optimally(np.array([[0.9, 0.4], [0.4, 0.1]]), 0.5).tolist() == [0, NONE]
    for match in (match_greedily, match_optimally):
        assert match(np.zeros((2, 0)), 0.1).tolist() == [NONE, NONE]
        assert match(np.zeros((0, 2)), 0.1).tolist() == []


def test_every_skeleton_can_be_compared():
    assert sigmas_of(COCO).tolist() == list(COCO.sigmas)
    assert sigmas_of(MPII)[MPII.joints.index("left_wrist")] == 0.062


def test_wrong_settings_and_boxes_are_told():
    with pytest.raises(UserError, match="flow, pose, bbox"):
        TrackingSettings(similarity="colour")
    with pytest.raises(UserError, match="memory is 0"):
        TrackingSettings(memory=0)
    scene = Scene([{"a": (60, 50)}] * 2)
    tracker = PoseTracker(scene, scene.detect)
    tracker(scene.image(0))
    with pytest.raises(UserError, match="boxes must be"):
        tracker(scene.image(1), [[1, 2, 3]])


# --- smoothing, drawing, writing -----------------------------------------------------------------------------------


def pose(x: float, track: int | None) -> Pose:
    return Pose(CORNERS * 50 + (x, 20), np.full(16, 0.9), np.array([x, 20.0, 50, 50]), 0.8, MPII, track)


def test_each_track_is_smoothed_by_itself():
    smoother = PoseSmoother(fps=25, min_score=0.2)
    smoother([pose(0, 4), pose(100, 9)])
    first, second = smoother([pose(110, 9), pose(0, 4)])
    assert 100 < first.keypoints[0, 0] - CORNERS[0, 0] * 50 < 109 and (first.track_id, second.track_id) == (9, 4)
    np.testing.assert_allclose(second.keypoints, pose(0, 4).keypoints)
    assert smoother.skipped == 0
    smoother([pose(0, 4)])
    (back,) = smoother([pose(200, 9)])
    np.testing.assert_allclose(back.keypoints, pose(200, 9).keypoints, err_msg="who was away starts anew")


def test_colours_stay_with_the_track():
    assert len({track_color(number) for number in range(20)}) == 20
    painter = Painter(MPII, 0.2, numbers=True, trails=True)
    for x in (20, 60, 100):
        image = np.zeros((120, 200, 3), np.uint8)
        painter.draw(image, [pose(x, 3)])
        assert (image == track_color(3)).all(axis=-1).any()
    start = (pose(20, 3).keypoints.mean(axis=0) + pose(60, 3).keypoints.mean(axis=0)) / 2
    assert tuple(image[round(start[1]), round(start[0])]) == track_color(3), "the trail"


def test_posetrack_results_are_read_back(tmp_path):
    from simplepose.data.posetrack import JOINTS, read_sequence

    source = ImageFiles("frames", ["frames/1.jpg", "frames/2.jpg"], True)
    output = PoseTrackResults(MPII, tmp_path / "poses.json", source)
    output.add(Frame(0, "frames/1.jpg", None), [pose(10, 5), pose(90, 2)])
    output.add(Frame(1, "frames/2.jpg", None), [])
    output.close()
    first, second = read_sequence(tmp_path / "poses.json")
    assert (first.image, second.image) == ("frames/1.jpg", "frames/2.jpg")
    assert first.ids.tolist() == [5, 2] and len(second.ids) == 0
    for theirs, ours in (("head_bottom", "upper_neck"), ("left_wrist", "left_wrist")):
        place = pose(90, 2).keypoints[MPII.joints.index(ours)]
        np.testing.assert_allclose(first.joints[1, JOINTS.index(theirs)], place, atol=0.006)
    assert [JOINTS[column] for column in np.flatnonzero(~first.known[0])] == ["nose"], "MPII has none"
    np.testing.assert_allclose(first.scores[0][first.known[0]], 0.9)


@pytest.mark.parametrize("size_hw", [(1, 1), (5, 40), (12, 12), (33, 20)])
def test_tiny_frames_do_not_stop_it(size_hw):
    motion, rng = Motion(), np.random.default_rng(0)
    for _ in range(2):
        motion.see(rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8))
    carried = motion.carry(np.array([[0.0, 0.0], [400.0, 3.0]]))
    assert carried is None or np.isfinite(carried).all()


def test_flow_follows_real_people(real_data):
    """Visible joints of a real video move 0.26 heads a frame; after the flow they are 0.07 off, in the median."""
    folder = real_data / "video/060470979"
    people = [frame["people"] for frame in json.loads((folder / "annotation.json").read_text())["frames"]]
    joints, visible, rects = (
        np.array([[person[name] for person in frame] for frame in people])
        for name in ("joints", "joints_visible", "head_rect")
    )  # (F, P, K, 2), (F, P, K), (F, P, 4): the same four people in every frame
    heads = 0.6 * np.linalg.norm(rects[..., 2:] - rects[..., :2], axis=-1)
    motion, errors = Motion(), []
    for index in range(len(people)):
        assert motion.see(cv2.imread(str(folder / f"frames/{index + 1:05d}.jpg")))
        carried = motion.carry(joints[index - 1].reshape(-1, 2))
        assert (carried is None) == (index == 0), "there is no cut"
        if index:
            away = np.linalg.norm(carried.reshape(4, 16, 2) - joints[index], axis=-1) / heads[index, :, None]
            errors += away[(visible[index] & visible[index - 1]) > 0].tolist()
    assert len(errors) > 1000 and np.median(errors) < 0.1
