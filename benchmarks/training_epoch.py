"""Seconds of one epoch of LSPET, validation included: as train.py runs it, and as the original's loop does in PyTorch.

python benchmarks/training_epoch.py --runtime paddle --data data/lspet --persons 800
python benchmarks/training_epoch.py --runtime torch --data data/lspet --persons 800

Recipe: experiments/lspet/resnet18/128x128_d256x3_adam_lr1e-3.yaml. Of the validation set as large a share is taken as
of the training set. Neither start-up nor checkpoints count.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import peers
from timing import peak_memory_mib, scratch_folder

from simplepose.core.errors import UserError, run_command

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "experiments" / "lspet" / "resnet18" / "128x128_d256x3_adam_lr1e-3.yaml"


def lspet() -> Path:
    """Where the data set is, as for the tests that need real data."""
    return Path(os.environ.get("POSE_REAL_DATA", ROOT.parent / "shared" / "data")) / "lspet"


def paddle_epoch(args: argparse.Namespace, config, folder: Path):
    """train_one_epoch and evaluate, over the first batches."""
    from simplepose.machine.device import set_device, set_seeds
    from simplepose.machine.paddle_start import start_paddle

    start_paddle()
    from simplepose.build.data import build_train_loader, build_valid_loader
    from simplepose.build.model import build_inference_settings
    from simplepose.build.training import build_kernels, build_loop_settings, build_training_state
    from simplepose.inference.network import paddle_network
    from simplepose.metrics.pckh import PckhEvaluator
    from simplepose.training.evaluation import evaluate
    from simplepose.training.health import Health
    from simplepose.training.loop import train_one_epoch
    from simplepose.training.watchers import LogLines

    set_device(config.GPUS)
    set_seeds(config.TRAIN.SEED)
    train, valid = build_train_loader(config), build_valid_loader(config)
    num_train, num_valid = shares(args.persons, len(train.dataset), len(valid.dataset))
    train.dataset.samples, valid.dataset.samples = train.dataset.samples[:num_train], valid.dataset.samples[:num_valid]
    train.sampler.length, valid.sampler.length = num_train, num_valid
    evaluator = PckhEvaluator(num_valid, config.MODEL.NUM_JOINTS, ground_truth(args.data, num_valid))
    config.TRAIN.AMP = "O1" if args.amp else "O0"
    kernels, _ = build_kernels(config)
    state = build_training_state(config, kernels, len(train))

    def epoch() -> float:
        watchers = [Health(state.model, train.dataset, folder), LogLines(1)]
        train_one_epoch(state.model, train, state, build_loop_settings(config), watchers)
        settings = build_inference_settings(config)
        evaluate(paddle_network(state.model), valid, evaluator, settings, config.PRINT_FREQ)
        return evaluator.compute()[evaluator.primary]

    return epoch


def torch_epoch(args: argparse.Namespace, config, folder: Path):
    """The original's lib/core/function.py, with a loader of as many workers: in each iteration the accuracy as well."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torch_network import PoseResNet

    from simplepose.build.data import build_train_samples, build_valid_samples
    from simplepose.build.model import build_codec
    from simplepose.core.geometry import apply_affine, crop_affine, invert_affine
    from simplepose.core.skeletons import MPII
    from simplepose.data.augment import NO_AUGMENTATION, AugmentationSettings, sample_augmentation
    from simplepose.machine.device import available_cores
    from simplepose.metrics.pckh import CURVE_THRESHOLDS, pckh_metrics

    cv2.setNumThreads(1)
    torch.set_num_threads(available_cores())
    torch.manual_seed(config.TRAIN.SEED)
    settings = AugmentationSettings(config.DATASET.SCALE_FACTOR, config.DATASET.ROT_FACTOR, config.DATASET.FLIP)
    codec = build_codec(config)
    train_samples, valid_samples = build_train_samples(config), build_valid_samples(config)
    num_train, num_valid = shares(args.persons, len(train_samples), len(valid_samples))
    truth = ground_truth(args.data, num_valid)

    class Persons(Dataset):
        def __init__(self, samples: list, augments: bool):
            self.samples, self.augments = samples, augments

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, row: int) -> tuple:
            sample, drawn = self.samples[row], NO_AUGMENTATION
            if self.augments:
                drawn = sample_augmentation(np.random.default_rng((config.TRAIN.SEED, row)), settings)
            sizes = (codec.image_size_wh, codec.heatmap_size_wh, codec.sigma)
            return *peers.load_sample(sample, drawn, MPII.flip_permutation, *sizes), row

    workers = {
        "num_workers": config.WORKERS,
        "timeout": 300,
    }  # a batch lost by a worker is an error, not a wait for ever
    train = DataLoader(Persons(train_samples[:num_train], True), config.TRAIN.BATCH_SIZE, shuffle=True, **workers)
    valid = DataLoader(Persons(valid_samples[:num_valid], False), config.TEST.BATCH_SIZE, **workers)
    layout = torch.contiguous_format if args.runtime == "torch" else torch.channels_last
    model = PoseResNet(config.MODEL.DEPTH, config.MODEL.NUM_JOINTS).to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), config.TRAIN.LR)

    def forward(images):
        with torch.autocast("cpu", torch.bfloat16, enabled=args.amp):
            return model(images.contiguous(memory_format=layout)).float()

    def loss_of(heatmaps, targets, weights):
        return 0.5 * (((heatmaps - targets) * weights[..., None, None]) ** 2).mean()

    def epoch() -> float:
        model.train()
        for images, targets, weights, _ in train:
            heatmaps = forward(images)
            loss = loss_of(heatmaps, targets, weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            peers.accuracy(heatmaps.detach().numpy(), targets.numpy())
        model.eval()
        joints = np.zeros((num_valid, config.MODEL.NUM_JOINTS, 2))
        with torch.no_grad():
            for images, targets, weights, rows in valid:
                heatmaps = forward(images)
                mirrored = forward(images.flip(3)).flip(3)[:, list(MPII.flip_permutation)]
                if config.TEST.SHIFT_HEATMAP:
                    mirrored[..., 1:] = mirrored[..., :-1].clone()
                heatmaps = (heatmaps + mirrored) / 2
                loss_of(heatmaps, targets, weights).item()
                peers.accuracy(heatmaps.numpy(), targets.numpy())
                cells = peers.decode(heatmaps.numpy())[0]  # (N, K, 2)
                for row, its_cells in zip(rows.tolist(), cells):
                    sample = valid_samples[row]
                    affine = crop_affine(sample.center, sample.size[0], 0, codec.extent_wh)
                    joints[row] = apply_affine(invert_affine(affine), its_cells * codec.stride_xy)
        joints += 1  # as the ground truth counts
        peers.pckh_curve(joints, truth.joints, truth.labelled, truth.head_sizes, CURVE_THRESHOLDS)
        return pckh_metrics(joints, truth)["Mean"]

    return epoch


def shares(persons: int | None, num_train: int, num_valid: int) -> tuple[int, int]:
    """How many of the training and of the validation persons take part."""
    part = min(persons or num_train, num_train)
    return part, math.ceil(num_valid * part / num_train)


def ground_truth(data: Path, num_valid: int):
    """Of the first persons of the validation set."""
    from simplepose.metrics.pckh import load_pckh_ground_truth

    truth = load_pckh_ground_truth(data / "annot" / "gt_valid.mat")
    return replace(
        truth,
        joints=truth.joints[:num_valid],
        labelled=truth.labelled[:num_valid],
        head_sizes=truth.head_sizes[:num_valid],
    )


EPOCHS = {"paddle": paddle_epoch, "torch": torch_epoch, "torch-channels-last": torch_epoch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runtime", choices=EPOCHS, default="paddle")
    parser.add_argument("--amp", action="store_true", help="bfloat16 where it pays; TRAIN.AMP O1, PyTorch's autocast")
    parser.add_argument("--data", type=Path, default=lspet(), metavar="FOLDER", help="default: %(default)s")
    parser.add_argument("--persons", type=int, metavar="N", help="the first N to train on; default: all 8,000")
    args = parser.parse_args()
    if not args.data.is_dir():
        raise UserError(f"no LSPET at {args.data}; set POSE_REAL_DATA or --data (data/README.md)")
    from simplepose.config.load import load_config

    config = load_config(RECIPE, [f"DATASET.ROOT={args.data.as_posix()}"])
    with scratch_folder() as folder:
        epoch = EPOCHS[args.runtime](args, config, Path(folder))
        start = time.perf_counter()
        score = epoch()
        seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mib": peak_memory_mib(), "score": score}))


if __name__ == "__main__":
    sys.exit(run_command(main))
