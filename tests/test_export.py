"""An exported network is the same network, says what it is, and needs no Paddle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from simplepose import PosePredictor
from simplepose.build.predictor import load_pose_network
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.skeletons import MPII
from simplepose.export import parity
from simplepose.inference.box_sources import whole_image
from simplepose.inference.network import GraphOptions, InferenceSettings
from simplepose.inference.onnx_network import METADATA_KEY, open_session
from simplepose.inference.sources import Frame

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return cv2.imread(str(ROOT / "images" / "test.jpg"))


@pytest.mark.parametrize("flip_test", [False, True])
def test_paddle_and_onnx_find_the_same_keypoints(posenet, photograph, flip_test):
    rng = np.random.default_rng(0)
    corners, sizes = rng.uniform(0, 300, (20, 2)), rng.uniform(40, 300, (20, 2))
    boxes = np.hstack([corners, sizes])
    paddle, onnx = (PosePredictor(path, InferenceSettings(flip_test=flip_test)) for path in posenet)
    crops = paddle.crop(photograph, boxes)
    heatmaps = [predictor.network.run(crops.images) for predictor in (paddle, onnx)]
    difference = np.abs(heatmaps[0] - heatmaps[1]).max()
    assert difference < 1e-4 * np.abs(heatmaps[0]).max()

    keypoints = [np.stack([pose.keypoints for pose in predictor(photograph, boxes)]) for predictor in (paddle, onnx)]
    moved = np.linalg.norm(keypoints[0] - keypoints[1], axis=-1) > 0.1  # (20, 16)
    for person, joint in np.argwhere(moved):  # allowed only where two cells were as good as equal
        best = np.sort(heatmaps[0][person, joint], axis=None)[-2:]
        margin = best[1] - best[0]
        print(f"person {person}, {MPII.joints[joint]}: near-tie, margin {margin:.2e}, difference {difference:.2e}")
        assert margin < 4 * difference
    assert moved.mean() < 0.02


def test_crops_of_many_images_do_not_fill_the_memory(monkeypatch):
    class Images(list):
        is_live, name = False, "many"

    held, spread = [], parity.spread
    monkeypatch.setattr(parity, "spread", lambda items, most: held.append(len(items)) or spread(items, most))
    images = Images(Frame(index, "", np.full((8, 8, 3), index, np.uint8)) for index in range(200))
    crops = parity.crops_of_images(images, whole_image, HeatmapCodec((32, 32), (8, 8), 1), 3)
    assert [int(crop.max()) for crop in crops] == [0, 96, 192] and held == [25]  # of 48 and more every second one goes


def test_the_batch_is_free_and_width_and_height_are_in_place(posenet):
    network = load_pose_network(posenet[1])
    assert network.codec.image_size_wh == (64, 96)
    images = np.random.default_rng(1).normal(size=(8, 3, 96, 64)).astype(np.float32)
    together = network.run(images)
    assert together.shape == (8, 16, 24, 16)
    for size in (1, 3):
        np.testing.assert_allclose(network.run(images[:size]), together[:size], atol=1e-5)


def test_the_file_says_what_it_is(posenet):
    metadata = json.loads(open_session(posenet[1]).get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert metadata["skeleton"]["joints"] == list(MPII.joints)
    assert metadata["flip_permutation"][0] == 5  # right ankle <-> left ankle
    assert (metadata["image_size_wh"], metadata["heatmap_size_wh"]) == ([64, 96], [16, 24])
    assert metadata["input"] == {
        "channels": "bgr", "divisor": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    assert metadata["commit"]


def test_onnx_needs_no_paddle(posenet, tmp_path):
    """Paddle, and whatever else deployment does without, is blocked."""
    script = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("paddle", "paddle2onnx", "yaml", "easydict", "scipy", "tqdm", "json_tricks"):
            raise ModuleNotFoundError(name + " is blocked", name=name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {str(ROOT / "lib")!r})
import numpy as np
from simplepose import PosePredictor
predictor = PosePredictor({str(posenet[1])!r})
poses = predictor(np.full((300, 200, 3), 90, np.uint8), boxes_xywh=[[10, 20, 80, 200]])
print(poses[0].keypoints.shape, poses[0].scores.shape, poses[0].box.tolist(), type(poses[0].score).__name__)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "(16, 2) (16,) [10.0, 20.0, 80.0, 200.0] float"


def test_the_command_exports_from_the_weights_alone(posenet, run_command, tmp_path):
    finished = run_command("export.py", "--model-file", posenet[0], "--output", tmp_path / "new" / "net.onnx")
    assert finished.returncode == 0, finished.stderr
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"net.onnx", "net.parity.json"}
    assert load_pose_network(tmp_path / "new" / "net.onnx").skeleton == MPII


def test_a_name_that_is_none_of_an_onnx_file_is_refused_before_anything_is_written(posenet, monkeypatch, tmp_path):
    from simplepose.commands import export

    monkeypatch.setattr("sys.argv", ["export.py", "--model-file", str(posenet[0]), "--output", f"{tmp_path}/foo.pt"])
    with pytest.raises(UserError, match=r"foo\.pt; .*\.onnx"):
        export.main()
    assert not list(tmp_path.iterdir())


def test_wrong_files_are_refused_in_a_line(posenet, tmp_path):
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(posenet[1].read_bytes()[:20000])
    foreign = tmp_path / "foreign.onnx"
    content = posenet[1].read_bytes()
    foreign.write_bytes(content.replace(METADATA_KEY.encode(), b"somebodyes"))
    for path, message in (
        (tmp_path / "none.onnx", "no such ONNX file"),
        (torn, "is not an ONNX file that ONNX Runtime can load"),
        (foreign, r"does not describe its joints and input; export it with pose_estimation/export\.py"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            PosePredictor(path)
        assert "\n" not in str(caught.value)
    (tmp_path / "a file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        from simplepose.export.onnx import export_onnx

        export_onnx(None, tmp_path / "a file" / "net.onnx", SimpleNamespace(graph=GraphOptions()), {})
