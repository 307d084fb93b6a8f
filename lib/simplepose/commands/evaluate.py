"""Score a file of predictions against the ground truth; no network, no images."""

from __future__ import annotations

import argparse
from pathlib import Path

from simplepose.commands.cli import Parser
from simplepose.core.errors import UserError

EXAMPLES = """examples:
  python pose_estimation/evaluate.py --dataset mpii --gt data/mpii/annot/gt_valid.mat --pred pred.mat
  python pose_estimation/evaluate.py --dataset mpii --gt ... --pred pred.mat --json scores.json --plot curve.png
  python pose_estimation/evaluate.py --dataset coco --gt person_keypoints_val2017.json --pred keypoints_results.json
  python pose_estimation/evaluate.py --dataset posetrack --gt annotations/ --pred results/ --kpt-thr 0.3
"""


def main() -> int | None:
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    parser.add_argument("--dataset", choices=("mpii", "coco", "posetrack"), required=True)
    parser.add_argument(
        "--gt",
        required=True,
        metavar="FILE",
        help="gt_valid.mat; COCO: person_keypoints_val2017.json; PoseTrack: a JSON file, or a folder of them",
    )
    parser.add_argument(
        "--pred",
        required=True,
        metavar="FILE",
        help="`preds` (N, 16, 2 or 3), 1-based, in a .mat file; COCO: keypoint results, JSON; PoseTrack: files named "
        "as those of --gt",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--plot", metavar="FILE", help="MPII: also draw PCKh against the threshold, a line per joint")
    parser.add_argument("--skeleton", metavar="FILE", help="COCO format: the YAML file of other joints than COCO's")
    parser.add_argument(
        "--kpt-thr",
        type=float,
        metavar="T",
        help="PoseTrack: leave predicted joints below this score out, as MOTA wants",
    )
    args = parser.parse_args()
    for flag, dataset in (("plot", "mpii"), ("skeleton", "coco"), ("kpt_thr", "posetrack")):
        if getattr(args, flag) is not None and args.dataset != dataset:
            raise UserError(f"--{flag.replace('_', '-')} goes with --dataset {dataset}")

    from simplepose.core.files import write_json

    metrics = {"mpii": evaluate_mpii, "coco": evaluate_coco, "posetrack": evaluate_posetrack}[args.dataset](args)
    if args.json:
        write_json(Path(args.json), metrics)
        print(f"=> figures: {args.json}")


def evaluate_coco(args: argparse.Namespace) -> dict[str, float]:
    """AP and AR of keypoint results."""
    from simplepose.core.skeletons import COCO, load_skeleton
    from simplepose.data.coco import read_coco
    from simplepose.metrics.coco_ap import coco_metrics, coco_table, load_results

    skeleton = load_skeleton(args.skeleton) if args.skeleton else COCO
    truth = read_coco(args.gt, skeleton)
    if not truth.annotations:
        raise UserError(f"{args.gt} holds no annotated persons to score against")
    metrics = coco_metrics(truth, load_results(args.pred, truth, skeleton), skeleton)
    for line in coco_table(Path(args.pred).stem, metrics):
        print(line)
    return metrics


def evaluate_posetrack(args: argparse.Namespace) -> dict[str, float]:
    """AP, MOTA, MOTP, IDF1, HOTA, switches and fragments of tracked poses."""
    from simplepose.data.posetrack import read_sequence
    from simplepose.metrics.tracking import above, pair_frames, tracking_metrics, tracking_table

    sequences = []
    for truth, found in sequence_files(Path(args.gt), Path(args.pred)):
        frames = read_sequence(found)
        if args.kpt_thr is not None:
            frames = [above(frame, args.kpt_thr) for frame in frames]
        sequences.append(pair_frames(read_sequence(truth), frames, str(found)))
    if not any(sequences):
        raise UserError(f"{args.gt} holds no annotated persons to score against")
    metrics = tracking_metrics(sequences)
    for line in tracking_table(metrics):
        print(line)
    return metrics


def sequence_files(truth: Path, found: Path) -> list[tuple[Path, Path]]:
    """The annotations and the results of each sequence, which have one name in two folders.

    Raises:
        UserError: no annotations, or a sequence without results.
    """
    if not truth.is_dir():
        return [(truth, found / truth.name if found.is_dir() else found)]
    names = sorted(path.name for path in truth.glob("*.json"))
    if not names:
        raise UserError(f"{truth} holds no .json files")
    missing = [name for name in names if not (found / name).is_file()]
    if missing:
        raise UserError(
            f"{found} has no {missing[0]}, and lacks {len(missing)} of the {len(names)} sequences of {truth}"
        )
    return [(truth / name, found / name) for name in names]


def evaluate_mpii(args: argparse.Namespace) -> dict[str, float]:
    """PCKh of predictions, and its curve."""
    from simplepose.metrics import pckh

    truth = pckh.load_pckh_ground_truth(args.gt)
    predictions = pckh.load_predictions(args.pred)
    metrics = pckh.pckh_metrics(predictions, truth)
    for line in pckh.pckh_table(Path(args.pred).stem, metrics):
        print(line)
    print(f"Mean at threshold 0.10: {metrics['Mean@0.10']:.3f}")
    print(f"Mean at threshold 0.11: {metrics['Mean@0.11']:.3f} (the column that is published as Mean@0.1)")
    if args.plot:
        plot_curve(pckh, predictions, truth, args.plot)
        print(f"=> curve: {args.plot}")
    return metrics


def plot_curve(pckh, predictions, truth, path: str) -> None:
    """Draw PCKh of each column against the threshold."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from simplepose.core.files import written_whole

    figure, axes = plt.subplots(figsize=(6, 4.5), constrained_layout=True)
    for column, line in pckh.column_curves(predictions, truth, pckh.CURVE_THRESHOLDS).items():
        axes.plot(pckh.CURVE_THRESHOLDS, line, label=f"{column} {line[-1]:.1f}")
    axes.set(xlabel="threshold (fraction of the head size)", ylabel="PCKh (%)", xlim=(0, 0.5), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    try:
        with written_whole(path) as scratch:
            figure.savefig(scratch, format=Path(path).suffix[1:] or "png", dpi=150)
    except ValueError as error:  # of a form that matplotlib does not know
        raise UserError(f"cannot draw to {path}: {error}") from None
