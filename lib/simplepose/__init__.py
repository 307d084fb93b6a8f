"""simplepose: Simple Baselines for Human Pose Estimation (Xiao, Wu, Wei, ECCV 2018) in PaddlePaddle."""

__version__ = "0.1.0"
