"""Inference on Ray: a pool of workers, each with its own networks, and blocks of inputs dealt out to them.

Ray starts workers, deals out blocks, restarts what dies and repeats what was lost. What a block's rows are depends on
its inputs alone, and a worker writes them itself (table.py); so a block that is done twice is the same file twice.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

import simplepose
from simplepose.core.errors import UserError
from simplepose.inference.box_sources import BoxSource
from simplepose.inference.pipeline import find_poses
from simplepose.inference.predictor import PosePredictor
from simplepose.inference.sources import Frame
from simplepose.machine.device import CORES_VARIABLE, available_cores
from simplepose.machine.streams import silenced
from simplepose.scale.storage import is_video, one_line, read_frames
from simplepose.scale.table import parts_folder, rows_of, write_part
from simplepose.tracking.pipeline import follow_people
from simplepose.tracking.tracker import PoseTracker

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.fs import FileSystem
    from ray import ObjectRef

IMAGES_PER_BLOCK = 32  # some seconds of work: little to do again or to wait for at the end, and few enough parts
RETRIES = 3  # of a block whose worker died
OBJECT_STORE_BYTES = 500 << 20  # of a cluster of our own: only names, counts and the networks' files travel

# A folder with `Job.files` -> a worker's networks
Load = Callable[[Path], tuple[PosePredictor, BoxSource]]


@dataclass(frozen=True)
class Job:
    """What a worker needs to know.

    Attributes:
        load: makes predictor and boxes.
        files: the files that `load` opens, name -> content: other machines do not have them.
        apply_exif: turn images as their EXIF orientation says.
        track: follow the people of each video.
        inputs, output: the storages.
        table: the path in `output`.
        schema: of the table.
    """

    load: Load
    files: dict[str, bytes]
    apply_exif: bool
    track: bool
    inputs: FileSystem
    output: FileSystem
    table: str
    schema: Schema


class Worker:
    """Finds the poses of a block of inputs, and writes its part of the table."""

    def __init__(self, job: ObjectRef, cores: int):
        import cv2
        import ray

        os.environ[CORES_VARIABLE] = str(cores)
        cv2.setNumThreads(cores)
        job = ray.get(job)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in job.files.items():
                Path(folder, name).parent.mkdir(exist_ok=True)
                Path(folder, name).write_bytes(content)
            self.predictor, self.boxes = job.load(Path(folder))
        self.job: Job = replace(job, files={})

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        job = self.job
        frames = (frame for path in block["paths"] for frame in read_frames(job.inputs, path, job.apply_exif))
        if job.track and is_video(block["paths"][0]):  # a block is one video, or images
            found = follow_people(frames, self.boxes, PoseTracker(self.predictor))
        else:
            found = find_poses(frames, self.boxes, self.predictor)
        rows = (row for frame, poses in found for row in rows_of(frame, poses))
        try:
            write_part(job.output, block["part"], job.schema, rows)
        except UserError as error:  # no space or no permission: the end for every block
            return {**block, "stop": str(error)}
        return {**block, "stop": ""}


def import_ray() -> None:
    """Import pyarrow, and Ray as a command's engine: no usage statistics, and no log on the screen unless the user has
    set it so.

    Raises:
        ImportError: one of them is not installed.
    """
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_DATA_LOG_LEVEL": "CRITICAL"}
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    import pyarrow  # noqa: F401
    import ray.data  # noqa: F401


def start(address: str | None, gpu: bool, workers: int | None) -> tuple[int, int]:
    """Connect to a cluster, or start one on this machine.

    Returns:
        How many workers there are to be, and how many cores each has.

    Raises:
        UserError: no such cluster, or it has no GPU.
    """
    import ray

    settings: dict[str, Any] = {"address": address or "local", "log_to_driver": False, "logging_level": "ERROR"}
    if not address:
        settings.update(num_cpus=available_cores(), object_store_memory=OBJECT_STORE_BYTES, include_dashboard=False)
    # Machines of a cluster have the packages that this one needs, and get this one from here: the same version.
    settings["runtime_env"] = {"py_modules": [str(Path(simplepose.__file__).parent)]}
    try:
        with silenced(2):
            ray.init(**settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"Ray does not start or answer{f' at {address}' * bool(address)}: {one_line(error)}") from None
    found = ray.cluster_resources()
    cores, gpus = int(found.get("CPU", 1)), int(found.get("GPU", 0))
    if gpu and not gpus:
        raise UserError("--gpu, and Ray sees no GPU; leave it out")
    workers = workers or (gpus if gpu else cores)
    return workers, max(1, cores // workers)


def process(
    job: Job, inputs: Sequence[str], finished: set[str], workers: int, cores: int, gpu: bool
) -> Iterator[list[str]]:
    """Write the parts of all inputs that are not finished; yields the inputs of each part when it is there.

    Blocks whose workers died are tried again input by input, as long as that finishes any. The inputs left then kill
    every worker, and get a row with an error.

    Raises:
        UserError: a part cannot be written, or Ray cannot go on.
    """
    import ray

    warnings.filterwarnings("ignore", message=".*deprecated and will be removed in Ray", module="simplepose")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # those of dead workers
    finished, shared = set(finished), ray.put(job)
    size, before = IMAGES_PER_BLOCK, -1
    try:
        while (blocks := list(make_blocks(inputs, finished, size, job.table))) and len(finished) > before:
            before = len(finished) if size == 1 else -1
            # A second block waits at each worker, to start at once; not where it could be lost with the first.
            pool = ray.data.ActorPoolStrategy(
                size=min(workers, len(blocks)), max_tasks_in_flight_per_actor=1 if size == 1 else 2
            )
            reports = ray.data.from_items(blocks, override_num_blocks=len(blocks)).map(
                Worker, fn_constructor_args=(shared, cores), compute=pool, num_cpus=cores, num_gpus=int(gpu),
                max_task_retries=RETRIES,
            )  # fmt: skip
            for report in reports.iter_rows():
                if report["stop"]:
                    raise UserError(report["stop"])
                finished.update(report["paths"])
                yield report["paths"]
            size = 1
    except ray.exceptions.RayError as error:
        raise UserError(f"Ray cannot go on: {one_line(error)}; start again, what is finished stays") from None
    for block in blocks:
        (path,) = block["paths"]
        failed = Frame(0, path, None, "every worker died that tried to find its poses", is_video=is_video(path))
        write_part(job.output, block["part"], job.schema, rows_of(failed, []))
        yield block["paths"]


def make_blocks(inputs: Sequence[str], finished: set[str], size: int, table: str) -> Iterator[dict[str, Any]]:
    """Inputs to be done together, at most `size` images or one video, and the file for their rows.

    Its name sorts as the inputs do, and is another one for other inputs.
    """
    waiting: list[tuple[int, str]] = []
    rest = [(index, path) for index, path in enumerate(inputs) if path not in finished]
    for (index, path), following in zip(rest, [*rest[1:], None]):
        waiting.append((index, path))
        if following is None or len(waiting) == size or is_video(path) or is_video(following[1]):
            paths = [path for _, path in waiting]
            digest = hashlib.sha256("\n".join(paths).encode()).hexdigest()[:12]
            yield {"paths": paths, "part": f"{parts_folder(table)}/{waiting[0][0]:09}-{digest}.parquet"}
            waiting = []
