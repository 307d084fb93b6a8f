"""Data of your own: convert any tool's labels, check, split and draw them, measure sigmas."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from simplepose.commands.cli import Parser, not_negative
from simplepose.core.errors import UserError

if TYPE_CHECKING:
    from collections import Counter

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
  python pose_estimation/data_tools.py mpii-from-mat mpii_human_pose_v1_u12_1.mat --output data/mpii_from_mat
  python pose_estimation/data_tools.py stats person_keypoints_val2017.json --images photos
  python pose_estimation/data_tools.py check --cfg experiments/mpii/resnet50/256x256_d256x3_adam_lr1e-3.yaml
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

    command = commands.add_parser("mpii-from-mat", help="MPII's official MATLAB file as the original's JSON files")
    command.add_argument("input", metavar="MAT", help="mpii_human_pose_v1_u12_1.mat")
    command = commands.add_parser("lspet-from-mat", help="LSPET's official MATLAB file in the same form")
    command.add_argument("input", metavar="MAT", help="joints.mat")
    for name in ("mpii-from-mat", "lspet-from-mat"):
        commands.choices[name].add_argument(
            "--output", required=True, metavar="FOLDER", help="folder to write annot/ into"
        )

    command = commands.add_parser("stats", help="what a set is made of")
    add_input(command, "coco")

    command = commands.add_parser("split", help="divide a set into one to train on and one to validate on")
    add_input(command, "coco")
    command.add_argument("--by", choices=("image", "group"), default="image", help="default: %(default)s")
    command.add_argument(
        "--group", metavar="REGEX", help="what of an image's name is its group (default: all but the number at its end)"
    )
    command.add_argument("--valid", type=float, default=0.2, metavar="SHARE", help="of the persons (default: 0.2)")

    command = commands.add_parser("draw", help="persons of a set with their labels, on one picture")
    add_input(command, "coco")
    command.add_argument("--count", type=int, default=24, metavar="N", help="how many persons (default: %(default)s)")
    command.add_argument("--name", default="", metavar="TEXT", help="only of images whose name has this")

    for name in ("split", "draw"):
        command = commands.choices[name]
        command.add_argument("--seed", type=not_negative, default=0, metavar="N", help="default: %(default)s")
        command.add_argument("--output", required=True, metavar="PATH", help="folder, or picture, to write")

    command = commands.add_parser("sigmas", help="the OKS fall-offs of joints, measured")
    add_input(command, "coco")
    command.add_argument(
        "--repeat", nargs="+", default=[], metavar="IN", help="the same images as others labelled them"
    )
    command.add_argument("--model-file", metavar="FILE", help="instead: from what this network misses the labels by")
    args = parser.parse_args()
    recipes = {
        "convert": convert, "check": check, "mpii-from-mat": mpii_from_mat, "lspet-from-mat": lspet_from_mat,
        "stats": stats, "split": split, "draw": draw, "sigmas": sigmas,
    }  # fmt: skip
    return recipes[args.command](args)


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
    from simplepose.data.formats.base import put_images, written_folder

    labels, images = read_labels(args)
    tell(labels)
    if args.to != "coco":
        labels.drop_crowds()
    form = form_module(args.to)
    options = {"predictions": args.predictions, "image_url": args.image_url}
    options = {name: value for name, value in options.items() if value is not None}
    if options and args.to != "labelstudio":
        raise UserError(f"--{next(iter(options)).replace('_', '-')} goes with --to labelstudio")
    with written_folder(args.output) as folder:
        if form.IMAGES is not None:
            put_images(labels, images, folder / form.IMAGES.format(set=args.set), progress)
        count = form.write(labels, folder, args.set, **options)
        if args.to == "coco":
            write_skeleton(labels.skeleton, folder / f"{labels.skeleton.name}.yaml", args.skeleton)
    for what, number in (+labels.left_out).most_common():
        print(f"left out: {number} {what}")
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
        found[checked.name] = findings(checked, tuple(config.MODEL.IMAGE_SIZE), validates)
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


def mpii_from_mat(args: argparse.Namespace) -> None:
    from simplepose.data.mpii_mat import ORIGINAL, read_release

    found = read_release(args.input, progress)
    write_sets(args.output, *found, "from MPII's RELEASE", ORIGINAL, "the original's JSON has")


def lspet_from_mat(args: argparse.Namespace) -> None:
    from simplepose.data.lspet_mat import EXPECTED, read_joints

    write_sets(args.output, *read_joints(args.input), "from LSPET's joints", EXPECTED, "the results here are of")


def write_sets(
    output: str, entries: dict[str, list], head_boxes: dict, left_out: Counter, origin: str, usual: dict, whose: str
) -> None:
    """Write annot/ of sets in MPII's JSON form, and say how many persons they have."""
    import json

    from simplepose.data.formats.base import written_folder
    from simplepose.data.mpii_mat import write_ground_truth

    with written_folder(output) as folder:
        (folder / "annot").mkdir()
        for image_set, persons in entries.items():
            text = json.dumps(persons)
            (folder / "annot" / f"{image_set}.json").write_text(text, encoding="utf-8")
        for image_set, boxes in head_boxes.items():
            if boxes:
                write_ground_truth(folder / "annot" / f"gt_{image_set}.mat", entries[image_set], boxes, origin)
    for what, count in left_out.most_common():
        print(f"left out: {count} {what}")
    for image_set, persons in entries.items():
        number = usual.get(image_set)
        beside = f" ({whose} {number})" if number not in (None, len(persons)) else ""
        print(f"=> {output}/annot/{image_set}.json: {len(persons)} persons{beside}")


