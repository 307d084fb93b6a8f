"""Inference: the flip test, and PosePredictor, over any function that turns images into heatmaps.

That function is a `Network`; Paddle and ONNX Runtime each make one. Nothing here imports Paddle unless it is given
weights that need it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Callable

import numpy as np

from simplepose.description import ABOVE_ZERO, MAX_SIGMA, close_to, number_in, sizes_of
from simplepose.errors import UserError, optional_packages, shown
from simplepose.geometry import apply_affine, as_boxes, box_to_crop, crop_affine, invert_affine
from simplepose.heatmaps import HeatmapCodec, flip_heatmaps, rescore
from simplepose.preprocessing import IMAGENET_MEAN, IMAGENET_STD, InputFormat, as_image, crop_image, normalize
from simplepose.skeletons import Skeleton, skeleton_from

logger = logging.getLogger("simplepose")

# (N, 3, H, W) float32 -> (N, K, h, w) float32, but for what `GraphOptions` says of an exported network
Network = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class InferenceSettings:
    """How heatmaps are made and read (section TEST of the configuration)."""

    flip_test: bool = False
    shift_heatmap: bool = True
    post_process: bool = True


@dataclass(frozen=True)
class GraphOptions:
    """What an exported network does itself, beside turning images into heatmaps.

    Attributes:
        preprocess: it takes crops (N, H, W, 3) uint8 and normalises them, instead of images (N, 3, H, W) float32.
        pixels: "bgr" or "rgb", the channel order of those crops, whatever the network inside wants.
        flip_test: it averages with the mirrored image, with or without `shift_heatmap`.
        decode: it gives keypoints (N, K, 2) in input pixels and scores (N, K) instead of heatmaps, with or without
            the quarter step (`post_process`).
        dynamic_size: it takes any height and width in multiples of 32.
    """

    preprocess: bool = False
    pixels: str = "bgr"
    flip_test: bool = False
    shift_heatmap: bool = True
    decode: bool = False
    post_process: bool = True
    dynamic_size: bool = False

    def fixed(self) -> dict[str, bool]:
        """The `InferenceSettings` that the graph has settled, by name."""
        settled = {}
        if self.flip_test or self.decode:
            settled.update(flip_test=self.flip_test)
        if self.flip_test:
            settled.update(shift_heatmap=self.shift_heatmap)
        if self.decode:
            settled.update(post_process=self.post_process)
        return settled

    def conflict(self, wanted: dict[str, bool]) -> str:
        """The first of these `InferenceSettings`, by name, that the graph has settled otherwise; "" if none."""
        fixed = self.fixed()
        return next((name for name, value in wanted.items() if fixed.get(name, value) != value), "")


def predict_heatmaps(
    network: Network, images: np.ndarray, flip_permutation: np.ndarray, settings: InferenceSettings
) -> np.ndarray:
    """Run the network, averaged with its answer to the mirrored images if the settings ask for the flip test.

    Args:
        images: (N, 3, H, W), or (N, H, W, 3) uint8 if the network normalises them itself.
        flip_permutation: (K,), `Skeleton.flip_permutation`.

    Returns:
        (N, K, h, w) float32.
    """
    heatmaps = network(images)
    if settings.flip_test:
        mirrored_images = images[:, :, ::-1] if images.dtype == np.uint8 else images[..., ::-1]
        mirrored = network(np.ascontiguousarray(mirrored_images))
        heatmaps = 0.5 * (heatmaps + flip_heatmaps(mirrored, flip_permutation, settings.shift_heatmap))
    return heatmaps


@dataclass(frozen=True)
class PoseNetwork:
    """A network, and what it takes to feed it and to read its heatmaps.

    Attributes:
        run: (N, 3, H, W) float32 -> (N, K, h, w) float32, or as `graph` says.
        skeleton, codec, input_format: those the network was trained with.
        graph: how much of the rest `run` does itself.
    """

    run: Network
    skeleton: Skeleton
    codec: HeatmapCodec
    input_format: InputFormat
    graph: GraphOptions = GraphOptions()

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """Crops (N, H, W, 3) uint8 BGR as `run` takes them."""
        if not self.graph.preprocess:
            return normalize(crops, self.input_format)
        return crops if self.graph.pixels == "bgr" else np.ascontiguousarray(crops[..., ::-1])

    def heatmaps(self, images: np.ndarray, settings: InferenceSettings) -> np.ndarray:
        """Heatmaps (N, K, h, w) of prepared images, of a network that does not decode; see `predict_heatmaps`."""
        if self.graph.flip_test:
            settings = replace(settings, flip_test=False)  # not twice
        return predict_heatmaps(self.run, images, self.skeleton.flip_permutation, settings)

    def predict(self, images: np.ndarray, settings: InferenceSettings) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, K, 2) in input pixels and scores (N, K) of prepared images.

        What the graph does itself is done as it was exported, whatever `settings` say; see `GraphOptions.conflict`.
        """
        if self.graph.decode:
            return self.run(images)
        return self.codec.decode(self.heatmaps(images, settings), settings.post_process)

    def description(self) -> dict[str, Any]:
        """Everything but the network itself, as JSON takes it; an exported network carries this."""
        skeleton, codec, input_format = self.skeleton, self.codec, self.input_format
        return {
            "skeleton": skeleton.definition(),
            "flip_permutation": skeleton.flip_permutation.tolist(),  # for readers in other languages
            "image_size_wh": codec.image_size_wh,
            "heatmap_size_wh": codec.heatmap_size_wh,
            "sigma": codec.sigma,
            "input": {
                "channels": "rgb" if input_format.rgb else "bgr",
                "divisor": input_format.divisor,
                "mean": IMAGENET_MEAN,
                "std": IMAGENET_STD,
            },
            "graph": asdict(self.graph),
        }

    @classmethod
    def from_description(cls, run: Network, described: Any, where: str | os.PathLike) -> PoseNetwork:
        """The other direction of `description`, which a stranger may have written.

        Raises:
            UserError: something is missing, makes no sense or contradicts the rest; `where` names the file.
        """
        try:
            if not isinstance(described, dict):
                raise ValueError(f"expected a table, found {shown(described)}")
            pixels, graph = described["input"], described.get("graph", {})  # files of before options have no graph
            skeleton = skeleton_from(described["skeleton"], str(where), needs_sigmas=False)
            permutation = skeleton.flip_permutation.tolist()
            if described.get("flip_permutation", permutation) != permutation:
                raise ValueError("flip_permutation is not what the skeleton's pairs make")
            size_wh, heatmap_wh = sizes_of(described["image_size_wh"], described["heatmap_size_wh"])
            codec = HeatmapCodec(size_wh, heatmap_wh, number_in(described["sigma"], "sigma", ABOVE_ZERO, MAX_SIGMA))
            for name, constant in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
                if not close_to(pixels.get(name, constant), constant):
                    raise ValueError(f"input has the {name} {shown(pixels[name])}; networks here have {constant}")
            channels, divisor = pixels["channels"], number_in(pixels["divisor"], "divisor", 1e-3, 1e6)
            if channels not in ("rgb", "bgr") or graph.get("pixels", "bgr") not in ("rgb", "bgr"):
                raise ValueError("channels and pixels are rgb or bgr")
            for name, value in graph.items():
                if name != "pixels" and not isinstance(value, bool):
                    raise ValueError(f"{shown(name)} of the graph is true or false, found {shown(value)}")
            return cls(run, skeleton, codec, InputFormat(channels == "rgb", float(divisor)), GraphOptions(**graph))
        except KeyError as error:
            raise UserError(f"{where} describes its network incompletely (no {error}); export it again") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{where} describes its network wrongly ({error}); export it again") from None


