"""deploy.py stands alone and does what the library does, in every runtime and for every skeleton."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from test_graph import random_crops, random_network
from tiny import tiny_description, write_tiny_onnx

import deploy
from simplepose import PosePredictor
from simplepose.core.codecs.gaussian import HeatmapCodec, flip_heatmaps
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS, normalize
from simplepose.core.skeletons import MPII
from simplepose.export.onnx import export_onnx, export_paddle
from simplepose.inference.network import GraphOptions, InferenceSettings
from simplepose.inference.onnx_network import METADATA_KEY
from simplepose.inference.pipeline import find_poses
from simplepose.inference.predictor import cut_out
from simplepose.inference.sources import Frame

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "pose_estimation" / "deploy.py"
PHOTOGRAPH = ROOT / "images" / "test.jpg"
GRAPHS = {
    "plain": GraphOptions(),
    "all": GraphOptions(preprocess=True, pixels="rgb", flip_test=True, decode=True),
    "dynamic": GraphOptions(preprocess=True, decode=True, dynamic_size=True),
    "dark": GraphOptions(preprocess=True, flip_test=True, decode=True),
    "dark, plain": GraphOptions(),
}
BOXES = [[60, 0, 400, 512], [-20.5, 100.25, 130, 77], [300, 300, 400, 400]]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A random network for 64x96 crops: the original, a folder with <graph>.onnx, and Paddle's programs by graph."""
    folder = tmp_path_factory.mktemp("networks")
    model, pose = random_network([64, 96])
    programs = {}
    for name, graph in GRAPHS.items():
        described = replace(unbiased(pose) if name.startswith("dark") else pose, graph=graph)
        export_onnx(model, folder / f"{name}.onnx", described, {})
        programs[name] = export_paddle(model, folder / "paddle" / name, described, {})[0]
    return pose, folder, programs


def unbiased(pose):
    """The same network as one that was trained with unbiased data processing, and is decoded by DARK."""
    return replace(pose, codec=replace(pose.codec, unbiased=True, decoder="dark"))


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return cv2.imread(str(PHOTOGRAPH))


