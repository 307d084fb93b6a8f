"""Detectors: decoding by hand on tiny graphs, and the accuracy of two real files."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest

from simplepose.core.errors import UserError
from simplepose.core.images import read_image
from simplepose.inference.detectors.base import Scaling, clean_boxes, suppress_overlaps
from simplepose.inference.detectors.fastestdet import decode_fastestdet
from simplepose.inference.detectors.nanodet import decode_nanodet
from simplepose.inference.detectors.paddledetection import decode_paddledetection
from simplepose.inference.detectors.person import PersonDetector, recognise
from simplepose.inference.detectors.yolox import decode_yolox

SAME = Scaling((1.0, 1.0))


def constant_graph(path, inputs: dict[str, list], outputs: list[np.ndarray]) -> None:
    """An ONNX file with these inputs which always gives these outputs."""
    onnx = pytest.importorskip("onnx", reason="the package onnx builds the detectors of these tests")
    helper = onnx.helper
    nodes, infos = [], []
    for index, array in enumerate(outputs):
        tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array, np.float32))
        nodes.append(helper.make_node("Constant", [], [f"out{index}"], value=tensor))
        infos.append(helper.make_tensor_value_info(f"out{index}", onnx.TensorProto.FLOAT, array.shape))
    feeds = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    graph = helper.make_graph(nodes, "constant", feeds, infos)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def yolox_rows(cells: int, row: int, values: list[float], person: float = 0.9) -> np.ndarray:
    rows = np.zeros((1, cells, 85), np.float32)
    rows[0, row, :5] = values
    rows[0, row, 5] = person
    return rows


def test_yolox_raw_by_hand():
    # 64 x 32 input: 8 x 4 + 4 x 2 + 2 x 1 cells. Row 32 + 5 is cell (1, 1) of stride 16.
    rows = yolox_rows(42, 37, [0.5, 0.25, np.log(2), np.log(1), 0.8])
    boxes, scores = decode_yolox([rows], (1, 3, 32, 64), SAME)
    # centre (1.5, 1.25) * 16, size (2, 1) * 16
    np.testing.assert_allclose(boxes[37], [24 - 16, 20 - 8, 24 + 16, 20 + 8], rtol=1e-6)
    assert scores[37] == pytest.approx(0.72)
    assert scores.sum() == pytest.approx(0.72)


def test_yolox_decoded_in_the_graph():
    rows = yolox_rows(42, 3, [30, 20, 40, 12, 1.0])
    boxes, _ = decode_yolox([rows], (1, 3, 32, 64), Scaling((0.5, 0.5)))
    np.testing.assert_allclose(boxes[3], [20, 28, 100, 52])


def test_nanodet_by_hand():
    # 16 x 8 input: 2 x 1 cells of stride 8, none of 16. The right cell's centre is 8 + 3.5.
    scores, sides = np.zeros((1, 2, 80), np.float32), np.full((1, 2, 32), -50, np.float32)
    scores[0, 1, 0], scores[0, 1, 5] = 0.6, 0.9
    for side, bins in enumerate((1, 0, 2, 0)):  # left, top, right, bottom in strides
        sides[0, 1, side * 8 + bins] = 50
    sides[0, 1, 3 * 8 + 1] = 50  # bottom: half 0, half 1
    boxes, found = decode_nanodet([scores, sides], (1, 3, 8, 16), SAME)
    np.testing.assert_allclose(boxes[1], [11.5 - 8, 3.5, 11.5 + 16, 3.5 + 4], rtol=1e-5)
    np.testing.assert_allclose(found, [0, 0.6])


def test_fastestdet_by_hand():
    maps = np.zeros((1, 85, 2, 4), np.float32)
    maps[0, :6, 1, 2] = 0.5, np.arctanh(0.5), 0, 0, 0, 0.25  # cell (2, 1) of 4 x 2; sizes sigmoid(0) = 0.5
    boxes, scores = decode_fastestdet([maps], (1, 3, 20, 40), SAME)
    np.testing.assert_allclose(boxes[6], [25 - 10, 10 - 5, 25 + 10, 10 + 5], rtol=1e-5)
    assert scores[6] == pytest.approx(0.5**0.6 * 0.25**0.4)


def test_paddledetection_by_hand():
    rows = np.array([[0, 0.9, 1, 2, 3, 4], [17, 0.8, 0, 0, 5, 5], [-1, 0, 0, 0, 0, 0]], np.float32)
    boxes, scores = decode_paddledetection([np.array([3]), rows], (1, 3, 8, 8), SAME)
    np.testing.assert_allclose(boxes, [[1, 2, 3, 4]])
    np.testing.assert_allclose(scores, [0.9])


def test_overlaps_and_edges_by_hand():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [-9, -9, -1, -1], [0, 0, np.nan, 4]])
    boxes = np.vstack([boxes, [-9, 0, 1e-4, 10]])  # of the last one too little is inside for a box
    scores = np.array([0.6, 0.9, 0.1, 1.0, 1.0, 1.0])
    kept, kept_scores = clean_boxes(boxes, scores, (25, 10), min_score=0.05, max_overlap=0.5)
    np.testing.assert_allclose(kept, [[0, 0, 10, 8], [20, 0, 5, 10]])  # IoU of the first two is 0.8
    np.testing.assert_allclose(kept_scores, [0.9, 0.1])
    assert suppress_overlaps(boxes[:3], scores[:3], 0.81).tolist() == [1, 0, 2]
    empty, none = clean_boxes(np.zeros((0, 4)), np.zeros(0), (5, 5), 0.1, 0.5)
    assert empty.shape == (0, 4)
    assert none.shape == (0,)


@pytest.mark.parametrize(
    ("inputs", "outputs", "kind"),
    [
        ({"images": [1, 3, 640, 640]}, [[1, 8400, 85]], "yolox"),
        ({"image": [-1, 3, 416, 416], "scale_factor": [-1, 2]}, [["n", 6], [1]], "paddledetection"),
        ({"im_shape": [1, 2], "image": [1, 3, 640, 640], "scale_factor": [1, 2]}, [["n", 6], [1]], "paddledetection"),
        ({"i": [1, 3, 416, 416]}, [[1, 2704, 80], [1, 676, 80], [1, 2704, 32], [1, 676, 32]], "nanodet"),
        ({"i": [1, 3, 352, 352]}, [[1, 85, 22, 22]], "fastestdet"),
        ({"image": [1, 3, 256, 192]}, [[1, 17, 64, 48]], None),
    ],
)
def test_kinds_are_recognised(inputs, outputs, kind):
    assert recognise(inputs, outputs) == kind


def test_yolox_file_end_to_end(tmp_path):
    constant_graph(
        tmp_path / "yolox.onnx", {"images": [1, 3, 32, 64]}, [yolox_rows(42, 37, [0.5, 0.25, np.log(2), 0, 0.8])]
    )
    detector = PersonDetector(tmp_path / "yolox.onnx")
    assert detector.kind == "yolox"
    # 128 x 32 is fitted into 64 x 32 at half size, top left; the box (8, 12, 40, 28) comes back doubled and clipped.
    boxes, scores = detector(np.zeros((32, 128, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[16, 24, 64, 8]], rtol=1e-5)
    np.testing.assert_allclose(scores, [0.72], rtol=1e-5)
    with pytest.raises(UserError, match="does not work as nanodet"):
        PersonDetector(tmp_path / "yolox.onnx", kind="nanodet")(np.zeros((32, 128, 3), np.uint8))
    with pytest.raises(UserError, match="--detector-type is yolo5; it is one of yolox"):
        PersonDetector(tmp_path / "yolox.onnx", kind="yolo5")


def identity_graph(path) -> None:
    """A PaddleDetection-like file whose one box is read from its inputs: class 0, score 1, scale and mean colour."""
    onnx = pytest.importorskip("onnx", reason="the package onnx builds the detectors of these tests")
    helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
    head = onnx.numpy_helper.from_array(np.array([[0, 1]], np.float32))
    far = onnx.numpy_helper.from_array(np.array([[9, 9]], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["head"], value=head),
        helper.make_node("Constant", [], ["far"], value=far),
        helper.make_node("Concat", ["head", "scale_factor", "far"], ["box"], axis=1),
        helper.make_node("ReduceMean", ["image"], ["color"], axes=[2, 3], keepdims=0),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "identity", [value("image", FLOAT, [1, 3, 20, 40]), value("scale_factor", FLOAT, [1, 2])],
        [value("box", FLOAT, [1, 6]), value("color", FLOAT, [1, 3])],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_paddledetection_file_end_to_end(tmp_path):
    identity_graph(tmp_path / "model.onnx")
    image = np.full((10, 80, 3), (0, 51, 255), np.uint8)  # B, G, R; stretched to 40 x 20: scale y 2, x 0.5
    boxes, scores = PersonDetector(tmp_path / "model.onnx")(image)
    np.testing.assert_allclose(boxes, [[2, 0.5, 7, 8.5]])  # left, top = scale_factor, which is (y, x)
    assert scores.tolist() == [1]


def test_paddledetections_own_preprocessing_is_followed(tmp_path):
    from simplepose.inference.detectors.person import DETECTORS

    image = np.full((10, 80, 3), (0, 51, 255), np.uint8)
    prepare = DETECTORS["paddledetection"].prepare
    feed, _ = prepare(tmp_path / "model.onnx", (40, 20))(image)
    np.testing.assert_allclose(feed["image"][0, :, 0, 0], [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225])
    np.testing.assert_allclose(feed["scale_factor"], [[2, 0.5]])
    (tmp_path / "infer_cfg.yml").write_text(
        "Preprocess:\n- {type: Resize, keep_ratio: true, target_size: [20, 40]}\n"
        "- {type: NormalizeImage, norm_type: none, is_scale: true, mean: [0, 0, 0], std: [1, 1, 1]}\n"
    )
    feed, _ = prepare(tmp_path / "model.onnx", (40, 20))(image)
    np.testing.assert_allclose(feed["image"][0, :, 0, 0], [1, 0.2, 0])
    assert feed["image"][0, :, 6].max() == 0  # 80 x 10 fits as 40 x 5
    np.testing.assert_allclose(feed["scale_factor"], [[0.5, 0.5]])
    normalize = "Preprocess: [{type: NormalizeImage, %s}]"
    for text in (
        "Preprocess: 3",
        "Preprocess: [a]",
        *(normalize % s for s in ("mean: x", "std: [1, 1, 0]", "mean: [1]")),
    ):
        (tmp_path / "infer_cfg.yml").write_text(text)
        with pytest.raises(UserError, match=r"infer_cfg\.yml is not"):
            prepare(tmp_path / "model.onnx", (40, 20))


def test_a_file_cannot_ask_for_an_image_that_fills_the_memory(tmp_path):
    constant_graph(tmp_path / "a.onnx", {"images": [1, 3, 32, 10**6]}, [yolox_rows(42, 37, [0, 0, 0, 0, 1])])
    with pytest.raises(UserError, match="1000000 x 32 pixels; at most 4096"):
        PersonDetector(tmp_path / "a.onnx")


def test_a_file_that_is_no_detector(posenet):
    with pytest.raises(UserError, match="is no detector that is known here .*force one with --detector-type yolox"):
        PersonDetector(posenet[1])


def average_precision(truth_file, images, detector) -> np.ndarray:
    """AP and AP50 of the person class."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(truth_file))
        results = []
        for number, image in truth.imgs.items():
            boxes, scores = detector(read_image(images / image["file_name"]))
            results += [
                {"image_id": number, "category_id": 1, "bbox": box.tolist(), "score": float(score)}
                for box, score in zip(boxes, scores)
            ]
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.catIds = [1]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[:2]


