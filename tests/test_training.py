"""Loss, schedules, optimisers, checkpoints: each against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from tiny import training_state

from simplepose.build.training import synchronize_batch_norm
from simplepose.core.errors import UserError
from simplepose.models.pose_resnet import PoseResNet
from simplepose.training import checkpoint
from simplepose.training.checkpoint import load_checkpoint, save_checkpoint
from simplepose.training.losses import joints_mse_loss
from simplepose.training.optim import WeightAverage, build_optimizer, learning_rate, lr_schedule
from simplepose.training.state import Progress
from simplepose.weights import read_weights, write_weights
from simplepose.weights.network import load_pretrained, load_weights, save_weights


def small_network(joints: int = 3, depth: int = 18) -> PoseResNet:
    return PoseResNet(depth, joints, deconv_filters=(8, 8, 8))


def test_loss_by_hand():
    predicted = paddle.to_tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # (1, 2, 1, 2)
    target = paddle.zeros([1, 2, 1, 2])
    # joint 0: (1 + 4) / 2 = 2.5, halved 1.25; joint 1: 9 / 2 = 4.5, halved 2.25; their mean 1.75
    assert float(joints_mse_loss(predicted, target, None)) == 1.75
    assert float(joints_mse_loss(predicted, target, paddle.to_tensor([[1.0, 0.0]]))) == 0.625


@pytest.mark.parametrize("size", [(32, 16, 64, 64), (8, 17, 96, 72)])
def test_loss_of_millions_of_pixels_is_that_of_float64(size):
    rng = np.random.default_rng(0)
    predicted, target = (rng.normal(0, scale, size).astype("float32") for scale in (0.005, 0.05))
    weights = (rng.random(size[:2]) < 0.8).astype("float32")
    exact = 0.5 * np.mean((weights[..., None, None] * (predicted.astype("float64") - target)) ** 2)
    predicted = paddle.to_tensor(predicted, stop_gradient=False)
    loss = joints_mse_loss(predicted, paddle.to_tensor(target), paddle.to_tensor(weights))
    assert float(loss) == pytest.approx(exact, rel=2e-7)
    loss.backward()
    gradient = weights[..., None, None] ** 2 * (predicted.numpy() - target) / np.prod(size)
    np.testing.assert_allclose(predicted.grad.numpy(), gradient, rtol=1e-6, atol=0)


def test_schedules_by_hand():
    steps = lr_schedule("MultiStepDecay", 10, 8, [5, 7], 0.1)
    assert [steps(i) for i in (0, 49)] == [1, 1]
    assert [steps(i) for i in (50, 69)] == pytest.approx([0.1, 0.1])
    assert steps(70) == pytest.approx(0.01)
    polynomial = lr_schedule("PolynomialDecay", 10, 10)
    assert [polynomial(i) for i in (0, 50, 100)] == pytest.approx([1, 0.5**0.9, 0])
    cosine = lr_schedule("CosineAnnealingDecay", 10, 10)
    assert [cosine(i) for i in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    warm = lr_schedule("MultiStepDecay", 10, 10, [], warmup_iters=4)
    assert [warm(i) for i in range(5)] == [0.25, 0.5, 0.75, 1, 1]


def one_step(kind, gradient=3.0, **options):
    parameter = paddle.create_parameter([1], "float32", default_initializer=paddle.nn.initializer.Constant(2.0))
    optimizer = build_optimizer(kind, [parameter], learning_rate(0.1, lambda i: 1.0), **options)
    for _ in range(2):
        (gradient * parameter).backward()
        optimizer.step()
        optimizer.clear_grad()
    return parameter.item()


def test_optimisers_by_hand():
    # A constant gradient of 3. SGD, momentum 0.5: velocities 3 and 4.5, steps 0.3 and 0.45.
    assert one_step("sgd", momentum=0.5) == pytest.approx(2 - 0.3 - 0.45)
    assert one_step("sgd", momentum=0.0, weight_decay=0.5) == pytest.approx(1.6 - 0.1 * (3 + 0.8))
    # Adam's step under a constant gradient is the rate itself, and weight decay is none of its business.
    assert one_step("adam") == pytest.approx(1.8, abs=1e-4)
    assert one_step("adam", weight_decay=0.5) == pytest.approx(1.8, abs=1e-4)
    # A gradient as small as epsilon moves half as far; below it, next to nothing.
    for kind, options in (("adam", {}), ("adamw", {"weight_decay": 0.0})):
        assert one_step(kind, 1e-8, **options) == pytest.approx(1.9, abs=1e-4)
        assert one_step(kind, 1e-8, epsilon=1e-12, **options) == pytest.approx(1.8, abs=1e-4)
    assert one_step("adamw", weight_decay=0.5) == pytest.approx((2 * 0.95 - 0.1) * 0.95 - 0.1, abs=1e-4)


def test_long_gradients_are_shortened():
    # A gradient of 3 becomes 1. Two parameters with gradients 3 and 4 are 5 long together.
    assert one_step("sgd", momentum=0.0, max_grad_norm=1.0) == pytest.approx(2 - 0.1 - 0.1)
    assert one_step("sgd", momentum=0.0, max_grad_norm=5.0) == pytest.approx(2 - 0.3 - 0.3)
    a, b = (
        paddle.create_parameter([1], "float32", default_initializer=paddle.nn.initializer.Constant(0.0)) for _ in "ab"
    )
    optimizer = build_optimizer("sgd", [a, b], learning_rate(1.0, lambda i: 1.0), momentum=0.0, max_grad_norm=1.0)
    (3 * a + 4 * b).backward()
    optimizer.step()
    assert (a.item(), b.item()) == (pytest.approx(-0.6), pytest.approx(-0.8))


def test_weight_average_by_hand():
    def layer(value):
        network = paddle.nn.BatchNorm1D(1)  # a weight, a bias and two statistics
        for tensor in network.state_dict().values():
            tensor.set_value(paddle.full([1], value))
        return network

    average = WeightAverage(layer(99.0), decay=0.1)
    found = []
    for value in (1.0, 2.0, 4.0):
        average.update(layer(value))
        (now,) = {tensor.item() for tensor in average.network.state_dict().values()}
        found.append(now)
    # The weights themselves; then 1/11 of the past, as that is below a tenth; 2/12 is not.
    assert found == pytest.approx([1, (1 + 10 * 2) / 11, 0.1 * 21 / 11 + 0.9 * 4])


def test_synchronised_batch_norm_needs_gpus():
    if paddle.get_device() == "cpu":
        with pytest.raises(UserError, match="TRAIN.SYNC_BN needs GPUs"):
            synchronize_batch_norm(small_network())


def train_steps(state, first, count):
    losses = []
    state.model.train()
    for step in range(first, first + count):
        rng = np.random.default_rng(step)
        images = paddle.to_tensor(rng.normal(size=(2, 3, 64, 64)).astype("float32"))
        target = paddle.to_tensor(rng.random((2, 3, 16, 16)).astype("float32"))
        loss = joints_mse_loss(state.model(images), target, None)
        loss.backward()
        state.step()
        state.schedule.step()
        losses.append(float(loss))
    return losses


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_resumed_training_goes_on_as_if_nothing_had_happened(tmp_path, kind):
    def start():
        paddle.seed(0)
        schedule = lr_schedule("PolynomialDecay", 2, 3)
        return training_state(small_network(), kind, 0.01, schedule, weight_decay=1e-4)

    straight = train_steps(start(), 0, 6)

    state = start()
    train_steps(state, 0, 3)
    state.progress = Progress(3, 1.5, 2, [{"epoch": 2}])
    save_checkpoint(tmp_path / "checkpoint", state)
    assert read_weights(tmp_path / "checkpoint").source == "simplepose"  # and not the earlier port's, with its pixels
    paddle.seed(99)
    schedule = lr_schedule("PolynomialDecay", 2, 3)
    other = training_state(small_network(), kind, 0.01, schedule, weight_decay=1e-4)  # other weights, other names
    load_checkpoint(tmp_path, other)
    assert other.progress == Progress(3, 1.5, 2, [{"epoch": 2}])
    assert train_steps(other, 3, 3) == straight[3:]


@pytest.mark.parametrize("extension", [".pdparams", ".safetensors"])
def test_weights_come_back_bit_for_bit(tmp_path, extension):
    model, other = small_network(), small_network()
    path = tmp_path / f"weights{extension}"
    save_weights(model, path, {"arch": "x", "metrics": {"Mean": 1.5}})
    assert load_weights(other, path)["metrics"] == {"Mean": 1.5}
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), tensor.numpy())


def test_saved_weights_are_plain_paddle(tmp_path):
    model, other = small_network(), small_network()
    save_weights(model, tmp_path / "w.pdparams", {"arch": "x"})
    other.set_state_dict(paddle.load(str(tmp_path / "w.pdparams")))
    images = paddle.randn([1, 3, 64, 64])
    model.eval(), other.eval()
    np.testing.assert_array_equal(model(images).numpy(), other(images).numpy())


def test_weights_of_another_network_are_explained(tmp_path):
    save_weights(small_network(joints=3), tmp_path / "w.pdparams", {})
    with pytest.raises(UserError, match="predicts 3 joints, this configuration 4"):
        load_weights(small_network(joints=4), tmp_path / "w.pdparams")
    with pytest.raises(UserError, match="holds a ResNet-18; this configuration asks for a ResNet-34"):
        load_weights(small_network(depth=34), tmp_path / "w.pdparams")


def test_names_that_do_not_fit_are_all_listed(tmp_path, caplog):
    state = {name: tensor.numpy() for name, tensor in small_network().state_dict().items()}
    state["final.bias"] = state.pop("final_layer.bias")
    write_weights(tmp_path / "w.pdparams", state, {"arch": "x"})
    with pytest.raises(UserError, match="1 missing .final_layer.bias., 1 unexpected .final.bias"):
        load_weights(small_network(), tmp_path / "w.pdparams")
    assert [record.message for record in caplog.records][-2:] == [
        "  missing     final_layer.bias",
        "  unexpected  final.bias",
    ]
    del state["backbone.bn1._mean"]
    write_weights(tmp_path / "w.pdparams", state, {"arch": "x"})
    with pytest.raises(UserError, match="backbone.bn1._mean"):  # the head may be missing, nothing of the backbone may
        load_pretrained(small_network(), tmp_path / "w.pdparams")


def test_a_pretrained_backbone_keeps_its_statistics(tmp_path):
    source = small_network(joints=3)
    source.train()
    source(paddle.randn([2, 3, 64, 64]))  # moves the batch-norm statistics
    save_weights(source, tmp_path / "w.pdparams", {})
    model = small_network(joints=7)
    head = model.final_layer.weight.numpy().copy()
    load_pretrained(model, tmp_path / "w.pdparams")
    for name, tensor in source.backbone.state_dict().items():
        np.testing.assert_array_equal(model.backbone.state_dict()[name].numpy(), tensor.numpy())
    np.testing.assert_array_equal(model.final_layer.weight.numpy(), head)


def test_a_pose_network_is_loaded_with_all_of_its_head_that_fits(tmp_path):
    source = small_network(joints=3)
    save_weights(source, tmp_path / "w.pdparams", {})

    def loaded_into(model: PoseResNet) -> tuple[set[str], list[str]]:
        """Names of the arrays that are the file's now, and what is said to be new."""
        count, anew = load_pretrained(model, tmp_path / "w.pdparams")
        theirs = {name: tensor.numpy() for name, tensor in source.state_dict().items()}
        ours = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        same = {name for name in ours if name in theirs and np.array_equal(ours[name], theirs[name])}
        assert count >= len(same) - 4 and {"backbone.conv1.weight", "deconv_layers.0.weight"} <= same
        return set(ours) - same, anew

    assert loaded_into(small_network(joints=3)) == (set(), [])
    assert loaded_into(small_network(joints=5)) == ({"final_layer.weight", "final_layer.bias"}, ["final_layer"])
    wider = PoseResNet(18, 3, deconv_filters=(8, 8, 16))
    new, anew = loaded_into(wider)
    assert {"deconv_layers.6.weight", "final_layer.weight"} <= new and "deconv_layers.3.weight" not in new
    assert "deconv_layers.6.weight" in anew and "final_layer.weight" in anew and "final_layer.bias" not in anew


