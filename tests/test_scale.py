"""infer_many.py: the rows of a cluster are infer.py's, whatever dies on the way; nothing is done twice or half."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS
from simplepose.core.skeletons import MPII
from simplepose.inference.box_sources import found_person, whole_image
from simplepose.inference.network import PoseNetwork
from simplepose.inference.pipeline import find_poses
from simplepose.inference.predictor import Pose, PosePredictor
from simplepose.inference.sources import Frame, open_source

ROOT = Path(__file__).resolve().parent.parent


def noise(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 64, 3), np.uint8)
    if path.suffix == ".mp4":
        video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 96))
        for shift in range(3):
            video.write(np.roll(pixels, shift * 20, 1))
        video.release()
    else:
        cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def pyarrow():
    return pytest.importorskip("pyarrow", reason="the extra `scale` is not installed")


@pytest.fixture(scope="module")
def nodes():
    """A Ray cluster of two simulated machines with a core each; the second may be lost."""
    pytest.importorskip("ray", reason="the extra `scale` is not installed")
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": 100 << 20}
    soon = {"health_check_period_ms": 500, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 2}
    head = {**size, "include_dashboard": False, "_system_config": soon}  # a lost machine is noticed at once
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(**size)
    yield cluster, second
    cluster.shutdown()


def test_without_ray_a_line_names_the_extra(tmp_path, run_command, monkeypatch):
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')")
    (tmp_path / "pyarrow.py").write_text("raise ModuleNotFoundError(\"No module named 'pyarrow'\", name='pyarrow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finished = run_command("infer_many.py", "--model-file", "a.onnx", "--input", "photos", "--output", "a.parquet")
    assert finished.returncode == 2 and finished.stderr.count("\n") == 1
    assert 'pip install ".[scale]"' in finished.stderr


def test_blocks_hold_one_video_or_some_images_and_keep_the_order():
    from simplepose.scale.cluster import make_blocks

    inputs = ["a.jpg", "b.jpg", "c.jpg", "d.mp4", "e.mp4", "f.jpg"]
    assert [block["paths"] for block in make_blocks(inputs[:3], set(), 2, "t")] == [["a.jpg", "b.jpg"], ["c.jpg"]]
    blocks = list(make_blocks(inputs, {"b.jpg"}, 3, "t"))
    assert [block["paths"] for block in blocks] == [["a.jpg", "c.jpg"], ["d.mp4"], ["e.mp4"], ["f.jpg"]]
    names = [block["part"] for block in blocks]
    assert names == sorted(names) and all(name.startswith("t.parts/") for name in names)
    (other,) = make_blocks(["a.jpg"], set(), 2, "t")
    assert other["part"] != names[0]  # the same place in the list, but other inputs: it overwrites nothing


def test_inputs_are_found_below_a_folder_and_in_a_list(pyarrow, tmp_path):
    from simplepose.scale.storage import list_inputs, open_storage

    for name in ("b.PNG", "a/z.jpg", "a/clip.mp4", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [f"{tmp_path.as_posix()}/{name}" for name in ("a/clip.mp4", "a/z.jpg", "b.PNG")]
    assert list_inputs(*open_storage(str(tmp_path))) == found
    assert list_inputs(*open_storage(tmp_path.as_uri())) == found
    (tmp_path / "list.txt").write_text("# mine\na/z.jpg\n\nb.PNG\na/z.jpg\n")
    assert list_inputs(*open_storage(str(tmp_path / "list.txt"))) == found[1:]
    (tmp_path / "empty").mkdir()
    for place, said in (("empty", "holds no images"), ("nowhere", "no file or folder"), ("notes.md", "no images")):
        with pytest.raises(UserError, match=said):
            list_inputs(*open_storage(str(tmp_path / place)))
    with pytest.raises(UserError, match="cannot open nothing://"):
        open_storage("nothing://bucket/a")


def test_parts_are_kept_until_the_table_is_whole(pyarrow, tmp_path):
    from pyarrow.parquet import read_table

    from simplepose.scale import table
    from simplepose.scale.storage import open_storage

    storage, path = open_storage(str(tmp_path / "poses.parquet"))
    schema = table.make_schema(MPII, {"network": "a"})

    def part(name: str, *sources: str) -> None:
        rows = (row for source in sources for row in table.rows_of(Frame(0, source, None), []))
        table.write_part(storage, f"{path}.parts/{name}.parquet", schema, rows)

    part("000-a", "a", "b")
    part("002-c", "c")
    (tmp_path / "poses.parquet.parts" / "001-x.parquet").write_bytes(b"PAR1 torn")
    (tmp_path / "poses.parquet.parts" / "003-d.parquet.1234.part").write_bytes(b"of a killed worker")
    found = table.find_finished(storage, path, schema)
    assert found.sources == {"a", "b", "c"} and len(found.files) == 2
    with pytest.raises(UserError, match="another|made with network 'a'"):
        table.find_finished(storage, path, table.make_schema(MPII, {"network": "b"}))
    assert table.join(storage, path, schema).inputs == 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["poses.parquet"]
    part("000-again", "a")  # killed after joining and before removing the parts
    part("003-d", "d")
    assert str(table.join(storage, path, schema)).startswith("4 inputs, 0 people, 0 errors")
    assert read_table(path)["source"].to_pylist() == ["a", "b", "c", "d"]


def test_an_estimate_says_that_videos_of_unknown_length_are_not_in_it(pyarrow, tmp_path):
    """Their headers are read on this machine's disk only; elsewhere 100 videos would take no time at all."""
    from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

    from simplepose.commands.infer_many import estimate
    from simplepose.scale.table import make_schema

    inputs = [noise(tmp_path / name, 0).name for name in ("1.png", "2.mp4")]
    codec = HeatmapCodec((64, 96), (16, 24), 1)
    network = PoseNetwork(lambda images: np.repeat(images[:, :1, ::4, ::4], 16, 1), MPII, codec, INPUT_FORMATS["bgr"])

    def said(storage, names: list[str]) -> str:
        job = SimpleNamespace(inputs=storage, apply_exif=True, schema=make_schema(MPII, {}))
        return estimate(job, names, PosePredictor(network), whole_image, 1, 1, True)

    here = said(LocalFileSystem(), [str(tmp_path / name) for name in inputs])
    assert "1 images and 1 videos, about 4 frames: 4 of them" in here and "not counted" not in here
    elsewhere = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    assert "about 1 frames: 4 of them" in said(elsewhere, inputs)
    assert said(elsewhere, inputs).endswith("; the videos, whose lengths are not known from here, not counted")
    assert "not counted" not in said(elsewhere, inputs[:1])


