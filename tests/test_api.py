"""PosePredictor as a program uses it: images, boxes, a detector, a device; and what a Pose can do."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from simplepose import Pose, PosePredictor, UserError
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.inference.network import PoseNetwork


def brightest(images: np.ndarray) -> np.ndarray:
    """Heatmaps of a network that sees every joint where the blue channel, pooled 4 x 4, is brightest."""
    num, _, height, width = images.shape
    pooled = images[:, :1].reshape(num, 1, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
    return np.repeat(pooled / 8 + 0.6, 16, axis=1)


NETWORK = PoseNetwork(brightest, MPII, HeatmapCodec((48, 64), (12, 16), 2), INPUT_FORMATS["bgr"])


@pytest.fixture
def predictor() -> PosePredictor:
    return PosePredictor(NETWORK)


@pytest.fixture
def image() -> np.ndarray:
    """A dark picture with a blue spot around (30, 20)."""
    image = np.zeros((80, 120, 3), np.uint8)
    image[16:24, 26:34, 0] = 255
    return image


def same(poses: list[Pose], expected: list[Pose]) -> bool:
    return len(poses) == len(expected) and all(
        np.array_equal(one.keypoints, other.keypoints) for one, other in zip(poses, expected)
    )


def test_files_pillow_images_gray_and_transparent_ones(predictor, image, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    expected = predictor(image)
    assert np.abs(expected[0].keypoints - [29.5, 19.5]).max() < 10
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), image)
    rgb = np.ascontiguousarray(image[..., ::-1])
    transparent = np.dstack([image, np.zeros((80, 120), np.uint8)])
    for given in (
        path, str(path), pillow.open(path), pillow.fromarray(rgb), pillow.fromarray(rgb).convert("RGBA"), transparent,
        np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)[::2, ::2], rgb[..., ::-1],
    ):  # fmt: skip
        assert same(predictor(given), expected)
    gray = np.ascontiguousarray(image[..., 0])
    expected = predictor(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR))
    for given in (gray, gray[..., None], pillow.fromarray(gray)):
        assert same(predictor(given), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "the image is None"),
        (np.zeros((9, 9, 3)), "float64 values up to 0; scale them to 0 to 255 and use .astype"),
        (np.ones((9, 9, 3), np.float32), "float32 values up to 1; scale"),
        (np.zeros((9, 9, 3), np.uint16), "uint16"),
        (np.zeros((9, 9), bool), "bool"),
        (np.zeros((3, 20, 30), np.uint8), r"\(3, 20, 30\), not \(H, W, 3\).*transpose\(1, 2, 0\)"),
        (np.zeros((2, 20, 30, 3), np.uint8), r"\(2, 20, 30, 3\).* a list"),
        (np.zeros((20, 30, 2), np.uint8), r"\(20, 30, 2\)"),
        (np.zeros((0, 30, 3), np.uint8), "empty"),
        (np.zeros(5, np.uint8), r"\(5,\)"),
        (7, "a int is no image"),
        ("none.jpg", "no such image: none.jpg"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(predictor, given, message):
    with pytest.raises(UserError, match=message) as caught:
        predictor(given)
    assert "\n" not in str(caught.value)


def test_a_pillow_image_of_16_bits_is_refused(predictor):
    pillow = pytest.importorskip("PIL.Image")
    with pytest.raises(UserError, match="mode I"):
        predictor(pillow.fromarray(np.zeros((9, 9), np.int32)))


@pytest.mark.parametrize(
    ("boxes", "scores", "message"),
    [
        ([[0, 0, 9, np.nan]], None, "no area, or a number that is NaN"),
        ([[0, 0, 9, 0]], None, "no area"),
        ([[0, 0, 9]], None, r"\(1, 3\)"),
        (list(range(8)), None, r"\(8,\)"),
        ([["a", 0, 9, 9]], None, "numbers"),
        ([[0, 0, 9, 9]], [1, 2], "as many finite scores"),
        ([[0, 0, 9, 9]], [np.nan], "as many finite scores"),
    ],
)
def test_what_is_no_box_is_refused_in_a_sentence(predictor, image, boxes, scores, message):
    with pytest.raises(UserError, match=message):
        predictor(image, boxes, scores)


def test_a_list_of_images_and_one_bare_box(image):
    sizes = []

    def counted(images):
        sizes.append(len(images))
        return brightest(images)

    predictor = PosePredictor(replace(NETWORK, run=counted))
    box = [10, 5, 60, 60]
    both = predictor([image, image[::-1]], [box, [box, box]], [None, [0.5, 0.25]])
    assert sizes == [3]
    assert same(both[0], predictor(image, box))
    assert [pose.box_score for pose in both[1]] == [0.5, 0.25]
    assert [len(poses) for poses in predictor([image, image])] == [1, 1]
    assert predictor([]) == []
    with pytest.raises(UserError, match="for 2 images boxes_xywh must have as many entries, not 1"):
        predictor([image, image], [box])


def test_who_has_no_pose_is_told(predictor, image, caplog):
    assert [pose.box.tolist() for pose in predictor(image, [[500, 0, 9, 9], [0, 0, 50, 50]])] == [[0, 0, 50, 50]]
    assert "500,0,9,9" in caplog.text and "120x80" in caplog.text
    sick = PosePredictor(replace(NETWORK, run=lambda images: brightest(images) * np.float32(np.nan)))
    assert sick(image) == []
    assert "NaN" in caplog.text


def test_a_detector_is_asked_where_no_boxes_are_given(image):
    seen = []

    def detector(picture):
        seen.append(picture.shape)
        return [[10, 5, 60, 60]], [0.5]

    predictor = PosePredictor(NETWORK, detector=detector)
    (pose,) = predictor(image[..., 0])
    assert (seen, pose.box.tolist(), pose.box_score) == ([(80, 120, 3)], [10, 5, 60, 60], 0.5)
    assert pose.score == pytest.approx(0.5 * pose.pose_score)
    assert predictor(image, [[0, 0, 9, 9]])[0].box.tolist() == [0, 0, 9, 9]
    assert len(seen) == 1
    assert PosePredictor(NETWORK, detector=lambda picture: (np.zeros((0, 4)), np.zeros(0)))(image) == []


def test_a_photograph_by_name_is_enough(posenet, tmp_path):
    from test_detectors import constant_graph, yolox_rows

    rows = yolox_rows(42, 37, [0.5, 0.25, np.log(2), np.log(1), 0.8])
    constant_graph(tmp_path / "yolox.onnx", {"images": [1, 3, 32, 64]}, [rows])
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((64, 128, 3), 90, np.uint8))
    predictor = PosePredictor(posenet[1], detector=tmp_path / "yolox.onnx")
    (pose,) = predictor(tmp_path / "photo.jpg")
    np.testing.assert_allclose(pose.box, [16, 24, 64, 32], rtol=1e-5)
    assert pose.box_score == pytest.approx(0.72)
    with pytest.raises(UserError, match="no such ONNX file"):
        PosePredictor(posenet[1], detector="none.onnx")


def test_a_pose_knows_its_joints_says_itself_and_draws_itself(predictor, image):
    (pose,) = predictor(image, [[10, 5, 60, 60]], [0.5])
    assert pose.joints == MPII.joints
    told = json.loads(json.dumps(pose.to_dict(), allow_nan=False))
    assert told["bbox"] == [10, 5, 60, 60]
    assert told["score"] == pytest.approx(told["box_score"] * told["pose_score"])
    assert list(told["keypoints"]) == list(MPII.joints)
    assert told["keypoints"]["pelvis"]["x"] == pytest.approx(pose.keypoints[MPII.joints.index("pelvis"), 0])
    before = image.copy()
    assert pose.draw(image) is image
    assert (image != before).any()
    gray = before[..., 0].copy()
    drawn = pose.draw(gray)
    assert drawn.shape == (80, 120, 3) and (gray == before[..., 0]).all()
    np.testing.assert_array_equal(pose.draw(before, min_score=99), before)


def test_the_device_is_a_choice(posenet, image, monkeypatch):
    import onnxruntime

    for device in ("cpu", "CPUExecutionProvider", None):
        assert PosePredictor(posenet[1], device=device).network.run.session.get_providers() == ["CPUExecutionProvider"]
    for device in ("cuda", "gpu:x", "NoSuchProvider"):
        with pytest.raises(UserError, match=f"device is '{device}', and this ONNX Runtime has .*CPUExecutionProvider"):
            PosePredictor(posenet[1], device=device)
    with pytest.raises(UserError, match="device is for a network from a file"):
        PosePredictor(NETWORK, device="cpu")
    with pytest.raises(UserError, match="Paddle cannot use the device 'gpu:x'"):
        PosePredictor(posenet[0], device="gpu:x")
    assert len(PosePredictor(posenet[0], device="cpu")(image)) == 1

    asked = []

    class Session:
        def __init__(self, path, options, providers):
            asked.append(providers)

        def get_providers(self):
            return ["CPUExecutionProvider"]  # as when CUDA's libraries are not found

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(UserError, match="cannot start its CUDAExecutionProvider"):
        PosePredictor(posenet[1], device="gpu:1")
    assert asked == [[("CUDAExecutionProvider", {"device_id": 1}), ("CPUExecutionProvider", {})]]