def test_a_backbone_alone_leaves_the_whole_head_new(tmp_path):
    state = {name: tensor.numpy() for name, tensor in small_network().state_dict().items()}
    backbone = {name: array for name, array in state.items() if name.startswith("backbone.")}
    write_weights(tmp_path / "b.pdparams", backbone, {"arch": "x"})
    assert load_pretrained(small_network(), tmp_path / "b.pdparams") == (
        len(backbone),
        ["deconv_layers", "final_layer"],
    )


def test_pretrained_weights_with_nan_are_refused(tmp_path):
    state = {name: tensor.numpy() for name, tensor in small_network().state_dict().items()}
    state["backbone.layer1.0.conv1.weight"][0, 0] = np.nan
    write_weights(tmp_path / "w.pdparams", state, {"arch": "x"})
    with pytest.raises(UserError, match="w.pdparams holds NaN .* backbone.layer1.0.conv1.weight"):
        load_pretrained(small_network(), tmp_path / "w.pdparams")


@pytest.mark.parametrize(("before", "now"), [("adam", "sgd"), ("sgd", "adamw")])
def test_a_checkpoint_of_another_optimiser_is_refused_in_one_line(tmp_path, before, now):
    model = small_network()
    state = training_state(model, before)
    train_steps(state, 0, 1)
    save_checkpoint(tmp_path / "checkpoint", state)
    with pytest.raises(UserError, match=f"TRAIN.OPTIMIZER {before}.* this is .*{now}; .*MODEL.PRETRAINED") as error:
        load_checkpoint(tmp_path, training_state(model, now))
    assert "\n" not in str(error.value)


