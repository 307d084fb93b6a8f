"""How well the network finds its person: scores in annotated boxes, in boxes it found itself, and with the whole image.

    python benchmarks/person_search.py --model-file posenet.onnx --lspet data/lspet --coco data/coco

On LSPET (MPII's form, one person an image): PCKh@0.5 Mean over the joints it counts. On COCO: photographs with one
person alone, at least four of whose joints have a name that the network knows; a joint is found within a tenth of the
longer side of the annotated box.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections import Counter
from pathlib import Path

import numpy as np

runpy.run_path(str(Path(__file__).resolve().parent.parent / "pose_estimation" / "_init_paths.py"))

from simplepose import InferenceSettings, PosePredictor  # noqa: E402
from simplepose.core.errors import run_command  # noqa: E402
from simplepose.core.geometry import BOX_PADDING, box_to_crop, overlap  # noqa: E402
from simplepose.core.images import read_image  # noqa: E402
from simplepose.core.skeletons import COCO  # noqa: E402
from simplepose.data.coco import annotation_file, load_coco, read_coco  # noqa: E402
from simplepose.data.mpii import load_mpii  # noqa: E402
from simplepose.data.sample import with_joints_of  # noqa: E402
from simplepose.metrics.pckh import load_pckh_ground_truth, person_hits  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-file", metavar="FILE", help="network; default: the bundled one")
    parser.add_argument("--lspet", metavar="FOLDER", help="its valid set")
    parser.add_argument("--coco", metavar="FOLDER", help="its val2017 set")
    parser.add_argument("--most", type=int, metavar="N", help="so many persons of LSPET only, drawn at random (seed 0)")
    args = parser.parse_args()
    predictor = PosePredictor(args.model_file, InferenceSettings(flip_test=True))
    if args.lspet:
        samples = load_mpii(args.lspet, "valid")
        truth = load_pckh_ground_truth(Path(args.lspet) / "annot" / "gt_valid.mat")
        rows = np.random.default_rng(0).permutation(len(samples))[: args.most]

        def hits(row: int, joints: np.ndarray) -> tuple[int, int]:
            everybody = np.zeros((len(samples), *joints.shape))
            everybody[row] = joints + 1
            found, counts = person_hits(everybody, truth)
            return found[row], counts[row]

        report("LSPET valid", predictor, samples, rows, hits)
    if args.coco:
        persons = read_coco(annotation_file(args.coco, "val2017"), COCO).annotations
        alone = {image for image, count in Counter(person["image_id"] for person in persons).items() if count == 1}
        samples = with_joints_of(load_coco(args.coco, "val2017", COCO, 1.0), COCO, predictor.skeleton)
        rows = [row for row, one in enumerate(samples) if one.image_id in alone and one.visible.sum() >= 4]

        def near(row: int, joints: np.ndarray) -> tuple[int, int]:
            sample, seen = samples[row], samples[row].visible > 0
            distance = np.linalg.norm(joints - sample.joints, axis=1)
            return (distance[seen] <= 0.1 * sample.size.max() / BOX_PADDING).sum(), seen.sum()

        report("COCO val2017, one person", predictor, samples, rows, near)


def report(name: str, predictor: PosePredictor, samples: list, rows: list[int], hits) -> None:
    """Print a table: joints found, and the overlap (IoU) of the boxes, made square, with the annotated ones."""

    def square(box: np.ndarray) -> np.ndarray:
        center, size = box_to_crop(box, aspect_ratio=1.0, padding=1.0)
        return np.concatenate([center - size / 2, size])

    found, counted, overlaps = np.zeros(3), 0, []
    for row in rows:
        sample, image = samples[row], read_image(samples[row].image)
        size = sample.size / BOX_PADDING
        annotated = np.concatenate([sample.center - size / 2, size])
        boxes = [annotated, np.array([0.0, 0.0, *image.shape[1::-1]]), predictor.find_person(image)]
        each = [hits(row, pose.keypoints) for pose in predictor(image, boxes)]
        found += [one for one, _ in each]
        counted += each[0][1]
        overlaps.append([overlap(square(annotated), square(box)) for box in boxes])
    print(f"| {name}, {len(rows)} persons, {counted} joints | % found | mean IoU | IoU above 0.5 |\n|---|---|---|---|")
    for kind, share, iou in zip(("annotated", "whole image", "found"), 100 * found / counted, np.transpose(overlaps)):
        print(f"| {kind} | {share:.1f} | {iou.mean():.2f} | {(iou > 0.5).mean():.2f} |")


if __name__ == "__main__":
    sys.exit(run_command(main))
