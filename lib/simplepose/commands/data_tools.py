"""Data of your own: convert any tool's labels, check, split and draw them, measure sigmas."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.commands.cli import Parser
from simplepose.core.errors import UserError, run_command

if TYPE_CHECKING:
    from simplepose.core.skeletons import Skeleton
    from simplepose.data.formats.base import ImageFolder, Labels

FORMATS = {  # --from and --to -> module of data/formats
    "coco": "coco",
    "mpii": "mpii",
    "labelstudio": "labelstudio",
    "cvat": "cvat",
    "labelme": "labelme",
    "yolo-pose": "yolo_pose",
    "csv": "table",
}

EXAMPLES = """examples:
  python pose_estimation/data_tools.py convert --from csv poses.csv --images photos --to coco --output data/mine
"""


def main() -> int | None:
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("convert", help="labels from one tool's form to another's")
    add_input(command)
    command.add_argument("--to", required=True, choices=FORMATS, help="form to write")
    command.add_argument("--output", required=True, metavar="FOLDER", help="folder to write")
    command.add_argument("--set", default="train", metavar="NAME", help="name of the set (default: %(default)s)")
    command.add_argument(
        "--predictions", metavar="MODEL", help="Label Studio: write the labels as this model's, to be corrected there"
    )
    command.add_argument(
        "--image-url", metavar="PREFIX", help="Label Studio: what goes before image names (default: its local files)"
    )

    command = commands.add_parser(
        "check", help="what may be wrong with the data of an experiment; exit code 1 for mistakes"
    )
    command.add_argument("--cfg", required=True, metavar="FILE", help="experiment file (experiments/...yaml)")
    command.add_argument("overrides", nargs="*", metavar="SECTION.KEY=value", help="override any key")
    command.add_argument("--output", metavar="FILE", help="also draw the worst of everything into this HTML file")
    command.add_argument(
        "--model-file", metavar="FILE", help="weights or ONNX file: find labels that this network disagrees with"
    )
    command.add_argument("--sets", default="train,valid", metavar="NAMES", help="default: %(default)s")
    command.add_argument("--most", type=int, metavar="N", help="with --model-file: look at this many persons of a set")
    args = parser.parse_args()
    return {"convert": convert, "check": check}[args.command](args)


def add_input(command: argparse.ArgumentParser, form: str | None = None) -> None:
    command.add_argument("input", metavar="IN", help="export, annotation file, data.yaml, or labelme's folder")
    default = f" (default: {form})" if form else ""
    command.add_argument(
        "--from", dest="form", required=form is None, default=form, choices=FORMATS, help=f"its form{default}"
    )
    command.add_argument("--images", metavar="FOLDER", help="where its images are (default: where the form has them)")
    command.add_argument("--skeleton", metavar="FILE", help="names and order of the joints (default: as IN has them)")
    command.add_argument("--annotator", metavar="WHO", help="Label Studio: only this one's annotations, id or e-mail")
    command.add_argument("--in-set", default="train", metavar="NAME", help="YOLO-pose: the set to read (train)")


def convert(args: argparse.Namespace) -> None:
    from importlib import import_module

    from simplepose.data.formats.base import put_images, written_folder

    labels, images = read_labels(args)
    tell(labels)
    if args.to != "coco":
        labels.drop_crowds()
    form = import_module(f"simplepose.data.formats.{FORMATS[args.to]}")
    options = {"predictions": args.predictions, "image_url": args.image_url}
    options = {name: value for name, value in options.items() if value is not None}
    if options and args.to != "labelstudio":
        raise UserError(f"--{next(iter(options)).replace('_', '-')} goes with --to labelstudio")
    with written_folder(args.output) as folder:
        if form.IMAGES is not None:
            put_images(labels, images, folder / form.IMAGES.format(set=args.set), progress)
        count = form.write(labels, folder, args.set, **options)
        write_skeleton(labels.skeleton, folder / f"{labels.skeleton.name}.yaml", args.skeleton)
    for what, count in (+labels.left_out).most_common():
        print(f"left out: {count} {what}")
    print(f"=> {args.output}: {len(labels.pictures)} images, {count} persons or objects")


def check(args: argparse.Namespace) -> int:
    from simplepose.build.data import read_labelled_sets
    from simplepose.config.load import load_config
    from simplepose.data.checks import findings, leaks, score_interval
    from simplepose.reports.data_page import write_page

    config = load_config(args.cfg, args.overrides)
    sets = read_labelled_sets(config, args.sets.split(","), progress)
    found = {}
    for checked in sets:
        validates = checked.name == config.DATASET.TEST_SET
        found[checked.name] = list(findings(checked, tuple(config.MODEL.IMAGE_SIZE), validates))
    if len(sets) == 2:
        found[sets[1].name] += leaks(*sets)
    if args.model_file:
        from simplepose.build.predictor import PosePredictor
        from simplepose.inference.network import InferenceSettings
        from simplepose.reports.label_errors import answers, label_errors

        predictor = PosePredictor(args.model_file, InferenceSettings(flip_test=True))
        for checked in sets:
            found[checked.name] += label_errors(checked, answers(checked, predictor, progress, args.most))
    for checked in sets:
        count = len(checked.persons)
        print(f"{checked.name}: {len(checked.labels.pictures)} images, {count} persons with joints", end="")
        print(f"; a score on them is known to about ±{score_interval(count):.1f} points")
        for finding in found[checked.name]:
            mark = "WRONG" if finding.wrong else "look "
            print(f"  {mark} {finding.count:>6} of {finding.total} {finding.unit}: {finding.title}")
            for example in finding.examples[:2]:
                print(f"               {example.picture.name}: {example.text}")
            if finding.wrong:
                print(f"               {finding.advice}")
    if args.output:
        write_page(args.output, f"Check of {args.cfg}", sets, found)
        print(f"=> {args.output}")
    wrong = sum(finding.wrong for of_set in found.values() for finding in of_set)
    look = sum(len(of_set) for of_set in found.values()) - wrong
    print(f"=> {wrong} kinds of mistakes, {look} worth a look" if wrong or look else "=> nothing found")
    return 1 if wrong else 0


def read_labels(args: argparse.Namespace) -> tuple[Labels, ImageFolder]:
    """The labels of the command line, and where their images are."""
    from importlib import import_module

    from simplepose.core.skeletons import load_skeleton
    from simplepose.data.formats.base import ImageFolder

    path = Path(args.input)
    if not path.exists():
        raise UserError(f"no such file or folder: {path}")
    images = ImageFolder(args.images or usual_images(path, args.form))
    skeleton = load_skeleton(args.skeleton) if args.skeleton else None
    options = {}
    if args.form == "labelstudio" and args.annotator:
        options["annotator"] = args.annotator
    if args.form == "yolo-pose":
        options["image_set"] = args.in_set
    form = import_module(f"simplepose.data.formats.{FORMATS[args.form]}")
    labels = form.read(path, images, skeleton, **options)
    if not labels.pictures:
        raise UserError(f"{path} has no labelled image")
    return labels, images


def usual_images(path: Path, form: str) -> Path:
    """Where a form has its images."""
    place = path if path.is_dir() else path.parent
    if form == "coco" and place.name == "annotations":
        image_set = path.stem.removeprefix("person_keypoints_")
        places = (place.parent / "images" / image_set, place.parent / "images", place.parent)
        return next(folder for folder in places if folder.is_dir())
    if form == "mpii" and (place.parent / "images").is_dir():
        return place.parent / "images"
    return place


def tell(labels: Labels) -> None:
    """What was read off the names, for the user to confirm."""
    skeleton = labels.skeleton
    print(f"joints: {', '.join(skeleton.joints)}")
    pairs = ", ".join(f"{left} - {right}" for left, right in skeleton.pairs)
    print(f"left and right, which a mirror exchanges: {pairs or 'none'}")
    middle = [joint for joint, side in zip(skeleton.joints, skeleton.sides) if not side]
    print(f"in the middle: {', '.join(middle) or 'none'}")


def write_skeleton(skeleton: Skeleton, path: Path, given: str | None) -> None:
    import yaml

    from simplepose.core.skeletons import SKELETONS

    if given is None and skeleton not in SKELETONS.values():
        text = yaml.safe_dump(skeleton.definition(), sort_keys=False, default_flow_style=None, allow_unicode=True)
        path.write_text(text, encoding="utf-8")


def progress(items):
    from tqdm import tqdm

    return tqdm(items, unit="image", disable=None, leave=False)


if __name__ == "__main__":
    sys.exit(run_command(main))