def test_crops_are_the_librarys_to_the_last_bit(photograph):
    rng = np.random.default_rng(0)
    boxes = np.hstack([rng.uniform(-100, 500, (30, 2)), rng.uniform(1, 700, (30, 2))])
    for size_wh in ((192, 256), (256, 256), (96, 64)):
        for unbiased in (False, True):
            codec = HeatmapCodec(size_wh, (size_wh[0] // 4, size_wh[1] // 4), 2, unbiased)
            crops, affines = cut_out(photograph, boxes, codec)
            for box, crop, affine in zip(boxes, crops, affines):
                scale, shift = deploy.crop_scale_and_shift(box, size_wh, unbiased)
                np.testing.assert_array_equal([[scale, 0, shift[0]], [0, scale, shift[1]]], affine)
                np.testing.assert_array_equal(deploy.crop(photograph, scale, shift, size_wh), crop)


def test_pixels_flip_and_decoding_are_the_librarys_to_the_last_bit(networks):
    crops = random_crops((48, 64), 3)
    for input_format in INPUT_FORMATS.values():
        described = replace(networks[0], input_format=input_format).description()["input"]
        found, expected = deploy.normalize(crops, described), normalize(crops, input_format)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]

    rng = np.random.default_rng(0)
    heatmaps = rng.integers(-3, 4, (200, 16, 6, 5)).astype(np.float32)  # many ties, at the border too
    heatmaps[:20] = -1
    for refine in (True, False):
        expected, expected_scores = HeatmapCodec((20, 24), (5, 6), 1).decode(heatmaps, refine)
        cells, scores = deploy.decode(heatmaps, refine)
        np.testing.assert_array_equal(cells * np.array([4, 4]), expected)
        np.testing.assert_array_equal(scores, expected_scores)
    smooth = np.stack([cv2.blur(one, (3, 3)) for one in heatmaps.reshape(-1, 6, 5)]).reshape(heatmaps.shape)
    for sigma in (0.3, 1.5):
        expected, _ = HeatmapCodec((20, 24), (5, 6), sigma, False, "dark").decode(smooth)
        np.testing.assert_array_equal(deploy.decode(smooth, True, sigma)[0] * np.array([4, 4]), expected)
    for shift in (True, False):
        expected = flip_heatmaps(heatmaps, MPII.flip_permutation, shift)
        np.testing.assert_array_equal(deploy.unflip(heatmaps, MPII.flip_permutation.tolist(), shift), expected)


@pytest.mark.parametrize("runtime", list(deploy.RUNTIMES))
@pytest.mark.parametrize("name", ["plain", "all", "dark, plain", "dark"])
def test_every_runtime_finds_the_keypoints_of_the_original(networks, photograph, runtime, name):
    pytest.importorskip(deploy.RUNTIMES[runtime].module)
    if runtime == "OpenCV" and name in ("all", "dark") and cv2.__version__ < "5":
        pytest.skip(f"OpenCV {cv2.__version__} does not run a flip test in the graph; 5 does")
    pose, folder, programs = networks
    pose = unbiased(pose) if name.startswith("dark") else pose
    path = programs[name] if runtime == "Paddle" else folder / f"{name}.onnx"
    model = deploy.PoseModel(path, runtime, flip_test=True)
    found, scores = model(photograph, BOXES)
    poses = PosePredictor(pose, InferenceSettings(flip_test=True))(photograph, BOXES)
    for points, joint_scores, expected in zip(found, scores, poses):
        np.testing.assert_allclose(points, expected.keypoints, atol=0.01)
        np.testing.assert_allclose(joint_scores, expected.scores, atol=1e-5)
    one, _ = model(photograph, BOXES[1:2])  # another batch
    np.testing.assert_allclose(one[0], found[1], atol=0.01)


def test_who_gets_a_pose_is_the_librarys_choice(networks, photograph, tmp_path, monkeypatch, capsys):
    """The same boxes through deploy.py, its class, infer.py's pipeline and PosePredictor: beside, none, and no box."""
    path = networks[1] / "plain.onnx"
    beside = [[600, 0, 50, 50], [-30, -30, 30, 20]]
    boxes = [beside[0], *BOXES, beside[1]]
    predictor, model = PosePredictor(path), deploy.PoseModel(path)
    library = predictor(photograph, boxes)
    assert [pose.box.tolist() for pose in library] == BOXES
    keypoints, scores = model(photograph, boxes)
    assert keypoints.shape == (5, 16, 2)
    assert np.isnan(keypoints[[0, 4]]).all() and not scores[[0, 4]].any()
    np.testing.assert_allclose(keypoints[1:4], [pose.keypoints for pose in library], atol=0.01)
    ((frame, poses),) = find_poses([Frame(0, "a", photograph)], lambda frame: (boxes, np.ones(5)), predictor)
    assert [pose.box.tolist() for pose in poses] == BOXES and len(frame.lost) == 2

    monkeypatch.setattr("sys.argv", ["deploy.py", "--img", str(PHOTOGRAPH), "--model", str(path), "--output"])
    sys.argv += [str(tmp_path / "out.jpg"), *(f"--bbox={','.join(map(str, box))}" for box in boxes)]
    assert deploy.main() == 1
    assert [person["bbox"] for person in json.loads((tmp_path / "out.json").read_text())["people"]] == BOXES
    assert capsys.readouterr().err.count("does not touch the image") == 2

    assert predictor(photograph, []) == []
    assert [answer.shape for answer in model(photograph, [])] == [(0, 16, 2), (0, 16)]
    for box in ([0, 0, 0, 9], [0, 0, 9, -9], [np.nan, 0, 9, 9], [0, np.inf, 9, 9], [0, 0, 1e300, 9]):
        with pytest.raises(UserError, match="box .* has no area, or a number that is NaN"):
            predictor(photograph, [BOXES[0], box])
        with pytest.raises(deploy.DeployError, match="box .* must be left, top"):
            model(photograph, [BOXES[0], box])


def test_a_network_of_nan_gives_no_pose(networks, photograph, monkeypatch):
    model = deploy.PoseModel(networks[1] / "plain.onnx")
    monkeypatch.setattr(model, "network", lambda images: [np.full((len(images), 16, 24, 16), np.nan, np.float32)])
    keypoints, scores = model(photograph, BOXES)
    assert np.isnan(keypoints).all() and not scores.any()
    with pytest.raises(deploy.DeployError, match="uint8"):
        model(photograph / 255, BOXES)


def test_crops_in_bytes_are_mirrored_along_their_width(photograph, tmp_path):
    model, pose = random_network([64, 96])
    export_onnx(model, tmp_path / "net.onnx", replace(pose, graph=GraphOptions(preprocess=True)), {})
    found, _ = deploy.PoseModel(tmp_path / "net.onnx", flip_test=True)(photograph, BOXES)
    expected = PosePredictor(pose, InferenceSettings(flip_test=True))(photograph, BOXES)
    np.testing.assert_allclose(found, [person.keypoints for person in expected], atol=0.01)


def test_openvinos_own_format_takes_its_description_from_beside(networks, photograph, tmp_path):
    openvino = pytest.importorskip("openvino")
    pose, folder, _ = networks
    openvino.save_model(openvino.convert_model(str(folder / "plain.onnx")), str(tmp_path / "net.xml"), False)
    with pytest.raises(deploy.DeployError, match=r"keep net\.simplepose\.json of export\.py, or net\.onnx, beside it"):
        deploy.PoseModel(tmp_path / "net.xml", "OpenVINO")
    shutil.copy(folder / "plain.onnx", tmp_path / "net.onnx")
    found, _ = deploy.PoseModel(tmp_path / "net.xml", "OpenVINO")(photograph, BOXES)
    expected = [person.keypoints for person in PosePredictor(pose)(photograph, BOXES)]
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_metadata_is_read_without_a_protobuf_library(networks):
    path = networks[1] / "plain.onnx"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert deploy.onnx_metadata(path.read_bytes()) == session.get_modelmeta().custom_metadata_map
    # By hand: field 14 of 8 bytes, in it field 1 "k" and field 2 "v"; before it field 1 (varint 300), field 2 (4 bytes)
    entry = b"\x0a\x01k" + b"\x12\x01v"
    assert deploy.onnx_metadata(b"\x08\xac\x02" + b"\x15abcd" + b"\x72\x06" + entry) == {"k": "v"}


def test_a_copy_runs_where_nothing_else_is(networks, photograph, tmp_path):
    """A copy of the file, in a folder of its own; whatever deployment does without is blocked."""
    shutil.copy(DEPLOY, tmp_path / "deploy.py")
    script = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("paddle", "paddle2onnx", "simplepose", "onnx", "yaml", "easydict", "scipy", "tqdm"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
sys.argv = ["deploy.py", *sys.argv[1:]]
runpy.run_path("deploy.py", run_name="__main__")
"""
    line = ["--img", str(PHOTOGRAPH), "--model", str(networks[1] / "all.onnx"), "--type", "ONNX", "--width", "64"]
    line += ["--height", "96", "--bbox", "60,0,400,512", "--output", "out/drawn.png"]
    finished = subprocess.run(
        [sys.executable, "-I", "-c", script, *line], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    person = json.loads((tmp_path / "out" / "drawn.json").read_text())["people"][0]
    assert list(person["keypoints"]) == list(MPII.joints)
    expected = PosePredictor(networks[0], InferenceSettings(flip_test=True))(photograph, BOXES[:1])[0].keypoints
    found = [[point["x"], point["y"]] for point in person["keypoints"].values()]
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert cv2.imread(str(tmp_path / "out" / "drawn.png")).shape == photograph.shape

    line[line.index("ONNX")] = "Paddle"
    line[line.index("--model") + 1] = str(networks[2]["all"])
    finished = subprocess.run(
        [sys.executable, "-I", "-c", script, *line], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: --type Paddle needs another package: python -m pip install paddlepaddle\n"


def test_a_file_that_says_nothing_of_a_graph_is_plain(networks, photograph, tmp_path):
    """As files were before there were options in the graph."""
    import onnx

    network = onnx.load(str(networks[1] / "plain.onnx"))
    metadata = json.loads(network.metadata_props[0].value)
    del metadata["graph"]
    onnx.helper.set_model_props(network, {METADATA_KEY: json.dumps(metadata)})
    onnx.save(network, str(tmp_path / "old.onnx"))
    expected = PosePredictor(tmp_path / "old.onnx")(photograph, BOXES)
    found, _ = deploy.PoseModel(tmp_path / "old.onnx")(photograph, BOXES)
    np.testing.assert_allclose(found, [person.keypoints for person in expected], atol=0.01)


def test_a_free_size_takes_width_and_height(networks, photograph):
    pose, folder, _ = networks
    found, scores = deploy.PoseModel(folder / "dynamic.onnx", width=128, height=96)(photograph, BOXES)
    wide = replace(pose, codec=HeatmapCodec((128, 96), (32, 24), 1))
    for points, joint_scores, expected in zip(found, scores, PosePredictor(wide)(photograph, BOXES)):
        np.testing.assert_allclose(points, expected.keypoints, atol=0.01)
        np.testing.assert_allclose(joint_scores, expected.scores, atol=1e-5)
    with pytest.raises(deploy.DeployError, match="width and height are multiples of 32, not 100x96"):
        deploy.PoseModel(folder / "dynamic.onnx", width=100)


def test_joints_and_limbs_are_the_files_own(tmp_path, networks):
    file = ROOT / "experiments" / "custom" / "cat_face.yaml"
    model, pose = random_network([64, 64], more=("DATASET.DATASET=coco", f"DATASET.SKELETON={file}"))
    export_onnx(model, tmp_path / "cat.onnx", pose, {})
    network = deploy.PoseModel(tmp_path / "cat.onnx")
    assert network.joints == ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
    image = np.zeros((50, 50, 3), np.uint8)
    places = np.array([[25, 40], [10, 10], [40, 10], [5, 5], [45, 5]], float)  # nose, left and right eye, ears
    deploy.draw(image, places, np.array([1, 1, 1, 0.1, 1]), network.description["skeleton"], 0.2)
    assert tuple(image[10, 10]) == deploy.LEFT and tuple(image[10, 40]) == deploy.RIGHT
    assert tuple(image[40, 25]) == deploy.MIDDLE
    assert not image[5, 5].any()  # scores too little


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model none.onnx", "no such model: none.onnx"),
        ("--model plain.onnx --width 192 --height 256", "takes 64x96 pixels (width x height), not 192x256; leave"),
        ("--model plain.onnx --type TensorRT", "--type TensorRT is none of ONNX, OpenVINO, OpenCV, Paddle"),
        ("--model plain.onnx --type Paddle", "--type Paddle runs .json or .pdmodel files, not plain.onnx"),
        ("--model plain.onnx --bbox 1,2,3", "--bbox is '1,2,3'; write left,top,width,height in pixels"),
        ("--model plain.onnx --bbox 1,2,3,0", "box [1.0, 2.0, 3.0, 0.0] must be left, top, width, height: finite"),
        ("--model plain.onnx --bbox nan,2,3,4", "box [nan, 2.0, 3.0, 4.0] must be"),
        ("--model plain.onnx --kpt_thr -1 --bbox -1,2,3", "--bbox is '-1,2,3'; write left"),
        ("--model dynamic.onnx --flip-test", "decodes in its graph; for the flip test export it with --with-flip-test"),
        ("--model plain.onnx --type OpenCV --backend CUDA", "--backend CUDA: this OpenCV was built without it"),
        ("--model torn.onnx", "torn.onnx is not an ONNX file, or a torn one; export it again"),
        ("--model foreign.onnx", "does not describe its joints and input; export it with pose_estimation/export.py"),
        ("--model plain.onnx --img none.jpg", "no such image: none.jpg"),
        ("--model plain.onnx --output plain.onnx/x.jpg", "cannot write plain.onnx/x.jpg"),
        ("--model plain.onnx --img a.jpg --output ./a.jpg", "a.jpg is the image itself; name another file"),
    ],
)
def test_mistakes_end_in_a_line(networks, tmp_path, monkeypatch, arguments, message):
    for name in ("plain", "dynamic"):
        shutil.copy(networks[1] / f"{name}.onnx", tmp_path)
    content = (tmp_path / "plain.onnx").read_bytes()
    (tmp_path / "torn.onnx").write_bytes(content[:20000])
    (tmp_path / "foreign.onnx").write_bytes(content.replace(METADATA_KEY.encode(), b"somebodyes"))
    shutil.copy(PHOTOGRAPH, tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["deploy.py", "--img", str(PHOTOGRAPH), *arguments.split()])
    with pytest.raises(deploy.DeployError) as caught:
        deploy.main()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_order_of_joints_is_of_whole_numbers(networks):
    description = networks[0].description()
    deploy.check_description(description)
    for kind in (float, str):
        with pytest.raises(ValueError, match="flip_permutation"):
            deploy.check_description({**description, "flip_permutation": [*map(kind, description["flip_permutation"])]})


def test_a_drawing_that_its_format_cannot_hold_is_told(networks, tmp_path, monkeypatch):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((10, 17000, 3), np.uint8))  # WebP ends at 16383
    line = ["deploy.py", "--img", str(tmp_path / "wide.png"), "--model", str(networks[1] / "plain.onnx")]
    monkeypatch.setattr(sys, "argv", [*line, "--bbox", "0,0,100,10", "--output", str(tmp_path / "drawn.webp")])
    with pytest.raises(deploy.DeployError, match=r"cannot write 17000x10 pixels as .*drawn\.webp"):
        deploy.main()


def test_an_image_that_opencv_cannot_crop_is_told(monkeypatch):
    def refuse(*arguments, **options):  # as OpenCV 4 does
        raise cv2.error("src.cols < SHRT_MAX")

    monkeypatch.setattr(cv2, "warpAffine", refuse)
    with pytest.raises(deploy.DeployError, match="cannot crop an image of 40000x60 pixels; make it smaller"):
        deploy.crop(np.zeros((60, 40000, 3), np.uint8), 1.0, np.zeros(2), (64, 64))


def test_coordinates_name_the_network_that_ran(tmp_path, monkeypatch):
    """--xml alone is enough for OpenVINO."""
    write_tiny_onnx(tmp_path / "net.onnx", tiny_description())
    monkeypatch.chdir(tmp_path)
    line = ["deploy.py", "--img", str(PHOTOGRAPH), "--xml", "net.onnx", "--bbox", "60,0,400,512", "--output", "a.jpg"]
    monkeypatch.setattr("sys.argv", line)
    deploy.main()
    assert json.loads((tmp_path / "a.json").read_text())["model_file"] == "net.onnx"


def test_the_earlier_ports_flags_are_understood(networks, tmp_path, monkeypatch, capsys):
    openvino = pytest.importorskip("openvino")
    network = openvino.convert_model(str(networks[1] / "plain.onnx"))
    openvino.save_model(network, str(tmp_path / "net.xml"), False)
    shutil.copy(networks[1] / "plain.onnx", tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    size = ["--width", "64", "--height", "96"]
    for line in (
        ["--model", "net.bin", "--type", "OpenVINO", "--xml", "net.xml", *size],
        ["--model", "net.onnx", "--type", "ONNX", "--backend", "INFERENCE", *size],
    ):
        monkeypatch.setattr("sys.argv", ["deploy.py", "--img", str(PHOTOGRAPH), *line])
        deploy.main()
    said = capsys.readouterr().out
    assert "=> 1 person with OpenVINO; test_deploy.jpg" in said
    assert "=> --backend is OpenCV's; ONNX goes without" in said


@pytest.mark.slow
def test_the_slim_install_runs_an_exported_network(networks, tmp_path):
    """`pip install ".[deploy]"` into a fresh environment: what it brings, and that it is enough for infer.py."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "slim")], check=True)
    python = tmp_path / "slim" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*install, "numpy"], capture_output=True, timeout=600).returncode:
        pytest.skip("pip reaches no packages here")
    source = tmp_path / "source"
    for folder in ("lib", "pose_estimation"):
        shutil.copytree(ROOT / folder, source / folder)
    for name in ("pyproject.toml", "README_EN.md"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*install, f"{source}[deploy]"], check=True, timeout=600)
    listed = json.loads(subprocess.check_output([python, "-m", "pip", "list", "--format", "json"], text=True))
    brought = {entry["name"].lower() for entry in listed}
    assert {"numpy", "opencv-python", "onnxruntime", "simplepose"} <= brought
    assert not {"paddlepaddle", "paddle2onnx", "onnx", "scipy", "matplotlib"} & brought
    network = str(networks[1] / "all.onnx")
    script = "import sys; from simplepose import PosePredictor; print(len(PosePredictor(sys.argv[1])(sys.argv[2])))"
    line = [python, "-I", "-c", script, network, str(PHOTOGRAPH)]
    assert subprocess.check_output(line, text=True, cwd=tmp_path).strip() == "1"
    line = [python, source / "pose_estimation" / "infer.py", "--model-file", network, "--img-file", PHOTOGRAPH]
    finished = subprocess.run(list(map(str, line)), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert "16 joints" in finished.stdout and list(tmp_path.glob("test_pose.j*"))
