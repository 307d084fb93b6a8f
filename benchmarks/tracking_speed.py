"""What tracking adds to detector and pose network, by turns; and whether memory stays the same over a long video.

python benchmarks/tracking_speed.py --model-file posenet.onnx --detector nanodet_m.onnx --img-file frames/
python benchmarks/tracking_speed.py ... --frames 10000     memory of this process every 1,000 frames, with a
                                                               stand-in for the pose network
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import cycle, islice
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lib"))

from simplepose import PersonDetector, PosePredictor, PoseTracker
from simplepose.core.errors import run_command
from simplepose.core.skeletons import MPII
from simplepose.inference.predictor import Crops, Pose
from simplepose.inference.sources import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--model-file", "--detector", "--img-file"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=0)
    args = parser.parse_args()
    images = [frame.image for frame in open_source(args.img_file)]
    detector = PersonDetector(args.detector)
    if args.frames:
        return memory(images, detector, args.frames)
    predictor = PosePredictor(args.model_file)
    boxes, crop = [], predictor.crop
    predictor.crop = lambda image, found, scores: boxes.append(found) or crop(image, found, scores)
    tracker = PoseTracker(predictor, detector)
    for image in images:
        tracker(image)
    predictor.crop = crop
    detected = sum(len(detector(image)[0]) for image in images)
    print(f"{len(images)} frames of {images[0].shape[1]}x{images[0].shape[0]}, {detected} people detected,")
    print(f"{sum(map(len, boxes))} boxes with the carried ones; the networks alone run on the same boxes")
    ratios = []
    for _ in range(args.rounds):
        tracker, alone, tracking = PoseTracker(predictor, detector), 0.0, 0.0
        for image, found in zip(images, boxes):  # frame by frame, so that a busy machine is busy for both
            start = time.perf_counter()
            detector(image)
            predictor(image, found)
            between = time.perf_counter()
            tracker(image)
            alone, tracking = alone + between - start, tracking + time.perf_counter() - between
        ratios.append(tracking / alone)
        rates = f"{len(images) / alone:.1f} and {len(images) / tracking:.1f} frames a second"
        print(
            f"networks alone {1e3 * alone / len(images):.1f} ms a frame, tracking {ratios[-1]:.3f} times that: {rates}"
        )
    print(f"median {statistics.median(ratios):.3f}")


class StandIn:
    """A network that sees somebody in every box: what is measured is the tracker's memory."""

    detector, skeleton = None, MPII

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def crop(self, image, boxes, scores):
        return Crops(np.zeros(0), np.zeros(0), boxes, scores)

    def predict(self, people):
        boxes, scores = people[0].boxes, people[0].box_scores
        places = self.rng.uniform(0, 1, (len(boxes), 16, 2)) * boxes[:, None, 2:] + boxes[:, None, :2]
        return [[Pose(*person, MPII) for person in zip(places, np.full((len(boxes), 16), 0.8), boxes, scores)]]


def memory(images, detector, count: int) -> None:
    found = [detector(image) for image in images]
    tracker = PoseTracker(StandIn())
    for index, (image, boxes) in enumerate(islice(cycle(zip(images, found)), count), 1):
        poses = tracker(image, *boxes)
        if index % 1000 == 0:
            resident = Path("/proc/self/status").read_text().split("VmRSS:")[1].split("kB")[0].strip()
            newest = max((pose.track_id for pose in poses), default=None)
            print(f"{index} frames: {resident} kB, newest track {newest}", flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
