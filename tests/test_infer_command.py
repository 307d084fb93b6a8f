"""infer.py as a user types it: folders, videos, boxes, bad input, Ctrl-C, real pictures."""

from __future__ import annotations

import functools
import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from simplepose.core.images import read_image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def album(tmp_path) -> Path:
    """Three photographs of noise and a torn one between them."""
    folder = tmp_path / "album"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("1.jpg", "2.jpg", "3.png"):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (90, 70, 3), dtype=np.uint8))
    (folder / "2b.jpg").write_bytes((folder / "2.jpg").read_bytes()[:500])
    return folder


def make_clip(path: Path, num_frames: int, size_wh=(160, 120)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, size_wh)
    rng = np.random.default_rng(0)
    for _ in range(num_frames):
        writer.write(rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8))
    writer.release()


def test_a_folder_with_a_torn_picture(posenet, album, run_command):
    finished = run_command(
        "infer.py", "--model-file", posenet[1], "--img-file", album, "--output", "out/", "--kpt-thr", -1,
        cwd=album.parent,
    )  # fmt: skip
    assert finished.returncode == 1, finished.stderr
    assert "the network itself finds the person" in finished.stdout
    assert "=> 4 images (0 without people), 3 people, 48 of 48 joints score -1.0 or more" in finished.stdout
    assert ", 1 failed" in finished.stdout
    assert finished.stderr.startswith("failed: ")
    assert "2b.jpg is a truncated JPEG" in finished.stderr
    names = sorted(path.name for path in (album.parent / "out").iterdir())
    assert names == sorted(f"{stem}_pose{ext}" for stem in "123" for ext in (".jpg", ".json"))


def test_paddle_and_onnx_answer_alike(posenet, album, run_command):
    outputs = []
    for model in posenet:
        args = ("--model-file", model, "--img-file", album / "1.jpg", "--bbox", "5,5,50,60", "--bbox", "0,0,70,90")
        finished = run_command("infer.py", *args, "--flip-test", "--output", f"{model.suffix}/x.png", cwd=album.parent)
        assert finished.returncode == 0, finished.stderr
        outputs.append(json.loads((album.parent / model.suffix / "x.json").read_text())["people"])
    for paddle, onnx in zip(*outputs):
        assert paddle["bbox"] == onnx["bbox"]
        moved = [
            abs(paddle["keypoints"][name][axis] - onnx["keypoints"][name][axis]) > 0.1
            for name in paddle["keypoints"]
            for axis in "xy"
        ]
        assert sum(moved) <= 1  # a near-tie of an untrained network; test_export.py looks at them closely


@pytest.mark.parametrize(("form", "name"), [("coco", "poses.json"), ("csv", "poses.csv"), ("npz", "poses.npz")])
def test_formats_and_box_files(posenet, album, run_command, form, name):
    (album / "boxes.csv").write_text("image,x,y,w,h,score\n1.jpg,5,5,30,40,0.9\n1.jpg,9,5,30,40,0.1\n3,5,5,30,40,1\n")
    (album / "2b.jpg").unlink()
    finished = run_command(
        "infer.py", "--model-file", posenet[1], "--img-file", f"{album}/*", "--bbox-file", album / "boxes.csv",
        "--det-thr", 0.5, "--format", form, "--no-draw", cwd=album.parent,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "3 images (1 without people), 2 people" in finished.stdout
    assert [path.name for path in (album.parent / "images_pose").iterdir()] == [name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--img-file", "album/none.jpg"], "no such image: album/none.jpg"),
        (["--img-file", "album/2b.jpg"], "is a truncated JPEG"),
        (["--img-file", "album/1.jpg", "--bbox", "nan,0,9,9"], "--bbox nan,0,9,9 has no area, or a number that is NaN"),
        (["--img-file", "album/1.jpg", "--detector", "none.onnx"], "no such ONNX file: none.onnx"),
        (["--img-file", "album/1.jpg", "--bbox-file", "none.json"], "no such box file: none.json"),
        (["--img-file", "album/1.jpg", "--bbox", "1,1,9,9", "TEST.FLIP_TEST=true"], "says itself what it is"),
        (["--img-file", "nothing/"], "no such image: nothing"),
        (["--img-file", "album/1.jpg", "--output", "album/2.jpg/x.jpg"], "cannot write"),
    ],
)
def test_one_line_for_what_is_wrong(posenet, album, run_command, arguments, message):
    finished = run_command("infer.py", "--model-file", posenet[1], *arguments, cwd=album.parent)
    assert finished.returncode == 2, finished.stderr
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1, finished.stderr


