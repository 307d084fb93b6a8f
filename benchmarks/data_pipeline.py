"""Training samples a second on one core: from photographs, from the crop cache, and the plain way.

python benchmarks/data_pipeline.py                              1280x720 photographs are made up first
python benchmarks/data_pipeline.py --root data/mpii             your own data in MPII's layout
python benchmarks/data_pipeline.py --root data/mpii --size 384 384 --persons 500
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

import peers
from timing import Row, by_turns, table

from simplepose.core.errors import run_command

BATCH = 32
NOISE, QUALITY = 2.5, 75  # grey levels, and JPEG's; gives files of about 125 kB


def made_up_samples(folder: str, persons: int) -> list:
    """Persons with MPII-like boxes (median 2 x 200 pixels) in 1280x720 JPEGs with a photograph's detail."""
    from simplepose.data.sample import PoseSample

    rng = np.random.default_rng(0)
    samples = []
    for number in range(persons):
        coarse = rng.integers(0, 256, (45, 80, 3), np.uint8)
        image = cv2.resize(coarse, (1280, 720), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image = np.clip(image + rng.normal(0, NOISE, image.shape), 0, 255).astype(np.uint8)
        path = f"{folder}/{number}.jpg"
        cv2.imwrite(path, image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        side = float(np.clip(rng.lognormal(np.log(2.5), 0.4), 0.6, 6)) * 200
        center = rng.uniform((300, 200), (980, 520))
        joints = center + rng.normal(0, side / 5, (16, 2))
        samples.append(PoseSample(path, center, np.full(2, side), joints, np.ones(16)))
    return samples


def rows(samples: list, size_wh: tuple[int, int], rounds: int) -> list[Row]:
    """Without and with the cache, each beside the plain loader."""
    from simplepose.core.codecs.gaussian import HeatmapCodec
    from simplepose.core.images import INPUT_FORMATS
    from simplepose.core.skeletons import MPII
    from simplepose.data.augment import AugmentationSettings, sample_augmentation
    from simplepose.data.crop_cache import open_crop_cache
    from simplepose.data.dataset import PoseDataset

    cv2.setNumThreads(1)  # per core
    settings = AugmentationSettings(0.25, 30)
    codec = HeatmapCodec(size_wh, (size_wh[0] // 4, size_wh[1] // 4), 2)
    size = min(BATCH, len(samples))
    batches = [list(range(start, start + size)) for start in range(0, len(samples) - size + 1, size)]

    def dataset(cache=None, reduced: bool = False) -> PoseDataset:
        return PoseDataset(samples, MPII, codec, INPUT_FORMATS["bgr"], settings, 0, cache, reduced)

    def once_over(pipeline: PoseDataset):
        def run() -> None:
            for batch in batches:
                pipeline.load_batch(batch)

        return run

    def plain_batch(rows: list[int]) -> tuple[np.ndarray, ...]:
        loaded = []
        for row in rows:
            drawn = sample_augmentation(np.random.default_rng((0, 0, row)), settings)
            loaded.append(
                peers.load_sample(
                    samples[row], drawn, MPII.flip_permutation, size_wh, codec.heatmap_size_wh, codec.sigma
                )
            )
        return tuple(np.stack(part) for part in zip(*loaded))

    def plain() -> None:
        for batch in batches:
            plain_batch(batch)

    images, heatmaps, weights = plain_batch(batches[0])  # both must give the same
    ours = dataset().load_batch(batches[0])
    assert np.abs(ours.images - images).mean() < 1e-2, "other crops"
    shown = weights[..., None, None]
    assert np.abs((ours.heatmaps - heatmaps) * shown).max() < 1e-5, "other targets"

    num = len(batches) * size
    found = []
    with tempfile.TemporaryDirectory() as folder:
        cache = open_crop_cache(folder, samples, settings, size_wh, 2)
        bytes_each = sum(file.stat().st_size for file in Path(folder).glob("*.pixels")) / len(samples)
        for name, pipeline, bound, note in (
            ("a training sample, from the photograph", dataset(), 2.0, ""),
            ("a training sample, REDUCED_DECODE", dataset(reduced=True), 2.0, ""),
            ("a training sample, from the crop cache", dataset(cache), 6.0, f"{bytes_each / 1e3:.0f} kB a person"),
        ):
            ours, peer = by_turns(once_over(pipeline), plain, rounds, at_least=0)
            ours, peer = [time / num for time in ours], [time / num for time in peer]
            per_second = f"{1 / np.median(ours):.0f} samples/s a core"
            note = f"{per_second}, {note}" if note else per_second
            found.append(Row(name, ours, peer, bound, "plain loader", 5.5e-3, note))
    return found


def bench(rounds: int, persons: int) -> list[Row]:
    """The rows of `make bench`."""
    with tempfile.TemporaryDirectory() as folder:
        return rows(made_up_samples(folder, persons), (256, 256), rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", metavar="FOLDER", help="data in MPII's layout; default: made-up photographs")
    parser.add_argument("--set", default="train", metavar="NAME", help="of the data; default: %(default)s")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("W", "H"), help="of the input")
    parser.add_argument("--persons", type=int, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    args = parser.parse_args()
    if args.root:
        from simplepose.data.mpii import load_mpii

        samples = load_mpii(args.root, args.set)[: args.persons]
        print(table(rows(samples, tuple(args.size), args.rounds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(table(rows(made_up_samples(folder, args.persons), tuple(args.size), args.rounds)))


if __name__ == "__main__":
    sys.exit(run_command(main))
