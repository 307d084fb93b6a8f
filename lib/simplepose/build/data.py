"""Builds data sets, loaders and evaluators from a configuration."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Callable

from simplepose.build.model import build_codec, build_skeleton
from simplepose.config.load import find_skeleton
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import LOWER_BODY
from simplepose.data.augment import AugmentationSettings
from simplepose.data.checks import LabelledSet
from simplepose.data.coco import annotation_file, load_coco, read_coco
from simplepose.data.crop_cache import CropCache, open_crop_cache
from simplepose.data.dataset import PoseDataset
from simplepose.data.formats import coco, mpii
from simplepose.data.formats.base import ImageFolder
from simplepose.data.image_checks import look_at_all
from simplepose.data.loader import BatchLoader, BatchSampler, DistributedBatches
from simplepose.data.mpii import load_mpii
from simplepose.data.sample import PoseSample, is_test_set, select_well_framed, with_joints_of
from simplepose.machine.distributed import ranks
from simplepose.metrics.analysis import AnalysedSet, OksSet, PckhSet
from simplepose.metrics.coco_ap import CocoEvaluator
from simplepose.metrics.pckh import PckhEvaluator, load_pckh_ground_truth

if TYPE_CHECKING:
    from easydict import EasyDict

    from simplepose.training.evaluation import Evaluator

logger = logging.getLogger("simplepose")


def _load_mpii(config: EasyDict, dataset: EasyDict, image_set: str, bbox_file: str | None) -> list[PoseSample]:
    del config, bbox_file  # MPII has no detection file: its persons are annotated one by one
    return load_mpii(dataset.ROOT, image_set, dataset.DATA_FORMAT)


def _load_coco(config: EasyDict, dataset: EasyDict, image_set: str, bbox_file: str | None) -> list[PoseSample]:
    width, height = config.MODEL.IMAGE_SIZE
    return load_coco(
        dataset.ROOT, image_set, find_skeleton(dataset), width / height, dataset.DATA_FORMAT, bbox_file,
        config.TEST.IMAGE_THRE,
    )  # fmt: skip


DATASETS = {"mpii": _load_mpii, "coco": _load_coco}  # by DATASET.DATASET


def build_train_samples(config: EasyDict) -> list[PoseSample]:
    """The training persons of DATASET and after them those of each set of DATASET.MORE, all with the first's joints."""
    every, skeleton = [], build_skeleton(config)
    for dataset in (config.DATASET, *config.DATASET.MORE):
        samples = DATASETS[dataset.DATASET](config, dataset, dataset.TRAIN_SET, None)
        if config.DATASET.SELECT_DATA:
            count = len(samples)
            samples = select_well_framed(samples)
            logger.info("=> SELECT_DATA keeps %d of %d samples", len(samples), count)
            if not samples:
                raise UserError(
                    f"DATASET.SELECT_DATA keeps none of the {count} samples of {dataset.TRAIN_SET}; set it to false"
                )
        if dataset is not config.DATASET:
            own = find_skeleton(dataset)
            samples = with_joints_of(samples, own, skeleton)
            shared = len(set(own.joints) & set(skeleton.joints))
            logger.info("=> %s: %d of the %d joints are known", dataset.ROOT, shared, skeleton.num_joints)
        logger.info("=> load %d samples", len(samples))
        every += samples
    return every


def build_valid_samples(config: EasyDict) -> list[PoseSample]:
    dataset = config.DATASET
    samples = DATASETS[dataset.DATASET](config, dataset, dataset.TEST_SET, _bbox_file(config))
    logger.info("=> load %d samples", len(samples))
    return samples


def _bbox_file(config: EasyDict) -> str | None:
    """The detections to validate on; None for the annotated boxes."""
    if config.DATASET.DATASET != "coco" or config.TEST.USE_GT_BBOX:
        return None
    if not config.TEST.COCO_BBOX_FILE:
        raise UserError(
            "TEST.USE_GT_BBOX is false and TEST.COCO_BBOX_FILE names no detections; set one of them "
            "(TEST.USE_GT_BBOX=true takes the annotated boxes)"
        )
    return config.TEST.COCO_BBOX_FILE


def box_source(config: EasyDict) -> str:
    """Where the validation boxes come from; reported beside every score."""
    return _bbox_file(config) or "annotated"


def build_augmentation(config: EasyDict) -> AugmentationSettings:
    """How training crops are augmented.

    Raises:
        UserError: half bodies of a skeleton without lower body, or from a cache, whose patches are too coarse for them.
    """
    dataset, skeleton = config.DATASET, build_skeleton(config)
    if dataset.PROB_HALF_BODY:
        if skeleton.lower_body.all() or not skeleton.lower_body.any():
            raise UserError(
                f"DATASET.PROB_HALF_BODY: the joints of {skeleton.name} have no upper and lower body; set it to 0 "
                f"(joints of the lower body are told by {', '.join(LOWER_BODY)} in their names)"
            )
        if dataset.CACHE:
            raise UserError(
                "DATASET.CACHE holds whole bodies, too coarse for halves; set PROB_HALF_BODY to 0 or no CACHE"
            )
    return AugmentationSettings(
        dataset.SCALE_FACTOR, dataset.ROT_FACTOR, dataset.FLIP, dataset.SHIFT_FACTOR, dataset.PROB_HALF_BODY,
        dataset.COLOR_FACTOR, dataset.PROB_OCCLUSION,
    )  # fmt: skip


