"""The network with its pre- and postprocessing as one Paddle layer to export: normalisation in front, flip test and
decoding behind. Programs in C++, Java or JavaScript that run such a file need to implement none of them.

Each part computes the same as its numpy original (`core.images.normalize`, `inference.network.predict_heatmaps`,
`HeatmapCodec.decode`), with operations that ONNX Runtime, OpenVINO, OpenCV 5 and Paddle Inference support.
"""

from __future__ import annotations

import math

import numpy as np
import paddle
from paddle import Tensor, nn

from simplepose.core.codecs.dark import FLAT, LOWEST, smoothing_matrix
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
        self.codec = pose.codec
        if pose.codec.decoder == "dark":
            self.smoothing = paddle.to_tensor(smoothing_matrix(pose.codec.sigma))
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
        if self.options.shift_heatmap and not self.codec.mirrors_exactly:
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
            if self.codec.decoder == "dark":
                step = self.taylor_step(heatmaps, x, y, width)
            else:
                index = index * inside + (1 - inside) * (width + 1)  # at the border any valid index, as in HeatmapCodec
                step = self.quarter_step(flat, index, width)
            cells = cells + step * inside.astype("float32").unsqueeze(2)
        return cells * self.stride(width, height), scores

    def quarter_step(self, flat: Tensor, index: Tensor, width: Tensor | int) -> Tensor:
        """Steps (N, K, 2) in cells from the maxima of flat heatmaps (N, K, h * w) at `index` (N, K)."""
        neighbours = paddle.stack([index + 1, index - 1, index + width, index - width], axis=2)
        values = paddle.take_along_axis(flat, neighbours, axis=2)  # (N, K, 4): right, left, below, above
        slope = paddle.stack([values[:, :, 0] - values[:, :, 1], values[:, :, 2] - values[:, :, 3]], axis=2)
        return QUARTER * paddle.sign(slope)

    def taylor_step(self, heatmaps: Tensor, x: Tensor, y: Tensor, width: Tensor | int) -> Tensor:
        """Steps (N, K, 2) in cells from the maxima (x, y) of heatmaps (N, K, h, w); see `codecs.dark`."""
        side = math.isqrt(len(self.smoothing))
        padded = paddle.flatten(nn.functional.pad(heatmaps, [side // 2] * 4), 2)
        columns, rows = np.tile(np.arange(side), side), np.repeat(np.arange(side), side)
        padded_width = width + side // 2 * 2
        corner = (y * padded_width + x).unsqueeze(2)  # (N, K, 1) of the patches
        around = corner + paddle.to_tensor(rows) * padded_width + paddle.to_tensor(columns)  # (N, K, side * side)
        patches = paddle.take_along_axis(padded, around, axis=2)
        smooth = paddle.matmul(patches, self.smoothing)  # (N, K, 9)
        log = paddle.unbind(paddle.log(paddle.clip(smooth, min=LOWEST)), axis=2)
        slope_x, slope_y = (log[5] - log[3]) / 2, (log[7] - log[1]) / 2
        curve_xx, curve_yy = log[5] - 2 * log[4] + log[3], log[7] - 2 * log[4] + log[1]
        curve_xy = (log[8] - log[6] - log[2] + log[0]) / 4
        determinant = curve_xx * curve_yy - curve_xy * curve_xy
        flat = FLAT / self.codec.sigma**2
        peaked = (determinant > flat**2).astype("float32") * (curve_xx < -flat).astype("float32")
        determinant = determinant * peaked + (1 - peaked)
        step_x = (curve_xy * slope_y - curve_yy * slope_x) / determinant
        step_y = (curve_xy * slope_x - curve_xx * slope_y) / determinant
        return paddle.clip(paddle.stack([step_x, step_y], axis=2), -1.0, 1.0) * peaked.unsqueeze(2)

    def stride(self, width: Tensor | int, height: Tensor | int) -> Tensor:
        """(2,) input pixels per cell."""
        if self.heatmap_size_wh or not self.codec.unbiased:
            return paddle.to_tensor(self.codec.stride_xy.astype(np.float32))
        ratio = self.codec.image_size_wh[0] // self.codec.heatmap_size_wh[0]  # the same on both axes
        size = paddle.stack([width, height]).astype("float32")
        return (ratio * size - 1) / (size - 1)
