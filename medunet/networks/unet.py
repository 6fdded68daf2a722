"""A plain-convolution U-Net in 2D or 3D with nnU-Net's topology: kernels and strides per stage and axis.

B batch, C channels, I J K voxels; stages run from the finest (0) to the coarsest.
Equal in layers to `PlainConvUNet` of dynamic-network-architectures: two convolutions a stage by default, each with
instance norm and LeakyReLU(0.01), strided convolution down, transposed convolution up, skips concatenated.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def conv_block(
    dimensions: int, num_inputs: int, num_outputs: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Sequential:
    """Convolution, instance norm, LeakyReLU; padded so that stride 1 keeps the size."""
    padding = tuple((size - 1) // 2 for size in kernel)
    return nn.Sequential(
        _CONVOLUTION[dimensions](num_inputs, num_outputs, tuple(kernel), tuple(stride), padding),
        _NORM[dimensions](num_outputs, eps=1e-5, affine=True),
        nn.LeakyReLU(0.01),  # in place is slower: autograd copies the norm's view
    )


def conv_stage(
    dimensions: int,
    num_inputs: int,
    num_outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    depth: int,
) -> nn.Sequential:
    """`depth` blocks in a row, the first of them strided."""
    unit = (1,) * dimensions
    return nn.Sequential(
        *(
            conv_block(
                dimensions, num_outputs if i else num_inputs, num_outputs, kernel, unit if i else stride
            )
            for i in range(depth)
        )
    )


class UNet(nn.Module):
    """Encoder, decoder and a 1×1 head at each supervised decoder stage.

    In training the forward pass returns `deep_supervision` logit tensors, finest first, each at its stage's own
    size; in evaluation the finest alone. Input sizes must be divisible by the product of the strides.
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
    ) -> None:
        super().__init__()
        stages = list(zip(features, kernel_sizes, strides, strict=True))
        widths = [num_inputs, *features]
        self.encoder = nn.ModuleList(
            conv_stage(dimensions, widths[i], width, kernel, stride, convolutions_per_stage)
            for i, (width, kernel, stride) in enumerate(stages)
        )
        self.upsamplers, self.decoder, self.heads = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in range(len(features) - 2, -1, -1):
            width, kernel, _ = stages[stage]
            up = tuple(strides[stage + 1])
            self.upsamplers.append(_TRANSPOSED[dimensions](features[stage + 1], width, up, up))
            unit = (1,) * dimensions
            self.decoder.append(
                conv_stage(dimensions, 2 * width, width, kernel, unit, convolutions_per_stage)
            )
        for stage in range(min(deep_supervision, len(self.decoder)) - 1, -1, -1):
            self.heads.append(_CONVOLUTION[dimensions](features[stage], num_outputs, 1))
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Map `(B, C, I, J[, K])` to logits of the same size, or in training to a list of them."""
        skips = []
        x = image
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        outputs = []
        first_head = len(self.decoder) - len(self.heads)
        for i, (upsample, stage) in enumerate(zip(self.upsamplers, self.decoder, strict=True)):
            x = stage(torch.cat([upsample(x), skips[-2 - i]], dim=1))
            is_last = i == len(self.decoder) - 1
            if i >= first_head and (self.training or is_last):
                outputs.append(self.heads[i - first_head](x))
        return outputs[::-1] if self.training else outputs[-1]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