def read_labelled_sets(
    config: EasyDict, names: Sequence[str], progress: Callable[[Iterable], Iterable] = iter
) -> list[LabelledSet]:
    """The sets of an experiment as `data_tools.py check` looks at them: mistakes and all, with their image files.

    Args:
        names: of "train" and "valid", meaning DATASET.TRAIN_SET and DATASET.TEST_SET.
    """
    dataset, sets = config.DATASET, []
    which = {"train": dataset.TRAIN_SET, "valid": dataset.TEST_SET}
    if not set(names) <= set(which):
        raise UserError(f"--sets is train, valid or train,valid, found {','.join(names)}")
    for image_set in dict.fromkeys(which[name] for name in names):
        if dataset.DATASET == "mpii":
            path, folder, form = Path(dataset.ROOT, "annot", f"{image_set}.json"), Path(dataset.ROOT, "images"), mpii
        else:
            path, folder, form = annotation_file(dataset.ROOT, image_set), Path(dataset.ROOT, "images", image_set), coco
        images = ImageFolder(folder)
        labels = form.read(path, images, build_skeleton(config))
        facts = look_at_all(labels.pictures, images, progress)
        sets.append(LabelledSet(image_set, labels, images, facts, one_based=dataset.DATASET == "mpii"))
    return sets


def build_train_loader(config: EasyDict) -> BatchLoader:
    settings = build_augmentation(config)
    samples = build_train_samples(config)
    train, dataset, cache = config.TRAIN, config.DATASET, None
    if dataset.CACHE:
        size_wh = tuple(config.MODEL.IMAGE_SIZE)
        cache = open_crop_cache(dataset.CACHE, samples, settings, size_wh, config.WORKERS)
    sampler = BatchSampler(len(samples), train.BATCH_SIZE, train.SHUFFLE, train.SEED, *ranks())
    return BatchLoader(_dataset(config, samples, settings, cache), sampler, config.WORKERS)


def build_valid_loader(config: EasyDict) -> BatchLoader:
    samples = build_valid_samples(config)
    sampler = DistributedBatches(len(samples), config.TEST.BATCH_SIZE, *ranks())
    return BatchLoader(_dataset(config, samples, None), sampler, config.WORKERS)


def _dataset(
    config: EasyDict,
    samples: list[PoseSample],
    augmentation: AugmentationSettings | None,
    cache: CropCache | None = None,
) -> PoseDataset:
    trains = augmentation is not None  # validation ignores REDUCED_DECODE and skips no images
    return PoseDataset(
        samples,
        build_skeleton(config),
        build_codec(config),
        INPUT_FORMATS[config.MODEL.INPUT_FORMAT],
        augmentation,
        config.TRAIN.SEED,
        cache,
        trains and config.DATASET.REDUCED_DECODE,
        config.DATASET.MAX_BAD if trains else 0,
    )


def _pckh_evaluator(config: EasyDict, samples: list[PoseSample]) -> PckhEvaluator:
    truth = None
    if not is_test_set(config.DATASET.TEST_SET):
        truth = load_pckh_ground_truth(_pckh_truth_file(config))
    return PckhEvaluator(len(samples), config.MODEL.NUM_JOINTS, truth)


def _coco_evaluator(config: EasyDict, samples: list[PoseSample]) -> CocoEvaluator:
    skeleton, test = build_skeleton(config), config.TEST
    truth = read_coco(annotation_file(config.DATASET.ROOT, config.DATASET.TEST_SET), skeleton)
    return CocoEvaluator(
        samples, truth, skeleton, config.DATASET.TEST_SET, test.IN_VIS_THRE, test.OKS_THRE, test.SOFT_NMS
    )


def build_analysed_set(config: EasyDict) -> tuple[AnalysedSet, Path | None]:
    """TEST_SET as an error analysis takes it, and the folder of its photographs if there is one.

    Raises:
        UserError: a set without labels.
    """
    dataset = config.DATASET
    if is_test_set(dataset.TEST_SET):
        raise UserError(f"{dataset.TEST_SET} has no labels to report errors against; set DATASET.TEST_SET")
    images = Path(dataset.ROOT, "images", *([dataset.TEST_SET] if dataset.DATASET == "coco" else []))
    if dataset.DATASET == "coco":
        analysed = OksSet(annotation_file(dataset.ROOT, dataset.TEST_SET), build_skeleton(config))
    else:
        analysed = PckhSet(_pckh_truth_file(config))
    return analysed, images if images.is_dir() else None


def _pckh_truth_file(config: EasyDict) -> Path:
    return Path(config.DATASET.ROOT, "annot", f"gt_{config.DATASET.TEST_SET}.mat")


EVALUATORS = {"mpii": _pckh_evaluator, "coco": _coco_evaluator}  # by DATASET.DATASET


def build_evaluator(config: EasyDict, samples: list[PoseSample]) -> Evaluator:
    """The evaluator of TEST_SET, whose persons are `samples`."""
    return EVALUATORS[config.DATASET.DATASET](config, samples)
