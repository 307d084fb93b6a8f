"""float16 and int8: what is converted, what stays, how close it is, and what happens where float16 is too small."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from test_graph import random_crops, random_network

from simplepose.build.predictor import load_pose_network
from simplepose.core.errors import UserError
from simplepose.export.onnx import export_onnx
from simplepose.export.parity import compare
from simplepose.export.quantize import write_float16, write_int8
from simplepose.inference.network import GraphOptions, InferenceSettings
from simplepose.inference.onnx_network import METADATA_KEY

ALL = GraphOptions(preprocess=True, pixels="rgb", flip_test=True, decode=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A random network for 64x64 crops: the original, and a folder with it as plain.onnx and all.onnx."""
    folder = tmp_path_factory.mktemp("float32")
    model, pose = random_network([64, 64])
    for name, graph in (("plain", GraphOptions()), ("all", ALL)):
        export_onnx(model, folder / f"{name}.onnx", replace(pose, graph=graph), {"metrics": {"Mean": 88.5}})
    return pose, folder


def metadata_of(path) -> dict:
    return json.loads({entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}[METADATA_KEY])


def arrays(path) -> dict[str, np.ndarray]:
    return {array.name: onnx.numpy_helper.to_array(array) for array in onnx.load(str(path)).graph.initializer}


def measure(pose, crops):
    return lambda file: compare(pose, load_pose_network(file), crops, InferenceSettings())


@pytest.mark.parametrize("name", ["plain", "all"])
def test_float16_is_half_as_large_and_finds_the_same(exported, tmp_path, name):
    pose, folder = exported
    source, path = folder / f"{name}.onnx", tmp_path / "half.onnx"
    parity, kept = write_float16(source, path, measure(pose, random_crops((64, 64))))
    assert kept == [] and 1e-6 < parity.max_relative_difference < 1e-2
    assert all(moved.margin <= parity.max_difference for moved in parity.near_ties) and not parity.moved
    assert path.stat().st_size < 0.52 * source.stat().st_size
    network = onnx.load(str(path))
    onnx.checker.check_model(network, full_check=True)
    ends = [onnx.load(str(file)).graph for file in (source, path)]
    assert list(ends[0].input) == list(ends[1].input) and list(ends[0].output) == list(ends[1].output)
    for node in network.graph.node:  # every weight of the network, nothing of the decoding
        if node.op_type in ("Conv", "ConvTranspose"):
            assert all(arrays(path)[name].dtype == np.float16 for name in node.input[1:])
    metadata = metadata_of(path)
    assert (metadata["precision"], metadata["float32_layers"]) == ("float16", [])
    assert metadata["metrics"] == {"Mean": 88.5}


def test_layers_that_overflow_float16_stay_float32(tmp_path):
    """Heatmaps up to 1e6 are beyond float16, whose highest number is 65504; the last layer alone makes them."""
    model, pose = random_network([64, 64])
    model.final_layer.weight.set_value(model.final_layer.weight * 1e6)
    export_onnx(model, tmp_path / "net.onnx", pose, {})
    parity, kept = write_float16(tmp_path / "net.onnx", tmp_path / "half.onnx", measure(pose, random_crops((64, 64))))
    last = [node.name for node in onnx.load(str(tmp_path / "net.onnx")).graph.node if node.op_type == "Conv"][-1:]
    assert kept == last == metadata_of(tmp_path / "half.onnx")["float32_layers"]
    assert parity.max_relative_difference < 1e-2


def test_a_hopeless_network_has_all_fallbacks_tried(exported, tmp_path):
    pose, folder = exported
    parity = compare(
        pose, replace(pose, run=lambda images: pose.run(images) * 2), random_crops((64, 64), 1), InferenceSettings()
    )
    tried = []

    def hopeless(file):
        tried.append(sum(array.dtype == np.float32 for array in arrays(file).values()))
        return parity

    _, kept = write_float16(folder / "plain.onnx", tmp_path / "half.onnx", hopeless)
    # Last layer, deconvolutions, first layer: each keeps at least its own weights.
    assert len(tried) == 4 and np.all(np.diff(tried) >= [1, 3, 1])
    assert len(kept) == 5


@pytest.mark.parametrize("name", ["plain", "all"])
def test_int8_quantises_the_resnet_channel_by_channel_and_no_more(exported, tmp_path, name):
    pose, folder = exported
    path = tmp_path / "int8.onnx"
    examples = load_pose_network(folder / f"{name}.onnx").prepare(random_crops((64, 64), 19))  # not whole batches of 8
    kept = write_int8(folder / f"{name}.onnx", path, examples, "noise")
    network, weights = onnx.load(str(path)), arrays(path)
    assert [layer.split("_")[0] for layer in kept] == ["ConvTranspose"] * 3 + ["Conv"]
    by_output = {output: node for node in network.graph.node for output in node.output}
    quantized = 0
    for node in network.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        source = by_output.get(node.input[1])
        assert (source is None) == (node.name in kept), node.name
        if source is not None:
            quantized += 1
            values, scales = weights[source.input[0]], weights[source.input[1]]
            assert values.dtype == np.int8 and len(scales) == values.shape[0] and np.abs(values).max() <= 64
    assert quantized == 20  # convolutions of a ResNet-18
    metadata = metadata_of(path)
    assert (metadata["precision"], metadata["calibration"]) == ("int8", {"crops": 19, "of": "noise"})
    assert "batch_norms" not in metadata  # only good for reading weights back
    parity = compare(pose, load_pose_network(path), random_crops((64, 64)), InferenceSettings())
    assert 1e-4 < parity.max_relative_difference < 0.2


def test_int8_wants_a_recent_opset(tmp_path):
    model, pose = random_network([64, 64])
    export_onnx(model, tmp_path / "old.onnx", pose, {}, opset=11)
    with pytest.raises(UserError, match="int8 needs --opset 13 or later, not 11"):
        write_int8(tmp_path / "old.onnx", tmp_path / "int8.onnx", np.zeros((1, 3, 64, 64), np.float32), "nothing")
    assert not (tmp_path / "int8.onnx").exists()


def test_the_command_reports_size_latency_shift_and_score(posenet, bundled, tmp_path, monkeypatch, capsys):
    from simplepose.commands import export

    output = tmp_path / "int8.onnx"
    line = ["export.py", "--model-file", str(posenet[0]), "--output", str(output), "--precision", "int8"]
    monkeypatch.setattr("sys.argv", [*line, "--data", str(bundled)])
    assert export.main() == 0
    report = json.loads((tmp_path / "int8.parity.json").read_text())
    assert report["size_bytes"]["int8"] == output.stat().st_size < 0.5 * report["size_bytes"]["float32"]
    assert report["latency_ratio"] > 0
    assert report["calibration"] == {"crops": 15, "of": f"{bundled}, train"}
    assert set(report["metrics"]) == set(report["parity"]) == {"float32", "int8"}
    assert report["parity"]["float32"]["passed"] and report["parity"]["int8"]["crops"] == 8
    assert "| mean shift px | MB | latency | Mean | change |" in capsys.readouterr().out

    for more, message in (
        (["--precision", "fp16", "--calibrate", "x"], "--calibrate goes with --precision int8"),
        (["--format", "paddle", "--precision", "fp16"], "--opset and --precision go with --format onnx"),
        (["--bbox-file", "boxes.csv"], "--bbox-file says where people are in --images or --calibrate"),
        (["--calibrate", str(tmp_path / "none")], "no such image"),
    ):
        monkeypatch.setattr("sys.argv", [*line, *more])
        with pytest.raises(UserError, match=message):
            export.main()
