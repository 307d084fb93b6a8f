"""Every configuration key: its default, its bounds, and what it is part of."""

from __future__ import annotations

from typing import Any

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

DEFAULTS: dict[str, Any] = {
    "GPUS": "0",  # as in "0,1"; ignored where Paddle has no GPU
    "OUTPUT_DIR": "output",
    "LOG_DIR": "log",
    "DATA_DIR": "",
    "WORKERS": 4,
    "PRINT_FREQ": 20,
    "CUDNN": {"BENCHMARK": True, "DETERMINISTIC": False, "ENABLED": True},
    "DATASET": {
        "DATASET": "mpii",
        "ROOT": "",
        "TRAIN_SET": "train",
        "TEST_SET": "valid",
        "SKELETON": "",  # other joints in COCO's format: a YAML file, or what is in it; empty: those of DATASET
        "DATA_FORMAT": "jpg",  # "zip" reads images from images.zip
        "CACHE": "",  # a folder for training crops' surroundings, as pixels; empty: photographs are decoded every time
        "REDUCED_DECODE": False,  # training photographs at 1/2, 1/4 or 1/8 where the crop is that much coarser
        "HYBRID_JOINTS_TYPE": "",
        "SELECT_DATA": False,
        "FLIP": True,
        "SCALE_FACTOR": 0.25,
        "ROT_FACTOR": 30,  # degrees
        "MAX_BAD": 0,  # unreadable training images that are named and left out; one more ends the training
    },
    "MODEL": {
        "NAME": "pose_resnet",
        "BACKBONE": "resnet",
        "DEPTH": None,  # same as EXTRA.NUM_LAYERS; 50 if neither is written
        "STYLE": "pytorch",
        "INIT_WEIGHTS": True,
        "PRETRAINED": "",
        "NUM_JOINTS": None,  # the skeleton's
        "IMAGE_SIZE": [256, 256],  # width, height; one number for a square
        "INPUT_FORMAT": "bgr",  # see preprocessing.INPUT_FORMATS
        "EXTRA": {
            "TARGET_TYPE": "gaussian",
            "SIGMA": 2,  # heatmap cells
            "HEATMAP_SIZE": None,  # width, height; what the network draws for IMAGE_SIZE
            "FINAL_CONV_KERNEL": 1,
            "DECONV_WITH_BIAS": False,
            "NUM_DECONV_LAYERS": 3,
            "NUM_DECONV_FILTERS": [256, 256, 256],
            "NUM_DECONV_KERNELS": [4, 4, 4],
            "NUM_LAYERS": None,  # the original's name of MODEL.DEPTH
        },
    },
    "LOSS": {"USE_TARGET_WEIGHT": True},
    "TRAIN": {
        "BATCH_SIZE": 32,  # per device
        "SHUFFLE": True,
        "SEED": 0,
        "BEGIN_EPOCH": 0,
        "END_EPOCH": 140,
        "RESUME": False,  # go on from the run folder's newest checkpoint, if there is one
        "CHECKPOINT_EVERY": "10min",  # also within an epoch: a time in s, min or h, or a number of steps; 0: no
        "AMP": "O0",  # O1: float16 in a GPU's convolutions, bfloat16 on a CPU that has it; O2: nearly everywhere (GPU)
        "CPU_KERNELS": "auto",  # onednn, paddle; auto: oneDNN where Paddle carries it
        "SYNC_BN": False,  # batch norm over the batches of all GPUs; Paddle has no such thing for CPUs
        "KEEP_CHECKPOINTS": 2,  # the newest, and those before it
        "CHECKPOINT": "",
        "OPTIMIZER": "adam",
        "LR": 0.001,
        "LR_TYPE": "MultiStepDecay",
        "LR_FACTOR": 0.1,
        "LR_STEP": [90, 110],  # epochs
        "WARMUP_ITERS": 0,
        "ACCUMULATE": 1,  # iterations whose gradients are averaged to one step of the optimiser
        "CLIP_GRAD_NORM": 0.0,  # longer gradients, of all weights together, are shortened to this; 0: none are
        "FREEZE_BACKBONE_EPOCHS": 0,  # in the first so many epochs the head alone learns
        "EMA": 0.0,  # decay of the averaged weights that are validated and kept beside the trained, as 0.999; 0: none
        "EPSILON": 1e-8,  # Adam's; heatmap losses are small, and early gradients of deep layers smaller than this
        "WD": 0.0001,
        "MOMENTUM": 0.9,
        "NESTEROV": False,
        "GAMMA1": 0.99,
        "GAMMA2": 0.0,
    },
    "TEST": {
        "BATCH_SIZE": 32,
        "FLIP_TEST": False,
        "POST_PROCESS": True,
        "SHIFT_HEATMAP": True,
        "MODEL_FILE": "",
        "USE_GT_BBOX": False,  # COCO: the annotated boxes; else those of COCO_BBOX_FILE
        "COCO_BBOX_FILE": "",
        "BBOX_THRE": 1.0,
        "IMAGE_THRE": 0.0,  # leave detected boxes with a lower score out
        "IN_VIS_THRE": 0.0,  # joints that score more count in a person's score
        "NMS_THRE": 1.0,
        "OKS_THRE": 0.5,  # of two poses more alike than this the better one stays
        "SOFT_NMS": False,  # lower the score of the other one instead; OKS_THRE says how fast
    },
    "DEBUG": {
        "DEBUG": False,
        "SAVE_BATCH_IMAGES_GT": False,
        "SAVE_BATCH_IMAGES_PRED": False,
        "SAVE_HEATMAPS_GT": False,
        "SAVE_HEATMAPS_PRED": False,
    },
}