def stats(args: argparse.Namespace) -> None:
    import numpy as np

    from simplepose.data.checks import LabelledSet
    from simplepose.data.image_checks import ImageFact

    labels, images = read_labels(args)
    checked = LabelledSet(args.input, labels, images, [ImageFact()] * len(labels.pictures))
    each = [len(picture.persons) for picture in labels.pictures]
    if not checked.persons:
        raise UserError(f"{args.input} has no person with joints on its {len(each)} images")
    print(f"{len(labels.pictures)} images, {sum(each)} persons or objects, at most {max(each)} on one image")
    print(f"{len(checked.persons)} of them have joints, {checked.labelled.sum(axis=1).mean():.1f} labelled each")
    boxes = checked.boxes[np.isfinite(checked.boxes).all(axis=1), 2:]
    if len(boxes):
        low, middle, high = np.percentile(boxes.max(axis=1), (10, 50, 90))
        print(f"longer side of the boxes: 10 % below {low:.0f}, half below {middle:.0f}, 90 % below {high:.0f} pixels")
    hidden = checked.keypoints[..., 2] == 1
    print("| joint | labelled | of them hidden |\n|---|---|---|")
    for joint, seen, behind in zip(labels.skeleton.joints, checked.labelled.T, hidden.T):
        print(f"| {joint} | {seen.mean():.1%} | {behind.sum() / max(seen.sum(), 1):.1%} |")


def split(args: argparse.Namespace) -> None:
    import json

    from simplepose.data.formats.base import Labels, put_images, written_folder
    from simplepose.data.splits import choose, group_of

    labels, images = read_labels(args)
    to, names = ("mpii", ("train", "valid")) if args.form == "mpii" else ("coco", ("train", "val"))
    form = form_module(to)
    groups = [group_of(p.name, args.group) if args.by == "group" else p.name for p in labels.pictures]
    chosen = choose(groups, [len(picture.persons) for picture in labels.pictures], args.valid, args.seed)
    with written_folder(args.output) as folder:
        for name, validates in zip(names, (False, True)):
            pictures = [p for p, group in zip(labels.pictures, groups) if (group in chosen) == validates]
            part = Labels(labels.skeleton, pictures, labels.left_out)
            put_images(part, images, folder / form.IMAGES.format(set=name), progress)
            count = form.write(part, folder, name)
            if to == args.form:  # the file's own entries, with whatever else they hold
                file = folder / ("annot" if to == "mpii" else "annotations") / f"{name}.json"
                entries = form.part_of(Path(args.input), {picture.name for picture in part.pictures}, file)
                file.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
            kinds = len({group for group in groups if (group in chosen) == validates})
            missing = len(pictures) - len(part.pictures)
            left_out = f"; left out: {missing} images that are not there, with their persons" if missing else ""
            print(f"=> {name}: {len(part.pictures)} images of {kinds} groups, {count} persons or objects{left_out}")
        write_skeleton(labels.skeleton, folder / f"{labels.skeleton.name}.yaml", args.skeleton)