# AP and AP50 as measured by whoever brought the files, on the same images. How an image is resized and how
# duplicates are suppressed moves them a little.
@pytest.mark.parametrize(("name", "known"), [("nanodet_m", (0.354, 0.641)), ("FastestDet", (0.206, 0.470))])
def test_real_detectors_are_as_accurate_as_they_are_known_to_be(real_data, name, known):
    detector = PersonDetector(real_data / f"detectors/{name}.onnx", min_score=0.05)
    assert detector.kind == {"nanodet_m": "nanodet", "FastestDet": "fastestdet"}[name]
    coco = real_data / "coco"
    scores = average_precision(
        coco / "annotations/person_keypoints_val2017.json", coco / "images/val2017", detector
    )  # fmt: skip
    print(f"{name}: AP {scores[0]:.3f}, AP50 {scores[1]:.3f}")
    assert (scores > np.array(known) - 0.005).all()
    assert (scores < np.array(known) + 0.03).all()


def test_real_detections_agree_with_the_stored_ones(real_data):
    stored = json.loads((real_data / "coco/person_detection_results/val2017_nanodet_m_416.json").read_text())
    detector = PersonDetector(real_data / "detectors/nanodet_m.onnx")
    distances = []
    for entry in sorted(stored, key=lambda entry: -entry["score"])[:12]:
        image = read_image(real_data / f"coco/images/val2017/{entry['image_id']:012d}.jpg")
        boxes, scores = detector(image)
        distance = np.abs(boxes - entry["bbox"]).max(axis=1)
        nearest = distance.argmin()
        distances.append(distance[nearest])
        assert scores[nearest] == pytest.approx(entry["score"], abs=0.03)
    assert np.median(distances) < 4  # pixels; the letterbox was another program's