def test_a_refused_run_leaves_nothing(posenet, album, run_command):
    before = sorted(album.parent.rglob("*"))
    args = ("--model-file", posenet[1], "--img-file", "album/2b.jpg", "--format")
    for form in ("json", "coco", "csv", "npz"):
        assert run_command("infer.py", *args, form, cwd=album.parent).returncode == 2
    assert sorted(album.parent.rglob("*")) == before


def test_plain_drawings_show_nobody(posenet, album, run_command):
    args = ("--model-file", posenet[1], "--img-file", "album/1.jpg", "--draw-plain", "--kpt-thr", "9")
    finished = run_command("infer.py", *args, "--output", "plain.png", cwd=album.parent)
    assert finished.returncode == 0, finished.stderr
    drawing = cv2.imread(str(album.parent / "plain.png"))
    assert drawing.shape[:2] == cv2.imread(str(album / "1.jpg")).shape[:2]
    assert (drawing == drawing[0, 0]).all()  # no joint scores 9, and the photograph is gone


def test_a_box_beside_one_image_of_several(posenet, album, run_command):
    cv2.imwrite(str(album / "small.png"), np.zeros((9, 9, 3), np.uint8))
    (album / "2b.jpg").unlink()
    finished = run_command(
        "infer.py", "--model-file", posenet[1], "--img-file", album, "--bbox", "20,20,30,30", "--bbox", "0,0,9,9",
        cwd=album.parent,
    )  # fmt: skip
    assert finished.returncode == 1
    assert "small.png: no pose for box 20,20,30,30, which does not touch the image of 9x9" in finished.stderr
    assert len(list((album.parent / "album_pose").glob("*.jpg"))) == 4
    people = json.loads((album.parent / "album_pose" / "small_pose.json").read_text())["people"]
    assert [person["bbox"] for person in people] == [[0, 0, 9, 9]]


def test_a_network_of_nan_finds_nobody_and_says_so(posenet, album, run_command, tmp_path):
    onnx = pytest.importorskip("onnx")
    network = onnx.load(str(posenet[1]))
    bias = next(array for array in network.graph.initializer if list(array.dims) == [16])
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(16, np.nan, np.float32), bias.name))
    onnx.save(network, str(tmp_path / "sick.onnx"))
    finished = run_command("infer.py", "--model-file", "sick.onnx", "--img-file", album / "1.jpg", cwd=tmp_path)
    assert finished.returncode == 1
    assert "no pose for box 0,0,70,90: the network's answer is NaN" in finished.stderr
    assert "NaN" not in (tmp_path / "1_pose.json").read_text()


