"""Weight files that say what their network is: with an experiment file, without one, and against one."""

from __future__ import annotations

import os

import numpy as np
import pytest
import yaml
from test_weights_files import pose_state

from simplepose.build.model import build_model, load_config_and_weights, run_folder_of, weights_metadata
from simplepose.build.training import find_pretrained
from simplepose.config.load import get_key, load_config
from simplepose.config.schema import DESCRIBED
from simplepose.core.errors import UserError
from simplepose.weights import from_project, read_weights, write_paddle, write_torch, write_weights

FILTERS = "MODEL.EXTRA.NUM_DECONV_FILTERS=[4,4,4]"  # those of `pose_state`


@pytest.fixture
def experiment(tmp_path):
    """An experiment file that leaves INPUT_FORMAT and STYLE open, as the original's do."""
    path = tmp_path / "experiment.yaml"
    content = {
        "DATASET": {"DATASET": "mpii"},
        "MODEL": {"IMAGE_SIZE": [64, 96], "EXTRA": {"NUM_LAYERS": 50, "NUM_DECONV_FILTERS": [4, 4, 4]}},
    }
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.fixture
def original(tmp_path):
    """A pose network as the original authors publish theirs: PyTorch names, no word about itself."""
    path = tmp_path / "pose_resnet_50_256x192.pth.tar"
    write_torch(path, from_project(pose_state(50, joints=17)))
    return str(path)


def test_names_and_shapes_show_all_but_style_and_size(original, tmp_path):
    assert read_weights(original).description == {
        "MODEL.DEPTH": 50,
        "MODEL.INPUT_FORMAT": "bgr",
        "MODEL.EXTRA.NUM_DECONV_LAYERS": 3,
        "MODEL.EXTRA.NUM_DECONV_FILTERS": [4, 4, 4],
        "MODEL.EXTRA.NUM_DECONV_KERNELS": [4, 4, 4],
        "MODEL.EXTRA.DECONV_WITH_BIAS": False,
        "MODEL.EXTRA.FINAL_CONV_KERNEL": 1,
    }
    backbone = {name: array for name, array in pose_state(50).items() if name.startswith("backbone.")}
    write_weights(tmp_path / "backbone.pdparams", backbone, {"config": {"MODEL.INPUT_FORMAT": "rgb"}})
    assert read_weights(tmp_path / "backbone.pdparams").description == {}


def test_our_own_file_rebuilds_its_configuration(experiment, tmp_path):
    overrides = ["MODEL.STYLE=caffe", "MODEL.INPUT_FORMAT=rgb", "MODEL.EXTRA.SIGMA=1.5"]
    trained = load_config(experiment, overrides)
    path = tmp_path / "model_best.safetensors"
    write_weights(path, pose_state(50), weights_metadata(trained, epoch=3, metrics={"Mean": 88.5}))
    config, weights, notes = load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(path)})
    assert {key: get_key(config, key) for key in DESCRIBED} == {key: get_key(trained, key) for key in DESCRIBED}
    assert (config.MODEL.STYLE, config.MODEL.IMAGE_SIZE, config.MODEL.EXTRA.HEATMAP_SIZE) == (
        "caffe",
        [64, 96],
        [16, 24],
    )
    assert weights.metadata["metrics"] == {"Mean": 88.5} and weights.metadata["epoch"] == 3
    assert notes == []
    assert run_folder_of(config, path).as_posix() == "output/mpii/pose_resnet_50/model_best"


def test_what_a_foreign_file_cannot_say_is_asked_for_or_told(original):
    with pytest.raises(UserError, match=r"does not say the input size .* as MODEL\.IMAGE_SIZE=\[192,256\]"):
        load_config_and_weights(None, [], {"TEST.MODEL_FILE": original})
    config, _, notes = load_config_and_weights(None, [f"TEST.MODEL_FILE={original}", "MODEL.IMAGE_SIZE=[192,256]"], {})
    assert (config.DATASET.DATASET, config.MODEL.DEPTH, config.MODEL.IMAGE_SIZE) == ("coco", 50, [192, 256])
    assert notes == [
        f"DATASET.DATASET: coco is assumed, {original} does not say",  # 17 joints
        f"MODEL.STYLE: pytorch is assumed, {original} does not say",
    ]
    write_torch(original, from_project(pose_state(50, joints=14)))
    with pytest.raises(UserError, match=r"predicts 14 joints, as no skeleton that is known here \(mpii 16, coco 17\)"):
        load_config_and_weights(None, ["MODEL.IMAGE_SIZE=64"], {"TEST.MODEL_FILE": original})
    assert run_folder_of(config, original).name == "pose_resnet_50_256x192"


