"""Find the poses of people in any number of images and videos, on this machine or a Ray cluster, as one table."""

from __future__ import annotations

import argparse
import copy
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import simplepose
from simplepose.commands.cli import Parser, add_inference_flags, parse_flags
from simplepose.commands.infer import add_box_flags, check_boxes, choose_boxes, load_predictor
from simplepose.core.errors import UserError, optional_packages

if TYPE_CHECKING:
    from simplepose.inference.box_sources import BoxSource
    from simplepose.inference.predictor import PosePredictor
    from simplepose.inference.sources import Frame
    from simplepose.scale.cluster import Job

EXAMPLES = """examples:
  python pose_estimation/infer_many.py --model-file posenet.onnx --input photos/ --detector nanodet_m.onnx --output poses.parquet
  python pose_estimation/infer_many.py --model-file posenet.onnx --input list.txt --detector nanodet_m.onnx --output poses.parquet --dry-run
  python pose_estimation/infer_many.py --model-file posenet.onnx --input s3://bucket/2025/ --output s3://bucket/poses/ --address auto
"""  # noqa: E501

TABLE = "poses.parquet"  # where --output is a folder
FILES = ("model_file", "detector", "bbox_file")  # flags that name a file of this machine
DETECTOR_SETTINGS = "infer_cfg.yml"  # beside a detector of PaddleDetection
SAMPLE_IMAGES, SAMPLE_VIDEOS, SAMPLE_FRAMES = 32, 4, 16  # of --dry-run; frames are those of each video


def main() -> int | None:
    parser = Parser(description=__doc__, epilog=EXAMPLES)
    add_inference_flags(parser)
    add_box_flags(parser)
    parser.set_defaults(bbox=None)
    add = parser.add_argument
    add("--input", required=True, metavar="PLACE",
        help="a folder and those in it, a list file (.txt) or a file; here or at s3://, gs://, hdfs://...")  # fmt: skip
    add("--output", required=True, metavar="PLACE", help=f"the table, or a folder/ for {TABLE}; as above")
    add("--ignore-orientation", action="store_true", help="take pixels as stored, whatever EXIF says, as data sets do")
    add("--track", action="store_true", help="follow the people of each video: the column track has their ids")
    add("--address", metavar="ADDRESS", help="of a running Ray cluster: auto or host:port; default: this machine alone")
    add("--workers", type=int, metavar="N", help="processes, a network each; default: one a core, with --gpu one a GPU")
    add("--gpu", action="store_true", help="a GPU for each worker")
    add("--dry-run", action="store_true", help="say how long it will take and how large it will be, from a sample")
    parser.set_defaults(cfg=None, overrides=[], gpus=None)
    args, flags = parse_flags(parser)
    check_boxes(args)
    if args.track and not (args.detector or args.bbox_file):
        raise UserError("--track needs boxes of people: add --detector nanodet_m.onnx, or --bbox-file")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers is {args.workers}; at least one process does the work")
    from simplepose.scale.cluster import import_ray

    with optional_packages():
        import_ray()
    return infer_many(args, flags)


def infer_many(args: argparse.Namespace, flags: dict[str, Any]) -> int:
    """List the inputs, leave out those that are finished, hand the rest to workers, and join their parts.

    Returns:
        0, or 1 if the table has rows with an error.
    """
    import ray

    from simplepose.inference.box_sources import found_person
    from simplepose.machine.logs import counting_bar
    from simplepose.scale import cluster, storage, table

    source, path = storage.open_storage(args.input)
    output, name = storage.open_storage(args.output)
    if args.output.endswith("/") or not name.endswith(".parquet"):
        name = f"{name}/{TABLE}"
    inputs = storage.list_inputs(source, path)
    args.device = "gpu" if args.gpu else None
    boxes, predictor = choose_boxes(args), load_predictor(args, flags)  # here first: what is wrong with them is a line
    boxes = boxes or found_person(predictor)
    files = read_files(args)
    schema = table.make_schema(predictor.skeleton, made_by(args, predictor, files))
    turn = not args.ignore_orientation
    job = cluster.Job(partial(load, args, flags), files, turn, args.track, source, output, name, schema)
    finished = table.find_finished(output, name, schema).sources
    todo = [file for file in inputs if file not in finished]
    print(f"=> {len(inputs):,} inputs in {path}, {len(todo):,} of them to be done")
    try:
        if todo:
            workers, cores = cluster.start(args.address, args.gpu, args.workers)
        if todo and args.dry_run:
            print(f"=> {estimate(job, todo, predictor, boxes, workers, cores, args.gpu)}")
        elif todo:
            del predictor, boxes  # their memory is for the workers
            begun = time.perf_counter()
            with counting_bar(len(todo), "inputs") as bar:
                for done in cluster.process(job, inputs, finished, workers, cores, args.gpu):
                    bar.update(len(done))
            seconds = time.perf_counter() - begun
            print(f"=> {seconds:.1f} s with {workers} workers ({len(todo) / seconds:.1f} inputs/s)")
    finally:
        ray.shutdown()
    if args.dry_run:
        return 0
    counts = table.join(output, name, schema)
    print(f"=> {name}: {counts}")
    return 1 if counts.errors else 0


