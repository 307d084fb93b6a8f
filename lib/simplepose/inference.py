"""Inference: the flip test, and PosePredictor, over any function that turns images into heatmaps.

That function is a `Network`; Paddle and ONNX Runtime each make one. Nothing here imports Paddle unless it is given
weights that need it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable

import numpy as np

from simplepose.description import ABOVE_ZERO, MAX_SIGMA, close_to, number_in, sizes_of
from simplepose.errors import UserError, shown
from simplepose.geometry import apply_affine, box_to_crop, crop_affine, invert_affine
from simplepose.heatmaps import HeatmapCodec, flip_heatmaps, rescore
from simplepose.preprocessing import IMAGENET_MEAN, IMAGENET_STD, InputFormat, crop_image, normalize
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


def load_pose_network(path: str | os.PathLike) -> PoseNetwork:
    """The network of a file: ONNX through ONNX Runtime, anything else as weights through Paddle.

    Raises:
        UserError: missing or unreadable file, or one that does not say what its network is.
    """
    if Path(path).suffix.lower() == ".onnx":
        from simplepose.onnx_runtime import OnnxNetwork, check_shapes, open_session, read_metadata

        session = open_session(path)
        network = PoseNetwork.from_description(OnnxNetwork(session), read_metadata(session, path), path)
        check_shapes(session, network, path)
        return network
    from simplepose.runtime import start_paddle

    start_paddle()
    from simplepose.build import build_pose_network, load_config_and_weights, load_model

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
        score: the box's score times the mean of the positive keypoint scores (COCO's rescoring).
    """

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    score: float


@dataclass(frozen=True)
class Crops:
    """The people of one image, ready for the network.

    Attributes:
        images: (P, 3, H, W) float32, or (P, H, W, 3) uint8 for a network that normalises them itself.
        to_image: (P, 2, 3) affines from network input pixels to image pixels.
        boxes: (P, 4) left, top, width, height in image pixels.
        box_scores: (P,).
    """

    images: np.ndarray
    to_image: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray


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
    """Poses of the people in images, given their boxes.

    Args:
        network: an ONNX file of pose_estimation/export.py (Paddle is not needed), a weight file, or a `PoseNetwork`.
        settings: flip test and decoding.
        batch_size: at most so many people go through the network at once.

    Raises:
        UserError: missing or unreadable file, one that does not say what its network is, or a flip test that an
            exported network which decodes does not do.
    """

    def __init__(
        self,
        network: str | os.PathLike | PoseNetwork,
        settings: InferenceSettings = InferenceSettings(),
        batch_size: int = 16,
    ):
        path = network
        if not isinstance(network, PoseNetwork):
            network = load_pose_network(network)
        if settings.flip_test and network.graph.decode and not network.graph.flip_test:
            name = "the network" if network is path else path
            raise UserError(f"{name} decodes in its graph, without the flip test; export it with --with-flip-test too")
        self.network = network
        self.settings = settings
        self.batch_size = batch_size

    @property
    def skeleton(self) -> Skeleton:
        return self.network.skeleton

    def __call__(
        self,
        image: np.ndarray,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> list[Pose]:
        """Find a pose in each box.

        Args:
            image: (H, W, 3) uint8, BGR.
            boxes_xywh: (P, 4) left, top, width, height in pixels; None asks about the whole image.
            box_scores: (P,), 1 each by default.

        Returns:
            P poses, in the order of the boxes.
        """
        return self.predict([self.crop(image, boxes_xywh, box_scores)])[0]

    def crop(
        self,
        image: np.ndarray,
        boxes_xywh: Sequence[Sequence[float]] | None = None,
        box_scores: Sequence[float] | None = None,
    ) -> Crops:
        """The first half of a call: cut the people out of one image. Arguments as there."""
        if boxes_xywh is None:
            height, width = image.shape[:2]
            boxes_xywh = [(0, 0, width, height)]
        boxes = np.asarray(boxes_xywh, dtype=np.float64).reshape(-1, 4)
        crops, affines = cut_out(image, boxes, self.network.codec.image_size_wh)
        scores = np.ones(len(boxes)) if box_scores is None else np.asarray(box_scores, dtype=np.float64)
        return Crops(self.network.prepare(crops), invert_affine(affines), boxes, scores)

    def predict(self, people: Sequence[Crops]) -> list[list[Pose]]:
        """The second half: the people of several images through the network together.

        Returns:
            For each image its poses, in the order of the boxes.
        """
        images = np.concatenate([crops.images for crops in people])  # (N, ...), N people in all images
        poses = iter(self._predict(images, people))
        return [[next(poses) for _ in crops.boxes] for crops in people]

    def _predict(self, images: np.ndarray, people: Sequence[Crops]) -> list[Pose]:
        found = []
        for start in range(0, len(images), self.batch_size):
            found.append(self.network.predict(images[start : start + self.batch_size], self.settings))
        if not found:
            return []
        joints, scores = (np.concatenate(parts) for parts in zip(*found))  # (N, K, 2), (N, K)
        keypoints = apply_affine(np.concatenate([crops.to_image for crops in people]), joints)
        boxes = np.concatenate([crops.boxes for crops in people])
        pose_scores = rescore(np.concatenate([crops.box_scores for crops in people]), scores, 0.0)
        return [Pose(*person) for person in zip(keypoints, scores, boxes, pose_scores.tolist())]


def paddle_network(model) -> Network:
    """A Paddle layer as a `Network`: eval mode, no gradients, arrays in and out."""
    import paddle

    model.eval()

    def network(images: np.ndarray) -> np.ndarray:
        with paddle.no_grad():
            return model(paddle.to_tensor(images)).numpy()

    return network
