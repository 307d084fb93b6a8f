"""The network with its pre- and postprocessing as one Paddle layer to export: normalisation in front, flip test and
decoding behind. Programs in C++, Java or JavaScript that run such a file need to implement none of them.

Each part computes the same as its numpy original (`core.images.normalize`, `inference.network.predict_heatmaps`,
`HeatmapCodec.decode`), with operations that ONNX Runtime, OpenVINO, OpenCV 5 and Paddle Inference support.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import Tensor, nn

from simplepose.core.codecs.gaussian import QUARTER
from simplepose.core.images import scale_and_shift
from simplepose.inference.network import PoseNetwork


class GraphNetwork(nn.Layer):
    """A network with the pre- and postprocessing that `pose.graph` asks for.

    Args:
        model: (N, 3, H, W) float32 -> (N, K, h, w) float32; it is put into eval mode.
        pose: describes preprocessing and decoding of `model`.
    """

    def __init__(self, model: nn.Layer, pose: PoseNetwork):
        super().__init__()
        self.model = model
        self.options = pose.graph
        self.permutation = paddle.to_tensor(pose.skeleton.flip_permutation.astype(np.int64))
        scale, shift = (values.reshape(1, 3, 1, 1) for values in scale_and_shift(pose.input_format))
        self.scale, self.shift = paddle.to_tensor(scale), paddle.to_tensor(shift)
        self.reverse_channels = (pose.graph.pixels == "rgb") != pose.input_format.rgb
        self.stride = paddle.to_tensor(pose.codec.stride_xy.astype(np.float32))
        self.heatmap_size_wh = None if pose.graph.dynamic_size else pose.codec.heatmap_size_wh
        self.eval()

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.normalize(image) if self.options.preprocess else image  # (N, 3, H, W)
        heatmaps = self.flip_test(x) if self.options.flip_test else self.model(x)  # (N, K, h, w)
        return self.decode(heatmaps) if self.options.decode else heatmaps

    def normalize(self, crops: Tensor) -> Tensor:
        """Crops (N, H, W, 3) uint8 -> (N, 3, H, W) float32."""
        x = paddle.transpose(crops.astype("float32"), [0, 3, 1, 2])
        if self.reverse_channels:
            x = paddle.flip(x, [1])
        return x * self.scale - self.shift

    def flip_test(self, x: Tensor) -> Tensor:
        """Heatmaps averaged with those of the mirrored images; both go through the network in one batch."""
        both = self.model(paddle.concat([x, self.mirror(x)], axis=0))  # (2N, K, h, w)
        num = paddle.shape(x)[0]
        mirrored = self.mirror(paddle.index_select(both[num:], self.permutation, axis=1))
        if self.options.shift_heatmap:
            mirrored = paddle.concat([mirrored[:, :, :, :1], mirrored[:, :, :, :-1]], axis=3)
        return 0.5 * (both[:num] + mirrored)

    def mirror(self, x: Tensor) -> Tensor:
        """Left to right. The exporter flips only axes of known length."""
        return x[:, :, :, ::-1] if self.options.dynamic_size else paddle.flip(x, [3])

    def decode(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps (N, K, h, w) -> keypoints (N, K, 2) in input pixels, scores (N, K)."""
        if self.heatmap_size_wh is None:
            size = paddle.shape(heatmaps).astype("int64")
            width, height = size[3], size[2]
        else:
            width, height = self.heatmap_size_wh
        flat = paddle.flatten(heatmaps, 2)  # (N, K, h * w)
        scores = paddle.max(flat, axis=2)
        index = paddle.argmax(flat, axis=2) * (scores > 0).astype("int64")  # nothing positive: (0, 0)
        x, y = index % width, index // width
        cells = paddle.stack([x, y], axis=2).astype("float32")  # (N, K, 2)
        if self.options.post_process:
            inside = (x > 1).astype("int64") * (x < width - 1).astype("int64")
            inside = inside * (y > 1).astype("int64") * (y < height - 1).astype("int64")
            index = index * inside + (1 - inside) * (width + 1)  # at the border any valid index, as in HeatmapCodec
            neighbours = paddle.stack([index + 1, index - 1, index + width, index - width], axis=2)
            values = paddle.take_along_axis(flat, neighbours, axis=2)  # (N, K, 4): right, left, below, above
            slope = paddle.stack([values[:, :, 0] - values[:, :, 1], values[:, :, 2] - values[:, :, 3]], axis=2)
            cells = cells + QUARTER * paddle.sign(slope) * inside.astype("float32").unsqueeze(2)
        return cells * self.stride, scores
