"""Against PyTorch itself: what torch.save wrote is read bit for bit; torch.load reads what we write."""

import collections

import numpy as np
import pytest

from simplepose.weights import from_project, read_torch, read_weights, write_torch, write_weights

torch = pytest.importorskip("torch", reason="PyTorch is not installed (tests/requirements-parity.txt)")
pytestmark = pytest.mark.parity


def save(value, path, legacy):
    torch.save(value, str(path), _use_new_zipfile_serialization=not legacy)


def tensors():
    torch.manual_seed(0)
    base = torch.arange(10.0)
    return collections.OrderedDict(
        float32=torch.randn(2, 3),
        float64=torch.randn(3).double(),
        float16=torch.randn(4).half(),
        bfloat16=torch.randn(4, 5).bfloat16(),
        int64=torch.tensor(5),
        int32=torch.arange(3, dtype=torch.int32),
        int16=torch.arange(3, dtype=torch.int16),
        int8=torch.arange(3, dtype=torch.int8),
        uint8=torch.arange(3, dtype=torch.uint8),
        boolean=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        transposed=torch.randn(6, 4).t()[1:3],
        slice=base[2:5],
        every_third=base[::3],
        expanded=torch.ones(1).expand(3, 4),
        channels_last=torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        parameter=torch.nn.Parameter(torch.randn(2)),
    )


def as_numpy(tensor):
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()


@pytest.mark.parametrize("legacy", [False, True])
def test_every_kind_of_tensor(tmp_path, legacy):
    state = tensors()
    save(state, tmp_path / "a.pth", legacy)
    found = read_torch(tmp_path / "a.pth")
    assert list(found) == list(state)
    for name, tensor in state.items():
        wanted = as_numpy(tensor)
        assert found[name].dtype == wanted.dtype and found[name].shape == wanted.shape, name
        assert found[name].tobytes() == wanted.tobytes(), name
    assert np.shares_memory(found["slice"], found["every_third"])


def test_element_types_of_untyped_storages(tmp_path):
    torch.save({"w": torch.arange(5).to(torch.uint16)}, str(tmp_path / "a.pth"))
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pth")["w"], np.arange(5, dtype=np.uint16))


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_checkpoint(tmp_path, legacy):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 140,
        "model": "pose_resnet",
        "state_dict": torch.nn.DataParallel(model).state_dict(),
        "perf": np.float64(0.7),
        "scores": np.arange(3.0),
        "optimizer": optimizer.state_dict(),
        "extra": {"size": torch.Size([1, 2]), "device": torch.device("cpu"), "dtype": torch.float32},
    }
    save(checkpoint, tmp_path / "checkpoint.pth.tar", legacy)
    found = read_torch(tmp_path / "checkpoint.pth.tar")
    assert found["epoch"] == 140 and found["perf"] == 0.7 and found["extra"]["size"] == (1, 2)
    np.testing.assert_array_equal(found["scores"], [0, 1, 2])
    moment = optimizer.state_dict()["state"][0]["exp_avg"].numpy()
    np.testing.assert_array_equal(found["optimizer"]["state"][0]["exp_avg"], moment)
    assert list(found["state_dict"]) == [f"module.{name}" for name in model.state_dict()]


def test_checksums_may_be_switched_off(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(3)}, str(tmp_path / "a.pth"))
    finally:
        torch.serialization.set_crc32_options(True)
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pth")["w"], np.ones(3, np.float32))


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_what_is_written(tmp_path, mmap):
    rng = np.random.default_rng(0)
    state = {
        "b": rng.standard_normal((2, 3, 1, 1)).astype(np.float32),
        "a": np.array(7, dtype=np.int64),
        "transposed": rng.standard_normal((3, 4)).astype(np.float32).T,
        "empty": np.zeros((0, 2), np.float32),
        "half": np.ones(3, np.float16),
        "mask": np.array([True, False]),
    }
    write_torch(tmp_path / "a.pth", state, '{"depth": 50}')
    loaded = torch.load(str(tmp_path / "a.pth"), weights_only=True, mmap=mmap)
    assert list(loaded) == list(state)
    for name, array in state.items():
        assert loaded[name].numpy().dtype == array.dtype and loaded[name].is_contiguous()
        assert loaded[name].numpy().tobytes() == array.tobytes(), name


