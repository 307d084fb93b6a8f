"""PoseResNet: a ResNet, a few deconvolutions, one heatmap per joint. That is the whole paper (section 2)."""

from __future__ import annotations

from collections.abc import Sequence

from paddle import Tensor, nn

from simplepose.core.errors import UserError
from simplepose.models.resnet import ResNet, batch_norm

# Padding and output padding with which a stride-2 deconvolution of this kernel exactly doubles its input.
DECONV_PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}


class PoseResNet(nn.Layer):
    """Image to joint heatmaps, (N, 3, H, W) -> (N, K, h, w) with h = H / 32 * 2**len(deconv_filters).

    Args:
        depth: of the ResNet: 18, 34, 50, 101 or 152.
        num_joints: K.
        style: where a bottleneck strides, "pytorch" or "caffe".
        deconv_filters, deconv_kernels: channels and kernel size (4, 3 or 2) of each deconvolution.
        deconv_bias: give the deconvolutions a bias.
        final_kernel: 1 or 3, of the layer that outputs the heatmaps.

    Head layers start from N(0, 0.001) with zero biases (paper section 3; the original's `init_weights`).

    Raises:
        UserError: for an unsupported argument.
    """

    def __init__(
        self,
        depth: int,
        num_joints: int,
        style: str = "pytorch",
        deconv_filters: Sequence[int] = (256, 256, 256),
        deconv_kernels: Sequence[int] = (4, 4, 4),
        deconv_bias: bool = False,
        final_kernel: int = 1,
    ):
        super().__init__()
        if len(deconv_filters) != len(deconv_kernels) or not deconv_filters:
            raise UserError(
                f"{len(deconv_filters)} deconvolution filters and {len(deconv_kernels)} kernels: "
                "NUM_DECONV_FILTERS and NUM_DECONV_KERNELS need one entry per layer, at least one"
            )
        bad_kernels = [kernel for kernel in deconv_kernels if kernel not in DECONV_PADDING]
        if bad_kernels:
            raise UserError(
                f"a deconvolution kernel of {bad_kernels[0]} was asked for; NUM_DECONV_KERNELS are 2, 3 or 4"
            )
        if final_kernel not in (1, 3):
            raise UserError(f"FINAL_CONV_KERNEL is {final_kernel}; it is 1 or 3")

        self.backbone = ResNet(depth, style)
        self._backbone_weights = [weight for weight in self.backbone.parameters() if not weight.stop_gradient]
        narrow = nn.initializer.Normal(0.0, 0.001)
        zero = nn.initializer.Constant(0.0)
        layers: list[nn.Layer] = []
        channels = self.backbone.out_channels
        for filters, kernel in zip(deconv_filters, deconv_kernels):
            padding, output_padding = DECONV_PADDING[kernel]
            deconv = nn.Conv2DTranspose(
                channels,
                filters,
                kernel,
                stride=2,
                padding=padding,
                output_padding=output_padding,
                weight_attr=narrow,
                bias_attr=zero if deconv_bias else False,
            )
            deconv.window = (2, (padding, padding - output_padding))
            layers += [deconv, batch_norm(filters), nn.ReLU()]
            channels = filters
        self.deconv_layers = nn.Sequential(*layers)
        padding = final_kernel // 2
        self.final_layer = nn.Conv2D(
            channels, num_joints, final_kernel, padding=padding, weight_attr=narrow, bias_attr=zero
        )
        self.final_layer.window = (1, (padding, padding))
        self.kernels = None  # alternative implementation of the training passes: `onednn_training.TrainingKernels`

    def freeze_backbone(self, frozen: bool) -> ResNet | None:
        """Exclude the backbone's weights from training, or include them again.

        Returns:
            The backbone if it is frozen now: run it in eval mode, so that its batch-norm statistics stay fixed, too.
        """
        for weight in self._backbone_weights:
            weight.stop_gradient = frozen
        return self.backbone if frozen else None

    def forward(self, x: Tensor) -> Tensor:
        if self.kernels is not None and self.training:
            return self.kernels(self, x)
        x = self.backbone(x)  # (N, C, H/32, W/32)
        x = self.deconv_layers(x)  # (N, 256, H/4, W/4) with three deconvolutions
        return self.final_layer(x)  # (N, K, H/4, W/4)
