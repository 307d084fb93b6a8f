"""Every configuration key: its default, its bounds and its role."""

from __future__ import annotations

from typing import Any, NamedTuple

from simplepose.core.codecs.gaussian import DECODERS
from simplepose.core.description import (
    ABOVE_ZERO,
    BELOW_ONE,
    MAX_CHANNELS,
    MAX_DECONVS,
    MAX_SIDE,
    MAX_SIGMA,
)
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MAX_JOINTS, SKELETONS

MILLION, BILLION = 10**6, 10**9
SECONDS = {"s": 1, "min": 60, "h": 3600}

SET_KEYS = ("DATASET", "ROOT", "TRAIN_SET", "SKELETON", "DATA_FORMAT")  # of DATASET, that each of several sets has

MAX_ENTRIES = 1000  # of a list
MAX_PART_BYTES = 200  # of one path component; file systems allow 255, and suffixes are added to names


class Key(NamedTuple):
    """A key of an experiment file.

    Attributes:
        default: None means derived: from the image size, the skeleton or the other name of the same thing.
        choices: all values it may have.
        limits: lowest and highest value; for a list, of each entry. Values outside are meaningless or would exhaust the
            memory.
        is_size: (width, height), or one number for both.
        derived_from: once one of these is written in a later layer, its derived value is stale.
        described: stored in weight files: needed to rebuild the network, to preprocess its input or to decode heatmaps.
        circumstance: may differ between two runs of one experiment: affects where and how fast it runs, not the result.
        inert: why it has no effect; a value other than the default causes a warning with this text.
    """

    default: Any
    choices: tuple = ()
    limits: tuple[float, float] | None = None
    is_size: bool = False
    derived_from: tuple[str, ...] = ()
    described: bool = False
    circumstance: bool = False
    inert: str = ""