def test_an_output_that_is_no_table_or_cannot_be_read_is_told(pyarrow, tmp_path):
    from pyarrow import parquet

    from simplepose.scale import table
    from simplepose.scale.storage import open_storage

    (tmp_path / "notes.parquet").write_text("hello")
    strange = pyarrow.table({"image": ["a.jpg"]}).replace_schema_metadata({table.METADATA_KEY: b"[" * 100_000})
    parquet.write_table(strange, tmp_path / "strange.parquet")
    with pytest.raises(UserError, match="is not a table of infer_many.py"):
        list(table.read_table(*open_storage(str(tmp_path / "strange.parquet"))))
    with pytest.raises(UserError, match="cannot open"):
        open_storage(str(tmp_path / "\udcff"))
    for name, said in (("notes.parquet", "is not a table of infer_many.py"), ("a" * 300, "cannot read")):
        with pytest.raises(UserError, match=said):
            table.find_finished(*open_storage(str(tmp_path / name)), table.make_schema(MPII, {}))
    assert (tmp_path / "notes.parquet").read_text() == "hello"


def test_a_file_is_on_the_disk_before_it_has_its_name(pyarrow, tmp_path, monkeypatch):
    from simplepose.scale.storage import open_storage, written_whole

    flushed = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.extend(file.read_text() for file in tmp_path.iterdir()))
    with written_whole(*open_storage(str(tmp_path / "poses"))) as stream:
        stream.write(b"whole")
    assert flushed == ["whole"] and [file.name for file in tmp_path.iterdir()] == ["poses"]


def test_a_tracked_person_has_an_id_in_the_table(pyarrow, run_command):
    from simplepose.scale import table

    pose = Pose(np.zeros((16, 2)), np.ones(16), np.zeros(4), 1.0, MPII)
    schema = table.make_schema(MPII, {})
    for track_id in (7, None):
        rows = list(table.rows_of(Frame(3, "clip.mp4", None, is_video=True), [replace(pose, track_id=track_id)]))
        assert pyarrow.Table.from_pylist(rows, schema)["track"].to_pylist() == [track_id]
    line = ("infer_many.py", "--model-file", "a.onnx", "--input", "clips", "--output", "a.parquet")
    finished = run_command(*line, "--track")
    assert finished.returncode == 2 and "--detector" in finished.stderr


