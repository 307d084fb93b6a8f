"""simplepose: Simple Baselines for Human Pose Estimation (Xiao, Wu, Wei, ECCV 2018) in PaddlePaddle.

from simplepose import PosePredictor
predictor = PosePredictor("posenet.onnx", detector="nanodet_m.onnx")
for pose in predictor("photo.jpg"):
    print(pose.to_dict())
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "InferenceSettings": "inference.network",
    "Pose": "inference.predictor",
    "PosePredictor": "build.predictor",
    "PersonDetector": "inference.detectors.person",
    "PoseTracker": "tracking.tracker",
    "TrackingSettings": "tracking.tracker",
    "UserError": "core.errors",
}
__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str):
    """Import attributes on first use, so that importing the package alone is cheap."""
    if name in _HOMES:
        return getattr(import_module(f"simplepose.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
