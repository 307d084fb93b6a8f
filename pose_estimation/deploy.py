"""Poses of people in a photograph, with a network that export.py wrote. One file, to be copied into your product:
it needs numpy, OpenCV and the runtime of your choice, nothing of Paddle (but for --type Paddle) or of this project.

    model = PoseModel("posenet.onnx")                     # or with "OpenVINO", "OpenCV", "Paddle"
    keypoints, scores = model(image_bgr, [[60, 0, 400, 512]])  # (P, K, 2) image pixels and (P, K), for P boxes

The network's file says how it is fed and read: its joints, size, colours, and what of the work is in its graph.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import cv2
import numpy as np

METADATA_KEY = "simplepose"  # of an ONNX file's metadata_props; beside other formats there is a JSON file
BOX_PADDING = 1.25  # the crop is so much larger than the box
MIN_BOX_PX, MAX_BOX_PX = 1e-3, 1e6  # of a box's sides; and of its corner
MULTIPLE = 32  # of this is a height or width that is free
BUNDLED = Path(__file__).resolve().parent.parent / "data" / "weights" / "posenet.onnx"  # of the project's checkout
MAX_SIDE, MAX_JOINTS, MAX_SIGMA, MAX_BYTES = 4096, 1000, 64, 1 << 31  # of a network that anybody would run
OPENCV_BACKENDS = {
    "CUDA": (cv2.dnn.DNN_BACKEND_CUDA, cv2.dnn.DNN_TARGET_CUDA),
    "INFERENCE": (cv2.dnn.DNN_BACKEND_INFERENCE_ENGINE, cv2.dnn.DNN_TARGET_CPU),
}
PLAIN_GRAPH = {  # what a file does itself if it does not say
    "preprocess": False, "flip_test": False, "shift_heatmap": True, "decode": False, "post_process": True,
    "dynamic_size": False,
}  # fmt: skip
LEFT, RIGHT, MIDDLE = (60, 150, 255), (255, 170, 50), (90, 220, 90)  # BGR


class DeployError(Exception):
    """Something the user can mend, in one line."""


# ---- what the file says -----------------------------------------------------------------------------------------


def read_description(path: Path) -> dict:
    """The description in an ONNX file, or beside a network in another format."""
    if not path.is_file():
        raise DeployError(f"no such model: {path}")
    beside, source = path.with_suffix(".simplepose.json"), path.with_suffix(".onnx")
    if path.suffix != ".onnx" and beside.is_file():
        source = beside
    if not source.is_file():
        raise DeployError(f"{path} needs its description: keep {beside.name} of export.py, or {source.name}, beside it")
    if not 0 < source.stat().st_size < (MAX_BYTES if source.suffix == ".onnx" else 1 << 24):
        raise DeployError(f"{source} has {source.stat().st_size} bytes; export it again")
    try:
        data = source.read_bytes()
        text = onnx_metadata(data).get(METADATA_KEY) if source.suffix == ".onnx" else data
    except (IndexError, KeyError, ValueError):
        raise DeployError(f"{source} is not an ONNX file, or a torn one; export it again") from None
    if text is None:
        raise DeployError(f"{source} does not describe its joints and input; export it with pose_estimation/export.py")
    try:
        description = json.loads(text)
        check_description(description)
    except KeyError as error:
        raise DeployError(f"{source} describes its network incompletely (no {error}); export it again") from None
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise DeployError(f"{source} describes its network wrongly ({str(error)[:200]}); export it again") from None
    return description


def check_description(description: dict) -> None:
    """Refuse what a stranger may have written, with the error that it leads to; extra keys do no harm."""

    def require(holds: bool, otherwise: str) -> None:
        if not holds:
            raise ValueError(otherwise)

    skeleton, pixels, graph = description["skeleton"], description["input"], description.get("graph", {})
    joints, permutation = skeleton["joints"], description["flip_permutation"]
    require(0 < len(joints) <= MAX_JOINTS and all(type(name) is str for name in joints), "joints are names")
    require(all(type(row) is int for row in permutation), "flip_permutation has whole numbers")
    require(sorted(permutation) == list(range(len(joints))), "flip_permutation does not fit the joints")
    for first, second in [*skeleton["pairs"], *skeleton["limbs"]]:
        require({first, second} <= set(joints), "pairs and limbs join two of the joints")
    (width, height), (columns, rows) = trained, cells = description["image_size_wh"], description["heatmap_size_wh"]
    require(all(type(side) is int and 0 < side <= MAX_SIDE for side in (*trained, *cells)), "sizes are whole numbers")
    require(width % MULTIPLE == height % MULTIPLE == 0 and width * rows == height * columns, "sizes do not fit")
    require(pixels["channels"] in ("rgb", "bgr") and graph.get("pixels", "bgr") in ("rgb", "bgr"), "rgb or bgr")
    numbers = [*pixels["mean"], *pixels["std"], pixels["divisor"]]
    require(len(pixels["mean"]) == len(pixels["std"]) == 3, "mean and std have three numbers")
    require(all(type(number) in (int, float) and 0 < number < 1e6 for number in numbers), "numbers are positive")
    options = {name: value for name, value in graph.items() if name != "pixels"}
    require(type(description.get("unbiased", False)) is bool, "unbiased is true or false")
    require(description.get("decoder", "quarter") in ("quarter", "dark"), "decoder is quarter or dark")
    require(type(description["sigma"]) in (int, float) and 0 < description["sigma"] <= MAX_SIGMA, "sigma of a Gaussian")
    require(set(options) <= set(PLAIN_GRAPH) and all(type(value) is bool for value in options.values()), "graph")
    pairs = description.get("score_calibration", [])
    require(all(type(number) in (int, float) and abs(number) < 1e6 for number in pairs), "calibration has numbers")
    require(len(pairs) % 2 == 0 and pairs[::2] == sorted(set(pairs[::2])), "scores of the calibration ascend")
    require(pairs[1::2] == sorted(pairs[1::2]) and all(0 <= p <= 1 for p in pairs[1::2]), "and probabilities do")


def onnx_metadata(data: bytes) -> dict[str, str]:
    """The metadata_props of an ONNX file: field 14 of the protobuf message, pairs of key (1) and value (2)."""
    entries = [dict(protobuf_fields(content)) for number, content in protobuf_fields(memoryview(data)) if number == 14]
    return {bytes(entry[1]).decode(): bytes(entry[2]).decode() for entry in entries}


def protobuf_fields(data: memoryview):
    """Yield number and content of each field of a protobuf message that holds bytes."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position, value, shift = position + 1, value | (byte & 127) << shift, shift + 7
            if shift > 70:
                raise ValueError("not protobuf")
            if byte < 128:
                return value

    while position < len(data):
        number, wire_type = divmod(varint(), 8)
        if wire_type == 2:
            size = varint()
            if position + size > len(data):
                raise ValueError("cut off")
            yield number, data[position : position + size]
            position += size
        elif wire_type == 0:
            varint()
        elif wire_type in (1, 5):
            position += 8 if wire_type == 1 else 4
        else:
            raise ValueError("not protobuf")


