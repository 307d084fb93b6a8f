"""What an exported graph does itself is what Python does, and parity tells when two networks are not the same."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simplepose import PosePredictor
from simplepose.build.model import build_model, build_pose_network
from simplepose.build.predictor import load_pose_network
from simplepose.config.load import load_config
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.export.onnx import export_onnx
from simplepose.export.parity import Answer, ParityMeter, compare, deciding_margin, spread
from simplepose.inference.network import GraphOptions, InferenceSettings, PoseNetwork

paddle2onnx = pytest.importorskip("paddle2onnx", reason="without paddle2onnx nothing is exported to ONNX")
ROOT = Path(__file__).resolve().parent.parent
UNBIASED = ("MODEL.EXTRA.UNBIASED=true", "TEST.DECODER=dark")
SIZES = {"wide": [96, 64], "square": [64, 64]}  # width, height


def random_network(size_wh: list[int], input_format: str = "bgr", seed: int = 0, more: tuple[str, ...] = ()):
    """An untrained PoseResNet-18 whose heatmaps reach about 1: Paddle's layer, and the same as a `PoseNetwork`."""
    import paddle

    config = load_config(
        None,
        [
            "MODEL.DEPTH=18", f"MODEL.IMAGE_SIZE={size_wh}", f"MODEL.INPUT_FORMAT={input_format}",
            "MODEL.EXTRA.NUM_DECONV_FILTERS=[8,8,8]", "MODEL.EXTRA.SIGMA=1", *more,
        ],
    )  # fmt: skip
    paddle.seed(seed)
    model = build_model(config)
    pose = build_pose_network(config, model)
    for layer in model.deconv_layers:
        if isinstance(layer, paddle.nn.Conv2DTranspose):  # starts from N(0, 0.001), which would die out in float16
            layer.weight.set_value(layer.weight * 1000 * (0.5 / layer.weight.shape[0]) ** 0.5)
    highest = np.abs(pose.run(pose.prepare(random_crops(size_wh, 4)))).max()
    model.final_layer.weight.set_value(model.final_layer.weight / float(highest))
    return model, pose


def random_crops(size_wh, num: int = 8) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.integers(0, 256, (num, size_wh[1], size_wh[0], 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "input_format", "graph", "codec"),
    [
        ("wide", "bgr", GraphOptions(preprocess=True, pixels="rgb"), ()),
        ("square", "rgb", GraphOptions(preprocess=True, flip_test=True, shift_heatmap=False), ()),
        ("wide", "bgr", GraphOptions(decode=True, post_process=False), ()),
        ("square", "bgr", GraphOptions(flip_test=True, decode=True), ()),
        ("wide", "rgb", GraphOptions(preprocess=True, flip_test=True, decode=True), UNBIASED),
        ("wide", "humanposebl", GraphOptions(preprocess=True, flip_test=True, decode=True, dynamic_size=True), ()),
        ("wide", "bgr", GraphOptions(preprocess=True, flip_test=True, decode=True, dynamic_size=True), UNBIASED),
    ],
    ids=("preprocess", "flip-unshifted", "decode-unrefined", "flip-decode", "unbiased", "dynamic", "unbiased-dynamic"),
)
def test_the_graph_does_what_python_does(size, input_format, graph, codec, tmp_path):
    if graph.dynamic_size and paddle2onnx.__version__.startswith("1."):
        pytest.skip(f"paddle2onnx {paddle2onnx.__version__} does not mirror a dynamic width; 2 does")
    model, pose = random_network(SIZES[size], input_format, more=codec)
    export_onnx(model, tmp_path / "net.onnx", replace(pose, graph=graph), {"metrics": {"Mean": 88.5}})
    exported = load_pose_network(tmp_path / "net.onnx")
    assert replace(exported, run=pose.run) == replace(pose, graph=graph)

    settings = InferenceSettings(graph.flip_test, graph.shift_heatmap, graph.post_process)
    crops = random_crops(pose.codec.image_size_wh)
    expected = pose.predict(pose.prepare(crops), settings)
    assert np.ptp(expected[0]) > 10  # not all in one place
    for size in (1, 3, 8):
        joints, scores = exported.predict(exported.prepare(crops[:size]), settings)
        np.testing.assert_allclose(joints, expected[0][:size], atol=0.01)
        np.testing.assert_allclose(scores, expected[1][:size], atol=1e-5)
    if graph.dynamic_size:
        other = replace(pose.codec, image_size_wh=(128, 96), heatmap_size_wh=(32, 24))
        crops = random_crops((128, 96), 2)
        expected = replace(pose, codec=other).predict(pose.prepare(crops), settings)
        joints, scores = replace(exported, codec=other).predict(crops, settings)
        np.testing.assert_allclose(joints, expected[0], atol=0.01)
        np.testing.assert_allclose(scores, expected[1], atol=1e-5)