KEYS: dict[str, Key] = {
    "GPUS": Key("0", circumstance=True),  # as in "0,1"; ignored where Paddle has no GPU
    "OUTPUT_DIR": Key("output", circumstance=True),
    "LOG_DIR": Key("log", circumstance=True),
    "DATA_DIR": Key("", inert="write the folder into DATASET.ROOT"),
    "WORKERS": Key(4, limits=(0, 1024), circumstance=True),
    "PRINT_FREQ": Key(20, limits=(1, BILLION), circumstance=True),
    "CUDNN.BENCHMARK": Key(True),
    "CUDNN.DETERMINISTIC": Key(False),
    "CUDNN.ENABLED": Key(True, inert="cuDNN is used whenever Paddle runs on a GPU"),
    "DATASET.DATASET": Key("mpii", choices=tuple(SKELETONS), described=True),
    "DATASET.ROOT": Key("", circumstance=True),
    "DATASET.TRAIN_SET": Key("train"),
    "DATASET.TEST_SET": Key("valid"),
    # custom joints in COCO's format: a YAML file, the name of a bundled skeleton, or its content; empty: the joints of
    # DATASET
    "DATASET.SKELETON": Key("", derived_from=("DATASET.DATASET",), described=True),
    "DATASET.DATA_FORMAT": Key("jpg", choices=("jpg", "zip"), circumstance=True),  # "zip" reads images from images.zip
    # more sets to train on, each a table of SET_KEYS; their joints are mapped onto the first set's by name
    "DATASET.MORE": Key([]),
    # folder of the crop cache, decoded patches around the training persons; empty: photographs are decoded every time
    "DATASET.CACHE": Key(""),
    "DATASET.REDUCED_DECODE": Key(False),  # decode photographs at 1/2, 1/4 or 1/8 for training crops that much coarser
    "DATASET.HYBRID_JOINTS_TYPE": Key("", inert="it never had an effect"),
    "DATASET.SELECT_DATA": Key(False),
    "DATASET.FLIP": Key(True),
    "DATASET.SCALE_FACTOR": Key(0.25, limits=(0, BELOW_ONE)),  # at 1 a crop may have no size
    "DATASET.ROT_FACTOR": Key(30, limits=(0, 360)),  # degrees
    "DATASET.SHIFT_FACTOR": Key(0.0, limits=(0, 0.5)),  # the crop moves by up to so much of its size
    "DATASET.PROB_HALF_BODY": Key(0.0, limits=(0, 1)),  # crops of the upper or the lower body alone
    "DATASET.COLOR_FACTOR": Key(0.0, limits=(0, 0.5)),  # each channel's brightness and contrast change by up to so much
    "DATASET.PROB_OCCLUSION": Key(0.0, limits=(0, 1)),  # crops with a rectangle of one colour over them
    # how many unreadable training images to skip, with a warning each; one more is an error
    "DATASET.MAX_BAD": Key(0, limits=(0, BILLION)),
    "MODEL.NAME": Key("pose_resnet", choices=("pose_resnet",), described=True),
    "MODEL.BACKBONE": Key("resnet", choices=("resnet",), described=True),
    # same as EXTRA.NUM_LAYERS; 50 if neither is written
    "MODEL.DEPTH": Key(
        None,
        choices=(18, 34, 50, 101, 152),
        derived_from=("MODEL.EXTRA.NUM_LAYERS",),
        described=True,
    ),
    "MODEL.STYLE": Key("pytorch", choices=("pytorch", "caffe"), described=True),
    "MODEL.INIT_WEIGHTS": Key(True, inert="a network is initialised for training and loaded for everything else"),
    "MODEL.PRETRAINED": Key(""),
    # default: those of the skeleton
    "MODEL.NUM_JOINTS": Key(
        None,
        limits=(1, MAX_JOINTS),
        derived_from=("DATASET.DATASET", "DATASET.SKELETON"),
        described=True,
    ),
    # width, height; one number for a square
    "MODEL.IMAGE_SIZE": Key([256, 256], limits=(1, MAX_SIDE), is_size=True, described=True),
    "MODEL.INPUT_FORMAT": Key("bgr", choices=tuple(INPUT_FORMATS), described=True),  # see core/images.py
    "MODEL.EXTRA.TARGET_TYPE": Key("gaussian", choices=("gaussian",), described=True),
    "MODEL.EXTRA.SIGMA": Key(2, limits=(ABOVE_ZERO, MAX_SIGMA), described=True),  # heatmap cells
    # UDP: sizes measured from the first pixel to the last; mirrored heatmaps then need no shift. See codecs/gaussian.py
    "MODEL.EXTRA.UNBIASED": Key(False, described=True),
    # width, height; default: the network's output size for IMAGE_SIZE
    "MODEL.EXTRA.HEATMAP_SIZE": Key(
        None,
        limits=(1, MAX_SIDE),
        is_size=True,
        derived_from=("MODEL.IMAGE_SIZE", "MODEL.EXTRA.NUM_DECONV_LAYERS"),
        described=True,
    ),
    "MODEL.EXTRA.FINAL_CONV_KERNEL": Key(1, choices=(1, 3), described=True),
    "MODEL.EXTRA.DECONV_WITH_BIAS": Key(False, described=True),
    "MODEL.EXTRA.NUM_DECONV_LAYERS": Key(3, limits=(1, MAX_DECONVS), described=True),
    "MODEL.EXTRA.NUM_DECONV_FILTERS": Key([256, 256, 256], limits=(1, MAX_CHANNELS), described=True),
    "MODEL.EXTRA.NUM_DECONV_KERNELS": Key([4, 4, 4], limits=(2, 4), described=True),
    "MODEL.EXTRA.NUM_LAYERS": Key(None, derived_from=("MODEL.DEPTH",)),  # the original's name for MODEL.DEPTH
    # score, probability, score, probability, ...: what makes a joint's score the probability that it is right, from
    # analyze.py; empty: scores are the heatmaps' maxima. Poses get it (infer, deploy), COCO's rescoring does not
    "MODEL.CALIBRATION": Key([], described=True),
    "LOSS.USE_TARGET_WEIGHT": Key(True),
    "TRAIN.BATCH_SIZE": Key(32, limits=(1, MILLION)),  # per device
    "TRAIN.SHUFFLE": Key(True),
    "TRAIN.SEED": Key(0, limits=(0, 2**32 - 1), circumstance=True),
    "TRAIN.BEGIN_EPOCH": Key(0, limits=(0, MILLION)),
    "TRAIN.END_EPOCH": Key(140, limits=(1, MILLION)),
    "TRAIN.RESUME": Key(False, circumstance=True),  # resume from the run folder's newest checkpoint, if any
    # checkpoints within an epoch: a time in s, min or h, or a number of steps; 0: only after each epoch
    "TRAIN.CHECKPOINT_EVERY": Key("10min", circumstance=True),
    # O1: float16 in a GPU's convolutions, bfloat16 on a CPU that has it; O2: float16 nearly everywhere (GPU)
    "TRAIN.AMP": Key("O0", choices=("O0", "O1", "O2")),
    # onednn, paddle; auto: oneDNN where Paddle ships it
    "TRAIN.CPU_KERNELS": Key("auto", choices=("auto", "onednn", "paddle"), circumstance=True),
    "TRAIN.SYNC_BN": Key(False),  # batch norm over the batches of all GPUs; Paddle has none for CPUs
    "TRAIN.KEEP_CHECKPOINTS": Key(2, limits=(1, 1000), circumstance=True),  # how many to keep, the newest included
    "TRAIN.CHECKPOINT": Key("", inert="use --resume_model FILE"),
    "TRAIN.OPTIMIZER": Key("adam", choices=("adam", "adamw", "sgd")),
    "TRAIN.LR": Key(0.001, limits=(ABOVE_ZERO, 1000)),
    "TRAIN.LR_TYPE": Key("MultiStepDecay", choices=("MultiStepDecay", "PolynomialDecay", "CosineAnnealingDecay")),
    "TRAIN.LR_FACTOR": Key(0.1, limits=(0, 1000)),
    "TRAIN.LR_STEP": Key([90, 110], limits=(0, MILLION)),  # epochs
    "TRAIN.WARMUP_ITERS": Key(0, limits=(0, BILLION)),
    # iterations whose gradients are averaged into one optimiser step
    "TRAIN.ACCUMULATE": Key(1, limits=(1, MILLION)),
    # maximum norm of the gradient of all weights together; 0: no clipping
    "TRAIN.CLIP_GRAD_NORM": Key(0.0, limits=(0, BILLION)),
    "TRAIN.FREEZE_BACKBONE_EPOCHS": Key(0, limits=(0, MILLION)),  # only the head is trained in these first epochs
    # decay of the weights' moving average (EMA), as 0.999; the average is validated, and saved beside the weights;
    # 0: no EMA; 1 would never update
    "TRAIN.EMA": Key(0.0, limits=(0, BELOW_ONE)),
    # Adam's; heatmap losses are small, and early gradients of deep layers can be below this
    "TRAIN.EPSILON": Key(1e-08, limits=(ABOVE_ZERO, 1)),
    "TRAIN.WD": Key(0.0001, limits=(0, 1000)),
    "TRAIN.MOMENTUM": Key(0.9, limits=(0, 1)),
    "TRAIN.NESTEROV": Key(False),
    "TRAIN.GAMMA1": Key(0.99, inert="it never had an effect"),
    "TRAIN.GAMMA2": Key(0.0, inert="it never had an effect"),
    "TEST.BATCH_SIZE": Key(32, limits=(1, MILLION), circumstance=True),
    "TEST.FLIP_TEST": Key(False),
    "TEST.POST_PROCESS": Key(True),
    "TEST.DECODER": Key("quarter", choices=DECODERS, described=True),  # POST_PROCESS's step; see codecs/gaussian.py
    "TEST.SHIFT_HEATMAP": Key(True),  # ignored for MODEL.EXTRA.UNBIASED
    "TEST.MODEL_FILE": Key("", circumstance=True),
    "TEST.USE_GT_BBOX": Key(False),  # COCO: the annotated boxes; else those of COCO_BBOX_FILE
    "TEST.COCO_BBOX_FILE": Key(""),
    "TEST.BBOX_THRE": Key(1.0, inert="it never had an effect; see TEST.IMAGE_THRE"),
    "TEST.IMAGE_THRE": Key(0.0),  # skip detected boxes with a lower score
    "TEST.IN_VIS_THRE": Key(0.0),  # joints that score more count in a person's score
    "TEST.NMS_THRE": Key(1.0, inert="it never had an effect; see TEST.OKS_THRE"),
    "TEST.OKS_THRE": Key(0.5, limits=(ABOVE_ZERO, 1000)),  # of two poses with a higher OKS the better one is kept
    "TEST.SOFT_NMS": Key(False),  # lower the other pose's score instead; OKS_THRE sets how fast
    "DEBUG.DEBUG": Key(False, circumstance=True),
    "DEBUG.SAVE_BATCH_IMAGES_GT": Key(False, circumstance=True),
    "DEBUG.SAVE_BATCH_IMAGES_PRED": Key(False, circumstance=True),
    "DEBUG.SAVE_HEATMAPS_GT": Key(False, circumstance=True),
    "DEBUG.SAVE_HEATMAPS_PRED": Key(False, circumstance=True),
}


def _nested() -> dict[str, Any]:
    defaults: dict[str, Any] = {}
    for name, key in KEYS.items():
        *sections, last = name.split(".")
        place = defaults
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = key.default
    return defaults


DEFAULTS = _nested()  # nested by section, as in a file
DESCRIBED = tuple(name for name, key in KEYS.items() if key.described)