# ---- runtimes: each opens a file and returns a function from images to a list of outputs ---------------------------


def open_onnx_runtime(path: Path, backend: str | None = None):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"image": images})


def open_openvino(path: Path, backend: str | None = None):
    import openvino

    # Where a processor has bfloat16, OpenVINO would use it, and keypoints would move.
    network = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: list(network(images).values())


def open_opencv(path: Path, backend: str | None = None):
    network = cv2.dnn.readNetFromONNX(str(path))
    if backend:
        engine, target = OPENCV_BACKENDS[backend]
        if target not in cv2.dnn.getAvailableTargets(engine):
            raise DeployError(f"--backend {backend}: this OpenCV was built without it; leave --backend out")
        network.setPreferableBackend(engine)
        network.setPreferableTarget(target)
    names = network.getUnconnectedOutLayersNames()

    def run(images: np.ndarray) -> list[np.ndarray]:
        network.setInput(images)
        return list(network.forward(names))

    return run


def open_paddle(path: Path, backend: str | None = None):
    from paddle import inference

    config = inference.Config(str(path), str(path.with_suffix(".pdiparams")))
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    image = predictor.get_input_handle("image")
    outputs = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(images: np.ndarray) -> list[np.ndarray]:
        image.reshape(images.shape)
        image.copy_from_cpu(images)
        predictor.run()
        return [output.copy_to_cpu() for output in outputs]

    return run


class Runtime(NamedTuple):
    """How to open a network, what to install, what that is called in Python, and the endings of its files."""

    open: Callable
    package: str
    module: str
    endings: tuple[str, ...]


