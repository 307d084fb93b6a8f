"""Weight files without PyTorch: what is written reads back the same, names map both ways, reports speak."""

import collections
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simplepose.core.errors import UserError
from simplepose.weights import (
    compare,
    from_project,
    infer_depth,
    read_paddle,
    read_pickle_checked,
    read_safetensors,
    read_torch,
    read_weights,
    recognise_source,
    to_project,
    write_paddle,
    write_torch,
    write_weights,
)

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def pose_state(depth=18, joints=16, seed=0):
    """A PoseResNet's tensors in this project's names, 2 to 4 channels wide: enough to tell them apart."""
    rng = np.random.default_rng(seed)
    state = {}

    def add(name, *shape):
        state[name] = rng.standard_normal(shape).astype(np.float32)

    def add_batch_norm(name, channels):
        for part in ("weight", "bias", "_mean", "_variance"):
            add(f"{name}.{part}", channels)

    add("backbone.conv1.weight", 2, 3, 7, 7)
    add_batch_norm("backbone.bn1", 2)
    for stage, count in enumerate(BLOCKS[depth], start=1):
        for block in range(count):
            prefix = f"backbone.layer{stage}.{block}"
            for conv in range(1, 3 if depth < 50 else 4):
                add(f"{prefix}.conv{conv}.weight", 2, 2, 1, 1)
                add_batch_norm(f"{prefix}.bn{conv}", 2)
            if block == 0 and stage > 1:
                add(f"{prefix}.downsample.0.weight", 2, 2, 1, 1)
                add_batch_norm(f"{prefix}.downsample.1", 2)
    for index in (0, 3, 6):
        add(f"deconv_layers.{index}.weight", 2, 4, 4, 4)
        add_batch_norm(f"deconv_layers.{index + 1}", 4)
    add("final_layer.weight", joints, 4, 1, 1)
    add("final_layer.bias", joints)
    return state


def assert_same(found, wanted, in_order=True):
    assert (list(found) if in_order else sorted(found)) == (list(wanted) if in_order else sorted(wanted))
    for name in wanted:
        assert found[name].dtype == wanted[name].dtype and found[name].shape == wanted[name].shape, name
        assert found[name].tobytes() == wanted[name].tobytes(), name


@pytest.mark.parametrize("extension", [".pdparams", ".pth", ".safetensors"])
def test_what_is_written_reads_back_bit_for_bit(tmp_path, extension):
    if extension == ".safetensors":
        pytest.importorskip("safetensors")
    state = pose_state()
    path = str(tmp_path / f"weights{extension}")
    write_weights(path, state, {"arch": "人", "config": {"MODEL.INPUT_FORMAT": "rgb"}})
    weights = read_weights(path)
    assert_same(weights.state, state, in_order=extension != ".safetensors")
    assert weights.metadata["arch"] == "人" and weights.description["MODEL.INPUT_FORMAT"] == "rgb"
    assert weights.source == ("microsoft" if extension == ".pth" else "simplepose")
    assert os.listdir(tmp_path) == [f"weights{extension}"]  # no temporary file is left
    (tmp_path / "plain").touch()
    assert os.stat(path).st_mode == os.stat(tmp_path / "plain").st_mode  # whoever may read a new file may read this


def test_the_content_decides_not_the_extension(tmp_path):
    state = pose_state()
    write_weights(str(tmp_path / "a.pdparams"), state)
    os.rename(tmp_path / "a.pdparams", tmp_path / "checkpoint.pth.tar")
    assert read_weights(tmp_path / "checkpoint.pth.tar").file_format == "Paddle"


def test_pytorch_to_paddle_and_back_is_bit_identical(tmp_path):
    torch_state = from_project(pose_state(depth=50))
    for index, name in enumerate(n for n in torch_state if n.endswith("num_batches_tracked")):
        torch_state[name] = np.array(1000 + index, dtype=np.int64)  # every batch norm its own count
    write_torch(tmp_path / "a.pth", torch_state)
    first = read_weights(tmp_path / "a.pth")
    write_weights(tmp_path / "b.pdparams", first.state, first.metadata)
    second = read_weights(tmp_path / "b.pdparams")
    write_weights(tmp_path / "c.pth", second.state, second.metadata)
    assert_same(read_torch(tmp_path / "c.pth"), torch_state)
    assert not any("num_batches_tracked" in name for name in first.state)
    # A file that never had the counters gets none; without metadata they are zeros, as load_state_dict wants.
    old = {name: array for name, array in torch_state.items() if "num_batches" not in name}
    write_torch(tmp_path / "old.pth", old)
    third = read_weights(tmp_path / "old.pth")
    write_weights(tmp_path / "d.pth", third.state, third.metadata)
    assert_same(read_torch(tmp_path / "d.pth"), old)
    fresh = from_project(third.state)["bn1.num_batches_tracked"]
    assert fresh.dtype == np.int64 and fresh.shape == () and fresh == 0


