"""PoseNetwork: a network from images to heatmaps with its preprocessing and decoding; and the flip test."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, replace
from typing import Any, Callable

import numpy as np

from simplepose.core.codecs.base import Codec
from simplepose.core.codecs.gaussian import HeatmapCodec, flip_heatmaps
from simplepose.core.description import close_to, number_in
from simplepose.core.errors import UserError, shown
from simplepose.core.images import IMAGENET_MEAN, IMAGENET_STD, InputFormat, normalize
from simplepose.core.skeletons import Skeleton, skeleton_from
from simplepose.metrics.calibration import Calibration

logger = logging.getLogger("simplepose")

# (N, 3, H, W) float32 -> (N, K, h, w) float32; for an exported network as `GraphOptions` says
Network = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class InferenceSettings:
    """How heatmaps are computed and decoded (section TEST of the configuration).

    Attributes:
        shift_heatmap: see `flip_heatmaps`; of no effect for a codec that mirrors exactly.
    """

    flip_test: bool = False
    shift_heatmap: bool = True
    post_process: bool = True


@dataclass(frozen=True)
class GraphOptions:
    """The pre- and postprocessing that an exported network does itself.

    Attributes:
        preprocess: it takes crops (N, H, W, 3) uint8 and normalises them, instead of images (N, 3, H, W) float32.
        pixels: "bgr" or "rgb", the channel order of those crops, whatever the network inside wants.
        flip_test: it averages with the mirrored image, with or without `shift_heatmap`.
        decode: it gives keypoints (N, K, 2) in input pixels and scores (N, K) instead of heatmaps, with or without
            the step between cells (`post_process`).
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
        """The `InferenceSettings` that are fixed in the graph, by name."""
        settled = {}
        if self.flip_test or self.decode:
            settled.update(flip_test=self.flip_test)
        if self.flip_test:
            settled.update(shift_heatmap=self.shift_heatmap)
        if self.decode:
            settled.update(post_process=self.post_process)
        return settled

    def conflict(self, wanted: dict[str, bool]) -> str:
        """The first of these `InferenceSettings`, by name, that differs from the one fixed in the graph; "" if none."""
        fixed = self.fixed()
        return next((name for name, value in wanted.items() if fixed.get(name, value) != value), "")


def predict_heatmaps(
    network: Network, images: np.ndarray, flip_permutation: np.ndarray, settings: InferenceSettings
) -> np.ndarray:
    """Run the network; with the flip test, average with its output for the mirrored images.

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
    """A network with its preprocessing and decoding.

    Attributes:
        run: (N, 3, H, W) float32 -> (N, K, h, w) float32, or as `graph` says.
        skeleton, codec, input_format: those the network was trained with.
        graph: which pre- and postprocessing `run` does itself.
        calibration: makes a score the probability that its joint is right; None leaves the heatmap's maximum.
    """

    run: Network
    skeleton: Skeleton
    codec: Codec
    input_format: InputFormat
    graph: GraphOptions = GraphOptions()
    calibration: Calibration | None = None

    def prepare(self, crops: np.ndarray) -> np.ndarray:
        """Crops (N, H, W, 3) uint8 BGR as `run` takes them."""
        if not self.graph.preprocess:
            return normalize(crops, self.input_format)
        return crops if self.graph.pixels == "bgr" else np.ascontiguousarray(crops[..., ::-1])

    def heatmaps(self, images: np.ndarray, settings: InferenceSettings) -> np.ndarray:
        """Heatmaps (N, K, h, w) of prepared images, of a network that does not decode; see `predict_heatmaps`."""
        if self.graph.flip_test:
            settings = replace(settings, flip_test=False)  # the graph does it
        if self.codec.mirrors_exactly:
            settings = replace(settings, shift_heatmap=False)
        return predict_heatmaps(self.run, images, self.skeleton.flip_permutation, settings)

    def predict(self, images: np.ndarray, settings: InferenceSettings) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (N, K, 2) in input pixels and scores (N, K), calibrated if the network is, of prepared images.

        Steps inside the graph run as exported, whatever `settings` say; see `GraphOptions.conflict`.
        """
        if self.graph.decode:
            joints, scores = self.run(images)
        else:
            joints, scores = self.codec.decode(self.heatmaps(images, settings), settings.post_process)
        return joints, self.calibration(scores) if self.calibration else scores

    def description(self) -> dict[str, Any]:
        """Everything except the network itself, as JSON values; stored in exported files."""
        skeleton, codec, input_format = self.skeleton, self.codec, self.input_format
        return {
            "skeleton": skeleton.definition(),
            "flip_permutation": skeleton.flip_permutation.tolist(),  # for readers in other languages
            **codec.description(),
            "input": {
                "channels": "rgb" if input_format.rgb else "bgr",
                "divisor": input_format.divisor,
                "mean": IMAGENET_MEAN,
                "std": IMAGENET_STD,
            },
            "graph": asdict(self.graph),
            # score, probability, ...: scores out of the graph are heatmap maxima, whoever reads them interpolates
            **({"score_calibration": self.calibration.pairs()} if self.calibration else {}),
        }

    @classmethod
    def from_description(cls, run: Network, described: Any, where: str | os.PathLike) -> PoseNetwork:
        """The inverse of `description`, for untrusted input.

        Raises:
            UserError: a missing, invalid or contradictory entry; `where` names the file.
        """
        try:
            if not isinstance(described, dict):
                raise ValueError(f"expected a table, found {shown(described)}")
            pixels, graph = described["input"], described.get("graph", {})  # older files have no "graph"
            skeleton = skeleton_from(described["skeleton"], str(where), needs_sigmas=False)
            permutation = skeleton.flip_permutation.tolist()
            if described.get("flip_permutation", permutation) != permutation:
                raise ValueError("flip_permutation is not what the skeleton's pairs make")
            codec = HeatmapCodec.from_description(described)
            for name, constant in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
                if not close_to(pixels.get(name, constant), constant):
                    raise ValueError(f"input has the {name} {shown(pixels[name])}; networks here have {constant}")
            channels, divisor = pixels["channels"], number_in(pixels["divisor"], "divisor", 1e-3, 1e6)
            if channels not in ("rgb", "bgr") or graph.get("pixels", "bgr") not in ("rgb", "bgr"):
                raise ValueError("channels and pixels are rgb or bgr")
            for name, value in graph.items():
                if name != "pixels" and not isinstance(value, bool):
                    raise ValueError(f"{shown(name)} of the graph is true or false, found {shown(value)}")
            calibration = Calibration.from_pairs(described.get("score_calibration", []))
            input_format = InputFormat(channels == "rgb", float(divisor))
            return cls(run, skeleton, codec, input_format, GraphOptions(**graph), calibration)
        except KeyError as error:
            raise UserError(f"{where} describes its network incompletely (no {error}); export it again") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{where} describes its network wrongly ({error}); export it again") from None


def paddle_network(model: Any, kernels: str = "auto") -> Network:
    """A Paddle layer as a `Network`: eval mode, no gradients, arrays in and out.

    On a CPU a PoseResNet runs on oneDNN's kernels where it can.

    Args:
        kernels: TRAIN.CPU_KERNELS; "paddle" uses Paddle's own.
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
