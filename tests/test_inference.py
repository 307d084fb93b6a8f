"""The flip test and PosePredictor, with networks whose answer is known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_description, write_tiny_onnx

import deploy
from simplepose import PosePredictor
from simplepose.build.predictor import load_pose_network
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS, denormalize, normalize
from simplepose.core.skeletons import COCO, MPII, SKELETONS
from simplepose.inference.network import InferenceSettings, PoseNetwork, predict_heatmaps


def local_network(images: np.ndarray) -> np.ndarray:
    """A network that sees no left or right: joint k is a fixed mix of the channels, pooled 4 x 4."""
    num, _, height, width = images.shape
    pooled = images.reshape(num, 3, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
    mix = np.random.default_rng(0).normal(size=(16, 3))
    mix = mix + mix[MPII.flip_permutation]  # left and right alike, so that a mirror changes nothing but places
    return np.einsum("kc,nchw->nkhw", mix, pooled)


def test_flip_test_without_shift_is_equivariant():
    # Averaging with the mirror: mirrored input must give exactly the mirrored, swapped output.
    images = np.random.default_rng(1).normal(size=(2, 3, 32, 24))
    settings = InferenceSettings(flip_test=True, shift_heatmap=False)
    straight = predict_heatmaps(local_network, images, MPII.flip_permutation, settings)
    mirrored = predict_heatmaps(local_network, images[..., ::-1], MPII.flip_permutation, settings)
    np.testing.assert_array_equal(mirrored[:, MPII.flip_permutation, :, ::-1], straight)


def test_flip_test_is_the_average_of_both_passes():
    images = np.random.default_rng(2).normal(size=(1, 3, 8, 8))
    asymmetric = lambda batch: local_network(batch) * np.arange(1, 3)  # noqa: E731
    once = asymmetric(images)
    flipped = asymmetric(images[..., ::-1])[:, MPII.flip_permutation, :, ::-1]
    both = predict_heatmaps(asymmetric, images, MPII.flip_permutation, InferenceSettings(True, False))
    np.testing.assert_allclose(both, (once + flipped) / 2)
    alone = predict_heatmaps(asymmetric, images, MPII.flip_permutation, InferenceSettings(False))
    np.testing.assert_array_equal(alone, once)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda skeleton: skeleton.name)
def test_skeletons_are_whole(skeleton):
    permutation = skeleton.flip_permutation
    np.testing.assert_array_equal(permutation[permutation], np.arange(skeleton.num_joints))
    for index, name in enumerate(skeleton.joints):
        swapped = name.replace("left_", "L").replace("right_", "left_").replace("L", "right_")
        assert skeleton.joints[permutation[index]] == swapped
    assert len(set(skeleton.joints)) == skeleton.num_joints
    assert {joint for limb in skeleton.limbs for joint in limb} == set(skeleton.joints)


def test_sigmas_fit_the_joints():
    assert len(COCO.sigmas) == COCO.num_joints
    assert COCO.sigmas[COCO.joints.index("left_hip")] == 0.107


@pytest.mark.parametrize("size_wh", [(64, 64), (48, 64)])
def test_predictor_finds_a_bright_pixel(size_wh):
    # The "network" answers with the blue channel, pooled by 4: a white spot is every joint.
    image = np.zeros((200, 300, 3), np.uint8)
    image[88:92, 148:152] = 255  # centre (149.5, 89.5)

    def blue(images):
        num, _, height, width = images.shape
        pooled = images[:, :1].reshape(num, 1, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
        return np.repeat(pooled - images.min(), 16, axis=1)

    codec = HeatmapCodec(size_wh, (size_wh[0] // 4, size_wh[1] // 4), 2)
    predictor = PosePredictor(PoseNetwork(blue, MPII, codec, INPUT_FORMATS["bgr"]))
    boxes = [[130, 70, 40, 40], [100, 60, 60, 80]]
    poses = predictor(image, boxes)
    assert len(poses) == 2
    for pose, box in zip(poses, boxes):
        cell = max(box[2] / size_wh[0], box[3] / size_wh[1]) * 1.25 * 4  # image pixels per heatmap cell
        assert np.abs(pose.keypoints - 149.5 * np.array([1, 0]) - 89.5 * np.array([0, 1])).max() < cell
        assert (pose.scores > 0).all()
    assert predictor(image, []) == []
    for scores in (0.9, ["x", "y"], [1.0], [1.0, np.nan]):
        with pytest.raises(UserError, match="2 boxes need as many finite scores"):
            predictor(image, boxes, scores)
    np.testing.assert_array_equal(predictor(image)[0].box, [0, 0, 300, 200])


def blue_network(size_wh=(48, 64)) -> PoseNetwork:
    """Every joint is where the blue channel, pooled by 4, is brightest; each joint a little less sure."""

    def blue(images):
        num, _, height, width = images.shape
        pooled = images[:, :1].reshape(num, 1, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
        return (pooled / 4 + 0.6) * np.linspace(1, 0.5, 16, dtype=np.float32)[None, :, None, None]

    return PoseNetwork(blue, MPII, HeatmapCodec(size_wh, (size_wh[0] // 4, size_wh[1] // 4), 2), INPUT_FORMATS["bgr"])


def test_a_description_survives_json():
    for name, skeleton in SKELETONS.items():
        network = PoseNetwork(None, skeleton, HeatmapCodec((192, 256), (48, 64), 2.0), INPUT_FORMATS["rgb"])
        described = json.loads(json.dumps(network.description()))
        assert PoseNetwork.from_description(None, described, name) == network
        assert described["input"]["channels"] == "rgb"
        del described["sigma"]
        with pytest.raises(UserError, match=r"net\.onnx describes its network incompletely .*sigma"):
            PoseNetwork.from_description(None, described, "net.onnx")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("", [1], "not a table"),
        ("", "{" * 5000, "not valid JSON"),
        ("", "[" * 100_000, "not valid JSON"),
        ("sigma", None, "sigma must be a number"),
        ("sigma", float("inf"), "sigma must be a number above 0"),
        ("unbiased", 1, "unbiased is true or false"),
        ("decoder", "udp", "decoder is one of quarter, dark"),
        ("sigma", int("9" * 400), "sigma must be a number .*about 39. digits"),
        ("image_size_wh", [64, 3200000000], "sides are multiples of 32 up to 4096"),
        ("image_size_wh", 64, "image_size_wh must be"),
        ("image_size_wh", [64, True], "image_size_wh must be"),
        ("image_size_wh", [70, 96], "found|multiples of 32"),
        ("heatmap_size_wh", [16, 16], "do not go with"),
        ("image_size_wh heatmap_size_wh", [[128, 192], [32, 48]], "another network than its graph"),
        ("flip_permutation", [0] * 16, "flip_permutation"),
        ("skeleton", "mpii", "a skeleton has"),
        ("skeleton.joints", ["a"] * 16, "there twice"),
        ("skeleton.joints", [f"j{n}" for n in range(20)], "pairs names"),
        ("skeleton.pairs", [[0, 99]], "not one of the joints"),
        ("skeleton.limbs", [["pelvis"]], "two different names"),
        ("skeleton.joints skeleton.pairs skeleton.limbs flip_permutation", [["a"], [], [], [0]], "another network"),
        ("input", [], "wrongly"),
        ("input.divisor", 0, "divisor must be a number"),
        ("input.divisor", "255", "divisor must be a number"),
        ("input.channels", "gray", "rgb or bgr"),
        ("input.mean", [0.5, 0.5, 0.5], "has the mean"),
        ("graph", [1], "wrongly"),
        ("graph.decode", 1, "true or false"),
        ("graph.decode", True, "another network than its graph"),
        ("graph.preprocess", True, "another network than its graph"),
        ("graph.pixels", "gray", "rgb or bgr"),
        ("graph.shell", True, "shell"),
    ],
)
def test_descriptions_of_strangers_are_checked(tmp_path, key, value, words):
    described = tiny_description()
    for name, item in zip(key.split(), value if " " in key else [value]):
        *sections, last = name.split(".")
        table = described
        for section in sections:
            table = table[section]
        table[last] = item
    write_tiny_onnx(tmp_path / "a.onnx", described if key else value)
    with pytest.raises(UserError, match=words) as caught:
        load_pose_network(tmp_path / "a.onnx")
    assert "a.onnx" in str(caught.value) and len(str(caught.value)) < 600
    if key == "input.mean":  # deploy.py takes any
        return
    with pytest.raises(deploy.DeployError) as caught:  # its check is a shorter one
        deploy.PoseModel(tmp_path / "a.onnx")(np.zeros((96, 64, 3), np.uint8), [[0, 0, 64, 96]])
    assert "a.onnx" in str(caught.value) and len(str(caught.value)) < 600


def test_a_description_that_fits_its_graph_is_taken(tmp_path):
    write_tiny_onnx(tmp_path / "a.onnx", {**tiny_description(), "more": "than we know"})
    image, box = np.zeros((96, 64, 3), np.uint8), [[0, 0, 64, 96]]
    (pose,) = PosePredictor(tmp_path / "a.onnx")(image, box)
    assert pose.keypoints.shape == deploy.PoseModel(tmp_path / "a.onnx")(image, box)[0][0].shape == (16, 2)


def test_people_of_several_images_go_through_the_network_together():
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (80, 90, 3), dtype=np.uint8) for _ in range(3)]
    boxes = [[[0, 0, 40, 50], [5, 6, 60, 70]], [], [[10, 10, 30, 30], [0, 0, 90, 80], [20, 5, 50, 60]]]
    sizes = []
    network = blue_network()

    def counting(batch):
        sizes.append(len(batch))
        return network.run(batch)

    together = PosePredictor(replace(network, run=counting), batch_size=4)
    poses = together.predict([together.crop(*pair) for pair in zip(images, boxes)])
    assert sizes == [4, 1]
    assert [len(people) for people in poses] == [2, 0, 3]
    for image, own, found in zip(images, boxes, poses):
        for box, pose in zip(own, found):
            (alone,) = PosePredictor(network)(image, [box])
            np.testing.assert_array_equal(pose.keypoints, alone.keypoints)
            np.testing.assert_array_equal(pose.box, box)


def test_a_persons_score_is_the_boxs_times_the_mean_of_the_positive_joints():
    heatmaps = np.zeros((1, 16, 4, 4), np.float32)
    heatmaps[0, 0, 1, 1], heatmaps[0, 1, 2, 2] = 0.8, 0.4
    network = PoseNetwork(lambda images: heatmaps, MPII, HeatmapCodec((16, 16), (4, 4), 1), INPUT_FORMATS["bgr"])
    (pose,) = PosePredictor(network)(np.zeros((9, 9, 3), np.uint8), [[0, 0, 9, 9]], box_scores=[0.5])
    assert pose.score == pytest.approx(0.5 * (0.8 + 0.4) / 2)
    assert (pose.box_score, pose.pose_score) == (0.5, pytest.approx(0.6))


def test_the_package_hands_out_the_predictor_when_asked():
    import simplepose

    assert simplepose.PosePredictor is PosePredictor
    with pytest.raises(AttributeError):
        simplepose.PosePredictr  # noqa: B018


@pytest.mark.parametrize("name", INPUT_FORMATS)
def test_normalize_by_hand_and_back(name):
    crops = np.zeros((1, 1, 2, 3), np.uint8)
    crops[0, 0, 0] = 10, 20, 30  # B, G, R
    input_format = INPUT_FORMATS[name]
    images = normalize(crops, input_format)
    assert images.shape == (1, 3, 1, 2)
    first = {"bgr": 10 / 255, "rgb": 30 / 255, "humanposebl": 10}[name]
    np.testing.assert_allclose(images[0, 0, 0, 0], (first - 0.485) / 0.229, rtol=1e-5)
    np.testing.assert_allclose(images[0, 1, 0, 0], (20 / input_format.divisor - 0.456) / 0.224, rtol=1e-5)
    np.testing.assert_array_equal(denormalize(images, input_format), crops)
