"""PosePredictor from files: opens networks and detectors by path. An ONNX file needs neither Paddle nor YAML."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Callable

import numpy as np

from simplepose.core.bundled import bundled_network
from simplepose.core.errors import UserError, optional_packages
from simplepose.inference import predictor
from simplepose.inference.network import InferenceSettings, PoseNetwork

logger = logging.getLogger("simplepose")


def load_pose_network(path: str | os.PathLike, device: str | None = None) -> PoseNetwork:
    """The network of a file: ONNX through ONNX Runtime, anything else as weights through Paddle.

    Args:
        device: as `PosePredictor` takes it.

    Raises:
        UserError: missing or unreadable file, one without a description of its network, a missing package, or no
            such device.
    """
    if Path(path).suffix.lower() == ".onnx":
        from simplepose.inference.onnx_network import OnnxNetwork, check_shapes, open_session, read_metadata

        session = open_session(path, device)
        network = PoseNetwork.from_description(OnnxNetwork(session), read_metadata(session, path), path)
        check_shapes(session, network, path)
        return network
    from simplepose.machine.paddle_start import import_paddle

    with optional_packages():
        import_paddle()
        from simplepose.build.model import build_pose_network, load_config_and_weights, load_model
    if device is not None:
        _use_device(device)
    config, weights, notes = load_config_and_weights(None, [], {"TEST.MODEL_FILE": str(path)})
    for note in notes:
        logger.warning("%s", note)
    return build_pose_network(config, load_model(config, weights))


def _use_device(device: str) -> None:
    """Set Paddle's device, for the whole process."""
    import paddle

    try:
        paddle.set_device(device)
    except Exception as error:  # the exception class depends on Paddle's version
        raise UserError(f"Paddle cannot use the device {device!r} here: {' '.join(str(error).split())[:200]}") from None


class PosePredictor(predictor.PosePredictor):
    """Poses of the people in images.

    predictor = PosePredictor("posenet.onnx", detector="nanodet_m.onnx")  # or PosePredictor(): the bundled network
    poses = predictor("photo.jpg")

    Args:
        network: an ONNX file of pose_estimation/export.py (Paddle is not needed), a weight file, or a `PoseNetwork`;
            None: the bundled network.
        settings: flip test and decoding.
        batch_size: the most people in one forward pass.
        detector: finds the people when no boxes are given: an ONNX file of a person detector, which then runs on the
            CPU, a `PersonDetector`, or any function from an image (H, W, 3) uint8 BGR to boxes (P, 4) as left, top,
            width, height and scores (P,). Without one the network itself finds one person, see `find_person`.
        device: where a network from a file runs: "cpu", "gpu" or "gpu:1"; for an ONNX file also an execution provider
            of ONNX Runtime, as "OpenVINOExecutionProvider". By default Paddle's own choice, and the CPU for ONNX. For
            Paddle, the device is that of the whole process.

    Raises:
        UserError: missing or unreadable file, one without a description of its network, a missing package, no such
            device, or a flip test of an exported network that decodes but was exported without one.
    """

    def __init__(
        self,
        network: str | os.PathLike | PoseNetwork | None = None,
        settings: InferenceSettings = predictor.DEFAULTS,
        batch_size: int = 16,
        detector: str | os.PathLike | Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]] | None = None,
        device: str | None = None,
    ):
        name = "the network"
        if network is None:
            network = bundled_network()
            logger.warning("no network is named: the bundled one, %s", network)
        if not isinstance(network, PoseNetwork):
            name, network = str(network), load_pose_network(network, device)
        elif device is not None:
            raise UserError("device is for a network from a file; a PoseNetwork runs where it was made to")
        if isinstance(detector, (str, os.PathLike)):
            from simplepose.inference.detectors.person import PersonDetector

            detector = PersonDetector(detector)
        super().__init__(network, settings, batch_size, detector, name)
