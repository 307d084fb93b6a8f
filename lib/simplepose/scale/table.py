"""poses.parquet: a row a person, and a row for each frame without people and for each error.

A run writes parts into the folder <table>.parts; each is complete under its name or not there, and holds whole inputs
only. So the parts say which inputs are finished, and at the end they are joined into the table. What made the rows,
network, settings and boxes, is JSON in the schema's metadata, of parts and table alike.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from simplepose.core.errors import UserError, shown
from simplepose.core.files import size_text
from simplepose.core.skeletons import Skeleton, skeleton_from
from simplepose.inference.onnx_network import METADATA_KEY
from simplepose.inference.predictor import Pose
from simplepose.inference.sources import Frame
from simplepose.inference.writers import SCORES
from simplepose.scale.storage import is_video, one_line, written_whole

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.fs import FileSystem

GROUP_ROWS = 1 << 16  # of the table: some 30 MB, which is what joining holds in memory
PART_ROWS = 1 << 12  # held in memory while a long video is written
BOX = ("box_x", "box_y", "box_w", "box_h")
READERS = 16  # files opened at once: a storage across a network answers slowly, but many at a time


def make_schema(skeleton: Skeleton, made_by: dict[str, Any]) -> Schema:
    """The columns, named as in infer.py's CSV; `made_by` is JSON values."""
    import pyarrow

    floats = [*BOX, *SCORES, *(f"{joint}_{axis}" for joint in skeleton.joints for axis in "xy")]
    columns = {"source": pyarrow.string(), "frame": pyarrow.int32(), "person": pyarrow.int32()}
    columns.update(track=pyarrow.int64(), error=pyarrow.string(), **dict.fromkeys(floats, pyarrow.float64()))
    columns.update((f"{joint}_score", pyarrow.float32()) for joint in skeleton.joints)
    return pyarrow.schema(columns, {METADATA_KEY: json.dumps(made_by, sort_keys=True)})


def rows_of(frame: Frame, poses: Sequence[Pose]) -> Iterator[dict[str, Any]]:
    """The rows of a frame: each has at least one."""
    place = {"source": frame.name, "frame": frame.index}
    for person, pose in enumerate(poses):
        row = {**place, "person": person, "track": pose.track_id, **dict(zip(BOX, pose.box.tolist()))}
        row.update((name, float(getattr(pose, name))) for name in SCORES)
        for joint, (x, y), score in zip(pose.joints, pose.keypoints.tolist(), pose.scores.tolist()):
            row.update({f"{joint}_x": x, f"{joint}_y": y, f"{joint}_score": score})
        yield row
    errors = [*frame.lost, *([frame.failure] if frame.failure else [])]
    yield from ({**place, "error": error} for error in errors)
    if not poses and not errors:
        yield place