RUNTIMES = {
    "ONNX": Runtime(open_onnx_runtime, "onnxruntime", "onnxruntime", (".onnx",)),
    "OpenVINO": Runtime(open_openvino, "openvino", "openvino", (".xml", ".onnx")),
    "OpenCV": Runtime(open_opencv, "opencv-python", "cv2", (".onnx",)),
    "Paddle": Runtime(open_paddle, "paddlepaddle", "paddle", (".json", ".pdmodel")),
}


def open_runtime(runtime: str, path: Path, backend: str | None = None):
    """The network of a file as a function from images to a list of outputs."""
    chosen = RUNTIMES[runtime]
    if path.suffix not in chosen.endings:
        raise DeployError(f"--type {runtime} runs {' or '.join(chosen.endings)} files, not {path.name}")
    try:
        return chosen.open(path, backend)
    except ImportError:
        raise DeployError(f"--type {runtime} needs another package: python -m pip install {chosen.package}") from None
    except DeployError:
        raise
    except Exception as error:  # each runtime has its own
        raise DeployError(f"{runtime} cannot load {path}: {' '.join(str(error).split())[:200]}") from None


# ---- from boxes to keypoints --------------------------------------------------------------------------------------


def check_box(box_xywh) -> None:
    """Refuse what has no area, and numbers that are NaN, infinite or too large to compute with."""
    box = np.asarray(box_xywh, dtype=float)
    if box.shape != (4,) or not (np.abs(box).max() <= MAX_BOX_PX and box[2:].min() >= MIN_BOX_PX):
        raise DeployError(
            f"box {box.tolist()} must be left, top, width, height: finite, within a million pixels, with an area"
        )


def touches(box_xywh, image: np.ndarray) -> bool:
    """Whether a box shares some of its area with an image (H, W, 3)."""
    x, y, width, height = box_xywh
    return x < image.shape[1] and y < image.shape[0] and x + width > 0 and y + height > 0


def crop_scale_and_shift(box_xywh, size_wh: tuple[int, int], unbiased: bool) -> tuple[float, np.ndarray]:
    """Image pixels times scale plus shift (2,) are crop pixels. The box grows to the crop's shape, then by padding.

    An unbiased crop is measured from its first pixel to its last.
    """
    x, y, width, height = (float(value) for value in box_xywh)
    extent_wh = np.array(size_wh) - unbiased
    scale = extent_wh[0] / (max(width, height * (size_wh[0] / size_wh[1])) * BOX_PADDING)
    center = np.array([x + width * 0.5, y + height * 0.5])
    return scale, extent_wh * 0.5 - scale * center