def test_weights_are_scored_on_their_own_data_set(original, tmp_path):
    def sets(weights, *overrides, **flags):
        config = load_config_and_weights(None, list(overrides), {"TEST.MODEL_FILE": str(weights), **flags})[0]
        return config.DATASET.TRAIN_SET, config.DATASET.TEST_SET, config.TEST.USE_GT_BBOX

    assert sets(original, "MODEL.IMAGE_SIZE=64") == ("train2017", "val2017", True)
    assert sets(original, "MODEL.IMAGE_SIZE=64", "DATASET.TEST_SET=mine")[1] == "mine"
    assert sets(original, "MODEL.IMAGE_SIZE=64", "TEST.COCO_BBOX_FILE=boxes.json")[2] is False
    assert sets(original, "MODEL.IMAGE_SIZE=64", **{"TEST.USE_GT_BBOX": False})[2] is False
    skeleton = {"name": "five", "joints": list("abcde"), "sigmas": 0.05}
    described = {"DATASET.DATASET": "coco", "DATASET.SKELETON": skeleton, "MODEL.IMAGE_SIZE": [64, 64]}
    write_weights(tmp_path / "five.pdparams", pose_state(50, joints=5), {"config": described})
    assert sets(tmp_path / "five.pdparams") == ("train", "val", True)
    write_weights(tmp_path / "mpii.pdparams", pose_state(50), {"config": {"MODEL.IMAGE_SIZE": [64, 64]}})
    assert sets(tmp_path / "mpii.pdparams") == ("train", "valid", False)


def test_what_is_written_wins_over_the_file_and_the_file_over_the_defaults(experiment, tmp_path):
    path = tmp_path / "port.pdparams"
    write_paddle(path, pose_state(50))  # no metadata: the earlier Paddle port's
    flags = {"TEST.MODEL_FILE": str(path)}
    config, _, notes = load_config_and_weights(experiment, [], flags)
    assert config.MODEL.INPUT_FORMAT == "humanposebl"
    assert notes == [
        f"{path} carries no description of its network: taken for weights of the earlier Paddle port, "
        "MODEL.INPUT_FORMAT humanposebl; write another INPUT_FORMAT if it is not",
        f"MODEL.INPUT_FORMAT: humanposebl, as {path} says; {experiment} leaves it open (default bgr)",
    ]
    config, _, notes = load_config_and_weights(experiment, ["MODEL.INPUT_FORMAT=bgr"], flags)
    assert config.MODEL.INPUT_FORMAT == "bgr"
    assert notes[1:] == [f"MODEL.INPUT_FORMAT: bgr is configured and used, {path} was made with humanposebl"]


def test_every_disagreement_is_named_with_both_values(experiment, tmp_path):
    path = tmp_path / "w.pdparams"
    trained = load_config(None, [FILTERS, "MODEL.DEPTH=101", "MODEL.IMAGE_SIZE=[96,96]", "MODEL.STYLE=caffe"])
    write_weights(path, pose_state(101), weights_metadata(trained))
    config, _, notes = load_config_and_weights(experiment, ["MODEL.STYLE=pytorch"], {"TEST.MODEL_FILE": str(path)})
    assert (config.MODEL.DEPTH, config.MODEL.STYLE, config.MODEL.IMAGE_SIZE) == (50, "pytorch", [64, 96])
    ends = {note.partition(" is configured and used")[0] for note in notes}
    assert ends == {
        "MODEL.DEPTH: 50",
        "MODEL.STYLE: pytorch",
        "MODEL.IMAGE_SIZE: [64, 96]",
        "MODEL.EXTRA.HEATMAP_SIZE: [16, 24]",
    }
    assert all(str(path) in note for note in notes)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"OUTPUT_DIR": "/etc"}, "sets 'OUTPUT_DIR', which is no property of a network"),
        ({"MODEL.PRETRAINED": "imagenet"}, "no property of a network"),
        ({"MODEL.IMAGE_SIZE": "large"}, r"MODEL\.IMAGE_SIZE must be .* found 'large'"),
        ({"DATASET.DATASET": "horses"}, r"DATASET\.DATASET must be one of"),
        ({"MODEL.IMAGE_SIZE": [64, 64 * 10**6]}, r"MODEL\.IMAGE_SIZE must be .*at most 4096"),
        ({"DATASET.DATASET": "coco", "DATASET.SKELETON": {"joints": ["a", "a"], "sigmas": 1}}, "there twice"),
        ({"DATASET.DATASET": "coco", "DATASET.SKELETON": ["a"]}, r"DATASET\.SKELETON must be text"),
        ({"MODEL.EXTRA.SIGMA": float("nan")}, r"MODEL\.EXTRA\.SIGMA must be a number"),
    ],
)
def test_a_description_sets_nothing_but_the_network(tmp_path, described, message):
    path = tmp_path / "w.pdparams"
    write_weights(path, pose_state(50), {"config": {"MODEL.IMAGE_SIZE": [64, 64], **described}})
    with pytest.raises(UserError, match=message):
        load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(path)})