def test_a_damaged_video(posenet, tmp_path, run_command):
    make_clip(tmp_path / "clip.avi", 12)
    content = bytearray((tmp_path / "clip.avi").read_bytes())
    (tmp_path / "cut.avi").write_bytes(content[: len(content) // 2])
    args = ("--model-file", posenet[1], "--smooth", "--img-file")
    whole = run_command("infer.py", *args, "clip.avi", "--output", "new folder/", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert len(json.loads((tmp_path / "new folder" / "clip_pose.json").read_text())["frames"]) == 12
    cut = run_command("infer.py", *args, "cut.avi", cwd=tmp_path)
    assert cut.returncode == 1
    assert "the video ends here; its header promises 12 frames" in cut.stderr
    assert len(cut.stderr.splitlines()) == 1, cut.stderr
    frames = json.loads((tmp_path / "cut_pose.json").read_text())["frames"]
    assert 3 <= len(frames) < 12


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize(
    ("command", "form", "number", "code", "word"),
    [
        ("infer.py", "json", signal.SIGINT, 130, "interrupted"),
        ("infer.py", "coco", signal.SIGTERM, 143, "terminated"),
        ("track.py", "posetrack", signal.SIGINT, 130, "interrupted"),
    ],
)
def test_an_interrupted_video_is_playable_and_its_json_valid(
    posenet, tmp_path, start_command, command, form, number, code, word
):
    make_clip(tmp_path / "long.avi", 1500)
    line = ["--model-file", posenet[1], "--img-file", "long.avi", "--output", "long_pose.mp4", "--format", form]
    if command == "track.py":
        (tmp_path / "boxes.csv").write_text(
            "image,x,y,w,h\n" + "".join(f"{index},9,9,90,90\n" for index in range(1500))
        )
        line += ["--bbox-file", "boxes.csv", "--min-score", "-1"]
    running = start_command(command, *line, cwd=tmp_path)
    drawn = tmp_path / "long_pose.mp4"
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=30)
    assert running.returncode == code, stderr
    assert stderr.strip() == word
    records = json.loads((tmp_path / "long_pose.json").read_text())
    if form == "coco":
        records = {record["image_id"] for record in records}
    else:
        records = records["frames" if form == "json" else "images"]
    capture = cv2.VideoCapture(str(drawn))
    assert 0 < capture.get(cv2.CAP_PROP_FRAME_COUNT) < 1500
    assert abs(capture.get(cv2.CAP_PROP_FRAME_COUNT) - len(records)) <= 1  # between two outputs of one frame
    assert capture.read()[0]
    assert " (0 without people)" in stdout
    assert not list(tmp_path.glob("*.part"))


def test_nothing_of_an_earlier_run_is_overwritten_unasked(posenet, album, run_command):
    (album / "2b.jpg").unlink()
    (album / "3.png").unlink()
    args = ("--model-file", posenet[1], "--img-file")
    assert run_command("infer.py", *args, "album", cwd=album.parent).returncode == 0
    kept = album.parent / "album_pose" / "2_pose.json"
    kept.write_text("dear to me")
    again = run_command("infer.py", *args, "album", cwd=album.parent)
    assert again.returncode == 2
    assert "album_pose/1_pose.jpg exists and 3 more; add --overwrite" in again.stderr
    assert kept.read_text() == "dear to me"
    undrawn = run_command("infer.py", *args, "album", "--no-draw", "--format", "csv", cwd=album.parent)
    assert undrawn.returncode == 0, undrawn.stderr  # its file is another
    assert run_command("infer.py", *args, "album", "--overwrite", cwd=album.parent).returncode == 0
    assert json.loads(kept.read_text())["people"]
    before = (album / "1.jpg").read_bytes()
    onto = run_command("infer.py", *args, "album/1.jpg", "--output", "album/1.jpg", "--overwrite", cwd=album.parent)
    assert (onto.returncode, (album / "1.jpg").read_bytes()) == (2, before)
    assert "album/1.jpg is what --img-file reads" in onto.stderr


def test_a_glob_without_quotes_and_a_table_for_all(posenet, album, run_command):
    files = sorted(str(path.relative_to(album.parent)) for path in album.iterdir() if path.stem != "2b")
    args = ("--model-file", posenet[1], "--bbox", "-6,-1,40,51", "--kpt_thr", 0, "--img-file", *files)
    finished = run_command("infer.py", *args, "--format", "csv", "--no-draw", "--output", "all.csv", cwd=album.parent)
    assert finished.returncode == 0, finished.stderr
    assert (album.parent / "all.csv").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--det-thr", "2", "--detector", "x.onnx"], "--det-thr is 2.0"),
        (["--det-thr", "nan", "--bbox-file", "x.csv"], "--det-thr is nan"),
        (["--det-thr", "0.5"], "--det-thr goes with --detector"),
        (["--detector-type", "yolox"], "--detector-type goes with --detector"),
        (["--kpt-thr", "nan"], "--kpt-thr is nan"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--show"], "no window can be opened"),
        (["A.B"], "A.B"),  # neither a key nor a file
    ],
)
def test_flags_that_would_do_nothing_are_refused(posenet, album, run_command, monkeypatch, arguments, message):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if arguments == ["--show"] and sys.platform in ("win32", "darwin"):
        pytest.skip("there are windows here without an X server")
    model = posenet[0] if message == "A.B" else posenet[1]
    finished = run_command("infer.py", "--model-file", model, "--img-file", "album/1.jpg", *arguments, cwd=album.parent)
    assert finished.returncode == 2, finished.stderr
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1, finished.stderr


def test_a_gpu_that_is_not_there_is_told(posenet, album, run_command):
    for model, word in zip(posenet, ("Paddle sees no GPU", "runs on the CPU")):
        args = ("--model-file", model, "--gpus", 3, "--img-file", "album/1.jpg", "--no-draw", "--overwrite")
        finished = run_command("infer.py", *args, cwd=album.parent)
        assert finished.returncode == 0, finished.stderr
        assert word in finished.stdout + finished.stderr


def test_opencv_leaves_the_talking_to_us(posenet, tmp_path, run_command):
    (tmp_path / "text.mp4").write_text("not a video")
    args = ("--model-file", posenet[1], "--img-file")
    for source in ("text.mp4", "77", "rtsp://127.0.0.1:9/x"):
        finished = run_command("infer.py", *args, source, cwd=tmp_path)
        assert finished.returncode == 2
        assert len(finished.stderr.splitlines()) == 1, finished.stderr


@pytest.fixture
def server(tmp_path):
    """An HTTP server over tmp_path, on this machine only; its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkey = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.func.log_message = lambda *_: None
    threading.Thread(target=monkey.serve_forever, daemon=True).start()
    yield f"http://me:secret@127.0.0.1:{monkey.server_port}"
    monkey.shutdown()
    monkey.server_close()


def test_a_video_at_an_address(posenet, tmp_path, run_command, server):
    make_clip(tmp_path / "clip.avi", 5)
    args = ("--model-file", posenet[1], "--format", "json", "--img-file")
    finished = run_command("infer.py", *args, f"{server}/clip.avi?token=abc", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    content = (tmp_path / "clip_pose.json").read_text()
    assert [frame["frame"] for frame in json.loads(content)["frames"]] == list(range(5))
    assert "127.0.0.1" in content
    assert "secret" not in content
    assert "abc" not in content
    for name, message in (("none.mp4", "does not answer"), ("a.jpg", "download it first")):
        finished = run_command("infer.py", *args, f"{server}/{name}", cwd=tmp_path)
        assert finished.returncode == 2
        assert message in finished.stderr
        assert "secret" not in finished.stderr


@pytest.mark.slow
def test_real_pictures_and_a_real_video(real_data, posenet, tmp_path, run_command):
    detector = ("--detector", real_data / "detectors/nanodet_m.onnx")
    finished = run_command(
        "infer.py", "--model-file", posenet[1], "--img-file", real_data / "coco/images/val2017", *detector, "--format",
        "coco", "--output", tmp_path / "val", "--draw-ids", "--draw-scores",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "79 images" in finished.stdout
    assert len(list((tmp_path / "val").glob("*_pose.jpg"))) == 79

    frames = sorted((real_data / "video/060470979/frames").glob("*.jpg"))
    writer = cv2.VideoWriter(str(tmp_path / "walk.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 15, (960, 540))
    for frame in frames:
        writer.write(read_image(frame))
    writer.release()
    finished = run_command("infer.py", "--model-file", posenet[1], "--img-file", "walk.mp4", *detector, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    content = json.loads((tmp_path / "walk_pose.json").read_text())
    assert (len(content["frames"]), content["fps"]) == (41, 15)
    # Four people cross; the annotation says how many are seen in each frame.
    annotated = json.loads((real_data / "video/060470979/annotation.json").read_text())["frames"]
    found = [len(frame["people"]) for frame in content["frames"]]
    assert np.mean(found) == pytest.approx(np.mean([len(frame["people"]) for frame in annotated]), abs=1.5)
    capture = cv2.VideoCapture(str(tmp_path / "walk_pose.mp4"))
    assert (capture.get(3), capture.get(4), capture.get(5), capture.get(7)) == (960, 540, 15, 41)

    finished = run_command(
        "infer.py", "--model-file", posenet[1], "--img-file", f"{real_data}/lspet/images/im000*.jpg", "--format", "csv",
        "--no-draw", "--output", tmp_path / "lspet",
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
