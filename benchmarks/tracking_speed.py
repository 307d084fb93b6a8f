"""What tracking adds to detector and pose network, by turns; and whether memory stays the same over a long video.

python benchmarks/tracking_speed.py --model-file posenet.onnx --detector nanodet_m.onnx --img-file frames/
python benchmarks/tracking_speed.py ... --frames 10000     memory of this process every 1,000 frames, too
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
from simplepose.inference.sources import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--model-file", "--detector", "--img-file"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=0)
    args = parser.parse_args()
    images = [frame.image for frame in open_source(args.img_file)]
    detector, predictor = PersonDetector(args.detector), PosePredictor(args.model_file)
    if args.frames:
        return memory(images, detector, predictor, args.frames)
    tracker = PoseTracker(predictor, detector)
    boxes = [np.array([pose.box for pose in tracker(image)]).reshape(-1, 4) for image in images]
    people = sum(map(len, boxes))
    print(f"{len(images)} frames of {images[0].shape[1]}x{images[0].shape[0]}, {people} people")
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
            f"networks alone {1e3 * alone / len(images):.1f} ms a frame, tracking {ratios[-1]:.2f} times that: {rates}"
        )
    print(f"median {statistics.median(ratios):.2f}")


def memory(images, detector, predictor, count: int) -> None:
    """Detections of the first pass are used again: what is measured is the tracker's memory, in less time."""
    found = [detector(image) for image in images]
    tracker = PoseTracker(predictor)
    for index, (image, boxes) in enumerate(islice(cycle(zip(images, found)), count), 1):
        tracker(image, *boxes)
        if index % 1000 == 0:
            status = Path("/proc/self/status").read_text()
            print(f"{index} frames: {status.split('VmRSS:')[1].split('kB')[0].strip()} kB", flush=True)


if __name__ == "__main__":
    main()