def write_part(storage: FileSystem, path: str, schema: Schema, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as they come.

    Raises:
        UserError: it cannot be written there.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    with written_whole(storage, path) as stream, ParquetWriter(stream, schema, compression="zstd") as writer:
        waiting: list[dict[str, Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == PART_ROWS:
                writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
                waiting = []
        if waiting:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))


@dataclass
class Found:
    """What earlier starts left.

    Attributes:
        files: the table, if there is one, and the parts that are not in it, in the order of their rows.
        sources: the inputs in them.
    """

    files: list[str]
    sources: set[str]


def parts_folder(table: str) -> str:
    return f"{table}.parts"


def find_finished(storage: FileSystem, table: str, schema: Schema) -> Found:
    """Look for the table and its parts; parts that are damaged or already in the table are removed.

    Raises:
        UserError: the table or a part was made by something else, or is no such table, or the storage does not answer.
    """
    files, finished = [], set()
    try:
        if storage.get_file_info([table])[0].is_file:
            files, finished = [table], _sources_or_none(storage, table, schema)
            if finished is None:
                raise UserError(f"{table} is not a table of infer_many.py, or a damaged one; name another --output")
        parts = _part_files(storage, table)
        with ThreadPoolExecutor(READERS) as pool:
            for part, sources in zip(parts, pool.map(lambda part: _sources_or_none(storage, part, schema), parts)):
                if sources is None or sources & finished:
                    storage.delete_file(part)
                else:
                    files.append(part)
                    finished |= sources
    except OSError as error:
        raise UserError(f"cannot read {table} or its parts: {one_line(error)}") from None
    return Found(files, finished)


def _part_files(storage: FileSystem, table: str) -> list[str]:
    from pyarrow.fs import FileSelector

    listed = storage.get_file_info(FileSelector(parts_folder(table), allow_not_found=True))
    return sorted(info.path for info in listed if info.path.endswith(".parquet"))


def _sources_or_none(storage: FileSystem, path: str, schema: Schema) -> set[str] | None:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        with storage.open_input_file(path) as stream:
            file = ParquetFile(stream)
            _require_same(path, file.schema_arrow, schema)
            return set(file.read(["source"]).column(0).unique().to_pylist())
    except (ArrowInvalid, IndexError, UnicodeDecodeError):  # torn by a power failure, or a stranger's
        return None


def _require_same(path: str, found: Schema, wanted: Schema) -> None:
    before, now = described_by(found, path), described_by(wanted, path)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise UserError(
                f"{path} was made with another {name}: {shown(before.get(name))}, and now it is "
                f"{shown(now.get(name))}; name another --output, or run as before"
            )


def described_by(schema: Schema, path: str) -> dict[str, Any]:
    """What made a table.

    Raises:
        UserError: it was not made here.
    """
    try:
        described = json.loads((schema.metadata or {})[METADATA_KEY.encode()])
        if not isinstance(described, dict):
            raise ValueError
    except (KeyError, RecursionError, ValueError):
        raise UserError(f"{path} is not a table of infer_many.py") from None
    return described


@dataclass
class Counts:
    """What a table holds."""

    inputs: int
    people: int = 0
    errors: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        return f"{self.inputs:,} inputs, {self.people:,} people, {self.errors:,} errors, {size_text(self.bytes)}"


def join(storage: FileSystem, table: str, schema: Schema) -> Counts:
    """Make the table of itself, if it is there, and of the parts, and remove these."""
    import pyarrow
    from pyarrow.parquet import ParquetFile, ParquetWriter

    found = find_finished(storage, table, schema)
    counts = Counts(len(found.sources))
    if found.files != [table]:
        with written_whole(storage, table) as stream, ParquetWriter(stream, schema, compression="zstd") as writer:
            waiting: list[Any] = []
            for path in found.files:
                with storage.open_input_file(path) as part:
                    for batch in ParquetFile(part).iter_batches():
                        waiting.append(batch)
                        if sum(map(len, waiting)) >= GROUP_ROWS:
                            writer.write_table(pyarrow.Table.from_batches(waiting, schema))
                            waiting = []
            writer.write_table(pyarrow.Table.from_batches(waiting, schema))
    with suppress(FileNotFoundError):
        storage.delete_dir(parts_folder(table))
    with storage.open_input_file(table) as stream:
        counts.bytes = stream.size()
        for batch in ParquetFile(stream).iter_batches(columns=["person", "error"]):
            counts.people += len(batch) - batch.column(0).null_count
            counts.errors += len(batch) - batch.column(1).null_count
    return counts


def read_table(storage: FileSystem, path: str) -> Iterator[tuple[Frame, list[Pose]]]:
    """The frames of a table with their poses, in its order; without pixels.

    An image that a number names has it as `index` (000000000139.jpg: 139), unless two have the same. All other frames
    are counted, from 0 or from the largest of these numbers.

    Raises:
        UserError: not such a table.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with storage.open_input_file(path) as stream:
            file = ParquetFile(stream)
            skeleton = skeleton_from(described_by(file.schema_arrow, path).get("network", {})["skeleton"], path, False)
            sources = file.read(["source"]).column(0).unique().to_pylist()
            stems = {path: posixpath.splitext(posixpath.basename(path))[0] for path in sources if not is_video(path)}
            numbers = {path: int(stem) for path, stem in stems.items() if stem.isdecimal()}
            if len(set(numbers.values())) < len(numbers):
                numbers = {}
            rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
            frames = groupby(rows, lambda row: (row["source"], row["frame"]))
            for count, ((source, _), people) in enumerate(frames, max(numbers.values(), default=-1) + 1):
                found = [_pose(row, skeleton) for row in people if row["person"] is not None]
                yield Frame(numbers.get(source, count), source, None, is_video=True), found
    except (ArrowException, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path} as a table of infer_many.py: {one_line(error)}") from None


def _pose(row: dict[str, Any], skeleton: Skeleton) -> Pose:
    keypoints = np.array([[row[f"{joint}_x"], row[f"{joint}_y"]] for joint in skeleton.joints], np.float64)
    scores = np.array([row[f"{joint}_score"] for joint in skeleton.joints], np.float32)
    return Pose(keypoints, scores, np.array([row[name] for name in BOX]), row["box_score"], skeleton)
