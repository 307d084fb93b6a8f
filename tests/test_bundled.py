"""The network that comes with the project: used where none is named; one line where it was deleted."""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import deploy
from simplepose import PosePredictor
from simplepose.commands import export, infer
from simplepose.config.load import load_config
from simplepose.core import bundled
from simplepose.core.errors import UserError, run_command
from simplepose.reports.model_card import write_card
from simplepose.weights import read_weights

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / "data" / "weights" / "README.md"


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    """A checkout's data/weights, still empty; no other place is looked at."""
    monkeypatch.setattr(bundled, "CHECKOUT", tmp_path / "weights")
    monkeypatch.setattr(bundled, "INSTALLED", Path("no such folder"))
    monkeypatch.setattr(deploy, "BUNDLED", tmp_path / "weights" / bundled.NAME)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    return path


def test_there_is_one_place():
    assert deploy.BUNDLED == bundled.CHECKOUT / bundled.NAME


def test_a_deleted_network_is_one_line(home, picture, monkeypatch, capsys):
    for main, words in ((infer.main, ["--img-file", str(picture)]), (export.main, [])):
        monkeypatch.setattr(sys, "argv", ["command", *words])
        assert run_command(main) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "--model-file" in error and "docs/en/export.md" in error
    with pytest.raises(UserError, match="--model-file"):
        PosePredictor()
    monkeypatch.setattr(sys, "argv", ["deploy.py", "--img", str(picture)])
    with pytest.raises(deploy.DeployError, match="--model FILE"):
        deploy.main()


def test_it_is_used_where_none_is_named(home, picture, posenet, monkeypatch, capsys):
    shutil.copy(posenet[1], home / bundled.NAME)
    (pose,) = PosePredictor()(str(picture), [[5, 5, 50, 60]])
    box = ["--bbox", "5,5,50,60"]
    monkeypatch.setattr(sys, "argv", ["infer.py", "--img-file", str(picture), *box, "--output", "a.png"])
    assert run_command(infer.main) == 0
    monkeypatch.setattr(sys, "argv", ["deploy.py", "--img", str(picture), *box, "--output", "b.png"])
    assert deploy.main() == 0
    said = capsys.readouterr().out
    assert f"the bundled network, {home / bundled.NAME}" in said and said.count("the bundled network") == 2
    for file in ("a.json", "b.json"):
        (person,) = json.loads(Path(file).read_text())["people"]
        found = [[joint["x"], joint["y"]] for joint in person["keypoints"].values()]
        np.testing.assert_allclose(found, pose.keypoints, atol=1e-3)


@pytest.mark.parametrize(("precision", "rtol"), [("float32", 1e-5), ("float16", 1e-3)])
def test_weights_come_back_from_an_exported_file(posenet, tmp_path, precision, rtol):
    """Batch norms are folded in it, and unfolded when it is read: it may be trained on."""
    import onnx

    network = onnx.load(str(posenet[1]))
    for tensor in network.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(precision)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(network, str(tmp_path / "posenet.onnx"))
    original, weights = read_weights(posenet[0]), read_weights(tmp_path / "posenet.onnx")
    assert weights.description == original.description
    assert not any("not to train on" in note for note in weights.notes)
    assert not {"layers", "batch_norms"} & set(weights.metadata)
    assert weights.state.keys() == original.state.keys()
    for name, array in original.state.items():
        np.testing.assert_allclose(weights.state[name], array, rtol, rtol * max(1, abs(array).max()), err_msg=name)


def change_description(path: Path, target: Path, **entries) -> Path:
    import onnx

    network = onnx.load(str(path))
    (entry,) = network.metadata_props
    described = {**json.loads(entry.value), **entries}
    entry.value = json.dumps({key: value for key, value in described.items() if value is not None})
    onnx.save(network, str(target))
    return target