# Keys of the original and of the earlier Paddle port that load and do nothing. Setting one to anything but
# its default earns a warning.
INERT = {
    "DATA_DIR": "write the folder into DATASET.ROOT",
    "CUDNN.ENABLED": "cuDNN is used whenever Paddle runs on a GPU",
    "DATASET.HYBRID_JOINTS_TYPE": "it never had an effect",
    "MODEL.INIT_WEIGHTS": "a network is initialised for training and loaded for everything else",
    "TRAIN.CHECKPOINT": "use --resume_model FILE",
    "TRAIN.GAMMA1": "it never had an effect",
    "TRAIN.GAMMA2": "it never had an effect",
    "TEST.BBOX_THRE": "it never had an effect; see TEST.IMAGE_THRE",
    "TEST.NMS_THRE": "it never had an effect; see TEST.OKS_THRE",
}

CHOICES = {
    "DATASET.DATASET": tuple(SKELETONS),
    "DATASET.DATA_FORMAT": ("jpg", "zip"),
    "MODEL.NAME": ("pose_resnet",),
    "MODEL.BACKBONE": ("resnet",),
    "MODEL.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.STYLE": ("pytorch", "caffe"),
    "MODEL.INPUT_FORMAT": tuple(INPUT_FORMATS),
    "MODEL.EXTRA.TARGET_TYPE": ("gaussian",),
    "MODEL.EXTRA.FINAL_CONV_KERNEL": (1, 3),
    "TRAIN.AMP": ("O0", "O1", "O2"),
    "TRAIN.CPU_KERNELS": ("auto", "onednn", "paddle"),
    "TRAIN.OPTIMIZER": ("adam", "adamw", "sgd"),
    "TRAIN.LR_TYPE": ("MultiStepDecay", "PolynomialDecay", "CosineAnnealingDecay"),
}