@pytest.mark.slow
def test_a_cluster_gives_the_rows_of_infer(nodes, posenet, run_command, tmp_path):
    """With a torn image and a video among the inputs; then a second start, and one with another network."""
    from pyarrow.parquet import read_table

    from simplepose.build.predictor import PosePredictor as Opened

    for number in range(9):
        noise(tmp_path / "in" / f"{number + 1:06}.png", number)
    clip = noise(tmp_path / "in" / "clip.mp4", 9)
    (tmp_path / "in" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    predictor, expected = Opened(posenet[1]), []
    for place in (str(tmp_path / "in"), str(clip)):
        for frame, poses in find_poses(open_source(place), found_person(predictor), predictor):
            expected += [(Path(frame.name).name, frame.index if frame.is_video else 0, pose) for pose in poses]
    expected.sort(key=lambda row: row[0])

    table = tmp_path / "poses.parquet"
    line = ("infer_many.py", "--model-file", posenet[1], "--input", tmp_path / "in", "--output", table)
    finished = run_command(*line, "--address", nodes[0].address)
    assert finished.returncode == 1, finished.stderr
    assert "11 inputs, 12 people, 1 errors" in finished.stdout
    rows = read_table(table).to_pylist()
    (torn,) = (row for row in rows if row["error"])
    assert torn["source"].endswith("/in/torn.jpg") and "truncated JPEG" in torn["error"] and torn["person"] is None
    people = [row for row in rows if row["person"] is not None]
    assert [(Path(row["source"]).name, row["frame"]) for row in people] == [row[:2] for row in expected]
    for row, (_, _, pose) in zip(people, expected):
        assert [row["score"], row["box_w"]] == [pose.score, pose.box[2]]
        for joint, point, score in zip(pose.joints, pose.keypoints, pose.scores):
            assert [row[f"{joint}_x"], row[f"{joint}_y"], row[f"{joint}_score"]] == [*point, score]

    before = table.stat()
    finished = run_command(*line)  # nothing to do: no cluster is started
    assert finished.returncode == 1 and "0 of them to be done" in finished.stdout and table.stat() == before
    finished = run_command(*line, "--flip-test")
    assert finished.returncode == 2 and finished.stderr.count("\n") == 1 and "settings" in finished.stderr
    assert table.stat() == before

    clip.unlink()
    converted = run_command("coco_files.py", "poses", table, "--output", tmp_path / "poses.json")
    assert converted.returncode == 0, converted.stderr
    run_command(
        "infer.py", "--model-file", posenet[1], "--img-file", tmp_path / "in", "--no-draw", "--format", "coco",
        "--output", tmp_path / "infer.json",
    )  # fmt: skip
    lines = (tmp_path / "poses.json").read_text().splitlines()
    ours = [line.rstrip(",") for line in lines if "clip.mp4" not in line]
    assert len(lines) == len(ours) + 3
    assert ours == [line.rstrip(",") for line in (tmp_path / "infer.json").read_text().splitlines()]


@pytest.mark.slow
def test_nothing_is_lost_with_workers_and_a_machine(nodes, tmp_path, monkeypatch):
    """Blocks of two images, the first of an earlier start; an image kills every worker; a machine is lost."""
    import ray
    from pyarrow.parquet import read_table

    from simplepose.scale import cluster, storage, table

    cluster.import_ray()
    monkeypatch.setattr(cluster, "IMAGES_PER_BLOCK", 2)
    monkeypatch.setattr(cluster, "RETRIES", 1)
    for number in range(24):
        noise(tmp_path / "in" / f"{number:02}.png", number)

    def load(folder: Path):  # travels to the workers by value

        import numpy as np

        from simplepose.core.codecs.gaussian import HeatmapCodec
        from simplepose.core.images import INPUT_FORMATS
        from simplepose.inference.network import PoseNetwork

        def boxes(frame):
            if folder and frame.name.endswith("07.png"):
                os._exit(1)
            return whole_image(frame)

        codec = HeatmapCodec((64, 96), (16, 24), 1)
        network = PoseNetwork(
            lambda images: np.repeat(images[:, :1, ::4, ::4], 16, 1), MPII, codec, INPUT_FORMATS["bgr"]
        )
        return PosePredictor(network), boxes

    here, folder = storage.open_storage(str(tmp_path / "in"))
    output, path = storage.open_storage(str(tmp_path / "poses.parquet"))
    predictor, boxes = load(None)
    schema = table.make_schema(MPII, {})
    job = cluster.Job(load, {"model_file/net": b"sent along"}, True, False, here, output, path, schema)
    inputs = storage.list_inputs(here, folder)
    frames = (frame for name in inputs for frame in storage.read_frames(here, name, True))
    expected = [row for frame, poses in find_poses(frames, boxes, predictor) for row in table.rows_of(frame, poses)]
    table.write_part(output, next(cluster.make_blocks(inputs, set(), 2, path))["part"], schema, expected[:2])
    try:
        workers, cores = cluster.start(nodes[0].address, False, None)
        assert (workers, cores) == (2, 1)
        finished = table.find_finished(output, path, schema).sources
        assert finished == set(inputs[:2])
        lost = False
        for done in cluster.process(job, inputs, finished, workers, cores, False):
            assert not finished.intersection(done)
            if not lost:
                nodes[0].remove_node(nodes[1], allow_graceful=False)
                lost = True
    finally:
        ray.shutdown()
    counts = table.join(output, path, schema)
    assert (counts.inputs, counts.people, counts.errors) == (24, 23, 1)
    rows = read_table(path).to_pylist()
    assert [row["source"] for row in rows if row["error"]] == [inputs[7]]
    del rows[7], expected[7]
    assert rows == [{name: wanted.get(name) for name in schema.names} for wanted in expected]
