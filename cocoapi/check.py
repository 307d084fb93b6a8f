"""Is the installed pycocotools right? It scores two persons whose figures are worked out by hand.

One photograph, two annotated persons: a small one (area 2,500, "medium" in COCO's words), predicted exactly with
score 0.9, and a large one (area 40,000), predicted with score 0.8 and every joint off by as much as makes its
OKS 0.72. At the five thresholds 0.50 to 0.70 both are found; at the five from 0.75 to 0.95 only the first is.

    AP        = (5 x 1 + 5 x 51/101) / 10     precision is 1 up to recall 0.5, at 51 of the 101 recall steps
    AP (M)    = 1, AP (L) = 5 / 10            each size alone
    AR        = (5 x 1 + 5 x 1/2) / 10
"""

import argparse
import contextlib
import io
import math
import sys

# Names and figures in pycocotools' order.
EXPECTED = {
    "AP": (5 + 5 * 51 / 101) / 10,
    "AP .5": 1.0,
    "AP .75": 51 / 101,
    "AP (M)": 1.0,
    "AP (L)": 0.5,
    "AR": 0.75,
    "AR .5": 1.0,
    "AR .75": 0.5,
    "AR (M)": 1.0,
    "AR (L)": 0.5,
}
OKS_OF_THE_LARGE_PERSON = 0.72
# From COCO's evaluation page; not asked of the package that is being checked.
SIGMAS = (0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072,
          0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089)  # fmt: skip


def fixture() -> tuple[dict, list]:
    """The annotations and the predictions of the docstring, in COCO's forms."""
    annotations, results = [], []
    for number, (left, area, score, wanted_oks) in enumerate(
        [(10, 2500, 0.9, 1.0), (300, 40000, 0.8, OKS_OF_THE_LARGE_PERSON)], start=1
    ):
        side = math.sqrt(area)
        truth, predicted = [], []
        for joint, sigma in enumerate(SIGMAS):
            x, y = left + side * (joint % 4) / 4, 10 + side * joint / len(SIGMAS)
            # OKS of a joint at distance d is exp(-d^2 / (2 area (2 sigma)^2)); here it is solved for d.
            distance = 2 * sigma * math.sqrt(2 * area * math.log(1 / wanted_oks))
            truth += [x, y, 2]
            predicted += [x + distance, y, 1]
        common = {"image_id": 7, "category_id": 1}
        box = [left, 10, side, side]
        annotations.append(
            {**common, "id": number, "bbox": box, "area": area, "iscrowd": 0, "num_keypoints": 17, "keypoints": truth}
        )
        results.append({**common, "keypoints": predicted, "score": score})
    images = [{"id": 7, "width": 640, "height": 480, "file_name": "7.jpg"}]
    return {"images": images, "categories": [{"id": 1, "name": "person"}], "annotations": annotations}, results


def score() -> dict:
    """What the installed pycocotools makes of the fixture."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content, results = fixture()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(EXPECTED, map(float, evaluation.stats)))


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        import pycocotools
    except ImportError as error:
        print(f"error: pycocotools is not installed ({error}); python -m pip install pycocotools", file=sys.stderr)
        return 2
    found = score()
    wrong = {name: value for name, value in found.items() if not abs(value - EXPECTED[name]) < 1e-9}
    for name, value in found.items():
        print(f"{name:<7} {value:.6f}  expected {EXPECTED[name]:.6f}{'  WRONG' if name in wrong else ''}")
    print(f"pycocotools in {pycocotools.__path__[0]} is {'WRONG' if wrong else 'right'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