# Lowest and highest value, of a list: of each entry. Beyond lie values that mean nothing, or that fill the memory.
LIMITS: dict[str, tuple[float, float]] = {
    "WORKERS": (0, 1024),
    "PRINT_FREQ": (1, BILLION),
    "DATASET.SCALE_FACTOR": (0, BELOW_ONE),  # at 1 a crop may have no size
    "DATASET.ROT_FACTOR": (0, 360),
    "DATASET.MAX_BAD": (0, BILLION),
    "MODEL.NUM_JOINTS": (1, MAX_JOINTS),
    "MODEL.IMAGE_SIZE": (1, MAX_SIDE),
    "MODEL.EXTRA.SIGMA": (ABOVE_ZERO, MAX_SIGMA),
    "MODEL.EXTRA.HEATMAP_SIZE": (1, MAX_SIDE),
    "MODEL.EXTRA.NUM_DECONV_LAYERS": (1, MAX_DECONVS),
    "MODEL.EXTRA.NUM_DECONV_FILTERS": (1, MAX_CHANNELS),
    "MODEL.EXTRA.NUM_DECONV_KERNELS": (2, 4),
    "TRAIN.BATCH_SIZE": (1, MILLION),
    "TRAIN.SEED": (0, 2**32 - 1),
    "TRAIN.BEGIN_EPOCH": (0, MILLION),
    "TRAIN.END_EPOCH": (1, MILLION),
    "TRAIN.KEEP_CHECKPOINTS": (1, 1000),
    "TRAIN.LR": (ABOVE_ZERO, 1000),
    "TRAIN.LR_FACTOR": (0, 1000),
    "TRAIN.LR_STEP": (0, MILLION),
    "TRAIN.WARMUP_ITERS": (0, BILLION),
    "TRAIN.ACCUMULATE": (1, MILLION),
    "TRAIN.CLIP_GRAD_NORM": (0, BILLION),
    "TRAIN.FREEZE_BACKBONE_EPOCHS": (0, MILLION),
    "TRAIN.EMA": (0, BELOW_ONE),  # at 1 the average would never move
    "TRAIN.EPSILON": (ABOVE_ZERO, 1),
    "TRAIN.WD": (0, 1000),
    "TRAIN.MOMENTUM": (0, 1),
    "TEST.BATCH_SIZE": (1, MILLION),
    "TEST.OKS_THRE": (ABOVE_ZERO, 1000),
}
MAX_ENTRIES = 1000  # of a list
MAX_PART_BYTES = 200  # of a name between two slashes; file systems take 255, and names grow endings

# A value derived from others is stale once one of these is overridden on the command line; it is derived anew.
DERIVED_FROM = {
    "MODEL.EXTRA.HEATMAP_SIZE": ("MODEL.IMAGE_SIZE", "MODEL.EXTRA.NUM_DECONV_LAYERS"),
    "DATASET.SKELETON": ("DATASET.DATASET",),
    "MODEL.NUM_JOINTS": ("DATASET.DATASET", "DATASET.SKELETON"),
    "MODEL.DEPTH": ("MODEL.EXTRA.NUM_LAYERS",),
    "MODEL.EXTRA.NUM_LAYERS": ("MODEL.DEPTH",),
}
SIZES = ("MODEL.IMAGE_SIZE", "MODEL.EXTRA.HEATMAP_SIZE")  # (width, height), or one number for both
INTEGERS = ("MODEL.DEPTH", "MODEL.NUM_JOINTS", "MODEL.EXTRA.NUM_LAYERS")  # whose default is None

# What a weight file says of its network: all that is needed to rebuild it, to feed it and to read its heatmaps.
DESCRIBED = (
    "DATASET.DATASET",
    "DATASET.SKELETON",
    "MODEL.NAME",
    "MODEL.BACKBONE",
    "MODEL.DEPTH",
    "MODEL.STYLE",
    "MODEL.NUM_JOINTS",
    "MODEL.IMAGE_SIZE",
    "MODEL.INPUT_FORMAT",
    "MODEL.EXTRA.TARGET_TYPE",
    "MODEL.EXTRA.SIGMA",
    "MODEL.EXTRA.HEATMAP_SIZE",
    "MODEL.EXTRA.FINAL_CONV_KERNEL",
    "MODEL.EXTRA.DECONV_WITH_BIAS",
    "MODEL.EXTRA.NUM_DECONV_LAYERS",
    "MODEL.EXTRA.NUM_DECONV_FILTERS",
    "MODEL.EXTRA.NUM_DECONV_KERNELS",
)

# Keys that may differ between two runs of one experiment: where and how fast, and not what comes out.
CIRCUMSTANCES = (
    "GPUS",
    "OUTPUT_DIR",
    "LOG_DIR",
    "WORKERS",
    "PRINT_FREQ",
    "DATASET.ROOT",
    "DATASET.DATA_FORMAT",
    "TRAIN.SEED",
    "TRAIN.CPU_KERNELS",
    "TRAIN.RESUME",
    "TRAIN.CHECKPOINT_EVERY",
    "TRAIN.KEEP_CHECKPOINTS",
    "TEST.BATCH_SIZE",
    "TEST.MODEL_FILE",
    *(f"DEBUG.{name}" for name in DEFAULTS["DEBUG"]),
)
