"""Cut, strip, merge, make and check files in COCO's format."""

from __future__ import annotations

import argparse
import contextlib
import json
import reprlib

from simplepose.commands.cli import Parser, not_negative
from simplepose.core.errors import UserError, optional_packages

EXAMPLES = """examples:
  python pose_estimation/coco_files.py subset person_keypoints_val2017.json --count 500 --output subset.json
  python pose_estimation/coco_files.py subset person_keypoints_val2017.json --ids ids.txt --output subset.json
  python pose_estimation/coco_files.py persons instances_val2017.json --output persons.json
  python pose_estimation/coco_files.py merge a.json b.json --output detections.json
  python pose_estimation/coco_files.py poses poses.parquet --output poses.json
  python pose_estimation/coco_files.py check detections.json --annotations person_keypoints_val2017.json
"""


def main() -> int | None:
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("subset", help="some images with their annotations")
    command.add_argument("annotations", help="annotation file")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--count", type=int, metavar="N", help="this many images, drawn at random")
    which.add_argument("--ids", metavar="FILE", help="a text file of image ids, separated by spaces or lines")
    command.add_argument("--seed", type=not_negative, default=0, metavar="N", help="for --count (default: %(default)s)")

    command = commands.add_parser("persons", help="one category's annotations and images, without outlines")
    command.add_argument("annotations", help="annotation file")
    command.add_argument("--category", default="person", metavar="NAME", help="default: %(default)s")

    command = commands.add_parser("merge", help="several detection files as one, repeated boxes once")
    command.add_argument("detections", nargs="+", help="detection files")

    command = commands.add_parser("poses", help="COCO's results form of a table of infer_many.py")
    command.add_argument("table", help="poses.parquet, here or at s3://, gs://, hdfs://...")

    for command in commands.choices.values():
        command.add_argument("--output", required=True, metavar="FILE", help="file to write")

    command = commands.add_parser("check", help="count what is wrong with a detection file")
    command.add_argument("detections", help="detection file")
    command.add_argument("--annotations", metavar="FILE", help="the set that it is for")
    command.add_argument("--category", default="person", metavar="NAME", help="default: %(default)s")
    args = parser.parse_args()
    return {"subset": cut, "persons": strip, "merge": merge, "poses": convert, "check": check}[args.command](args)


def cut(args: argparse.Namespace) -> None:
    from simplepose.data.coco_files import draw_images, subset

    content = read_annotations(args.annotations)
    image_ids = read_ids(args.ids) if args.ids else draw_images(content, args.count, args.seed)
    write_annotations(args.output, subset(content, image_ids))


def strip(args: argparse.Namespace) -> None:
    from simplepose.data.coco_files import keep_category

    write_annotations(args.output, keep_category(read_annotations(args.annotations), args.category))


def merge(args: argparse.Namespace) -> None:
    from simplepose.data.coco import read_results
    from simplepose.data.coco_files import merge_detections

    try:
        merged, repeated = merge_detections(read_results(path) for path in args.detections)
    except (KeyError, TypeError) as error:
        raise UserError(f"a detection has no usable {error}; look at each file with `check`") from None
    write(args.output, merged)
    print(f"=> {args.output}: {len(merged)} detections, {repeated} repeated boxes left out")


def convert(args: argparse.Namespace) -> None:
    with optional_packages():
        import pyarrow  # noqa: F401

    from simplepose.core.files import written_whole
    from simplepose.inference.writers import CocoResults
    from simplepose.scale.storage import open_storage
    from simplepose.scale.table import read_table

    people = 0
    with written_whole(args.output) as scratch, contextlib.closing(CocoResults(scratch, None)) as results:
        for frame, poses in read_table(*open_storage(args.table)):
            results.add(frame, poses)
            people += len(poses)
    print(f"=> {args.output}: {people} people")


def check(args: argparse.Namespace) -> int:
    from simplepose.data.coco import read_results, sort_detections
    from simplepose.data.coco_files import category_id_of, summarize_detections

    entries = read_results(args.detections)
    image_ids, category_id = None, 1  # COCO's person
    if args.annotations:
        content = read_annotations(args.annotations)
        image_ids, category_id = {image["id"] for image in content["images"]}, category_id_of(content, args.category)
    kept, faults = sort_detections(entries, image_ids, {category_id})
    for kind, places in faults.items():
        print(f"{len(places)} {kind}; entry {places[0]} is {reprlib.repr(entries[places[0]])}")
    for line in summarize_detections(kept, image_ids):
        print(line)
    return 1 if faults else 0


def read_annotations(path: str) -> dict:
    from simplepose.core.files import read_json
    from simplepose.data.fields import is_id

    content = read_json(path)
    fields = {"images": {"id"}, "annotations": {"image_id", "category_id"}, "categories": {"id"}}
    for key, needed in fields.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{path} is not in COCO's format: {key} must be a list of entries with {', '.join(needed)}")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(is_id(entry.get(name)) for name in needed):
                found = reprlib.repr(entry)
                raise UserError(f"{path}: {key} {number} is {found}, expected an entry with {', '.join(needed)}")
    return content


def read_ids(path: str) -> list[int]:
    from simplepose.core.files import read_text

    try:
        return [int(word) for word in read_text(path, "list").split()]
    except ValueError as error:
        raise UserError(f"{path} should hold image ids, whole numbers: {error}") from None


def write_annotations(path: str, content: dict) -> None:
    write(path, content)
    print(f"=> {path}: {len(content['images'])} images, {len(content['annotations'])} annotations")


def write(path: str, content: object) -> None:
    from simplepose.core.files import written_whole

    with written_whole(path) as scratch:
        scratch.write_text(json.dumps(content), encoding="utf-8")