def test_all_processes_wait_for_the_one_that_reads_a_checkpoint(tmp_path, monkeypatch):
    state = training_state(small_network())
    save_checkpoint(tmp_path / "checkpoint", state)
    order, module = [], "simplepose.training.checkpoint."
    read = checkpoint.read_pickle_checked
    monkeypatch.setattr(module + "read_pickle_checked", lambda path: (order.append("read"), read(path))[1])
    monkeypatch.setattr(module + "wait_for_all", lambda: order.append("wait"))
    monkeypatch.setattr(module + "broadcast", lambda item: (order.append("broadcast"), item)[1])
    load_checkpoint(tmp_path, state)
    assert order == ["read", "wait", "broadcast"]


def test_weights_alone_are_no_checkpoint(tmp_path):
    model = small_network()
    save_weights(model, tmp_path / "w.pdparams", {})
    with pytest.raises(UserError, match="not a training checkpoint"):
        load_checkpoint(tmp_path / "w.pdparams", training_state(model, "adam"))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    state = training_state(small_network(), "adam")
    save_checkpoint(tmp_path / "checkpoint", state)
    before = (tmp_path / "checkpoint").read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simplepose.training.checkpoint.write_checked", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        save_checkpoint(tmp_path / "checkpoint", state)
    assert (tmp_path / "checkpoint").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]