def test_no_path_in_a_weight_file_is_opened(tmp_path, monkeypatch):
    (tmp_path / "secret.yaml").write_text("joints: [a]\nsigmas: 0.1\npassword: hunter2\n")
    described = {"DATASET.DATASET": "coco", "DATASET.SKELETON": str(tmp_path / "secret.yaml")}
    path = tmp_path / "w.pdparams"
    write_weights(path, pose_state(50), {"config": {"MODEL.IMAGE_SIZE": [64, 64], **described}})
    monkeypatch.setattr("simplepose.config.load.load_skeleton", lambda path: pytest.fail(f"{path} was opened"))
    with pytest.raises(UserError, match=r"w\.pdparams names the file .*secret\.yaml.*not opened"):
        load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(path)})


@pytest.mark.parametrize("metadata", ["[" * 100_000, "[]", '{"config": 1}', '{"config": {"a": ' + "9" * 5000 + "}}"])
def test_metadata_that_are_no_table_are_refused(tmp_path, metadata):
    path = tmp_path / "w.pdparams"
    write_paddle(path, pose_state(50), metadata)
    with pytest.raises(UserError, match=r"metadata.*w\.pdparams|w\.pdparams.*metadata"):
        read_weights(path)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices with names")
def test_pipes_and_devices_are_no_weights(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(UserError, match="pipe or a device"):
            read_weights(path)


def test_a_file_must_be_named_and_hold_a_pose_network(tmp_path):
    with pytest.raises(UserError, match="--cfg, or weights with --model-file"):
        load_config_and_weights(None, [], {})
    write_paddle(tmp_path / "w.pdparams", {"conv1.weight": np.ones(2, np.float32)})
    with pytest.raises(UserError, match="holds no pose network"):
        load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(tmp_path / "w.pdparams")})


class TestImageNet:
    """MODEL.PRETRAINED. Nothing is fetched: Paddle's downloader is replaced."""

    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        from paddle.utils import download

        asked = []

        def get(url, md5):
            asked.append(url)
            if not (tmp_path / "resnet18.pdparams").exists():
                raise RuntimeError("Retry limit reached")
            return str(tmp_path / "resnet18.pdparams")

        monkeypatch.setattr(download, "WEIGHTS_HOME", str(tmp_path))
        monkeypatch.setattr(download, "get_weights_path_from_url", get)
        return tmp_path, asked

    def test_paddles_own_weights_give_paddles_own_features(self, cache):
        import paddle

        from simplepose.weights.network import load_pretrained

        folder, asked = cache
        paddle.seed(0)
        theirs = paddle.vision.models.resnet18(num_classes=-1, with_pool=False)
        theirs.train()
        theirs(paddle.randn([2, 3, 64, 64]))  # moves the batch-norm statistics
        classifier = {"fc.weight": paddle.zeros([512, 1000]), "fc.bias": paddle.zeros([1000])}
        paddle.save({**theirs.state_dict(), **classifier}, str(folder / "resnet18.pdparams"))

        config = load_config(None, ["MODEL.PRETRAINED=imagenet", "MODEL.DEPTH=18"])
        model = build_model(config)
        load_pretrained(model, find_pretrained(config))
        assert asked[0].endswith("/resnet18.pdparams")
        theirs.eval(), model.eval()
        images = paddle.randn([1, 3, 64, 64])
        np.testing.assert_allclose(model.backbone(images).numpy(), theirs(images).numpy(), rtol=1e-5, atol=1e-6)

    def test_offline_one_line_says_what_to_place_where(self, cache):
        with pytest.raises(UserError) as error:
            find_pretrained(load_config(None, ["MODEL.PRETRAINED=imagenet", "MODEL.DEPTH=18"]))
        assert f"needs {cache[0] / 'resnet18.pdparams'}, which is not there" in str(error.value)
        assert "MODEL.PRETRAINED= to train from scratch" in str(error.value)
        assert "torchvision's .pth" in str(error.value) and "\n" not in str(error.value)

    def test_caffe_style_and_missing_files_are_refused(self, cache):
        with pytest.raises(UserError, match="imagenet are weights of MODEL.STYLE pytorch, and MODEL.STYLE is caffe"):
            find_pretrained(load_config(None, ["MODEL.PRETRAINED=imagenet", "MODEL.STYLE=caffe"]))
        missing = "models/pytorch/imagenet/resnet50-19c8e357.pth"
        with pytest.raises(UserError, match=f"names {missing}, which does not exist; MODEL.PRETRAINED=imagenet"):
            find_pretrained(load_config(None, [f"MODEL.PRETRAINED={missing}"]))
        assert cache[1] == []
