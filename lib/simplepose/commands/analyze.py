"""Show what predictions get wrong, what it costs and for whom, on one page; or compare two files of predictions."""

from __future__ import annotations

import argparse
from pathlib import Path

from simplepose.commands.cli import Parser
from simplepose.core.errors import UserError

EXAMPLES = """examples:
  python pose_estimation/analyze.py --dataset mpii --gt data/mpii/annot/gt_valid.mat --pred pred.mat
  python pose_estimation/analyze.py --dataset mpii --gt ... --pred pred.mat --images data/mpii/images --output report
  python pose_estimation/analyze.py --dataset mpii --gt ... --pred pred.mat --pred other.mat
  python pose_estimation/analyze.py --dataset coco --gt person_keypoints_val2017.json --pred keypoints_results.json
"""


def main() -> None:
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    add = parser.add_argument
    # fmt: off
    add("--dataset", choices=("mpii", "coco"), required=True)
    add("--gt", required=True, metavar="FILE", help="gt_valid.mat; COCO: person_keypoints_val2017.json")
    add("--pred", required=True, action="append", metavar="FILE", help="`preds`, and `scores` if there are any, in a "
        ".mat file; COCO: keypoint results, JSON. Twice: compare them")
    add("--annotations", metavar="FILE", help="MPII: valid.json, which tells who is in which image; default: beside "
        "--gt")
    add("--images", metavar="FOLDER", help="the photographs; without them people are drawn on plain ground")
    add("--skeleton", metavar="FILE", help="COCO format: the YAML file of other joints than COCO's")
    add("--output", default="output/report", metavar="FOLDER", help="for index.html and figures.json; default: "
        "%(default)s")
    # fmt: on
    args = parser.parse_args()
    for flag, dataset in (("annotations", "mpii"), ("skeleton", "coco")):
        if getattr(args, flag) and args.dataset != dataset:
            raise UserError(f"--{flag} goes with --dataset {dataset}")

    from simplepose.reports.analysis import write_report

    for line in write_report(ground_truth(args), args.pred, args.output, args.images):
        print(line)
    print(f"=> page: {Path(args.output, 'index.html')}, figures: {Path(args.output, 'figures.json')}")


def ground_truth(args: argparse.Namespace):
    """The set to compare with."""
    from simplepose.core.skeletons import COCO, load_skeleton
    from simplepose.metrics.analysis import OksSet, PckhSet

    if args.dataset == "mpii":
        return PckhSet(args.gt, args.annotations)
    return OksSet(args.gt, load_skeleton(args.skeleton) if args.skeleton else COCO)
