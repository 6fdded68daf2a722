"""The parts that U-Nets are built from: convolution blocks, residual blocks, pooling, upsampling.

B batch, C channels, I J K voxels. `kernel` and `stride` are per axis.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from medunet.networks.convolution import Convolution3d

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: Convolution3d}
_TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INSTANCE: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_BATCH: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_DROPOUT: dict[int, Any] = {2: nn.Dropout2d, 3: nn.Dropout3d}
_MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_AVERAGE_POOL: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}
_MAX_GROUPS = 8

Norm = Literal["instance", "batch", "group", "none"]
Activation = Literal["leaky_relu", "relu"]


@dataclass(frozen=True)
class Style:
    """What all blocks of a network share."""

    dimensions: int
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    dropout: float = 0.0  # share of whole feature maps that each block drops in training
    padded: bool = True  # convolutions of stride 1 keep the size

    @property
    def unit(self) -> tuple[int, ...]:
        """Stride, or kernel, of 1 along each axis."""
        return (1,) * self.dimensions


def convolution(
    style: Style,
    num_inputs: int,
    num_outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
    *,
    bias: bool = True,
) -> nn.Module:
    """Return a convolution, padded by half its kernel where the style is padded."""
    padding = tuple((size - 1) // 2 if style.padded else 0 for size in kernel)
    return _CONVOLUTION[style.dimensions](
        num_inputs, num_outputs, tuple(kernel), tuple(stride or style.unit), padding, bias=bias
    )


def norm_layer(style: Style, width: int) -> nn.Module:
    """Return the style's norm with a weight and a bias per channel; up to 8 groups, as many as divide the width."""
    if style.norm == "none":
        return nn.Identity()
    if style.norm == "group":
        return nn.GroupNorm(math.gcd(_MAX_GROUPS, width), width)
    table = _INSTANCE if style.norm == "instance" else _BATCH
    return table[style.dimensions](width, eps=1e-5, affine=True)


def activation_layer(style: Style) -> nn.Module:
    """Return the style's activation; in place would be slower, since autograd copies the norm's view."""
    return nn.LeakyReLU(0.01) if style.activation == "leaky_relu" else nn.ReLU()


def conv_block(
    style: Style, num_inputs: int, num_outputs: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Sequential:
    """Return convolution, norm, activation and, where asked for, dropout of whole feature maps."""
    parts = [
        convolution(style, num_inputs, num_outputs, kernel, stride),
        norm_layer(style, num_outputs),
        activation_layer(style),
    ]
    if style.dropout:
        parts.append(_DROPOUT[style.dimensions](style.dropout))
    return nn.Sequential(*parts)


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, which pools by averages and projects by a 1×1 convolution where needed.

    Equal to `BasicBlockD` of dynamic-network-architectures (He et al., Bag of Tricks, CVPR 2019, ResNet-D).
    """

    def __init__(
        self, style: Style, num_inputs: int, num_outputs: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> None:
        super().__init__()
        self.conv1 = conv_block(style, num_inputs, num_outputs, kernel, stride)
        self.conv2 = nn.Sequential(
            convolution(style, num_outputs, num_outputs, kernel), norm_layer(style, num_outputs)
        )
        shortcut = nn.Sequential()
        if any(step != 1 for step in stride):
            shortcut.append(_AVERAGE_POOL[style.dimensions](tuple(stride), tuple(stride)))
        if num_inputs != num_outputs:
            shortcut.append(convolution(style, num_inputs, num_outputs, style.unit, bias=False))
            shortcut.append(norm_layer(style, num_outputs))
        self.shortcut = shortcut
        self.activation = activation_layer(style)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `(B, C, I, J[, K])` to the size that the stride leaves."""
        return self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))


class Stage(nn.Sequential):
    """Blocks in a row; in a network of multi-scale input the shrunken image joins behind the first."""

    def forward(self, x: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
        """Map `(B, C, I, J[, K])` to the stage's size; `image` has that size already."""
        for number, part in enumerate(self):
            x = part(x)
            if number == 0 and image is not None:
                x = torch.cat([x, image], dim=1)
        return x


def encoder_stage(
    style: Style,
    num_inputs: int,
    width: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    *,
    depth: int,
    residual: bool,
    max_pool: bool,
    first: bool,
    image_channels: int = 0,
) -> Stage:
    """Return `depth` blocks, plain or residual, the first of them strided unless a max-pooling goes before.

    The first stage of a residual network begins with a plain block, its stem. `image_channels` is what joins behind
    the stage's first part (multi-scale input).
    """
    parts: list[nn.Module] = []
    if residual and first:
        parts.append(conv_block(style, num_inputs, width, kernel, style.unit))
        num_inputs = width
    elif max_pool and not first:
        parts.append(_MAX_POOL[style.dimensions](tuple(stride), tuple(stride)))
        stride = style.unit
    block = ResidualBlock if residual else conv_block
    for _ in range(depth):
        joined = image_channels if len(parts) == 1 else 0
        parts.append(block(style, num_inputs + joined, width, kernel, stride))
        num_inputs, stride = width, style.unit
    return Stage(*parts)


def decoder_stage(
    style: Style, num_inputs: int, width: int, kernel: Sequence[int], *, depth: int
) -> nn.Sequential:
    """Return `depth` plain blocks."""
    widths = [num_inputs, *(width,) * depth]
    return nn.Sequential(*(conv_block(style, widths[i], width, kernel, style.unit) for i in range(depth)))


def upsampler(
    style: Style,
    num_inputs: int,
    width: int,
    stride: Sequence[int],
    *,
    interpolate_kernel: Sequence[int] | None = None,
) -> nn.Module:
    """Return a transposed convolution, or linear interpolation with a convolution of the given kernel behind it."""
    if interpolate_kernel is None:
        return _TRANSPOSED[style.dimensions](num_inputs, width, tuple(stride), tuple(stride))
    return nn.Sequential(
        nn.Upsample(scale_factor=tuple(float(step) for step in stride), mode=_LINEAR[style.dimensions]),
        convolution(style, num_inputs, width, interpolate_kernel),
    )


def head(style: Style, num_inputs: int, num_outputs: int) -> nn.Module:
    """Return the 1×1 convolution that makes logits of features."""
    return convolution(style, num_inputs, num_outputs, style.unit)


def initialise(network: nn.Module) -> None:
    """Draw He-normal weights, zero biases, and let every residual block begin as its shortcut, as nnU-Net does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock) and not isinstance(norm := module.conv2[1], nn.Identity):
            assert isinstance(norm.weight, nn.Parameter)
            nn.init.zeros_(norm.weight)