def head():
    """A pose head small enough to check, named as in the original."""
    module = torch.nn.Module()
    module.conv1 = torch.nn.Conv2d(3, 4, 7, bias=False)
    module.bn1 = torch.nn.BatchNorm2d(4)
    module.layer1 = torch.nn.Sequential(torch.nn.Module())
    module.layer1[0].conv1 = torch.nn.Conv2d(4, 4, 1, bias=False)
    module.deconv_layers = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1, bias=False), torch.nn.BatchNorm2d(6)
    )
    module.final_layer = torch.nn.Conv2d(6, 2, 1)
    for name, buffer in module.named_buffers():
        if "num_batches" not in name:
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return module


@pytest.mark.parametrize("legacy", [False, True])
def test_to_paddle_and_back_loads_strictly_with_equal_bits(tmp_path, legacy):
    torch.manual_seed(0)
    module = head()
    module.bn1.num_batches_tracked += 41
    save(module.state_dict(), tmp_path / "a.pth", legacy)
    first = read_weights(tmp_path / "a.pth")
    assert first.source == "microsoft" and first.metadata["config"] == {"MODEL.INPUT_FORMAT": "bgr"}
    write_weights(tmp_path / "b.pdparams", first.state, first.metadata)
    second = read_weights(tmp_path / "b.pdparams")
    write_weights(tmp_path / "c.pth", second.state, second.metadata)
    loaded = torch.load(str(tmp_path / "c.pth"), weights_only=True)
    assert list(loaded) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype, name
    head().load_state_dict(loaded, strict=True)
    fresh = {name: torch.from_numpy(array.copy()) for name, array in from_project(first.state).items()}
    head().load_state_dict(fresh, strict=True)  # counters that no file had are zeros


def test_layouts_are_equal_in_both_frameworks():
    """(out, in, kh, kw) for convolutions, (in, out, kh, kw) for transposed ones: nothing is transposed."""
    paddle = pytest.importorskip("paddle")
    torch.manual_seed(0)
    deconv = torch.nn.ConvTranspose2d(4, 6, (4, 2), stride=2, padding=(1, 0))
    conv = torch.nn.Conv2d(6, 5, (3, 1))
    norm = torch.nn.BatchNorm2d(5).eval()
    torch.nn.init.uniform_(norm.running_mean)
    torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    images = torch.randn(2, 4, 5, 7)
    wanted = norm(conv(deconv(images))).detach().numpy()
    layers = paddle.nn.Sequential(
        paddle.nn.Conv2DTranspose(4, 6, (4, 2), stride=2, padding=(1, 0)),
        paddle.nn.Conv2D(6, 5, (3, 1)),
        paddle.nn.BatchNorm2D(5),
    )
    layers.eval()
    ours = {"running_mean": "_mean", "running_var": "_variance"}
    layers.set_state_dict(
        {
            f"{index}.{ours.get(name, name)}": paddle.to_tensor(tensor.detach().numpy())
            for index, module in enumerate((deconv, conv, norm))
            for name, tensor in module.state_dict().items()
            if name != "num_batches_tracked"
        }
    )
    np.testing.assert_allclose(layers(paddle.to_tensor(images.numpy())).numpy(), wanted, rtol=1e-4, atol=1e-5)


class Attack:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_saves_an_attack_and_it_is_refused(tmp_path, legacy, capsys):
    from simplepose.core.errors import UserError

    save({"state_dict": {"w": torch.ones(2)}, "extra": Attack()}, tmp_path / "a.pth", legacy)
    with pytest.raises(UserError, match="asks for __builtin__.print"):
        read_weights(tmp_path / "a.pth")
    save(torch.nn.Linear(2, 2), tmp_path / "module.pth", legacy)
    with pytest.raises(UserError, match="torch.nn.modules.linear.Linear|whole pickled module"):
        read_weights(tmp_path / "module.pth")
    assert "executed" not in capsys.readouterr().out