def crop(image: np.ndarray, scale: float, shift: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Cut a person out of an image (H, W, 3); black outside of it."""
    affine = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    try:
        return cv2.warpAffine(image, affine, size_wh, flags=cv2.INTER_LINEAR)
    except cv2.error:  # OpenCV 4 takes less than 32767 pixels a side
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise DeployError(f"OpenCV {cv2.__version__} cannot crop an image of {size} pixels; make it smaller") from None


def normalize(crops: np.ndarray, pixels: dict) -> np.ndarray:
    """Crops (N, H, W, 3) uint8 BGR -> (N, 3, H, W) float32."""
    if pixels["channels"] == "rgb":
        crops = crops[..., ::-1]
    mean, std = np.array(pixels["mean"]), np.array(pixels["std"])
    scale, shift = (1 / (pixels["divisor"] * std)).astype(np.float32), (mean / std).astype(np.float32)
    return np.ascontiguousarray((crops * scale - shift).transpose(0, 3, 1, 2))


def unflip(heatmaps: np.ndarray, permutation: list[int], shift: bool) -> np.ndarray:
    """Heatmaps (N, K, h, w) of mirrored images as heatmaps of the images; shifted by the cell that mirroring loses."""
    heatmaps = heatmaps[:, permutation, :, ::-1]
    return np.concatenate([heatmaps[..., :1], heatmaps[..., :-1]], axis=-1) if shift else heatmaps


def decode(heatmaps: np.ndarray, refine: bool, dark_sigma: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Maxima of heatmaps (N, K, h, w), a quarter of a cell towards the higher neighbour; with a sigma, `dark_step`.

    Returns:
        cells (N, K, 2), scores (N, K).
    """
    num, joints, height, width = heatmaps.shape
    flat = heatmaps.reshape(num, joints, -1)
    index, scores = flat.argmax(axis=-1), flat.max(axis=-1)
    index = np.where(scores > 0, index, 0)
    x, y = index % width, index // width
    cells = np.stack([x, y], axis=-1).astype(np.float64)
    inside = (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
    if refine and dark_sigma:
        cells += dark_step(heatmaps, x, y, dark_sigma) * inside[..., None]
    elif refine:
        for axis, step in ((0, 1), (1, width)):
            at = np.where(inside, index, step)[..., None]  # elsewhere anywhere harmless
            slope = np.take_along_axis(flat, at + step, -1) - np.take_along_axis(flat, at - step, -1)
            cells[..., axis] += 0.25 * np.sign(slope[..., 0]) * inside
    return cells, scores


def dark_step(heatmaps: np.ndarray, x: np.ndarray, y: np.ndarray, sigma: float) -> np.ndarray:
    """From the maxima (N, K) of heatmaps (N, K, h, w) to the peaks: Newton's step (N, K, 2) on the logarithm of the
    smoothed heatmap (Zhang et al., CVPR 2020)."""
    radius = max(1, round(2.5 * sigma))
    kernel = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    near = np.arange(2 * radius + 3)
    band = np.stack([np.pad(kernel, (start, 2 - start)) for start in range(3)])  # means around three cells in a row
    padded = np.pad(heatmaps, [(0, 0), (0, 0), (radius + 1, radius + 1), (radius + 1, radius + 1)])
    num, joint = np.indices(x.shape)[..., None, None]
    patches = padded[num, joint, (y[..., None] + near)[..., None], (x[..., None] + near)[..., None, :]]
    matrix = np.kron(band, band).T.astype(np.float32)
    smooth = np.einsum("...p,pq->...q", patches.reshape(*x.shape, -1), matrix)
    log = np.moveaxis(np.log(np.maximum(smooth, 1e-10)), -1, 0)  # 3x3, row by row
    slope_x, slope_y = (log[5] - log[3]) / 2, (log[7] - log[1]) / 2
    xx, yy, xy = log[5] - 2 * log[4] + log[3], log[7] - 2 * log[4] + log[1], (log[8] - log[6] - log[2] + log[0]) / 4
    determinant, flat = xx * yy - xy**2, 0.005 / sigma**2
    peaked = (determinant > flat**2) & (xx < -flat)
    step = np.stack([xy * slope_y - yy * slope_x, xy * slope_x - xx * slope_y], -1)
    return np.where(peaked[..., None], np.clip(step / np.where(peaked, determinant, 1)[..., None], -1, 1), 0)


def first_boxes(size_wh: tuple[int, int]) -> np.ndarray:
    """Where `PoseModel.find_person` looks first: boxes (P, 4) whose square crops cover the image in four sizes."""
    boxes = []
    for part in (1.0, 0.7, 0.5, 0.35):
        side = part * max(size_wh)
        counts = [max(0, int(np.ceil((length / side - 1) / 0.5 - 1e-9))) + 1 for length in size_wh]
        centers = [
            np.linspace(*((side / 2, length - side / 2) if count > 1 else (length / 2, length / 2)), count)
            for length, count in zip(size_wh, counts)
        ]
        middle = np.stack(np.meshgrid(*centers), axis=-1).reshape(-1, 2)
        size = np.full_like(middle, side / BOX_PADDING)
        boxes.append(np.concatenate([middle - size / 2, size], axis=-1))
    return np.concatenate(boxes)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes (4,)."""
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[:2] + one[2:], other[:2] + other[2:])
    shared = np.maximum(high - low, 0).prod()
    return shared / (one[2:].prod() + other[2:].prod() - shared)


class PoseModel:
    """An exported network in one of four runtimes.

    Args:
        path: of the ONNX file, of OpenVINO's .xml, or of Paddle's program (.json, .pdmodel).
        runtime: a name of `RUNTIMES`.
        width, height: of the crops, for a network whose input size is free; None takes the trained one.
        flip_test: average with the mirrored crop, if the graph does not do it already.
        backend: OpenCV's, None, "CUDA" or "INFERENCE".
    """

    def __init__(self, path, runtime="ONNX", width=None, height=None, flip_test=False, backend=None):
        self.path, self.runtime = Path(path), runtime
        self.description = read_description(self.path)
        self.joints = self.description["skeleton"]["joints"]
        trained, heatmap_wh = self.description["image_size_wh"], self.description["heatmap_size_wh"]
        self.graph = {**PLAIN_GRAPH, **self.description.get("graph", {})}
        self.flip_test = flip_test and not self.graph["flip_test"]
        self.unbiased = self.description.get("unbiased", False)
        self.dark_sigma = self.description["sigma"] if self.description.get("decoder") == "dark" else None
        self.size_wh = (width or trained[0], height or trained[1])
        if not self.graph["dynamic_size"] and self.size_wh != tuple(trained):
            raise DeployError(
                f"{path} takes {trained[0]}x{trained[1]} pixels (width x height), not {self.size_wh[0]}x"
                f"{self.size_wh[1]}; leave --width and --height out, or export it with --dynamic-size"
            )
        if any(not 0 < size <= MAX_SIDE or size % MULTIPLE for size in self.size_wh):
            size = f"{self.size_wh[0]}x{self.size_wh[1]}"
            raise DeployError(f"width and height are multiples of {MULTIPLE}, not {size}, and at most {MAX_SIDE}")
        self.heatmap_size_wh = np.array(self.size_wh) * heatmap_wh // trained
        self.stride = (np.array(self.size_wh) - self.unbiased) / (self.heatmap_size_wh - self.unbiased)  # pixels a cell
        if self.flip_test and self.graph["decode"]:
            raise DeployError(f"{path} decodes in its graph; for the flip test export it with --with-flip-test too")
        self.network = open_runtime(runtime, self.path, backend)

    def __call__(self, image: np.ndarray, boxes_xywh) -> tuple[np.ndarray, np.ndarray]:
        """Find a pose in each box.

        Args:
            image: (H, W, 3) uint8 BGR.
            boxes_xywh: (P, 4) left, top, width, height in pixels.

        Returns:
            Keypoints (P, K, 2) in image pixels and scores (P, K). A person without a pose has keypoints NaN and scores
            0: whose box is outside the image, or for whom the network's answer is not finite.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            raise DeployError("the image must be an array (H, W, 3) of uint8, in BGR order, as cv2.imread gives it")
        keypoints = np.full((len(boxes_xywh), len(self.joints), 2), np.nan)
        scores = np.zeros(keypoints.shape[:2], np.float32)
        for box in boxes_xywh:
            check_box(box)
        inside = [row for row, box in enumerate(boxes_xywh) if touches(box, image)]
        if inside:
            frames = [crop_scale_and_shift(boxes_xywh[row], self.size_wh, self.unbiased) for row in inside]
            crops = np.stack([crop(image, scale, shift, self.size_wh) for scale, shift in frames])
            points, found = self.predict(crops)
            scales, shifts = (np.array(values) for values in zip(*frames))
            keypoints[inside] = (points - shifts[:, None]) / scales[:, None, None]
            scores[inside] = found
        lost = ~(np.isfinite(keypoints).all(axis=(1, 2)) & np.isfinite(scores).all(axis=1))
        keypoints[lost], scores[lost] = np.nan, 0
        return keypoints, scores

    def find_person(self, image: np.ndarray) -> np.ndarray:
        """The box (4,) of one person in an image, found by the network; the whole image if nobody is found.

        It looks at crops of several sizes, and twice more at the box around the joints of the best one. It misses small
        people, and finds one of several: a person detector is better. It looks without the flip test.
        """
        plain = copy.copy(self)
        plain.flip_test = False

        def best(boxes: np.ndarray) -> np.ndarray | None:
            parts = np.array_split(boxes, -(-len(boxes) // 8))
            keypoints, scores = (np.concatenate(values) for values in zip(*(plain(image, part) for part in parts)))
            index = int(scores.mean(axis=1).argmax())
            joints = keypoints[index][scores[index] >= 0.15]
            if len(joints) < 3:
                return None
            low, high = joints.min(axis=0), joints.max(axis=0)
            box = np.concatenate([(low + high) / 2 - (high - low) * 0.55, (high - low) * 1.1])
            return box if box[2:].min() >= MIN_BOX_PX and touches(box, image) else None

        size_wh = image.shape[1::-1]
        box = best(first_boxes(size_wh))
        for _ in range(0 if box is None else 2):
            before, box = box, best(box[None])
            if box is None:
                return before
            if overlap(box, before) > 0.8:
                break
        return np.array([0.0, 0.0, *size_wh]) if box is None else box

    def predict(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, K, 2) in crop pixels and scores (N, K) of crops (N, H, W, 3) uint8 BGR."""
        if not self.graph["preprocess"]:
            images = normalize(crops, self.description["input"])
        else:
            images = np.ascontiguousarray(crops if self.graph["pixels"] == "bgr" else crops[..., ::-1])
        outputs = self.run(images)
        if self.graph["decode"]:
            return outputs[0], self.calibrated(outputs[1])
        heatmaps = outputs[0]
        if self.flip_test:
            width_axis = 2 if self.graph["preprocess"] else 3
            mirrored = self.run(np.ascontiguousarray(np.flip(images, width_axis)))[0]
            shift = self.graph["shift_heatmap"] and not self.unbiased
            heatmaps = 0.5 * (heatmaps + unflip(mirrored, self.description["flip_permutation"], shift))
        cells, scores = decode(heatmaps, self.graph["post_process"], self.dark_sigma)
        return cells * self.stride, self.calibrated(scores)

    def calibrated(self, scores: np.ndarray) -> np.ndarray:
        """Scores as probabilities of being right, if the file says how; otherwise as they are."""
        pairs = self.description.get("score_calibration")
        return np.interp(scores, pairs[::2], pairs[1::2]).astype(scores.dtype) if pairs else scores

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """The network's outputs: heatmaps, or keypoints and scores."""
        try:
            outputs = self.network(images)
        except Exception as error:
            raise DeployError(f"{self.runtime} failed on {self.path}: {' '.join(str(error).split())[:200]}") from None
        decode, (width, height) = self.graph["decode"], self.heatmap_size_wh.tolist()
        expected = (len(images), len(self.joints), *((2,) if decode else (height, width)))
        if len(outputs) != 1 + decode or outputs[0].shape != expected:  # OpenCV 4 and a flip test in the graph
            found = [output.shape for output in outputs]
            raise DeployError(
                f"{self.runtime} makes {found} of {self.path}, not {expected}; export it again, for OpenCV 4 without "
                "--with-... options"
            )
        return outputs


# ---- the command --------------------------------------------------------------------------------------------------


def draw(image: np.ndarray, points: np.ndarray, scores: np.ndarray, skeleton: dict, min_score: float) -> None:
    """Draw limbs and joints of a person onto an image: the left orange, the right blue."""
    joints = skeleton["joints"]
    left, right = ([pair[side] for pair in skeleton["pairs"]] for side in (0, 1))

    def color(*names: str) -> tuple[int, int, int]:
        return LEFT if set(names) & set(left) else RIGHT if set(names) & set(right) else MIDDLE

    shown = {
        name: tuple(int(value) for value in np.rint(np.clip(point, -32768, 32767)))
        for name, point, score in zip(joints, points, scores)
        if score >= min_score
    }
    thickness = max(1, round(max(image.shape[:2]) / 250))
    for start, end in skeleton["limbs"]:
        if start in shown and end in shown:
            cv2.line(image, shown[start], shown[end], color(start, end), thickness, cv2.LINE_AA)
    for name, place in shown.items():
        cv2.circle(image, place, thickness + 1, color(name), -1, cv2.LINE_AA)


def parse_box(text: str) -> list[float]:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise DeployError(f"--bbox is {text!r}; write left,top,width,height in pixels") from None
    check_box((x, y, width, height))
    return [x, y, width, height]


def spelled(words: list[str]) -> list[str]:
    """The command line as argparse takes it: --kpt_thr is --kpt-thr, and --bbox -60,-10,400,512 is one flag."""
    made: list[str] = []
    for word in words:
        if re.match(r"-\.?\d", word) and made and re.fullmatch(r"--[\w-]+", made[-1]):
            made[-1] += f"={word}"
        else:
            made.append(re.sub(r"^--\w[\w-]*", lambda flag: flag[0].replace("_", "-"), word))
    return made


def main() -> int:
    """Returns 0, or 1 if somebody got no pose."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--img", required=True, metavar="FILE", help="photograph")
    add("--model", metavar="FILE", help=".onnx; OpenVINO: also .xml or .bin; Paddle: .json or .pdmodel; default: the "
        "network bundled with the project")  # fmt: skip
    add("--type", metavar="RUNTIME", help=f"{', '.join(RUNTIMES)}; default: the one that the model's ending tells")
    add("--width", type=int, metavar="W", help="of the network's input, if it is free")
    add("--height", type=int, metavar="H", help="of the network's input, if it is free")
    add("--xml", metavar="FILE", help="OpenVINO: the .xml file, if --model is the .bin file")
    add("--backend", choices=tuple(OPENCV_BACKENDS), help="of OpenCV")
    add(
        "--bbox",
        action="append",
        metavar="x,y,w,h",
        help="a person's box in pixels; may be repeated; default: the network finds one person",
    )
    add("--flip-test", action="store_true", help="average with the mirrored crop")
    add("--kpt-thr", type=float, default=0.2, metavar="T", help="leave joints below this score undrawn")
    add("--output", metavar="FILE", help="drawing; default: <image>_deploy.jpg here. Coordinates go beside it as .json")
    args = parser.parse_args(spelled(sys.argv[1:]))

    path = Path(args.xml or args.model or BUNDLED)
    if path == BUNDLED:
        if not path.is_file():
            missing = f"no --model is named, and the bundled network is missing ({path})"
            raise DeployError(f"{missing}: name one with --model FILE, or get it back (git checkout data/weights)")
        print(f"=> no --model: the bundled network, {path}")
    if path.suffix == ".bin":
        path = path.with_suffix(".xml")
    by_ending = {ending: name for name, chosen in reversed(RUNTIMES.items()) for ending in chosen.endings}
    names = {name.lower(): name for name in RUNTIMES}
    runtime = names.get(args.type.lower()) if args.type else by_ending.get(path.suffix, "ONNX")
    if runtime is None:
        raise DeployError(f"--type {args.type} is none of {', '.join(RUNTIMES)}")
    if args.backend and runtime != "OpenCV":
        print(f"=> --backend is OpenCV's; {runtime} goes without")
    try:
        image = cv2.imdecode(np.fromfile(args.img, np.uint8), cv2.IMREAD_COLOR)  # imread knows ASCII names only
    except FileNotFoundError:
        raise DeployError(f"no such image: {args.img}") from None
    except (OSError, cv2.error):
        image = None
    if image is None:
        raise DeployError(f"{args.img} is not an image that OpenCV can read")

    model = PoseModel(path, runtime, args.width, args.height, args.flip_test, args.backend)
    boxes = [parse_box(text) for text in args.bbox or ()]
    if not boxes:
        print("=> no --bbox: the network itself finds the person; a person detector is better")
        boxes = [model.find_person(image).tolist()]
    keypoints, scores = model(image, boxes)

    people = []
    for box, points, joint_scores in zip(boxes, keypoints, scores):
        if np.isnan(points).any():
            why = "the network's answer is NaN or infinite" if touches(box, image) else "it does not touch the image"
            print(f"failed: no pose for box {','.join(f'{value:g}' for value in box)}: {why}", file=sys.stderr)
            continue
        draw(image, points, joint_scores, model.description["skeleton"], args.kpt_thr)
        rows = zip(model.joints, points.tolist(), joint_scores.tolist())
        people.append({"bbox": box, "keypoints": {name: {"x": x, "y": y, "score": s} for name, (x, y), s in rows}})
    drawing = Path(args.output or f"{Path(args.img).stem}_deploy.jpg")
    if drawing.resolve() == Path(args.img).resolve():
        raise DeployError(f"{drawing} is the image itself; name another file with --output")
    try:
        drawing.parent.mkdir(parents=True, exist_ok=True)
        encoded, data = cv2.imencode(drawing.suffix or ".jpg", image)
        if not encoded:  # a format may limit the sides
            raise DeployError(f"OpenCV cannot write {image.shape[1]}x{image.shape[0]} pixels as {drawing}; try .png")
        drawing.write_bytes(data.tobytes())
        text = json.dumps(
            {"image": args.img, "model_file": args.model or str(path), "people": people},
            ensure_ascii=False,
            indent=1,
        )
        drawing.with_suffix(".json").write_text(text + "\n", "utf-8", "backslashreplace")  # file names may be no UTF-8
    except (OSError, cv2.error) as error:
        raise DeployError(f"cannot write {drawing}: {error}") from None
    count = f"{len(people)} {'person' if len(people) == 1 else 'people'}"
    print(f"=> {count} with {runtime}; {drawing} and {drawing.with_suffix('.json')}")
    return int(len(people) < len(boxes))


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main())
    except (DeployError, PermissionError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