def test_a_graph_pads_with_zeros(tmp_path):
    """Which is what ONNX does where no value is given; the exporter would write what happens to be in memory."""
    import onnx

    model, pose = random_network([64, 96], more=UNBIASED)
    export_onnx(model, tmp_path / "net.onnx", replace(pose, graph=GraphOptions(decode=True)), {})
    pads = [node for node in onnx.load(str(tmp_path / "net.onnx")).graph.node if node.op_type == "Pad"]
    assert [len(pad.input) for pad in pads] == [2]


def test_python_flips_what_a_graph_only_normalises(tmp_path):
    """A uint8 crop is mirrored along its width, which is another axis there."""
    model, pose = random_network([64, 96])
    export_onnx(model, tmp_path / "net.onnx", replace(pose, graph=GraphOptions(preprocess=True)), {})
    image = random_crops((200, 300), 1)[0]
    wanted = InferenceSettings(flip_test=True)
    answers = [PosePredictor(net, wanted)(image, [[20, 30, 90, 150]])[0] for net in (tmp_path / "net.onnx", pose)]
    np.testing.assert_allclose(answers[0].keypoints, answers[1].keypoints, atol=0.01)
    unflipped = PosePredictor(pose)(image, [[20, 30, 90, 150]])[0]
    assert np.abs(unflipped.keypoints - answers[0].keypoints).max() > 1


def test_names_shapes_and_opset_are_those_promised(tmp_path):
    import onnx

    model, pose = random_network([96, 64])
    graph = GraphOptions(preprocess=True, decode=True, dynamic_size=True)
    export_onnx(model, tmp_path / "net.onnx", replace(pose, graph=graph), {}, opset=16)
    network = onnx.load(str(tmp_path / "net.onnx"))
    onnx.checker.check_model(network, full_check=True)
    assert [(entry.domain, entry.version) for entry in network.opset_import] == [("", 16)]
    metadata = json.loads({entry.key: entry.value for entry in network.metadata_props}["simplepose"])
    assert (metadata["opset"], metadata["precision"], metadata["graph"]["decode"]) == (16, "float32", True)

    def ends(values):
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert ends(network.graph.input) == {"image": ["batch", "height", "width", 3]}
    assert ends(network.graph.output) == {"keypoints": ["batch", 16, 2], "scores": ["batch", 16]}
    with pytest.raises(UserError, match="--opset 7: paddle2onnx writes opsets 11 to 21"):
        export_onnx(model, tmp_path / "net.onnx", pose, {}, opset=7)


def test_exporting_starts_no_program_and_opens_no_connection(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"exporting asked for {args}")

    model, pose = random_network([64, 64])
    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    export_onnx(model, tmp_path / "net.onnx", pose, {})
    assert (tmp_path / "net.onnx").is_file()


def test_settings_that_contradict_a_graph():
    graph = GraphOptions(flip_test=True, shift_heatmap=True)
    assert graph.conflict({"flip_test": True, "post_process": False}) == ""
    assert graph.conflict({"flip_test": False}) == "flip_test"
    assert graph.conflict({"shift_heatmap": False}) == "shift_heatmap"
    assert GraphOptions(decode=True).conflict({"flip_test": True}) == "flip_test"
    assert GraphOptions().conflict({"flip_test": True, "post_process": False}) == ""
    _, pose = random_network([64, 64])
    with pytest.raises(UserError, match="decodes in its graph, without the flip test; export it with --with-flip-test"):
        PosePredictor(replace(pose, graph=GraphOptions(decode=True)), InferenceSettings(flip_test=True))