def test_the_command_converts_there_and_back_bit_for_bit(tmp_path, run_command):
    write_torch(tmp_path / "a.pth.tar", from_project(pose_state(depth=50)))
    first = run_command(
        "convert.py", "--from", "a.pth.tar", "--to", "new/b.pdparams", "--image-size", 192, 256, cwd=tmp_path
    )
    assert first.returncode == 0, first.stderr
    for line in (
        "PyTorch (zip) file, names of microsoft",
        "ResNet-50, 16 joints",
        "size     [192, 256]",
        "input    bgr",
    ):
        assert line in first.stdout
    second = run_command("convert.py", "--from", "new/b.pdparams", "--to", "c.pth", cwd=tmp_path)
    assert second.returncode == 0 and "size     [192, 256]" in second.stdout, second.stderr
    assert_same(read_torch(tmp_path / "c.pth"), read_torch(tmp_path / "a.pth.tar"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image-size", 192, 200), r"MODEL\.IMAGE_SIZE has a side of 200 .*a\.pth"),
        (("--style", "torch"), r"MODEL\.STYLE must be one of pytorch, caffe"),
        (("--input-format", "grey"), r"MODEL\.INPUT_FORMAT must be one of bgr, rgb, humanposebl"),
        (("--source", "keras"), "keras is not a known source"),
        (("--to", "b.bin"), "should end in"),
        (("--to", "./a.pth"), "both a.pth"),
    ],
)
def test_the_command_refuses_what_cannot_be(tmp_path, run_command, arguments, message):
    write_torch(tmp_path / "a.pth", from_project(pose_state(depth=50)))
    finished = run_command("convert.py", "--from", "a.pth", "--to", "b.pdparams", *arguments, cwd=tmp_path)
    assert finished.returncode == 2 and re.search(message, finished.stderr), finished.stderr
    assert "Traceback" not in finished.stderr and os.listdir(tmp_path) == ["a.pth"]


@pytest.mark.slow
def test_converting_takes_less_than_three_times_the_file_in_memory(tmp_path):
    pytest.importorskip("resource")
    rng = np.random.default_rng(0)
    state = pose_state(depth=50)
    state["backbone.layer4.0.conv1.weight"] = rng.standard_normal((34_000_000, 1, 1, 1)).astype(np.float32)
    write_torch(tmp_path / "a.pth", from_project(state))
    command = [sys.executable, str(ROOT / "pose_estimation" / "convert.py"), "--from", "a.pth", "--to", "b.pdparams"]
    measured = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    unit = 1 if sys.platform == "darwin" else 1024
    peak, bare = (
        unit * int(subprocess.check_output([sys.executable, "-c", measured, *line], cwd=tmp_path))
        for line in (command, [sys.executable, "-c", "pass"])
    )
    size = os.path.getsize(tmp_path / "a.pth")
    print(f"\n{(peak - bare) / size:.2f} times the file")
    assert peak - bare < 3 * size


def renamed(state, rules):
    out = {}
    for name, array in state.items():
        for ours, theirs in rules:
            if ours in name:
                name = name.replace(ours, theirs)
        out[name] = array
    return out


TORCH_STYLE = [("._mean", ".running_mean"), ("._variance", ".running_var")]
SOURCE_RULES = {
    "microsoft": [("backbone.", ""), *TORCH_STYLE],
    "mmpose-0.x": [
        *TORCH_STYLE,
        ("deconv_layers", "keypoint_head.deconv_layers"),
        ("final_layer", "keypoint_head.final_layer"),
    ],
    "mmpose-1.x": [
        *TORCH_STYLE,
        ("deconv_layers", "head.deconv_layers"),
        ("final_layer", "head.final_layer"),
    ],
    "simplepose": [],
}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("source", SOURCE_RULES)
def test_every_source_maps_to_this_projects_names(source, prefix):
    state = pose_state(depth=50)
    theirs = {prefix + name: array for name, array in renamed(state, SOURCE_RULES[source]).items()}
    assert recognise_source(theirs) == source
    assert_same(to_project(theirs, source).state, state)


@pytest.mark.parametrize("source, rules", [("torchvision", TORCH_STYLE), ("paddle-vision", [])])
def test_a_classifier_is_dropped_from_a_backbone(source, rules):
    backbone = {name: array for name, array in pose_state(50).items() if name.startswith("backbone.")}
    theirs = renamed(backbone, [("backbone.", ""), *rules])
    theirs.update({"fc.weight": np.zeros((5, 2), np.float32), "fc.bias": np.zeros(5, np.float32)})
    assert recognise_source(theirs) == source
    result = to_project(theirs, source)
    assert_same(result.state, backbone)
    assert result.dropped == ["fc.weight", "fc.bias"]


