"""The search for a person with the pose network alone, with a made-up network that knows where the person is."""

from __future__ import annotations

import numpy as np
import pytest

import deploy
from simplepose.core.geometry import BOX_PADDING, overlap
from simplepose.inference.box_sources import found_person
from simplepose.inference.person_search import find_person, first_boxes
from simplepose.inference.sources import Frame

JOINTS = np.array([[300, 100], [340, 100], [300, 200], [340, 200]], float)  # a person of 40x100 pixels
PERSON = np.array([298, 95, 44, 110], float)  # the box around them, a tenth larger


class Knowing:
    """Sees the joints that its crop shows, the better the closer the crop is to twice the person's height."""

    def __init__(self, joints=JOINTS):
        self.joints, self.looks = joints, []

    def __call__(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.looks.append(len(boxes))
        side = boxes[:, 2:].max(axis=1) * BOX_PADDING
        middle = boxes[:, :2] + boxes[:, 2:] / 2
        inside = (np.abs(self.joints - middle[:, None]) < side[:, None, None] / 2).all(axis=2)  # (P, K)
        fit = np.exp(-np.abs(np.log(side / 200)))
        return np.repeat(self.joints[None], len(boxes), axis=0), inside * fit[:, None]


def test_first_boxes_by_hand():
    boxes = first_boxes((400, 200))
    sides = boxes[:, 2] * BOX_PADDING
    assert (boxes[:, 2] == boxes[:, 3]).all()
    assert [int((abs(sides - side) < 1e-9).sum()) for side in (400, 280, 200, 140)] == [1, 2, 3, 10]
    middle = boxes[:, :2] + boxes[:, 2:] / 2
    assert middle[0].tolist() == [200, 100]
    assert np.allclose(middle[1:3], [[140, 100], [260, 100]])
    assert (abs(middle - [200, 100]) + sides[:, None] / 2 <= np.maximum(sides[:, None] / 2, [200, 100]) + 1e-9).all()


def test_a_small_person_is_boxed():
    network = Knowing()
    box = find_person(network, (640, 480))
    assert np.allclose(box, PERSON)
    assert network.looks[1:] == [1]  # the second look finds the same box, so it has settled


def test_it_looks_three_times_at_most():
    """The third look is the prediction itself. This network sees the person elsewhere each time."""
    network, looks = Knowing(), []

    def restless(boxes):
        looks.append(len(boxes))
        keypoints, scores = network(boxes)
        return keypoints + 50 * len(looks), np.ones_like(scores)

    box = find_person(restless, (640, 480))
    assert len(looks) == 3 and np.allclose(box, PERSON + [150, 150, 0, 0])


@pytest.mark.parametrize(
    "joints, scores",
    [(JOINTS, 0.1), (JOINTS, np.nan), (JOINTS * np.nan, 1.0), (JOINTS - 900, 1.0), (JOINTS * 0 + 7, 1.0)],
    ids=["unsure", "NaN scores", "NaN joints", "beside the image", "all in one place"],
)
def test_where_nobody_is_found_the_image_is_the_box(joints, scores):
    def network(boxes):
        return np.repeat(joints[None], len(boxes), axis=0), np.full((len(boxes), 4), scores)

    assert find_person(network, (640, 480)).tolist() == [0, 0, 640, 480]


def test_in_a_video_the_person_is_followed_and_looked_for_anew_when_lost():
    network, shown = Knowing(), []

    class Predictor:
        def find_person(self, image, near):
            shown.append(near)
            return find_person(network, image.shape[1::-1], near)

    source = found_person(Predictor())
    image = np.zeros((480, 640, 3), np.uint8)
    for index, moved in enumerate((0, 5, 200)):
        network.joints = JOINTS + [0, moved]
        boxes, scores = source(Frame(index, "clip.mp4", image, is_video=True))
        assert np.allclose(boxes, PERSON + [0, moved, 0, 0]) and scores.tolist() == [1]
    assert shown[0] is None and np.allclose(shown[1], PERSON)
    many = len(first_boxes((640, 480)))
    assert network.looks == [many, 1, 1, 1, many, 1]
    source(Frame(1, "next.mp4", image, is_video=True))  # its first frame is damaged
    assert shown[3] is None


def test_overlap_by_hand():
    assert overlap(np.array([0, 0, 2, 2.0]), np.array([1, 0, 2, 2.0])) == pytest.approx(2 / 6)
    assert overlap(np.array([0, 0, 1, 1.0]), np.array([5, 5, 1, 1.0])) == 0


def test_deploy_searches_as_the_library_does():
    class Deployed(deploy.PoseModel):
        def __init__(self):
            self.network, self.flip_test = Knowing(), True

        def __call__(self, image, boxes):
            assert not self.flip_test
            return self.network(np.asarray(boxes))

    for size_wh in ((640, 480), (300, 900), (50, 50)):
        assert np.allclose(deploy.first_boxes(size_wh), first_boxes(size_wh))
    assert np.allclose(Deployed().find_person(np.zeros((480, 640, 3), np.uint8)), PERSON)
    nobody = np.zeros((480, 250, 3), np.uint8)  # the person is beside this image
    assert Deployed().find_person(nobody).tolist() == find_person(Knowing(), (250, 480)).tolist() == [0, 0, 250, 480]