class TestParity:
    CODEC = HeatmapCodec((20, 24), (5, 6), 1)  # 4 pixels a cell
    # Rows are y. The maximum is at (2, 3); (3, 1) is second; the slopes at the maximum are 2 - 1 and 4 - 3.
    HEATMAP = np.array(
        [
            [0, 0, 0, 0, 0],
            [0, 0, 0, 8, 0],
            [0, 0, 3, 0, 0],
            [0, 1, 9, 2, 0],
            [0, 0, 4, 0, 0],
            [0, 0, 0, 0, 0],
        ],
        np.float32,
    )

    def margin(self, other, other_score=9.0) -> float:
        joints, scores = self.CODEC.decode(self.HEATMAP[None])
        assert joints.tolist() == [[9, 13]] and scores.tolist() == [9]
        return deciding_margin(self.CODEC, self.HEATMAP, joints[0], np.array(other, float), other_score)

    def test_the_margin_by_hand(self):
        assert self.margin([12, 4]) == 1  # the other cell is 8
        assert self.margin([0, 20]) == 9  # far off, where there is nothing
        assert self.margin([7, 13]) == 1  # the quarter step to the other side, x alone
        assert self.margin([9, 11]) == 1  # y alone
        assert self.margin([0, 0], other_score=-1) == 9  # silence
        assert self.margin([np.nan, 0], other_score=np.nan) == 9

    def test_the_margin_of_a_taylor_step(self):
        """A Gaussian of sigma 1 and height 5 smoothed by its own has the curvature -1/2."""
        codec = HeatmapCodec((60, 60), (15, 15), 1, False, "dark")
        heatmap = 5 * codec.encode(np.array([[28.0, 28.0]]), np.ones(1))[0][0]
        joint = codec.decode(heatmap[None])[0][0]
        margin = deciding_margin(codec, heatmap, joint, joint + [0.4, 0], 5.0)
        assert margin == pytest.approx(5 * 0.5 * 0.1, rel=0.01)  # a tenth of a cell
        assert deciding_margin(codec, heatmap, joint, np.array([8.0, 48.0]), 5.0) == pytest.approx(5, rel=0.01)

    def test_a_move_is_excused_by_a_difference_that_explains_it(self):
        other = self.HEATMAP.copy()
        other[1, 3] += 1.5  # now (3, 1) is the maximum
        answers = [
            Answer(heatmap[None, None], *self.CODEC.decode(heatmap[None, None])) for heatmap in (self.HEATMAP, other)
        ]

        meter = ParityMeter(self.CODEC, ["nose"])
        meter.add(*answers)
        parity = meter.result()
        assert (parity.crops, parity.keypoints, parity.max_difference, parity.mean_difference) == (1, 1, 1.5, 0.05)
        assert parity.max_relative_difference == pytest.approx(1.5 / 9)
        assert (len(parity.near_ties), len(parity.moved)) == (1, 0)
        assert parity.near_ties[0].joint == "nose" and parity.near_ties[0].margin == 1
        assert not parity.passed  # a sixth of the heatmap is more than a thousandth

        meter = ParityMeter(self.CODEC, ["nose"])
        meter.add(answers[0], replace(answers[0], joints=answers[1].joints))  # the same heatmap, another place
        parity = meter.result()
        assert (len(parity.near_ties), len(parity.moved), parity.passed) == (0, 1, False)

    def test_the_same_passes_another_and_nonsense_do_not(self):
        _, pose = random_network([64, 64])
        _, other = random_network([64, 64], seed=1)
        crops = random_crops((64, 64), 3)
        assert compare(pose, pose, crops, InferenceSettings()).passed
        parity = compare(pose, other, crops, InferenceSettings())
        assert not parity.passed and parity.max_relative_difference > 0.1
        nothing = replace(pose, run=lambda images: pose.run(images) * np.nan)
        parity = compare(pose, nothing, crops, InferenceSettings())
        assert not parity.passed and len(parity.moved) == parity.keypoints

    def test_spread_takes_both_ends(self):
        assert spread("abcdefg", 3) == ["a", "d", "g"]
        assert spread("ab", 3) == ["a", "b"]


def test_the_command_writes_a_report_and_fails_with_the_parity(posenet, tmp_path, monkeypatch, capsys):
    import simplepose.export.onnx
    from simplepose.commands import export

    output = tmp_path / "net.onnx"
    line = ["export.py", "--model-file", str(posenet[0]), "--output", str(output), "--with-decode", "--with-flip-test"]
    monkeypatch.setattr("sys.argv", [*line, "--images", str(ROOT / "images" / "test.jpg")])
    assert export.main() == 0
    report = json.loads((tmp_path / "net.parity.json").read_text())
    assert report["parity"]["float32"]["passed"] and report["parity"]["float32"]["crops"] == 1
    assert "=> float32: the same network, on 1 crops of" in capsys.readouterr().out

    write = simplepose.export.onnx.export_onnx

    def tampered(model, path, pose: PoseNetwork, *args):
        model.final_layer.bias.set_value(model.final_layer.bias + 1)
        write(model, path, pose, *args)
        model.final_layer.bias.set_value(model.final_layer.bias - 1)

    monkeypatch.setattr(simplepose.export.onnx, "export_onnx", tampered)
    monkeypatch.setattr("sys.argv", line)
    assert export.main() == 1
    assert "NOT the same network" in capsys.readouterr().out
    assert not json.loads((tmp_path / "net.parity.json").read_text())["parity"]["float32"]["passed"]


def test_infer_feeds_every_graph_and_refuses_a_contradiction(tmp_path, run_command):
    model, pose = random_network([64, 96])
    file, drawing = tmp_path / "net.onnx", tmp_path / "out.jpg"
    graph = GraphOptions(preprocess=True, pixels="rgb", flip_test=True, decode=True)
    export_onnx(model, file, replace(pose, graph=graph), {})
    line = ("infer.py", "--model-file", file, "--img-file", ROOT / "images" / "test.jpg", "--output", drawing)
    line += ("--bbox", "60,0,400,512")
    finished = run_command(*line)
    assert finished.returncode == 0, finished.stderr
    person = json.loads(drawing.with_suffix(".json").read_text())["people"][0]
    from simplepose.core.images import read_image

    expected = PosePredictor(pose, InferenceSettings(flip_test=True))(
        read_image(ROOT / "images" / "test.jpg"), [[60, 0, 400, 512]]
    )[0]
    found = np.array([[point["x"], point["y"]] for point in person["keypoints"].values()])
    np.testing.assert_allclose(found, expected.keypoints, atol=0.1)
    finished = run_command(*line, "--no-flip-test", "--overwrite")
    assert finished.returncode == 2
    assert (
        finished.stderr == f"error: {file} was exported to do otherwise; leave --no-flip-test out, or export it again\n"
    )
