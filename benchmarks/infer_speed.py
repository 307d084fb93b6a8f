"""How much infer.py adds to its networks: the whole pipeline over a folder, beside detector and pose network alone.

    python benchmarks/infer_speed.py --model-file posenet.onnx --detector nanodet_m.onnx --img-file photos/
    (--rounds 1 and a few images to see that it runs)

Runs of both kinds alternate, because a shared machine is never equally busy for long; the ratio of each pair counts.
Also times the decoding of 64 people x 17 joints x 64x48 heatmaps.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import once, scratch_folder

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from simplepose.core.errors import run_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-file", required=True, help="ONNX file of export.py")
    parser.add_argument("--detector", required=True, help="ONNX file of a person detector")
    parser.add_argument("--img-file", required=True, help="a folder of images")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with scratch_folder():
        compare(args)


def compare(args: argparse.Namespace) -> None:
    import cv2

    from simplepose import PosePredictor
    from simplepose.core.codecs.gaussian import HeatmapCodec
    from simplepose.inference.detectors.person import PersonDetector
    from simplepose.inference.sources import open_source

    cv2.setNumThreads(1)
    heatmaps = np.random.default_rng(0).random((64, 17, 64, 48), dtype=np.float32)
    codec = HeatmapCodec((192, 256), (48, 64), 2)
    times = [once(lambda: codec.decode(heatmaps)) for _ in range(30)]
    print(f"decode 64 x 17 x 64 x 48: median {statistics.median(times) * 1e3:.2f} ms, best {min(times) * 1e3:.2f} ms")

    predictor, detector = PosePredictor(args.model_file), PersonDetector(args.detector)
    source = open_source(args.img_file)
    found = [(frame.image.shape, detector(frame.image)[0]) for frame in source]
    people = [len(boxes) for _, boxes in found]
    print(f"{len(found)} images, {sum(people)} people")
    feed = {name.name: np.zeros([1, *name.shape[1:]], np.float32) for name in detector.session.get_inputs()}
    width, height = predictor.network.codec.image_size_wh
    batch = np.zeros((predictor.batch_size, 3, height, width), np.float32)

    def networks_alone() -> None:
        for _ in found:
            detector.session.run(None, feed)
        for start in range(0, sum(people), len(batch)):
            predictor.network.run(batch[: sum(people) - start])

    ratios = []
    for _ in range(args.rounds):
        alone, whole = once(networks_alone), once(lambda: run_pipeline(args.img_file, predictor, detector))
        ratios.append(whole / alone)
        print(f"networks alone {alone:.2f} s, pipeline {whole:.2f} s: {ratios[-1]:.2f}")
    print(f"median ratio {statistics.median(ratios):.2f}")


def run_pipeline(images: str, predictor, detector) -> None:
    """What infer.py does, drawings and JSON included."""
    from simplepose.inference.pipeline import find_poses
    from simplepose.inference.sources import open_source
    from simplepose.inference.writers import Painter, choose_outputs

    source, painter = open_source(images), Painter(predictor.skeleton, 0.2)
    with tempfile.TemporaryDirectory() as folder:
        outputs = choose_outputs(source, predictor.skeleton, "", folder, "json", True)
        for frame, poses in find_poses(source, lambda frame: detector(frame.image), predictor):
            painter.draw(frame.image, poses)
            for output in outputs:
                output.add(frame, poses)


if __name__ == "__main__":
    sys.exit(run_command(main))