def test_a_file_from_before_computes_the_same(posenet, tmp_path):
    from simplepose.build.model import build_pose_network, load_config_and_weights, load_model
    from simplepose.build.predictor import load_pose_network

    old = change_description(posenet[1], tmp_path / "old.onnx", batch_norms=None)
    config, weights, notes = load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(old)})
    assert any("not to train on" in note for note in notes)
    images = np.random.default_rng(0).normal(size=(1, 3, 96, 64)).astype(np.float32)
    again = build_pose_network(config, load_model(config, weights)).run(images)
    expected = load_pose_network(posenet[1]).run(images)
    np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("norms", ["", "AAAA", "no base 64", 5, [1], base64.b64encode(b"\xff" * 4).decode()])
def test_damaged_batch_norms_are_refused(posenet, tmp_path, norms):
    with pytest.raises(UserError, match="has damaged batch norms"):
        read_weights(change_description(posenet[1], tmp_path / "damaged.onnx", batch_norms=norms))


def test_a_strange_onnx_file_is_refused_as_weights(posenet, tmp_path):
    import onnx

    layers = json.loads(onnx.load(str(posenet[1])).metadata_props[0].value)["layers"]
    first_norm = next(name for kind, name in layers.items() if kind.startswith("batch_norm"))
    twice = {**layers, "conv2d_none": "no_such_layer", "batch_norm_none": first_norm}
    with pytest.raises(UserError, match="has damaged batch norms"):
        read_weights(change_description(posenet[1], tmp_path / "twice.onnx", layers=twice, batch_norms=None))
    network = onnx.load(str(posenet[1]))
    del next(node for node in network.graph.node if node.op_type == "Conv").input[1:]
    onnx.save(network, str(tmp_path / "bare.onnx"))
    with pytest.raises(UserError, match="its weights cannot be read"):
        read_weights(tmp_path / "bare.onnx")
    onnx.save(onnx.load(str(posenet[1])), str(tmp_path / "outside.onnx"), save_as_external_data=True, size_threshold=0)
    with pytest.raises(UserError, match="its weights cannot be read"):
        read_weights(tmp_path / "outside.onnx")
    network = onnx.load(str(posenet[1]))
    del network.metadata_props[:]
    onnx.save(network, str(tmp_path / "strange.onnx"))
    with pytest.raises(UserError, match="does not say which weights are which"):
        read_weights(tmp_path / "strange.onnx")
    (tmp_path / "torn.onnx").write_bytes(posenet[1].read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged one"):
        read_weights(tmp_path / "torn.onnx")


def test_a_card_of_somebody_s_own_network(tmp_path, monkeypatch):
    """The recipe is where its link leads, and what may be done with the data is not ours to say."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.onnx").write_bytes(bytes(1_500_000))
    config = load_config(None, ["DATASET.ROOT=photos/mine", "DATASET.TEST_SET=val"])
    scores = {"float32": {"Mean": 70.0}, "float16": {"Mean": 69.98765}}
    write_card("cards/mine.md", Path("mine.onnx"), config, "recipes/mine.yaml", "abc", 7, scores, "Mean")
    card = (tmp_path / "cards/mine.md").read_text()
    assert "| file | `mine.onnx`, 1.5 MB, float16 |" in card
    assert "| recipe | [mine](../recipes/mine.yaml), commit abc |" in card
    assert "| score | Mean **69.988**, 70.000 in float32: 7 persons of `val`, annotated boxes, no flip test |" in card
    assert "| licence of the data | its owners', for most public sets research use;" in card


@pytest.mark.slow
def test_it_scores_what_its_card_says(real_data, run_command, tmp_path):
    if not (bundled.CHECKOUT / bundled.NAME).is_file():
        pytest.skip(f"there is no data/weights/{bundled.NAME}")
    documented = float(re.search(r"Mean \*\*(\d+\.\d+)\*\*", CARD.read_text(encoding="utf-8"))[1])
    finished = run_command(
        "valid.py", "--model-file", bundled.CHECKOUT / bundled.NAME, "--no-flip-test",
        f"DATASET.ROOT={real_data}/lspet", f"OUTPUT_DIR={tmp_path}", cwd=tmp_path,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    (metrics,) = tmp_path.glob("**/metrics.json")
    assert json.loads(metrics.read_text())["Mean"] == pytest.approx(documented, abs=0.1)