def test_unknown_names_are_kept_and_not_guessed(tmp_path):
    write_paddle(tmp_path / "a.pdparams", {"stage2.0.weight": np.ones(2, np.float32)})
    weights = read_weights(tmp_path / "a.pdparams")
    assert weights.source == "unknown" and list(weights.state) == ["stage2.0.weight"]


def test_the_earlier_ports_files_ask_for_their_own_input_format(tmp_path):
    write_paddle(tmp_path / "model_best.pdparams", pose_state())  # no metadata: not written by this project
    weights = read_weights(tmp_path / "model_best.pdparams")
    assert weights.source == "humanposebl" and weights.description["MODEL.INPUT_FORMAT"] == "humanposebl"
    assert "taken for weights of the earlier Paddle port" in weights.notes[0]
    assert read_weights(tmp_path / "model_best.pdparams", source="simplepose").metadata == {}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_numpy_arrays_under_both_module_names(tmp_path, protocol, module):
    rng = np.random.default_rng(1)
    nested = {
        "epoch": 3,
        "perf": np.float64(0.25),
        "big": 1 << 40,
        "order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "swapped": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 4), np.float32),
        "scalar": np.array(7),
        "large": rng.standard_normal((300, 100)),
        "words": ["a", ("b", None, True, -1.5)],
        "optimizer": collections.OrderedDict(state={0: {"step": 4}}),
    }
    data = pickle.dumps(nested, protocol=protocol)
    if protocol == 2:  # text form: the name can be exchanged without touching any length
        data = data.replace(b"cnumpy._core.", b"cnumpy.core.").replace(b"cnumpy.core.", f"c{module}.".encode())
    (tmp_path / "checkpoint").write_bytes(data)
    found = read_pickle_checked(tmp_path / "checkpoint")
    for name in ("order", "swapped", "empty", "scalar", "large"):
        np.testing.assert_array_equal(found[name], nested[name])
        assert found[name].flags.writeable and found[name].flags.aligned and found[name].dtype.isnative
    assert found["perf"] == 0.25 and found["big"] == 1 << 40 and found["words"] == nested["words"]
    assert found["optimizer"] == {"state": {0: {"step": 4}}} and found["epoch"] == 3


def test_files_of_paddle_save(tmp_path):
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    adam = paddle.optimizer.Adam(parameters=layer.parameters())
    layer(paddle.ones([1, 3, 8, 8])).sum().backward()
    adam.step()
    wanted = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    for protocol in (2, 4):
        paddle.save(layer.state_dict(), str(tmp_path / "a.pdparams"), protocol=protocol)
        assert_same(read_paddle(tmp_path / "a.pdparams"), wanted)
        checkpoint = {"epoch": 2, "state_dict": layer.state_dict(), "optimizer": adam.state_dict()}
        paddle.save(checkpoint, str(tmp_path / "checkpoint.pth.tar"), protocol=protocol)
        found = read_pickle_checked(tmp_path / "checkpoint.pth.tar")
        assert_same(found["state_dict"], wanted)
        moments = [name for name in adam.state_dict() if "moment1" in name]
        for name in moments:
            np.testing.assert_array_equal(found["optimizer"][name], adam.state_dict()[name].numpy())
        assert moments and found["epoch"] == 2
        assert_same(read_weights(tmp_path / "checkpoint.pth.tar").state, wanted)
    half = {"w": paddle.to_tensor([1.5, -2.0]).astype("bfloat16")}
    paddle.save(half, str(tmp_path / "half.pdparams"))
    weights = read_weights(tmp_path / "half.pdparams")
    np.testing.assert_array_equal(weights.state["w"], np.array([1.5, -2.0], np.float32))
    assert weights.notes == ["1 tensors of type bfloat16 became float32"]


def test_plain_paddle_loads_what_is_written(tmp_path):
    paddle = pytest.importorskip("paddle")
    layer = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
    rng = np.random.default_rng(2)
    state = {name: rng.random(t.shape).astype(np.float32) for name, t in layer.state_dict().items()}
    path = str(tmp_path / "a.pdparams")
    write_weights(path, state, {"depth": 18})
    loaded = paddle.load(path)
    assert json.loads(loaded["simplepose"]) == {"depth": 18}
    missing, unexpected = layer.set_state_dict(loaded)
    assert missing == [] and unexpected == ["simplepose"]
    assert_same({name: tensor.numpy() for name, tensor in layer.state_dict().items()}, state)


