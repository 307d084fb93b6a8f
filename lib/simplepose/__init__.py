"""simplepose: Simple Baselines for Human Pose Estimation (Xiao, Wu, Wei, ECCV 2018) in PaddlePaddle.

from simplepose import PosePredictor
predictor = PosePredictor("posenet.onnx")
poses = predictor(image_bgr, boxes_xywh=[[10, 20, 80, 200]])
"""

__version__ = "0.1.0"

_FROM_INFERENCE = ("InferenceSettings", "Pose", "PosePredictor")
__all__ = [*_FROM_INFERENCE, "__version__"]


def __getattr__(name: str):
    """Load the predictor when it is asked for: importing the package alone costs nothing."""
    if name in _FROM_INFERENCE:
        from simplepose import inference

        return getattr(inference, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
