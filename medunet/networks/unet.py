"""U-Nets in 2D and 3D: nnU-Net's plain and residual encoders, the original U-Net of 2015, and the padded variant.

B batch, C channels, I J K voxels; stages are numbered from the finest (0) to the coarsest. With default arguments the
layers equal `PlainConvUNet` of dynamic-network-architectures, with `encoder_blocks` its `ResidualEncoderUNet`, and
with ReLU, max-pooling, no norm and no padding the U-Net of Ronneberger et al., MICCAI 2015.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from medunet.networks.blocks import (
    Activation,
    Norm,
    Style,
    decoder_stage,
    encoder_stage,
    head,
    initialise,
    upsampler,
)

_AVERAGE: dict[int, Any] = {2: F.avg_pool2d, 3: F.avg_pool3d}


class UNet(nn.Module):
    """U-Net with a 1×1 segmentation head at each supervised decoder stage.

    In training mode the forward pass returns `deep_supervision` logit tensors, finest first, each at its stage's
    size; in evaluation mode only the finest. Padded: input sizes must be divisible by the product of the strides,
    and the finest output has the input's size. Unpadded: the output is smaller by `Plan.valid_margin` on each side.
    """

    def __init__(
        self,
        dimensions: int,
        num_inputs: int,
        num_outputs: int,
        features: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        convolutions_per_stage: int = 2,
        deep_supervision: int = 1,
        *,
        encoder_blocks: Sequence[int] = (),
        norm: Norm = "instance",
        activation: Activation = "leaky_relu",
        downsampling: Literal["strided", "max_pool"] = "strided",
        upsampling: Literal["transposed", "interpolate"] = "transposed",
        dropout: float = 0.0,
        padded: bool = True,
        multi_scale_input: bool = False,
    ) -> None:
        """Build the network; `encoder_blocks` is the number of residual blocks of each stage.

        With `multi_scale_input` the image, average-pooled to the size of each stage, is concatenated after the
        stage's first part (the strided block or the pooling), so that every stage needs a second part.
        """
        super().__init__()
        style = Style(dimensions, norm, activation, dropout, padded)
        self.padded, self.multi_scale_input = padded, multi_scale_input
        self.strides = [tuple(stride) for stride in strides]
        stages = list(zip(features, kernel_sizes, strides, strict=True))
        widths = [num_inputs, *features]
        self.encoder = nn.ModuleList(
            encoder_stage(
                style,
                widths[i],
                width,
                kernel,
                stride,
                depth=encoder_blocks[i] if encoder_blocks else convolutions_per_stage,
                residual=bool(encoder_blocks),
                max_pool=downsampling == "max_pool",
                first=i == 0,
                image_channels=num_inputs if multi_scale_input and i > 0 else 0,
            )
            for i, (width, kernel, stride) in enumerate(stages)
        )
        self.upsamplers, self.decoder, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in range(len(features) - 2, -1, -1):
            width, kernel, _ = stages[stage]
            interpolate_kernel = kernel if upsampling == "interpolate" else None
            below, stride = features[stage + 1], strides[stage + 1]
            self.upsamplers.append(
                upsampler(style, below, width, stride, interpolate_kernel=interpolate_kernel)
            )
            self.decoder.append(decoder_stage(style, 2 * width, width, kernel, depth=convolutions_per_stage))
        for stage in range(min(deep_supervision, len(self.decoder)) - 1, -1, -1):
            self.heads.append(head(style, features[stage], num_outputs))
        initialise(self)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map `(B, C, I, J[, K])` to logits, or in training to a list of them."""
        skips = []
        x = downsampled = image
        for number, stage in enumerate(self.encoder):
            if self.multi_scale_input and number > 0:
                downsampled = _AVERAGE[image.ndim - 2](
                    _centre_crop(downsampled, x.shape[2:]), self.strides[number]
                )
                x = stage(x, downsampled)
            else:
                x = stage(x)
            skips.append(x)
        skips.pop()
        outputs = []
        first_head = len(self.decoder) - len(self.heads)
        for i, (upsample, stage) in enumerate(zip(self.upsamplers, self.decoder, strict=True)):
            x = upsample(x)
            skip = skips.pop()
            x = torch.cat([x, skip if self.padded else _centre_crop(skip, x.shape[2:])], dim=1)
            del skip  # its memory is free while the stage computes
            x = stage(x)
            is_last = i == len(self.decoder) - 1
            if i >= first_head and (self.training or is_last):
                outputs.append(self.heads[i - first_head](x))
        return outputs[::-1] if self.training else outputs[-1]


def _centre_crop(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the central part of `(B, C, I, J[, K])`, `size` voxels large."""
    for axis, wanted in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - wanted) // 2, wanted)
    return x