def test_arrays_that_paddle_cut_into_slices_are_whole_again(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    sliced = {"w@@.0": array.reshape(-1)[:7], "w@@.1": array.reshape(-1)[7:]}
    sliced["UnpackBigParamInfor@@"] = {"w": {"OriginShape": (3, 4), "slices": ["w@@.0", "w@@.1"]}}
    sliced["StructuredToParameterName@@"] = {"w": "linear_0.w_0"}
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(sliced, protocol=2))
    assert_same(read_paddle(tmp_path / "a.pdparams"), {"w": array})


def test_safetensors_agrees_with_the_package(tmp_path):
    numpy_flavour = pytest.importorskip("safetensors.numpy")
    state = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3), "h": np.ones(2, np.float16)}
    numpy_flavour.save_file(state, str(tmp_path / "theirs.safetensors"), metadata={"by": "package"})
    found, metadata = read_safetensors(tmp_path / "theirs.safetensors")
    assert_same(found, state, in_order=False)
    assert metadata == {"by": "package"}
    write_weights(tmp_path / "ours.safetensors", {"a": state["a"]})
    assert_same(numpy_flavour.load_file(str(tmp_path / "ours.safetensors")), {"a": state["a"]})


def test_safetensors_bfloat16(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    bits = np.array([0x3FC0, 0xC000], "<u2").tobytes()  # 1.5 and -2
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bits)
    found, _ = read_safetensors(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(found["w"], np.array([1.5, -2.0], np.float32))


def test_checkpoints_are_unwrapped(tmp_path):
    state = pose_state()
    for key in ("state_dict", "model", "model_state_dict"):
        checkpoint = {"epoch": 1, key: state, "optimizer": {"lr": 0.1}}
        if key != "model":
            checkpoint["model"] = "pose_resnet"  # the original stores the network's name there
        (tmp_path / "c").write_bytes(pickle.dumps(checkpoint, protocol=4))
        assert_same(read_weights(tmp_path / "c").state, state)


@pytest.mark.parametrize("depth", BLOCKS)
def test_depth_is_read_from_the_blocks(depth):
    assert infer_depth(pose_state(depth)) == depth
    assert infer_depth([*pose_state(depth), f"backbone.layer1.{'9' * 5000}.conv1.weight"]) == depth


def test_a_wrong_depth_and_a_wrong_joint_count_are_said_in_words():
    expected = {name: array.shape for name, array in pose_state(50, joints=16).items()}
    compare(expected, pose_state(50, joints=16)).require("a.pth")
    report = compare(expected, pose_state(101, joints=17))
    with pytest.raises(UserError) as error:
        report.require("a.pth")
    assert "a.pth holds a ResNet-101; this configuration asks for a ResNet-50 (MODEL.DEPTH)" in str(error.value)
    assert "a.pth predicts 17 joints, this configuration 16 (MODEL.NUM_JOINTS)" in str(error.value)
    assert "\n" not in str(error.value)
    lines = "\n".join(report.explain("a.pth"))
    assert "final_layer.weight: (17, 4, 1, 1) in the file, (16, 4, 1, 1) here" in lines
    assert "unexpected  backbone.layer3.22.conv1.weight" in lines


def test_only_what_the_caller_allows_may_be_missing():
    expected = {name: array.shape for name, array in pose_state().items()}
    backbone = {name: array for name, array in pose_state().items() if name.startswith("backbone.")}
    report = compare(expected, backbone)
    assert len(report.matched) == len(backbone) and report.reasons == []
    report.require("a.pth", may_miss=("deconv_layers.", "final_layer."))
    with pytest.raises(UserError, match="17 missing .deconv_layers.0.weight"):
        report.require("a.pth")
    del backbone["backbone.bn1._mean"]
    with pytest.raises(UserError, match="1 missing .backbone.bn1._mean"):
        compare(expected, backbone).require("a.pth", may_miss=("deconv_layers.", "final_layer."))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    write_weights(path, pose_state())
    before = path.read_bytes()
    with pytest.raises(UserError, match="element type complex64"):
        write_weights(path, {"w": np.ones(2, np.complex64)})
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.pth"]
    with pytest.raises(UserError, match=r"\.pdparams, \.safetensors or \.pth"):
        write_weights(tmp_path / "a.bin", {})


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"<html>Not found</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x89PNG\r\n", "not a weight file"),
        (pickle.dumps({"epoch": 1}, protocol=4), "no state dict"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, words):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_weights(tmp_path / "a")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match="no such weight file: .*"):
        read_weights(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="folder"):
        read_weights(tmp_path)


def test_weights_never_import_a_framework():
    code = "import sys, simplepose.weights; print([m for m in ('paddle', 'torch') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "[]", result.stderr
