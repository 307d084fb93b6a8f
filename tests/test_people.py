"""Sources, boxes, the pipeline, outputs and smoothing, with networks whose answer is known."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from simplepose import Pose, PosePredictor
from simplepose.core.codecs.gaussian import HeatmapCodec
from simplepose.core.errors import UserError
from simplepose.core.images import INPUT_FORMATS, read_image
from simplepose.core.skeletons import COCO, MPII
from simplepose.inference import videos
from simplepose.inference.box_sources import boxes_of_file, fixed_boxes, whole_image
from simplepose.inference.network import PoseNetwork
from simplepose.inference.pipeline import Summary, ahead, find_poses
from simplepose.inference.smoothing import OneEuroFilter, PoseSmoother
from simplepose.inference.sources import Frame, Video, open_source, open_sources
from simplepose.inference.writers import (
    FORMATS,
    SCORES,
    DrawnVideo,
    Painter,
    choose_outputs,
    numbered_images,
    picture_paths,
)


@pytest.fixture(scope="module")
def predictor() -> PosePredictor:
    """Every joint is where the crop is bluest."""

    def blue(images):
        num, _, height, width = images.shape
        pooled = images[:, :1].reshape(num, 1, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
        return np.repeat(pooled / 8 + 0.6, 16, axis=1)

    return PosePredictor(PoseNetwork(blue, MPII, HeatmapCodec((48, 64), (12, 16), 2), INPUT_FORMATS["bgr"]))


def spot(x: int, y: int, width: int = 120, height: int = 80) -> np.ndarray:
    """A black image with a bright spot of 8 pixels around (x, y)."""
    image = np.zeros((height, width, 3), np.uint8)
    image[max(0, y - 4) : y + 4, max(0, x - 4) : x + 4] = 255
    return image


def write_video(path, num_frames: int, fps: float = 12.5, code: str = "mp4v", size_wh=(120, 80)) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, size_wh)
    rng = np.random.default_rng(0)
    for index in range(num_frames):
        frame = rng.integers(0, 60, (size_wh[1], size_wh[0], 3), dtype=np.uint8)  # noise: frames that fill bytes
        cv2.circle(frame, (20 + 2 * index, 40), 8, (255, 255, 255), -1)
        writer.write(frame)
    writer.release()


def read_video(path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


# --- sources ---------------------------------------------------------------------------------------------------


@pytest.fixture
def gallery(tmp_path):
    """Pictures of every kind, with names that are not ASCII, and one that is no picture."""
    folder = tmp_path / "фото 照片"
    folder.mkdir()
    image = spot(30, 20)
    grey = image[..., 0]
    pictures = {
        "a.jpg": image,
        "b grey.png": grey,
        "c rgba.png": np.dstack([image, np.full_like(grey, 128)]),
        "d 16 bit.png": image.astype(np.uint16) * 257,
        "f.bmp": image,
        "g 16 bit grey.tiff": grey.astype(np.uint16) * 257,
    }
    for name, picture in pictures.items():
        (folder / name).write_bytes(cv2.imencode("." + name.rsplit(".", 1)[1], picture)[1].tobytes())
    (folder / "e torn.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    (folder / "notes.md").write_text("no picture")
    return folder


def test_a_folder_of_every_kind_of_picture(gallery):
    frames = list(open_source(str(gallery)))
    assert [frame.index for frame in frames] == list(range(7))
    assert [bool(frame.failure) for frame in frames] == [False] * 4 + [True] + [False] * 2
    assert "truncated JPEG" in frames[4].failure
    for frame in frames[:4] + frames[5:]:
        assert frame.image.dtype == np.uint8
        assert frame.image.shape == (80, 120, 3)
        assert np.abs(frame.image.astype(int) - spot(30, 20)).mean() < 3, frame.name


def test_globs_and_lists(gallery):
    assert [frame.name.rsplit(" ", 1)[-1] for frame in open_source(f"{gallery}/*.png")] == [
        "grey.png",
        "rgba.png",
        "bit.png",
    ]
    assert len(open_source(f"{gallery.parent}/**/*")) == 7
    (gallery / "list.txt").write_text("# mine\na.jpg\n\nmissing.jpg\n", encoding="utf-8-sig")
    first, second = open_source(str(gallery / "list.txt"))
    assert first.image.shape == (80, 120, 3)
    assert "no such image" in second.failure


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.mp4", "no such video"),
        ("none/*.png", "no image matches"),
        ("empty", "holds no images"),
        ("none.txt", "no such list file"),
        ("bare.txt", "lists no images"),
        ("text.mp4", "is not a video that OpenCV can read"),
        ("99", "there is no camera 99"),
    ],
)
def test_sources_that_are_none(tmp_path, name, message, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare.txt").write_text("# nothing\n")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(UserError, match=message):
        open_source(name)


def test_a_video_without_a_frame_fails(tmp_path):
    write_video(tmp_path / "none.avi", 0, code="MJPG")
    (frame,) = open_source(str(tmp_path / "none.avi"))
    assert frame.image is None and "the video ends here" in frame.failure


def test_a_long_number_is_a_missing_file_and_no_camera():
    for name in ("20260101123000", "²"):
        (frame,) = open_source(name)
        assert frame.failure == f"no such image: {name}"


def exif_jpeg(image: np.ndarray, orientation: int) -> bytes:
    """A JPEG with one EXIF entry: tag 0x0112, the orientation."""
    tiff = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0]) + b"\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    return jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:]


def test_exif_orientation_is_applied_unless_ignored(tmp_path):
    (tmp_path / "turned.jpg").write_bytes(exif_jpeg(spot(30, 20), 6))  # 6: to be turned by 90 degrees clockwise
    (upright,) = open_source(str(tmp_path / "turned.jpg"))
    assert upright.image.shape == (120, 80, 3)
    assert upright.image[30, 80 - 1 - 20].min() > 200
    (stored,) = open_source(str(tmp_path / "turned.jpg"), ignore_orientation=True)
    assert stored.image.shape == (80, 120, 3)


def test_very_large_images(tmp_path, predictor):
    image = np.zeros((60, 40000, 3), np.uint8)  # beyond the 32767 pixels that OpenCV's warping once allowed
    image[26:34, 39000:39008] = 255
    (tmp_path / "wide.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
    (frame,) = open_source(str(tmp_path / "wide.png"))
    (pose,) = predictor(frame.image, [[38980, 0, 50, 60]])
    assert np.abs(pose.keypoints - [39003.5, 29.5]).max() < 6
    assert predictor(frame.image, [[-90, -90, 50, 50]]) == []  # outside


def test_the_visible_part_of_a_large_image_is_warped_as_the_whole(monkeypatch):
    from simplepose.core import images

    image = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    affine = np.array([[1.5, 0.2, -60.0], [-0.2, 1.5, -10.0]])
    whole = images.crop_image(image, affine, (48, 32))
    monkeypatch.setattr(images, "MAX_WARP_SIDE", 60)  # the part that is seen is smaller than that
    np.testing.assert_allclose(images.crop_image(image, affine, (48, 32)).astype(int), whole, atol=3)
    monkeypatch.setattr(images, "MAX_WARP_SIDE", 30)  # every second pixel of a smooth image is as good
    smooth = np.dstack([np.add.outer(np.arange(50), np.arange(90))] * 3).astype(np.uint8)
    small = images.crop_image(smooth, np.array([[0.5, 0, 0], [0, 0.5, 0.0]]), (40, 20)).astype(int)
    np.testing.assert_allclose(small[:, :, 0], np.add.outer(np.arange(20), np.arange(40)) * 2, atol=1)


def test_a_video_frame_by_frame(tmp_path):
    write_video(tmp_path / "видео.mp4", 7)
    source = open_source(str(tmp_path / "видео.mp4"))
    assert (len(source), source.fps, source.is_live) == (7, 12.5, False)
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(7))
    assert not any(frame.failure for frame in frames)


class StubCapture:
    """cv2.VideoCapture with frames that do not decode."""

    def __init__(self, decoded: str, promised: int):
        self.decoded = list(decoded)
        self.promised = promised

    def isOpened(self):
        return True

    def set(self, *_):
        return True

    def get(self, what):
        return {cv2.CAP_PROP_FRAME_COUNT: self.promised, cv2.CAP_PROP_FPS: 0}.get(what, 0)

    def read(self):
        good = bool(self.decoded) and self.decoded.pop(0) == "1"
        return good, np.zeros((4, 4, 3), np.uint8) if good else None


@pytest.mark.parametrize(
    ("decoded", "promised", "seen"),
    [
        ("11011", 5, "11x11"),  # a hole
        ("1111", 5, "1111"),  # an estimate that is one too high
        ("111", 5, "111x"),  # cut off: one failure for the rest
        ("0011", 4, "xx11"),
        ("", 1, "x"),
        ("11", 0, "11"),  # nobody knows how many
    ],
)
def test_frames_that_do_not_decode(monkeypatch, decoded, promised, seen):
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: StubCapture(decoded, promised))
    frames = list(Video("clip.mp4"))
    assert "".join("x" if frame.failure else "1" for frame in frames) == seen
    assert [frame.index for frame in frames] == list(range(len(seen)))


def test_several_sources_are_images(gallery):
    files = sorted(str(path) for path in gallery.iterdir())
    assert len(open_sources(files)) == len(open_source(f"{gallery}/*")) == 7
    assert len(open_sources(files[:1])) == 1
    with pytest.raises(UserError, match=r"clip.mp4 is one of 9 files"):
        open_sources([*files, "clip.mp4"])
    with pytest.raises(UserError, match="none of a.md and 1 more is an image"):
        open_sources(["a.md", "b.md"])


class StubCamera(StubCapture):
    """A camera that shows frames 1 to 5 while somebody looks at frame 0, and the other four after that."""

    def __init__(self):
        super().__init__("1" * 10, 0)
        self.looking, self.ahead, self.looked = threading.Event(), threading.Event(), threading.Event()

    def read(self):
        number = 10 - len(self.decoded)
        if number == 1:
            self.looking.wait(10)
        elif number == 6:
            self.ahead.set()
            self.looked.wait(10)
        good, image = super().read()
        return good, image if image is None else image + number


def test_a_camera_shows_its_newest_frame(monkeypatch):
    camera, shown = StubCamera(), []
    monkeypatch.setattr(cv2, "VideoCapture", lambda _: camera)
    for frame in Video("0"):
        if frame.failure:
            assert "ended" in frame.failure
            continue
        shown.append((frame.index, int(frame.image.max())))
        camera.looking.set()
        assert camera.ahead.wait(10)
        if len(shown) == 2:
            camera.looked.set()
    assert shown[:2] == [(0, 0), (5, 5)]
    assert all(index == value for index, value in shown)
    assert shown == sorted(shown)


def test_live_answers_before_it_takes_the_next_frame(predictor):
    taken = []

    def frames():
        for index in range(6):
            taken.append(index)
            yield Frame(index, "0", spot(30, 20), is_video=True)

    for frame, _ in find_poses(frames(), whole_image, predictor, live=True):
        time.sleep(0.02)  # time for threads to run ahead
        assert taken[-1] == frame.index


# --- boxes -----------------------------------------------------------------------------------------------------


def frame_of(name: str, index: int = 0, is_video: bool = False) -> Frame:
    return Frame(index, name, np.zeros((80, 120, 3), np.uint8), is_video=is_video)


def test_boxes_from_a_coco_results_file(tmp_path):
    file = tmp_path / "boxes.json"
    entries = [
        {"image_id": 139, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.9},
        {"image_id": 139, "category_id": 1, "bbox": [5, 6, 7, 8], "score": 0.2},
        {"image_id": 139, "category_id": 18, "bbox": [0, 0, 9, 9], "score": 1.0},
        {"image_id": "b", "category_id": 1, "bbox": [9, 9, 9, 9]},
        {"image_id": 7, "category_id": 1, "bbox": [500, 0, 9, 9], "score": 1.0},
    ]
    file.write_text(json.dumps(entries))
    boxes, scores = boxes_of_file(file)(frame_of("val/000000000139.jpg"))
    np.testing.assert_allclose(boxes, [[1, 2, 3, 4], [5, 6, 7, 8]])
    np.testing.assert_allclose(scores, [0.9, 0.2])
    source = boxes_of_file(file, min_score=0.5)
    assert len(source(frame_of("000000000139.jpg"))[0]) == 1
    assert len(source(frame_of("clip.mp4", 139, is_video=True))[0]) == 1
    assert source(frame_of("b.png"))[1].tolist() == [1]
    assert source(frame_of("c.png"))[0].shape == (0, 4)


def test_boxes_from_csv(tmp_path):
    file = tmp_path / "boxes.csv"
    file.write_text("image, x, y, w, h, score\nшапка.jpg, 1, 2, 3, 4, 0.5\n", encoding="utf-8-sig")
    boxes, scores = boxes_of_file(file)(frame_of("dir/шапка.jpg"))
    np.testing.assert_allclose(boxes, [[1, 2, 3, 4]])
    assert scores.tolist() == [0.5]
    file.write_text("image,x,y,w,h\na,1,2,3,4\n")
    assert boxes_of_file(file)(frame_of("a.jpg"))[1].tolist() == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": []}', "not in COCO's results form"),
        ("[{", "not valid JSON"),
        ('[{"image_id": 3}]', "lacks image_id or bbox"),
        ('[{"image_id": [3], "bbox": [1, 2, 3, 4]}]', "entry 0 .*lacks image_id"),
        ('["box"]', "entry 0 is 'box'"),
        ('[{"image_id": 3, "bbox": [1, 2]}]', "entry 0 has the box"),
        ('[{"image_id": 3, "category_id": 2, "bbox": 0}, {"image_id": 3, "bbox": "x"}]', "entry 1 has the box 'x'"),
        ('[{"image_id": 3, "category_id": "1", "bbox": [1, 2, 3, 4]}]', "entry 0 has the category_id '1'"),
        (f'[{{"image_id": 3, "bbox": [1, 2, 3, {10**400}]}}]', "entry 0 has the box"),
        ('[{"image_id": 3, "bbox": [1, 2, NaN, 4]}]', "entry 0 has the box"),
        ('[{"image_id": 3, "bbox": [1, 2, 3, 4], "score": NaN}]', "entry 0 has the box .*score nan"),
        ('[{"image_id": 3, "bbox": [1, 2, 3, 4], "score": null}]', "entry 0 has the box .*score None"),
        ("[" * 100_000, "not valid JSON"),
        ("image,x,y,w,h\n" + "a" * 200_000 + ",1,2,3,4\n", "is not CSV"),
        ("image,x,y,w\n", "has no column h"),
        ("image,x,y,w,h\na,1,2,3,wide\n", "entry 0 has the box"),
        ("image,x,y,w,h\na,1,2,3,0\n", "entry 0 has the box .* has no area"),
        ("image,x,y,w,h\na,nan,2,3,4\n", "entry 0 has the box .*nan"),
        ("image,x,y,w,h,score\na,1,2,3,4,nan\n", "entry 0 has the box .*score 'nan'"),
        ('[{"image_id": 3, "bbox": [1, 2, Infinity, 4]}]', "entry 0 has the box .*inf"),
    ],
)
def test_box_files_that_are_wrong(tmp_path, content, message):
    (tmp_path / "boxes").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        boxes_of_file(tmp_path / "boxes")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    with pytest.raises(UserError, match="no such box file"):
        boxes_of_file(tmp_path / "none")


def test_boxes_of_the_command_line():
    boxes, _ = fixed_boxes(["1,2,3,4", "-5,0,10,10"])(frame_of("a.jpg"))
    assert boxes.tolist() == [[1, 2, 3, 4], [-5, 0, 10, 10]]
    for text in ("0,0,0,5", "0,0,5,-5", "nan,0,5,5", "0,0,inf,5", "1e300,0,5,5", "0,0,1e-300,5"):
        with pytest.raises(UserError, match=f"--bbox {text} has no area, or a number that is NaN"):
            fixed_boxes([text])
    with pytest.raises(UserError, match="write left,top,width,height"):
        fixed_boxes(["1,2,3,4", "5"])
    assert whole_image(frame_of("a.jpg"))[0].tolist() == [[0, 0, 120, 80]]


# --- pipeline --------------------------------------------------------------------------------------------------


def test_the_pipeline_is_the_predictor_image_by_image_and_steps_over_failures(predictor):
    places = [(20 + 5 * i, 20 + 3 * i) for i in range(11)]
    frames = [Frame(i, f"{i}.jpg", spot(*place)) for i, place in enumerate(places)]
    frames[3] = Frame(3, "3.jpg", None, "torn")

    def boxes(frame):
        if frame.index == 6:
            raise UserError("the box is elsewhere")
        return np.array([[10.0, 5, 80, 70]] * (frame.index % 3)), np.ones(frame.index % 3)

    results = list(find_poses(frames, boxes, predictor))
    assert [frame.index for frame, _ in results] == list(range(11))
    summary = Summary(0.2)
    for frame, poses in results:
        summary.add(frame, poses)
        expected = 0 if frame.failure else frame.index % 3
        assert len(poses) == expected
        for pose in poses:
            (alone,) = predictor(frame.image, [[10, 5, 80, 70]])
            np.testing.assert_array_equal(pose.keypoints, alone.keypoints)
    assert summary.failures == [("3.jpg", "torn"), ("6.jpg", "the box is elsewhere")]
    assert (summary.images, summary.people, summary.empty) == (11, 10, 2)
    assert "11 images (2 without people), 10 people" in str(summary)
    one = Summary(0.2)
    one.add(*results[1])
    assert "1 image (0 without people), 1 person," in str(one)
    followed = Summary(0.2)
    for frame, poses in results:
        followed.add(frame, [replace(pose, track_id=number) for number, pose in enumerate(poses)])
    assert "11 images (2 without people), 10 poses of 2 people" in str(followed)


def test_single_people_fail_and_the_others_of_their_image_do_not(predictor):
    """A box beside the image, and a network that answers NaN to a bright crop."""

    def answer(images):
        heatmaps = predictor.network.run(images)
        heatmaps[images.max(axis=(1, 2, 3)) > 1] = np.nan
        return heatmaps

    sick = PosePredictor(replace(predictor.network, run=answer))
    frames = [Frame(0, "a.jpg", spot(30, 20)), Frame(1, "b.jpg", np.zeros((80, 120, 3), np.uint8))]
    boxes = np.array([[20.0, 10, 20, 20], [70, 40, 30, 30], [200, 0, 9, 9]])
    summary, found = Summary(0.2), []
    for frame, poses in find_poses(frames, lambda frame: (boxes, np.ones(3)), sick):
        summary.add(frame, poses)
        found.append([pose.box.tolist() for pose in poses])
    assert found == [[[70, 40, 30, 30]], [[20, 10, 20, 20], [70, 40, 30, 30]]]
    assert [name for name, _ in summary.failures] == ["a.jpg", "a.jpg", "b.jpg"]
    assert "200,0,9,9" in summary.failures[0][1] and "120x80" in summary.failures[0][1]
    assert "20,10,20,20" in summary.failures[1][1] and "NaN" in summary.failures[1][1]
    assert (summary.people, summary.empty) == (3, 0)
    assert ", 3 failed" in str(summary)


def test_ahead_keeps_order_hands_on_errors_and_stops():
    assert list(ahead(range(50))) == list(range(50))

    def breaking():
        yield 1
        raise UserError("here")

    items = ahead(breaking())
    assert next(items) == 1
    with pytest.raises(UserError, match="here"):
        next(items)

    closed = []

    def endless():
        try:
            number = 0
            while True:
                number += 1
                yield number
        finally:
            closed.append(number)

    before = threading.active_count()
    items = ahead(ahead(endless(), depth=3), depth=3)
    assert [next(items) for _ in range(4)] == [1, 2, 3, 4]
    items.close()
    assert threading.active_count() == before
    assert closed
    assert closed[0] < 20


def test_stages_overlap():
    """While one stage is still at an item, the stage before it has begun with the next."""
    begun = threading.Event()

    def first():
        yield 0
        begun.set()
        yield 1

    assert [item for item in ahead(first()) if begun.wait(10)] == [0, 1]
    assert list(ahead(ahead(range(10)))) == list(range(10))


# --- outputs ---------------------------------------------------------------------------------------------------


def pose_at(x: float, y: float, score: float = 0.9, num_joints: int = 16) -> Pose:
    keypoints = np.array([[x + index, y + 2 * index] for index in range(num_joints)])
    return Pose(keypoints, np.full(num_joints, score), np.array([x, y, 30, 40]), 0.5, {16: MPII, 17: COCO}[num_joints])


RESULTS = [
    (Frame(0, "in/7.jpg", np.zeros((80, 120, 3), np.uint8)), [pose_at(1, 2), pose_at(50, 20, 0.5)]),
    (Frame(1, "in/b.jpg", None, "torn"), []),
    (Frame(2, "in/c.jpg", np.zeros((80, 120, 3), np.uint8)), [pose_at(5, 6)]),
]


def written(tmp_path, form, interrupt_after=3, draw=False):
    (tmp_path / "in").mkdir(exist_ok=True)
    for name in ("7.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "in" / name).touch()
    source = open_source(str(tmp_path / "in"))
    outputs = choose_outputs(source, MPII, "net.onnx", str(tmp_path / "out"), form, draw)
    for frame, poses in RESULTS[:interrupt_after]:
        for output in outputs:
            output.add(frame, poses)
    for output in outputs:
        output.close()
    return tmp_path / "out"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file name is always text")
@pytest.mark.parametrize("form", ["json", "coco", "csv", "posetrack"])
def test_a_file_name_that_is_not_utf8(tmp_path, form):
    """In JSON it reads back as what the system calls the file."""
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).touch()
    outputs = choose_outputs(open_source(str(tmp_path / name)), MPII, "net.onnx", f"{tmp_path}/out/", form, True)
    for output in outputs:
        output.add(Frame(0, name, np.zeros((80, 120, 3), np.uint8)), [pose_at(1, 2)])
        output.close()
    file = tmp_path / "out" / os.fsdecode(b"caf\xe9_pose" + FORMATS[form].encode())
    if form == "json":
        assert json.loads(file.read_text())["image"] == name
    elif form == "coco":
        assert json.loads(file.read_text())[0]["file_name"] == name
    else:
        assert "caf\\udce9" in file.read_text()


def test_json_per_image(tmp_path):
    folder = written(tmp_path, "json", draw=True)
    assert sorted(path.name for path in folder.iterdir()) == ["7_pose.jpg", "7_pose.json", "c_pose.jpg", "c_pose.json"]
    content = json.loads((folder / "7_pose.json").read_text())
    assert (content["image"], content["size"]) == ("in/7.jpg", [120, 80])
    assert content["people"][1]["bbox"] == [50, 20, 30, 40]
    assert {name: content["people"][1][name] for name in SCORES} == pytest.approx(
        {"box_score": 0.5, "pose_score": 0.5, "score": 0.25}
    )
    assert content["people"][0]["keypoints"][MPII.joints[3]] == {"x": 4, "y": 8, "score": 0.9}


@pytest.mark.parametrize("interrupt_after", [0, 1, 3])
def test_coco_results_are_valid_however_early_they_end(tmp_path, interrupt_after):
    folder = written(tmp_path, "coco", interrupt_after)
    assert [path.name for path in folder.iterdir()] == ["poses.json"]
    people = json.loads((folder / "poses.json").read_text())
    assert len(people) == [0, 2, 2, 3][interrupt_after]
    if interrupt_after == 3:
        assert [person["image_id"] for person in people] == [7, 7, 9]
        assert people[0]["keypoints"][:6] == [1, 2, 0.9, 2, 4, 0.9]
        assert (people[1]["score"], people[2]["file_name"]) == (0.25, "c.jpg")
        assert (people[1]["box_score"], people[1]["pose_score"]) == (0.5, 0.5)


def test_coco_results_are_read_by_pycocotools(tmp_path, capsys):
    from pycocotools.coco import COCO as Truth

    file = written(tmp_path, "coco") / "poses.json"
    truth = Truth()
    truth.dataset = {"images": [{"id": 7}, {"id": 9}], "annotations": [], "categories": [{"id": 1}]}
    truth.createIndex()
    assert len(truth.loadRes(str(file)).anns) == 3


def test_csv_and_npz(tmp_path):
    with open(written(tmp_path, "csv") / "poses.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["image"], row["frame"], row["person"]) for row in rows] == [
        ("in/7.jpg", "0", "0"), ("in/7.jpg", "0", "1"), ("in/c.jpg", "2", "0"),
    ]  # fmt: skip
    assert [rows[1][name] for name in ("box_x", *SCORES)] == ["50", "0.5", "0.5", "0.25"]
    assert (rows[2]["left_wrist_x"], rows[2]["left_wrist_y"]) == ("20", "36")  # joint 15 of MPII
    with np.load(written(tmp_path, "npz") / "poses.npz") as content:
        assert content["keypoints"].shape == (3, 16, 2)
        assert content["image"].tolist() == ["in/7.jpg", "in/7.jpg", "in/c.jpg"]
        np.testing.assert_allclose(content["pose_score"], [0.9, 0.5, 0.9])
        np.testing.assert_allclose(content["box_score"], 0.5)
        np.testing.assert_allclose(content["score"], [0.45, 0.25, 0.45])
    with np.load(written(tmp_path, "npz", 0) / "poses.npz") as content:
        assert content["keypoints"].shape == (0, 16, 2)


def test_nothing_overwrites_anything(tmp_path):
    names = [str(tmp_path / name) for name in ("a/1.jpg", "a/1.png", "a/1.PNG", "b/1.jpg")]
    paths = picture_paths(names, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in paths[:2]] == ["a/1_pose.jpg", "a/1_png_pose.jpg"]
    assert len({str(path).lower() for path in paths}) == 4
    before = time.process_time()
    picture_paths([f"{index}.jpg" for index in range(10_000)], tmp_path)  # 10^8 names to choose from took a minute
    assert time.process_time() - before < 10


@pytest.mark.parametrize("extension", [".mp4", ".avi"])
def test_a_video_keeps_rate_size_and_length(tmp_path, extension):
    write_video(tmp_path / "clip.mp4", 6)
    source = open_source(str(tmp_path / "clip.mp4"))
    video, coordinates = choose_outputs(source, MPII, "net.onnx", str(tmp_path / f"drawn{extension}"), "json", True)
    painter = Painter(MPII, 0.2)
    for frame in source:
        if frame.index == 3:
            frame = replace(frame, image=None, failure="the frame cannot be decoded")
        poses = [] if frame.failure else [pose_at(5, 5)]
        if frame.image is not None:
            painter.draw(frame.image, poses)
        video.add(frame, poses)
        coordinates.add(frame, poses)
    video.close()
    coordinates.close()
    frames, fps = read_video(tmp_path / f"drawn{extension}")
    assert (len(frames), fps, frames[0].shape) == (6, 12.5, (80, 120, 3))
    content = json.loads((tmp_path / "drawn.json").read_text())
    assert (content["fps"], len(content["frames"])) == (12.5, 6)
    assert content["frames"][3] == {"frame": 3, "failure": "the frame cannot be decoded", "people": []}


@pytest.fixture
def ffmpeg():
    """An ffmpeg program, or a visible skip."""
    program = videos.find_ffmpeg("libx264")
    if program is None:
        pytest.skip("no ffmpeg with libx264 here; python -m pip install imageio-ffmpeg")
    return program


def drawn_video(path, sound_of=None, size_wh=(121, 81), count=12, fps=12.5):
    """Frames of growing brightness, drawn; the second comes twice, and two at the start and one later are missing."""
    drawn = DrawnVideo(path, fps, sound_of)
    for index in range(count):
        image = np.full((size_wh[1], size_wh[0], 3), 20 * index, np.uint8)
        missing = index in (0, 1, 5)
        if index != 7:  # a camera that was quicker
            drawn.add(Frame(index, "x", None if missing else image, "torn" if missing else "", True), [])
    drawn.close()
    return drawn


SHOWN = [0, 0, 40, 60, 80, 80, 120, 120, 160, 180, 200, 220]  # of `drawn_video`


@pytest.mark.parametrize("with_ffmpeg", [True, False])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.webm", "vp90"), ("a.gif", "gif"), ("a.avi", "MJPG")]
)
def test_every_frame_of_a_video_has_its_place(tmp_path, monkeypatch, request, with_ffmpeg, name, codec):
    if with_ffmpeg:
        request.getfixturevalue("ffmpeg")
    else:
        monkeypatch.setattr(videos, "find_ffmpeg", lambda encoder: None)
        if name == "a.gif":
            with pytest.raises(UserError, match="imageio-ffmpeg"):
                drawn_video(tmp_path / name)
            return
    said = str(drawn_video(tmp_path / name))
    frames, fps = read_video(tmp_path / name)
    assert fps == pytest.approx(12.5, rel=0.01)
    np.testing.assert_allclose([frame[:80, :120].mean() for frame in frames], SHOWN, atol=4)
    if with_ffmpeg:
        code = int(cv2.VideoCapture(str(tmp_path / name)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode()
        assert code.lower().rstrip() == codec.lower()
        assert {"h264": "H.264", "vp90": "VP9", "gif": "GIF", "MJPG": "Motion JPEG"}[codec] in said
    else:
        assert "without sound" in said


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.avi"])
@pytest.mark.parametrize("sound_seconds", [0.4, 3])
def test_the_sound_is_kept_and_sets_no_length(tmp_path, ffmpeg, name, sound_seconds):
    write_video(tmp_path / "mute.mp4", 12)
    make = f"-i mute.mp4 -f lavfi -i sine=frequency=440:duration={sound_seconds} -c:v copy -c:a aac sound.mp4"
    subprocess.run([ffmpeg, "-loglevel", "error", *make.split()], cwd=tmp_path, check=True)
    said = str(drawn_video(tmp_path / name, str(tmp_path / "sound.mp4")))
    assert "with the sound" in said
    probed = subprocess.run([ffmpeg, "-i", str(tmp_path / name)], capture_output=True, text=True).stderr
    assert "Audio:" in probed
    assert len(read_video(tmp_path / name)[0]) == 12
    length = re.search(r"Duration: 00:00:(\d+\.\d+)", probed).group(1)
    assert 12 / 12.5 - 0.1 < float(length) < 2.5  # ffmpeg hears of the last frame late: up to a second of silence
    assert "with the sound" not in str(drawn_video(tmp_path / name, str(tmp_path / "mute.mp4")))


def test_a_video_that_ffmpeg_cannot_write(tmp_path, ffmpeg):
    (tmp_path / "taken.mp4").mkdir()
    with pytest.raises(UserError, match="cannot write .*taken.mp4: ffmpeg says"):
        drawn_video(tmp_path / "taken.mp4")


def test_outputs_that_cannot_be(tmp_path):
    write_video(tmp_path / "clip.mp4", 2)
    source = open_source(str(tmp_path / "clip.mp4"))
    with pytest.raises(UserError, match="cannot write a video as 'a.jpg'"):
        choose_outputs(source, MPII, "net", str(tmp_path / "a.jpg"), "json", True)
    with pytest.raises(UserError, match="add --no-draw"):
        choose_outputs(source, MPII, "net", str(tmp_path / "a.json"), "json", True)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    several = open_source(str(tmp_path / "in"))
    for name, form, draw in (("all.csv", "json", False), ("all.csv", "csv", True), ("all.jpg", "csv", False)):
        with pytest.raises(UserError, match="go to a folder"):
            choose_outputs(several, MPII, "net", str(tmp_path / name), form, draw)
    assert not list(tmp_path.glob("all*"))
    (tmp_path / "file").write_text("")
    for form in ("json", "csv"):
        with pytest.raises(UserError, match="cannot write"):
            choose_outputs(source, MPII, "net", str(tmp_path / "file" / "a.mp4"), form, False)


@pytest.mark.parametrize("form", ["json", "coco", "csv", "posetrack"])
def test_a_full_disk_leaves_the_earlier_table_and_no_scratch_file(tmp_path, form, monkeypatch):
    write_video(tmp_path / "clip.mp4", 2)
    source = open_source(str(tmp_path / "clip.mp4"))
    place = tmp_path / f"clip{FORMATS[form]}"
    place.write_text("of an earlier run")
    (output,) = choose_outputs(source, MPII, "net", str(place), form, False)
    output.add(Frame(0, "clip.mp4", np.zeros((80, 120, 3), np.uint8), is_video=True), [pose_at(1, 2)])

    def full(text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "_stream", SimpleNamespace(write=full, closed=False))
    with pytest.raises(UserError, match="cannot write .*: No space left on device"):
        output.close()
    assert place.read_text() == "of an earlier run" and not list(tmp_path.glob("*.part"))


def test_the_summary_names_what_was_written(tmp_path):
    for name in ("7.jpg", "b.jpg"):
        (tmp_path / name).touch()
    source = open_source(str(tmp_path))
    drawings, coordinates = choose_outputs(source, MPII, "net", str(tmp_path / "out"), "json", True)
    assert "no drawing" in str(drawings)
    frame, poses = RESULTS[0]
    for output in (drawings, coordinates):
        output.add(frame, poses)
    assert str(drawings).endswith("out/7_pose.jpg") and str(coordinates).endswith("out/7_pose.json")


def test_images_have_the_number_of_their_name_unless_two_share_one():
    assert numbered_images(["a/0007.jpg", "b.jpg", "3.jpg", "c.jpg"]) == [7, 8, 3, 9]
    assert numbered_images(["a/0001.jpg", "b/0001.jpg", "cat.jpg"]) == [0, 1, 2]


def test_names_that_no_file_can_have(tmp_path):
    with pytest.raises(UserError):
        list(open_source("x" * 5000 + ".mp4"))
    (tmp_path / "list.txt").write_bytes(b"a\0b.jpg\n")
    with pytest.raises(UserError, match="a line holds a NUL"):
        open_source(str(tmp_path / "list.txt"))


def test_labels_are_drawn_on_request():
    plain, labelled = spot(30, 20), spot(30, 20)
    Painter(COCO, 0.2).draw(plain, [pose_at(40, 20, num_joints=17)])
    Painter(COCO, 0.2, numbers=True, scores=True).draw(labelled, [pose_at(40, 20, num_joints=17)])
    assert (plain != spot(30, 20)).any()
    assert (labelled != plain).any()
    unsure = spot(30, 20)
    Painter(COCO, 0.2).draw(unsure, [pose_at(40, 20, score=0.1, num_joints=17)])
    np.testing.assert_array_equal(unsure, spot(30, 20))


# --- smoothing -------------------------------------------------------------------------------------------------


def test_one_euro_first_steps_by_hand():
    # Cutoff 1 Hz at 2 pi frames a second: the newest value weighs 1 / (1 + 2 pi / 2 pi) = 1/2.
    smooth = OneEuroFilter(fps=2 * np.pi, min_cutoff_hz=1, speed_coefficient=0)
    known = np.array([True])
    assert smooth(np.array([[0.0, 8.0]]), known).tolist() == [[0, 8]]
    np.testing.assert_allclose(smooth(np.array([[4.0, 8.0]]), known), [[2, 8]])
    np.testing.assert_allclose(smooth(np.array([[4.0, 0.0]]), known), [[3, 4]])
    np.testing.assert_allclose(smooth(np.array([[9.0, 9.0]]), ~known), [[9, 9]])
    np.testing.assert_allclose(smooth(np.array([[1.0, 1.0]]), known), [[1, 1]])  # starts anew


def test_one_euro_follows_speed_by_hand():
    # 4 pixels in 1 / (2 pi) s, in body heights of 2, weighted by 1/2: 2 pi heights a second. The cutoff is 1 + 2 Hz,
    # and the newest value weighs 1 / (1 + 1 / 3).
    smooth = OneEuroFilter(fps=2 * np.pi, min_cutoff_hz=1, speed_coefficient=2 / (2 * np.pi))
    known = np.array([True])
    smooth(np.array([[0.0, 0.0]]), known, body_size=2)
    np.testing.assert_allclose(smooth(np.array([[4.0, 0.0]]), known, body_size=2), [[3, 0]])


def test_one_euro_steadies_rest_and_follows_motion():
    rng = np.random.default_rng(0)
    known = np.array([True])
    smooth = OneEuroFilter(fps=30)
    noisy = rng.normal(0, 1, (200, 1, 2))
    calm = np.array([smooth(point, known, body_size=200) for point in noisy])
    assert calm[50:].std() < 0.6 * noisy.std()
    smooth = OneEuroFilter(fps=30)
    moving = np.arange(60.0)[:, None, None] * [[10.0, 0]]  # 300 pixels a second, one and a half body heights
    followed = np.array([smooth(point, known, body_size=200) for point in moving])
    assert np.abs(followed[30:] - moving[30:]).max() < 12


def test_only_one_person_is_smoothed():
    smoother = PoseSmoother(fps=25, min_score=0.2)
    smoother([pose_at(0, 0)])
    (moved,) = smoother([pose_at(10, 0)])
    assert 0 < moved.keypoints[0, 0] < 10
    several = [pose_at(10, 0), pose_at(60, 0)]
    assert smoother(several) is several
    assert smoother.skipped == 1
    (fresh,) = smoother([pose_at(30, 0)])
    assert fresh.keypoints[0, 0] == 30


def test_images_that_opencv_reads_in_other_depths_come_as_8_bit(tmp_path):
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 5), 40000, np.uint16))
    image = read_image(tmp_path / "deep.png", apply_exif=True)
    assert (image.shape, image.dtype) == ((4, 5, 3), np.uint8)
    assert image.min() == 40000 // 256