def draw(args: argparse.Namespace) -> None:
    import numpy as np

    from simplepose.core.drawing import write_image
    from simplepose.data.checks import Example, LabelledSet
    from simplepose.data.image_checks import ImageFact
    from simplepose.reports.data_page import draw_example

    labels, images = read_labels(args)
    checked = LabelledSet(args.input, labels, images, [ImageFact()] * len(labels.pictures))
    found = [
        Example(picture, "", person)
        for picture in labels.pictures
        for person in picture.persons
        if person.points and args.name in picture.name
    ]
    if not found:
        raise UserError(f"{args.input} has no person with joints on an image whose name has {args.name!r}")
    rows = np.random.default_rng(args.seed).permutation(len(found))[: max(args.count, 1)]
    cells = [draw_example(found[row], checked) for row in sorted(rows.tolist())]
    columns = min(6, len(cells))
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    lines = [np.hstack(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    write_image(args.output, np.vstack(lines))
    print(f"=> {args.output}: {len(rows)} of {len(found)} persons or objects")


def sigmas(args: argparse.Namespace) -> None:
    import numpy as np

    from simplepose.data.sigmas import area_of, repeats, sigmas_of_repeats, sigmas_of_residuals

    labels, images = read_labels(args)
    skeleton = labels.skeleton
    if bool(args.repeat) == bool(args.model_file):
        raise UserError("give --repeat IN, the same images labelled by others, or --model-file FILE, a network")
    if args.repeat:
        others = [read_labels(argparse.Namespace(**{**vars(args), "input": path}))[0] for path in args.repeat]
        groups = repeats([labels, *others])
        values, counts = sigmas_of_repeats(groups, skeleton)
        print(f"from {len(groups)} persons that at least two people labelled: how far annotators are from their mean")
    else:
        from simplepose.build.predictor import PosePredictor
        from simplepose.data.checks import LabelledSet
        from simplepose.data.image_checks import ImageFact
        from simplepose.reports.label_errors import answers

        checked = LabelledSet(args.input, labels, images, [ImageFact()] * len(labels.pictures))
        found = answers(checked, PosePredictor(args.model_file), progress)
        areas = np.array([area_of(person) for person in checked.persons])
        values, counts = sigmas_of_residuals(checked.keypoints, found, areas)
        print(f"from what {args.model_file} misses by on {len(found)} persons: too large, for its errors are in it too")
    print("| joint | sigma | persons |\n|---|---|---|")
    for joint, value, count in zip(skeleton.joints, values, counts):
        print(f"| {joint} | {f'{value:.3f}' if np.isfinite(value) else 'too few'} | {count} |")
    print(f"sigmas: [{', '.join(f'{value:.3f}' if np.isfinite(value) else '0.05' for value in values)}]")


def form_module(form: str):
    from importlib import import_module

    return import_module(f"simplepose.data.formats.{FORMATS[form]}")


def read_labels(args: argparse.Namespace) -> tuple[Labels, ImageFolder]:
    """The labels of the command line, and where their images are."""
    from simplepose.core.skeletons import load_skeleton
    from simplepose.data.formats.base import ImageFolder

    path = Path(args.input)
    if not path.exists():
        raise UserError(f"no such file or folder: {path}")
    images = ImageFolder(args.images or usual_images(path, args.form))
    skeleton = load_skeleton(args.skeleton) if args.skeleton else None
    options = {}
    if args.annotator:
        if args.form != "labelstudio":
            raise UserError("--annotator goes with --from labelstudio, whose images may have several annotations")
        options["annotator"] = args.annotator
    if args.form == "yolo-pose":
        options["image_set"] = args.in_set
    labels = form_module(args.form).read(path, images, skeleton, **options)
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