def load(args: argparse.Namespace, flags: dict[str, Any], folder: Path) -> tuple[PosePredictor, BoxSource]:
    """Predictor and boxes as infer.py makes them, from copies of the files of `read_files` in a folder."""
    from simplepose.inference.box_sources import found_person

    args = copy.copy(args)
    for flag in FILES:
        if getattr(args, flag):
            setattr(args, flag, str(folder / flag / Path(getattr(args, flag)).name))
    predictor = load_predictor(args, {**flags, "TEST.MODEL_FILE": args.model_file})
    return predictor, choose_boxes(args) or found_person(predictor)


def read_files(args: argparse.Namespace) -> dict[str, bytes]:
    """The files that the command line names, as <flag>/<name> -> content."""
    from simplepose.core.files import WEIGHT_BYTES, read_bytes

    paths = [(flag, Path(getattr(args, flag))) for flag in FILES if getattr(args, flag)]
    paths += [(flag, path.with_name(DETECTOR_SETTINGS)) for flag, path in paths if flag == "detector"]
    return {
        f"{flag}/{path.name}": read_bytes(path, flag, WEIGHT_BYTES)
        for flag, path in paths
        if path.name != DETECTOR_SETTINGS or path.is_file()
    }


def made_by(args: argparse.Namespace, predictor: PosePredictor, files: dict[str, bytes]) -> dict[str, Any]:
    """All that decides what the rows are, for the table's metadata: rows of two kinds are never in one table."""
    digests = {flag: hashlib.sha256() for flag in FILES if getattr(args, flag)}
    for name, content in files.items():
        digests[name.partition("/")[0]].update(content)
    return {
        "version": simplepose.__version__,
        "network": predictor.network.description(),
        "settings": asdict(predictor.settings),
        "orientation": "as stored" if args.ignore_orientation else "EXIF",
        "track": args.track,
        "box settings": {"detector_type": args.detector_type, "det_thr": args.det_thr},
        **{f"{flag} (sha256)": digest.hexdigest() for flag, digest in digests.items()},
    }


def estimate(
    job: Job, inputs: Sequence[str], predictor: PosePredictor, boxes: BoxSource, workers: int, cores: int, gpu: bool
) -> str:
    """How long these inputs will take and how large their rows will be, from some of them."""
    from pyarrow.fs import LocalFileSystem
    from pyarrow.parquet import read_metadata

    from simplepose.core.files import size_text
    from simplepose.export.parity import spread
    from simplepose.inference.pipeline import find_poses
    from simplepose.machine.device import available_cores
    from simplepose.scale.storage import count_frames, is_video, read_frames
    from simplepose.scale.table import rows_of, write_part

    videos = [path for path in inputs if is_video(path)]
    images = [path for path in inputs if not is_video(path)]
    some_videos, some_images = spread(videos, SAMPLE_VIDEOS), spread(images, SAMPLE_IMAGES)
    lengths = [count_frames(job.inputs, path) for path in some_videos]
    frames = len(images) + len(videos) * sum(lengths) / max(1, len(lengths))

    def read() -> Iterator[Frame]:
        for path in (*some_images, *some_videos):
            yield from islice(read_frames(job.inputs, path, job.apply_exif), SAMPLE_FRAMES)

    list(find_poses(islice(read(), 1), boxes, predictor))  # the first run is slow
    begun, count = time.perf_counter(), 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal count
        for frame, poses in find_poses(read(), boxes, predictor):
            count += 1
            yield from rows_of(frame, poses)

    with tempfile.TemporaryDirectory() as folder:
        part = f"{folder}/sample.parquet"
        write_part(LocalFileSystem(), part, job.schema, rows())
        rate = count / (time.perf_counter() - begun)
        group = read_metadata(part).row_group(0)
        size = sum(group.column(index).total_compressed_size for index in range(group.num_columns)) / count
    times = workers if gpu else workers * cores / available_cores()
    seconds = frames / rate / times
    unknown = "; the videos, whose lengths are not known from here, not counted" if videos and not any(lengths) else ""
    return (
        f"{len(images):,} images and {len(videos):,} videos, about {frames:,.0f} frames: {count} of them took "
        f"{1 / rate:.3f} s each here; with {workers} workers of {cores} cores about {timedelta(seconds=round(seconds))}"
        f", and the table will have about {size_text(frames * size)}{unknown}"
    )
