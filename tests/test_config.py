"""Experiment files: strict, typed, overridable, and those of the original and the earlier port load."""

from __future__ import annotations

from pathlib import Path

import pytest

from simplepose.config.load import arch_name, dump_config, get_key, inert_warnings, load_config, parse_interval, recipe
from simplepose.config.schema import DEFAULTS
from simplepose.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*/resnet*/*.yaml"))

# Every key that the YAML files of the original and of the earlier Paddle port set, with values as they write them.
ORIGINAL_STYLE = """
GPUS: '0'
DATA_DIR: ''
OUTPUT_DIR: 'output'
LOG_DIR: 'log'
WORKERS: 4
PRINT_FREQ: 100
CUDNN: {BENCHMARK: True, DETERMINISTIC: False, ENABLED: True}
DATASET:
  {DATASET: mpii, ROOT: 'data/mpii/', TEST_SET: valid, TRAIN_SET: train, FLIP: true, ROT_FACTOR: 30, SCALE_FACTOR: 0.25,
   DATA_FORMAT: jpg, SELECT_DATA: false, HYBRID_JOINTS_TYPE: ''}
MODEL:
  NAME: pose_resnet
  PRETRAINED: 'models/pytorch/imagenet/resnet50-19c8e357.pth'
  INIT_WEIGHTS: true
  STYLE: pytorch
  IMAGE_SIZE:
  - 256
  - 256
  NUM_JOINTS: 16
  EXTRA: {TARGET_TYPE: gaussian, SIGMA: 2, HEATMAP_SIZE: [64, 64], FINAL_CONV_KERNEL: 1, DECONV_WITH_BIAS: false,
    NUM_DECONV_LAYERS: 3, NUM_DECONV_FILTERS: [256, 256, 256], NUM_DECONV_KERNELS: [4, 4, 4], NUM_LAYERS: 50}
LOSS: {USE_TARGET_WEIGHT: true}
TRAIN: {BATCH_SIZE: 32, SHUFFLE: true, BEGIN_EPOCH: 0, END_EPOCH: 140, RESUME: false, OPTIMIZER: adam, LR: 0.001,
  LR_FACTOR: 0.1, LR_STEP: [90, 120], WD: 0.0001, GAMMA1: 0.99, GAMMA2: 0.0, MOMENTUM: 0.9, NESTEROV: false,
  CHECKPOINT: ''}
TEST: {BATCH_SIZE: 32, FLIP_TEST: false, POST_PROCESS: true, SHIFT_HEATMAP: true, MODEL_FILE: '', BBOX_THRE: 1.0,
  COCO_BBOX_FILE: 'detections.json', IMAGE_THRE: 0.0, IN_VIS_THRE: 0.2, NMS_THRE: 1.0, OKS_THRE: 0.9, USE_GT_BBOX: true}
DEBUG: {DEBUG: false, SAVE_BATCH_IMAGES_GT: true, SAVE_BATCH_IMAGES_PRED: true, SAVE_HEATMAPS_GT: true,
  SAVE_HEATMAPS_PRED: true}
"""
PORT_STYLE = """
MODEL: {NAME: pose_resnet, BACKBONE: resnet, DEPTH: 50, STYLE: paddle, PRETRAINED: '', EXTRA: {NUM_LAYERS: 50}}
TRAIN: {LR_TYPE: PolynomialDecay, LR: 0.01, BATCH_SIZE: 128}
"""


@pytest.fixture
def write(tmp_path):
    def write_text(text: str) -> Path:
        path = tmp_path / "a.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_text


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_experiment_loads_and_names_its_source(path, monkeypatch):
    monkeypatch.chdir(ROOT)  # paths in an experiment are meant from there
    config = load_config(path)
    width, height = config.MODEL.IMAGE_SIZE
    assert path.name.startswith(f"{height}x{width}_")
    assert path.parent.name == f"resnet{config.MODEL.DEPTH}"
    header = path.read_text(encoding="utf-8").split("\nDATASET")[0]
    assert "arxiv.org/abs/1804.06208" in header
    assert f"--cfg {path.relative_to(ROOT).as_posix()}" in header


def test_there_are_experiments():
    assert len(EXPERIMENTS) >= 8


def test_files_of_the_original_load_unchanged(write):
    config = load_config(write(ORIGINAL_STYLE))
    assert config.MODEL.DEPTH == 50
    assert config.TRAIN.LR_STEP == [90, 120]
    assert arch_name(config) == "256x256_pose_resnet_50_d256d256d256"


def test_files_of_the_earlier_port_load_unchanged(write):
    config = load_config(write(PORT_STYLE))
    assert (config.MODEL.STYLE, config.TRAIN.LR_TYPE, config.TRAIN.LR) == ("pytorch", "PolynomialDecay", 0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {DPTH: 50}", "MODEL.DPTH is not a config key .*a.yaml.*; did you mean MODEL.DEPTH?"),
        ("MODEL: {EXTRA: {SIGMAS: 2}}", "did you mean MODEL.EXTRA.SIGMA?"),
        ("MODEL: {SIGMA: 2}", "did you mean MODEL.EXTRA.SIGMA?"),
        ("TRIAN: {LR: 1}", "TRIAN is not a config key .*; did you mean TRAIN?"),
        ("TRAIN: {LR: .nan}", "TRAIN.LR must be a number"),
        ("TRAIN: {LR: fast}", "TRAIN.LR must be a number .*found 'fast'"),
        ("TRAIN: {BATCH_SIZE: 3.5}", "TRAIN.BATCH_SIZE must be a whole number"),
        ("TRAIN: {BATCH_SIZE: true}", "TRAIN.BATCH_SIZE must be a whole number"),
        ("TRAIN: {BATCH_SIZE: 0}", "TRAIN.BATCH_SIZE must be at least 1 .*found 0"),
        ("WORKERS: -1", "WORKERS must be at least 0 .*found -1"),
        ("TRAIN: {CHECKPOINT_EVERY: 10 days}", 'a time such as "10min", "30s" or "2h", or a number of steps .*10 days'),
        ("TRAIN: {CHECKPOINT_EVERY: -5}", "TRAIN.CHECKPOINT_EVERY must be a time"),
        ("TRAIN: {KEEP_CHECKPOINTS: 0}", "TRAIN.KEEP_CHECKPOINTS must be at least 1"),
        ("TRAIN: {BEGIN_EPOCH: 9, END_EPOCH: 9}", "no epoch to train"),
        ("TRAIN: {EMA: 1}", "TRAIN.EMA must be at least 0 and below 1"),
        ("TEST: {FLIP_TEST: 1}", "TEST.FLIP_TEST must be true or false"),
        ("TRAIN: 5", "TRAIN is a section"),
        ("MODEL: {DEPTH: 50, EXTRA: {NUM_LAYERS: 101}}", "name the same depth"),
        ("MODEL: {DEPTH: 51}", "MODEL.DEPTH must be one of 18, 34, 50, 101, 152"),
        ("MODEL: {IMAGE_SIZE: [250, 256]}", "sides are multiples of 32"),
        ("MODEL: {IMAGE_SIZE: [256]}", "one positive whole number or"),
        ("MODEL: {EXTRA: {HEATMAP_SIZE: [32, 32]}}", r"draw \[64, 64\]"),
        ("MODEL: {NUM_JOINTS: 17}", "the mpii skeleton has 16 joints"),
        ("MODEL: {EXTRA: {NUM_DECONV_LAYERS: 2}}", "has 3 entries"),
        ("TRAIN: {OPTIMIZER: lion}", "one of adam, adamw, sgd"),
        ("GPUS: first", "device numbers"),
        ("MODEL: [1, 2", "not valid YAML"),
        ("TRAIN: {LR: 0.5}\nDATASET: {FLIP: true}\nTRAIN: {BATCH_SIZE: 2}", "not valid YAML: a key is there twice"),
        ("TRAIN: {KEEP_CHECKPOINTS: 1" + 29 * "0" + "}", "KEEP_CHECKPOINTS must be at least 1 and at most 1000"),
        ("TRAIN: {SEED: 18446744073709551616}", "TRAIN.SEED must be .*at most 4294967295"),
        ("TRAIN: {LR: 0x" + 300 * "f" + "}", "TRAIN.LR must be a number .*found a whole number of about 360 digits"),
        ("TRAIN: {LR: -1}", "TRAIN.LR must be above 0"),
        ("TRAIN: {LR_STEP: [5, -1]}", "TRAIN.LR_STEP must be at least 0 .*found -1"),
        ("TRAIN: {CHECKPOINT_EVERY: 99999999999999999999h}", "TRAIN.CHECKPOINT_EVERY must be a time"),
        ("DATASET: {ROT_FACTOR: 1.0e+308}", "ROT_FACTOR must be at least 0 and at most 360 .*found 1e.308"),
        ("DATASET: {SCALE_FACTOR: 1}", "SCALE_FACTOR must be at least 0 and below 1"),
        ("MODEL: {IMAGE_SIZE: 320000}", "IMAGE_SIZE must be .*at most 4096"),
        ("MODEL: {EXTRA: {SIGMA: 1.0e+9}}", "SIGMA must be above 0 and at most 64"),
        ("MODEL: {EXTRA: {NUM_DECONV_LAYERS: 1000000000}}", "NUM_DECONV_LAYERS must be .* at most 5"),
        ("MODEL: {EXTRA: {NUM_DECONV_FILTERS: [256, 0, 256]}}", "NUM_DECONV_FILTERS must be at least 1 .*found 0"),
        ("MODEL: {EXTRA: {NUM_DECONV_FILTERS: [256, 256, 1000000000]}}", "NUM_DECONV_FILTERS must be .*at most 4096"),
        ("MODEL: {EXTRA: {NUM_DECONV_KERNELS: [4, 4, 5]}}", "NUM_DECONV_KERNELS must be .*at most 4"),
        ('DATASET: {ROOT: "a\\0b"}', "DATASET.ROOT must be text .* without control characters"),
        ('OUTPUT_DIR: "\\uD800"', "OUTPUT_DIR must be text"),
        ("DATASET: {TRAIN_SET: " + 300 * "x" + "}", "TRAIN_SET must be text .* at most 200 bytes"),
        ("GPUS: ²", "device numbers"),
        (300 * "x" + ": 1", "^x{100} is not a config key"),
        ("- 1\n- 2", "holds no configuration"),
        ("", "holds no configuration"),
    ],
)
def test_mistakes_are_named(write, text, message):
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no such configuration file"):
        load_config(tmp_path / "none.yaml")


def test_overrides_win_and_are_typed(write):
    path = write("TRAIN: {LR: 0.1, SHUFFLE: true}")
    config = load_config(path, ["TRAIN.LR=5e-4", "TRAIN.SHUFFLE=false", "TRAIN.LR_STEP=[1, 2]", "OUTPUT_DIR=a b"])
    assert (config.TRAIN.LR, config.TRAIN.SHUFFLE, config.TRAIN.LR_STEP) == (5e-4, False, [1, 2])
    assert config.OUTPUT_DIR == "a b"
    assert load_config(path, ["WORKERS=1"], {"WORKERS": 3}).WORKERS == 3


@pytest.mark.parametrize("override", ["TRAIN.LR", "=3", "TRAIN.LR=[", "TRAIN.RL=1", "TRAIN=1"])
def test_bad_overrides_are_refused(write, override):
    with pytest.raises(UserError):
        load_config(write("WORKERS: 0"), [override])


def test_what_follows_from_an_override_is_derived_anew(write):
    config = load_config(write(ORIGINAL_STYLE), ["MODEL.IMAGE_SIZE=[192,256]", "MODEL.DEPTH=101"])
    assert config.MODEL.EXTRA.HEATMAP_SIZE == [48, 64]
    assert config.MODEL.EXTRA.NUM_LAYERS == 101
    config = load_config(write(ORIGINAL_STYLE), ["MODEL.IMAGE_SIZE=128"])
    assert config.MODEL.IMAGE_SIZE == [128, 128]
    assert config.MODEL.EXTRA.HEATMAP_SIZE == [32, 32]
    with pytest.raises(UserError, match="HEATMAP_SIZE"):
        load_config(write("WORKERS: 0"), ["MODEL.EXTRA.HEATMAP_SIZE=[32, 32]"])


def test_a_dumped_configuration_reads_back_equal(write):
    config = load_config(write(ORIGINAL_STYLE), ["MODEL.IMAGE_SIZE=[192,256]"])
    assert load_config(write(dump_config(config))) == config


def test_a_recipe_is_all_that_decides_over_the_outcome_but_the_seed(write):
    path = write("TRAIN: {LR: 0.01}")
    elsewhere = [
        "DATASET.ROOT=/b",
        "OUTPUT_DIR=out",
        "WORKERS=0",
        "TRAIN.SEED=7",
        "TRAIN.RESUME=true",
        "DEBUG.DEBUG=true",
    ]
    first, again = recipe(load_config(path)), recipe(load_config(path, elsewhere))
    assert first == again and first["TRAIN.LR"] == 0.01 and first["MODEL.EXTRA.SIGMA"] == 2
    for other in (
        "TRAIN.LR=0.02",
        "TRAIN.EMA=0.9",
        "DATASET.CACHE=/c",
        "MODEL.IMAGE_SIZE=[192,256]",
        "TEST.FLIP_TEST=true",
    ):
        assert recipe(load_config(path, [other])) != first, other


def test_defaults_are_never_changed_by_loading(write):
    load_config(write("MODEL: {EXTRA: {SIGMA: 3}}")).MODEL.EXTRA.NUM_DECONV_FILTERS.append(1)
    assert get_key(DEFAULTS, "MODEL.EXTRA.SIGMA") == 2
    assert get_key(DEFAULTS, "MODEL.EXTRA.NUM_DECONV_FILTERS") == [256, 256, 256]


def test_keys_without_effect_warn_only_when_set(write):
    assert inert_warnings(load_config(write(ORIGINAL_STYLE))) == []
    warned = inert_warnings(load_config(write("TRAIN: {GAMMA1: 0.5, WD: 0.1}\nDATA_DIR: /data")))
    assert [line.split()[0] for line in warned] == ["DATA_DIR", "TRAIN.GAMMA1", "TRAIN.WD"]
    assert inert_warnings(load_config(write("TRAIN: {WD: 0.1, EPSILON: 1.0e-12, OPTIMIZER: adamw}"))) == []
    (warned,) = inert_warnings(load_config(write("TRAIN: {WD: 0.1, EPSILON: 1.0e-12, OPTIMIZER: sgd}")))
    assert warned.startswith("TRAIN.EPSILON has no effect")


@pytest.mark.parametrize(
    ("written", "meant"),
    [("10min", (600, None)), ("30 s", (30, None)), ("1.5h", (5400, None)), (500, (None, 500)), (0, (None, None))],
)
def test_intervals_by_hand(written, meant):
    assert parse_interval(written) == meant