def load_pose_network(path: str | os.PathLike, device: str | None = None) -> PoseNetwork:
    """The network of a file: ONNX through ONNX Runtime, anything else as weights through Paddle.

    Args:
        device: as `PosePredictor` takes it.

    Raises:
        UserError: missing or unreadable file, one that does not say what its network is, a missing package, or no
            such device.
    """
    if Path(path).suffix.lower() == ".onnx":
        from simplepose.onnx_runtime import OnnxNetwork, check_shapes, open_session, read_metadata

        session = open_session(path, device)
        network = PoseNetwork.from_description(OnnxNetwork(session), read_metadata(session, path), path)
        check_shapes(session, network, path)
        return network
    from simplepose.runtime import import_paddle

    with optional_packages():
        import_paddle()
        from simplepose.build import build_pose_network, load_config_and_weights, load_model
    if device is not None:
        _use_device(device)
    config, weights, notes = load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(path)})
    for note in notes:
        logger.warning("%s", note)
    return build_pose_network(config, load_model(config, weights))


@dataclass(frozen=True)
class Pose:
    """One person.

    Attributes:
        keypoints: (K, 2) image pixels, 0-based (x, y).
        scores: (K,) heatmap maxima, about 0 to 1.
        box: (4,) left, top, width, height in pixels, as asked about.
        box_score: how sure the detector is of the box; 1 if nobody said.
        skeleton: the joints' names, and what connects them.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    box_score: float
    skeleton: Skeleton

    @property
    def joints(self) -> tuple[str, ...]:
        """The names of the K joints."""
        return self.skeleton.joints

    @property
    def pose_score(self) -> float:
        """The mean of the positive keypoint scores."""
        return float(rescore(np.ones(1), self.scores[None], 0.0)[0])

    @property
    def score(self) -> float:
        """Box score times pose score: COCO's rescoring."""
        return float(self.box_score * self.pose_score)

    def to_dict(self) -> dict[str, Any]:
        """The person as JSON takes it, joints by name."""
        return {
            "bbox": self.box.tolist(),
            "box_score": float(self.box_score),
            "pose_score": self.pose_score,
            "score": self.score,
            "keypoints": {
                name: {"x": float(x), "y": float(y), "score": float(score)}
                for name, (x, y), score in zip(self.joints, self.keypoints, self.scores)
            },
        }

    def draw(self, image: Any, min_score: float = 0.2) -> np.ndarray:
        """Draw limbs and joints, without joints below `min_score`.

        Args:
            image: whatever `PosePredictor` takes.

        Returns:
            (H, W, 3) uint8 BGR: the image itself if it was that already, drawn on in place; else a new one.
        """
        from simplepose.visualize import draw_pose

        image = as_image(image)
        draw_pose(image, self.keypoints, self.scores, self.skeleton, min_score)
        return image


