"""How long COCO's bookkeeping takes: loading annotations as large as train2017's, and OKS-NMS.

    python benchmarks/coco.py                 the file is drawn up first, 250 MB in a temporary folder
    python benchmarks/coco.py --persons 15000
    python benchmarks/coco.py --quick         a small file, once

Loading is compared with `pycocotools.COCO(file)` alone, each in a process of its own, best of --repeat.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
LIB = str(ROOT / "lib")

# Timed inside a fresh process, so that neither finds memory that the other left behind.
TIMED = """
import sys, time
sys.path.insert(0, {lib!r})
{imports}
start = time.perf_counter()
{call}
print(time.perf_counter() - start)
"""
CALLS = {
    "pycocotools.COCO()": ("from pycocotools.coco import COCO", "COCO({path!r})"),
    "load_coco()": (
        "from simplepose.data.coco import load_coco; from simplepose.core.skeletons import COCO",
        "samples = load_coco({root!r}, 'train2017', COCO, 0.75)",
    ),
}
# Of the real file: images, annotations, and the share of annotations with keypoints.
IMAGES_PER_PERSON, ANNOTATIONS_PER_PERSON = 118_287 / 149_813, 262_465 / 149_813


def write_annotations(path: Path, persons: int, seed: int = 0) -> None:
    """A file with the fields, the outlines and the proportions of person_keypoints_train2017.json."""
    rng = np.random.default_rng(seed)
    num_images, num_annotations = int(persons * IMAGES_PER_PERSON), int(persons * ANNOTATIONS_PER_PERSON)
    images = [
        {
            "license": 3, "file_name": f"{k:012d}.jpg", "coco_url": f"http://images.cocodataset.org/train2017/{k:012d}.jpg",
            "height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45",
            "flickr_url": f"http://farm9.staticflickr.com/8186/{k:010d}_3d1bcd4bb8_z.jpg", "id": k,
        }
        for k in range(1, num_images + 1)
    ]  # fmt: skip
    from simplepose.core.skeletons import COCO

    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(COCO.joints)}
    head = json.dumps({"info": {}, "licenses": [], "images": images, "categories": [category]})
    with open(path, "w") as stream:
        stream.write(head[:-1] + ', "annotations": [')
        for number in range(num_annotations):
            with_keypoints = number < persons
            keypoints = np.zeros((17, 3), int)
            if with_keypoints:
                keypoints[:, :2] = rng.integers(1, 480, (17, 2))
                keypoints[:, 2] = rng.integers(0, 3, 17)
                keypoints[keypoints[:, 2] == 0] = 0
                keypoints[0] = 200, 200, 2
            outline = rng.uniform(0, 480, int(rng.integers(16, 90))).round(2).tolist()
            annotation = {
                "segmentation": [outline], "num_keypoints": int((keypoints[:, 2] > 0).sum()),
                "area": float(rng.uniform(500, 50_000)), "iscrowd": 0, "keypoints": keypoints.ravel().tolist(),
                "image_id": int(rng.integers(1, num_images + 1)), "category_id": 1, "id": number + 1,
                "bbox": [*rng.uniform(0, 300, 2).round(2).tolist(), *rng.uniform(20, 300, 2).round(2).tolist()],
            }  # fmt: skip
            stream.write((", " if number else "") + json.dumps(annotation))
        stream.write("]}")


def time_loading(persons: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations" / "person_keypoints_train2017.json"
        path.parent.mkdir()
        write_annotations(path, persons)
        print(f"{persons} persons with keypoints, {path.stat().st_size / 1e6:.0f} MB of JSON")
        seconds: dict[str, list[float]] = {name: [] for name in CALLS}
        for _ in range(repeat):  # by turns: a busy machine is busy for both
            for name, (imports, call) in CALLS.items():
                script = TIMED.format(lib=LIB, imports=imports, call=call.format(path=str(path), root=folder))
                finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
                seconds[name].append(float(finished.stdout.split()[-1]))
        best = {name: min(times) for name, times in seconds.items()}
        for name, times in seconds.items():
            print(f"{name:<20} {best[name]:6.2f} s   all: {' '.join(f'{t:.2f}' for t in times)}")
        print(f"ratio of the best    {best['load_coco()'] / best['pycocotools.COCO()']:6.2f}")


def time_nms(people: int, images: int) -> None:
    from simplepose.core.skeletons import COCO
    from simplepose.metrics.coco_ap import oks_nms, soft_oks_nms

    rng = np.random.default_rng(0)
    sigmas = np.array(COCO.sigmas)
    # Groups of ten look-alikes, as a detector without suppression leaves them.
    poses = (
        rng.uniform(0, 600, (images, people // 10, 1, 17, 2)) + rng.normal(size=(images, people // 10, 10, 17, 2)) * 4
    )
    poses = poses.reshape(images, -1, 17, 2)
    scores, areas = rng.random(poses.shape[:2]), rng.uniform(5e3, 5e4, poses.shape[:2])
    for name, suppress in (("oks_nms", oks_nms), ("soft_oks_nms", soft_oks_nms)):
        start = time.perf_counter()
        kept = [suppress(*image, sigmas, 0.9) for image in zip(poses, scores, areas)]
        seconds = time.perf_counter() - start
        print(f"{name:<20} {seconds:6.3f} s   {images} images x {people} people, {sum(map(len, kept))} stay")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=149_813, metavar="N", help="default: train2017's %(default)s")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="everything once, small: that it runs, not how fast")
    args = parser.parse_args()
    sys.path.insert(0, LIB)
    time_nms(people=100, images=2 if args.quick else 100)
    time_loading(*(100, 1) if args.quick else (args.persons, args.repeat))


if __name__ == "__main__":
    main()
