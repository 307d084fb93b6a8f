"""parity.py: every runtime on a data set, with scores, and an exit code that tells."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import deploy
from simplepose.build.data import build_evaluator, build_valid_loader
from simplepose.build.model import build_model, build_pose_network, load_config_and_weights, load_model
from simplepose.build.predictor import load_pose_network
from simplepose.commands import parity
from simplepose.config.load import load_config
from simplepose.core.errors import UserError
from simplepose.core.files import write_json
from simplepose.core.images import normalize
from simplepose.export.onnx import export_onnx, export_paddle
from simplepose.export.parity import MovedKeypoint, Parity, compare, crops_of_dataset, deciding_margin, score_networks
from simplepose.inference.network import GraphOptions, InferenceSettings, PoseNetwork


@pytest.fixture
def tiny(posenet, bundled, tmp_path, monkeypatch):
    """The network of `posenet`, its layer, and `run(*arguments)` of the command on the bundled set."""
    config, weights, _ = load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(posenet[0])})
    model = load_model(config, weights)

    def run(*arguments) -> tuple[int, dict]:
        line = [
            "parity.py",
            "--model-file",
            str(posenet[0]),
            "--data",
            str(bundled),
            "--output",
            str(tmp_path / "r.json"),
        ]
        monkeypatch.setattr("sys.argv", [*line, *map(str, arguments)])
        code = parity.main()
        return code, json.loads((tmp_path / "r.json").read_text())

    return model, build_pose_network(config, model), run


def test_every_installed_runtime_is_measured_and_scored(posenet, tiny, tmp_path, capsys):
    model, pose, run = tiny
    graph = GraphOptions(preprocess=True, flip_test=True, decode=True)
    export_onnx(model, tmp_path / "all.onnx", replace(pose, graph=graph), {})
    program = export_paddle(model, tmp_path / "net", pose, {})[0]
    code, report = run("--onnx", posenet[1], "--onnx", tmp_path / "all.onnx", "--paddle", program, "--runtime", "ONNX")
    assert code == 0 and report["failures"] == []
    exported = [f"{posenet[1]}, ONNX", f"{tmp_path / 'all.onnx'}, ONNX", f"{program}, Paddle"]
    assert list(report["parity"]) == exported
    assert [report["parity"][name]["compared"] for name in exported] == ["heatmaps", "scores", "heatmaps"]
    originals = [f"{posenet[0]}, no flip test", f"{posenet[0]}, flip test"]  # the second as the graph has it
    assert list(report["metrics"]) == originals + exported
    assert len(report["metrics"][exported[0]]) > 5
    assert capsys.readouterr().out.count("\n| ") == 9  # two tables, of three networks and of five scores


def test_each_network_gets_the_score_of_its_own_keypoints(bundled):
    """The original answers with the annotation itself, one export too, another three cells to the right of it."""
    config = load_config(None, [f"DATASET.ROOT={bundled}", "MODEL.IMAGE_SIZE=[128,128]"])
    dataset = build_valid_loader(config).dataset
    truth = {}
    for row in range(len(dataset)):
        crop, joints, visible, _ = dataset.load_crop(row)
        truth[normalize(crop[None], dataset.input_format).tobytes()] = dataset.codec.encode(joints, visible)[0]

    def perfect(images: np.ndarray) -> np.ndarray:
        return np.stack([truth[image[None].tobytes()] for image in images])

    original = PoseNetwork(perfect, dataset.skeleton, dataset.codec, dataset.input_format)
    exported = {"same": original, "off": replace(original, run=lambda images: np.roll(perfect(images), 3, axis=-1))}
    settings = InferenceSettings()
    originals, scored = score_networks(
        original, exported, dataset, lambda: build_evaluator(config, dataset.samples), settings
    )
    assert list(originals) == [settings]
    assert originals[settings]["Mean"] == scored["same"][1]["Mean"] > 95
    assert scored["off"][1]["Mean"] < 60
    same, off = scored["same"][0], scored["off"][0]
    assert same.passed and same.max_shift_px == 0 and same.crops == len(dataset)
    assert not off.passed and off.mean_shift_px > 8  # 12 pixels, but for joints at the border


def test_other_weights_and_broken_files_are_found_out(posenet, bundled, tiny, tmp_path, capsys):
    model, pose, run = tiny
    model.final_layer.weight.set_value(model.final_layer.weight * 1.01)
    export_onnx(model, tmp_path / "other.onnx", pose, {})
    code, report = run("--onnx", posenet[1], "--onnx", tmp_path / "other.onnx", "--runtime", "ONNX", "--most", "3")
    assert code == 1 and report["metrics"] == {}
    assert report["parity"][f"{posenet[1]}, ONNX"]["passed"]
    other = report["parity"][f"{tmp_path / 'other.onnx'}, ONNX"]
    assert not other["passed"] and other["max_relative_difference"] == pytest.approx(0.01, rel=0.1)
    assert "other.onnx, ONNX is float32, and not the same network" in capsys.readouterr().err

    for arguments, message in (
        ((), "name what to compare with --onnx or --paddle"),
        (("--onnx", "none.onnx"), "no such model: none.onnx"),
        (("--onnx", posenet[0]), "--type ONNX runs .onnx files, not tiny.pdparams"),
        (("--onnx", posenet[1], "--most", "0"), "--most is 0; it is a number of people"),
    ):
        with pytest.raises(UserError, match=message):
            run(*arguments)
    with pytest.raises(UserError, match="DATASET.ROOT"):
        run("--onnx", posenet[1], "--data", "")


def test_a_margin_without_bound_fits_into_the_report(tiny, tmp_path):
    _, pose, _ = tiny
    heatmap = np.zeros((24, 16))
    heatmap[10, 8] = 1
    joint = np.array([32.0, 40.0])
    assert deciding_margin(pose.codec, heatmap, joint, joint + np.inf, 1.0) == np.inf
    moved = MovedKeypoint(0, "nose", np.inf, np.inf)
    write_json(tmp_path / "r.json", Parity(1, 1, "scores", 1.0, 1.0, 1.0, 1.0, np.inf, (), (moved,)).record())
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["moved"] == [{"crop": 0, "joint": "nose", "distance_px": None, "margin": None}]


def test_a_runtime_that_is_not_installed_is_named(posenet, tiny, monkeypatch, capsys):
    monkeypatch.setitem(deploy.RUNTIMES, "OpenVINO", deploy.RUNTIMES["OpenVINO"]._replace(module="no_such_package"))
    code, report = tiny[2]("--onnx", posenet[1], "--most", "1")
    assert code == 0 and len(report["parity"]) == 2
    assert "=> OpenVINO is not installed and left out: python -m pip install openvino" in capsys.readouterr().out


@pytest.mark.slow
def test_all_runtimes_agree_on_real_people(real_data, tmp_path):
    """Crops of photographs of COCO, 192x256, a network with 17 joints."""
    import paddle

    root = real_data / "coco"
    overrides = ["DATASET.DATASET=coco", "MODEL.DEPTH=18", "MODEL.IMAGE_SIZE=[192,256]", f"DATASET.ROOT={root}"]
    config = load_config(None, [*overrides, "DATASET.TEST_SET=val2017", "TEST.USE_GT_BBOX=true"])
    paddle.seed(0)
    model = build_model(config)
    pose = build_pose_network(config, model)
    graph = GraphOptions(preprocess=True, decode=True)
    export_onnx(model, tmp_path / "net.onnx", replace(pose, graph=graph), {})
    crops = crops_of_dataset(build_valid_loader(config).dataset, 12)
    assert len(np.unique(crops.reshape(12, -1), axis=0)) == 12
    networks = [load_pose_network(tmp_path / "net.onnx")]
    networks += [parity.load_deployed(tmp_path / "net.onnx", runtime) for runtime in ("OpenVINO", "OpenCV")]
    for network in networks:
        result = compare(pose, network, crops, InferenceSettings())
        assert result.passed, result