@dataclass(frozen=True)
class Crops:
    """The people of one image, ready for the network.

    Attributes:
        images: (P, 3, H, W) float32, or (P, H, W, 3) uint8 for a network that normalises them itself.
        to_image: (P, 2, 3) affines from network input pixels to image pixels.
        boxes: (P, 4) left, top, width, height in image pixels.
        box_scores: (P,).
        lost: a line for each person who gets no pose: whose box is beside the image, and after the network who has
            keypoints that are NaN.
    """

    images: np.ndarray
    to_image: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    lost: list[str] = field(default_factory=list)


def cut_out(image: np.ndarray, boxes_xywh: np.ndarray, image_size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Cut the people in boxes (P, 4) out of an image (H, W, 3).

    Returns:
        crops (P, h, w, 3) uint8 BGR of `image_size_wh`, and affines (P, 2, 3) from image pixels to crop pixels.
    """
    width, height = image_size_wh
    affines = np.empty((len(boxes_xywh), 2, 3))
    crops = np.empty((len(boxes_xywh), height, width, 3), np.uint8)
    for index, box in enumerate(boxes_xywh):
        center, size = box_to_crop(box, aspect_ratio=width / height)
        affines[index] = crop_affine(center, size[0], 0.0, image_size_wh)
        crops[index] = crop_image(image, affines[index], image_size_wh)
    return crops, affines


class PosePredictor:
    """Poses of the people in images.

    predictor = PosePredictor("posenet.onnx", detector="nanodet_m.onnx")
    poses = predictor("photo.jpg")

    Args:
        network: an ONNX file of pose_estimation/export.py (Paddle is not needed), a weight file, or a `PoseNetwork`.
        settings: flip test and decoding.
        batch_size: at most so many people go through the network at once.
        detector: finds the people where no boxes are given: an ONNX file of a person detector, which then runs on the
            CPU, a `PersonDetector`, or any function from an image (H, W, 3) uint8 BGR to boxes (P, 4) as left, top,
            width, height and scores (P,).
        device: where a network from a file runs: "cpu", "gpu" or "gpu:1"; for an ONNX file also an execution provider
            of ONNX Runtime, as "OpenVINOExecutionProvider". By default Paddle's own choice, and the CPU for ONNX. For
            Paddle, the device is that of the whole process.

    Raises:
        UserError: missing or unreadable file, one that does not say what its network is, a missing package, no such
            device, or a flip test that an exported network which decodes does not do.
    """

    def __init__(
        self,
        network: str | os.PathLike | PoseNetwork,
        settings: InferenceSettings = InferenceSettings(),
        batch_size: int = 16,
        detector: str | os.PathLike | Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        device: str | None = None,
    ):
        path = network
        if not isinstance(network, PoseNetwork):
            network = load_pose_network(network, device)
        elif device is not None:
            raise UserError("device is for a network from a file; a PoseNetwork runs where it was made to")
        if settings.flip_test and network.graph.decode and not network.graph.flip_test:
            name = "the network" if network is path else path
            raise UserError(f"{name} decodes in its graph, without the flip test; export it with --with-flip-test too")
        if isinstance(detector, (str, os.PathLike)):
            from simplepose.detectors import PersonDetector

            detector = PersonDetector(detector)
        self.network = network
        self.settings = settings
        self.batch_size = batch_size
        self.detector = detector

    @property
    def skeleton(self) -> Skeleton:
        return self.network.skeleton

    def __call__(
        self,
        image: Any,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> list[Pose] | list[list[Pose]]:
        """Find the people of an image.

        Args:
            image: a file, a Pillow image, or an array of uint8: (H, W, 3) BGR, (H, W, 4) BGRA, (H, W) gray; see
                `as_image`. Or a list of these, whose people go through the network together.
            boxes_xywh: (P, 4) left, top, width, height in pixels; None asks the detector, and without one takes the
                whole image as a box. For a list of images a list with one such entry for each.
            box_scores: (P,), 1 each by default; for a list of images a list of them.

        Returns:
            A pose for each box, in the order of the boxes, but for boxes beside the image and for people on whom the
            network answers NaN; a warning tells of those. For a list of images a list of such lists.

        Raises:
            UserError: no image, or no boxes.
        """
        if not isinstance(image, (list, tuple)):
            return self._call([image], [boxes_xywh], [box_scores])[0]
        each = []
        for name, given in (("boxes_xywh", boxes_xywh), ("box_scores", box_scores)):
            each.append([None] * len(image) if given is None else given)
            if len(each[-1]) != len(image):
                raise UserError(f"for {len(image)} images {name} must have as many entries, not {len(given)}")
        return self._call(image, *each)

    def _call(self, images: Sequence[Any], boxes: Sequence[Any], box_scores: Sequence[Any]) -> list[list[Pose]]:
        people = [self.crop(*one) for one in zip(images, boxes, box_scores)]
        poses = self.predict(people)
        for line in (line for crops in people for line in crops.lost):
            logger.warning("%s", line)
        return poses

    def crop(
        self,
        image: Any,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> Crops:
        """The first half of a call: cut the people out of one image. Arguments as there."""
        image = as_image(image)
        height, width = image.shape[:2]
        if boxes_xywh is None:
            boxes_xywh, box_scores = self.detector(image) if self.detector else ([(0, 0, width, height)], box_scores)
        boxes, inside = as_boxes(boxes_xywh, (width, height))
        scores = np.ones(len(boxes)) if box_scores is None else np.asarray(box_scores, dtype=np.float64)
        if scores.shape != (len(boxes),) or not np.isfinite(scores).all():
            raise UserError(f"{len(boxes)} boxes need as many finite scores, found {scores.tolist()}")
        lost = [
            f"no pose for box {box_text(box)}, which does not touch the image of {width}x{height} pixels"
            for box in boxes[~inside]
        ]
        boxes, scores = boxes[inside], scores[inside]
        crops, affines = cut_out(image, boxes, self.network.codec.image_size_wh)
        return Crops(self.network.prepare(crops), invert_affine(affines), boxes, scores, lost)

    def predict(self, people: Sequence[Crops]) -> list[list[Pose]]:
        """The second half: the people of several images through the network together.

        Returns:
            For each image its poses, in the order of the boxes. Who has keypoints or scores that are NaN or infinite
            gets a line in `Crops.lost` instead.
        """
        if not people:
            return []
        images = np.concatenate([crops.images for crops in people])  # (N, ...), N people in all images
        answers = iter(self._predict(images, people))
        poses: list[list[Pose]] = []
        for crops in people:
            poses.append([])
            for box, box_score in zip(crops.boxes, crops.box_scores.tolist()):
                keypoints, scores = next(answers)
                if np.isfinite(keypoints).all() and np.isfinite(scores).all():
                    poses[-1].append(Pose(keypoints, scores, box, box_score, self.skeleton))
                else:
                    crops.lost.append(f"no pose for box {box_text(box)}: the network's answer is NaN or infinite")
        return poses

    def _predict(self, images: np.ndarray, people: Sequence[Crops]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        """Keypoints (K, 2) in image pixels and scores (K,) of each person."""
        found = []
        for start in range(0, len(images), self.batch_size):
            found.append(self.network.predict(images[start : start + self.batch_size], self.settings))
        if not found:
            return []
        joints, scores = (np.concatenate(parts) for parts in zip(*found))  # (N, K, 2), (N, K)
        return zip(apply_affine(np.concatenate([crops.to_image for crops in people]), joints), scores)


def box_text(box_xywh: np.ndarray) -> str:
    """A box as --bbox takes it."""
    return ",".join(f"{value:g}" for value in box_xywh)


def _use_device(device: str) -> None:
    """Make a device Paddle's, for the whole process."""
    import paddle

    try:
        paddle.set_device(device)
    except Exception as error:  # Paddle's own classes, by version
        raise UserError(f"Paddle cannot use the device {device!r} here: {' '.join(str(error).split())[:200]}") from None


def paddle_network(model: Any, kernels: str = "auto") -> Network:
    """A Paddle layer as a `Network`: eval mode, no gradients, arrays in and out.

    On a CPU a PoseResNet runs on oneDNN's kernels where it can, with its weights as they are now.

    Args:
        kernels: TRAIN.CPU_KERNELS; "paddle" keeps to Paddle's own.
    """
    import paddle

    from simplepose.machine.onednn import Unavailable
    from simplepose.models.pose_resnet import PoseResNet

    model.eval()

    def network(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return model(paddle.to_tensor(images)).numpy()

    if kernels == "paddle" or paddle.get_device() != "cpu" or not isinstance(model, PoseResNet):
        return network
    try:
        from simplepose.models.onednn_inference import InferenceKernels

        fast = InferenceKernels(model)
    except Unavailable as error:
        logger.info("=> %s: inference with Paddle's own kernels", error)
        return network
    return fast
