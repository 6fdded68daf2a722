"""Building blocks of U-Nets: convolution blocks, residual blocks, pooling and upsampling.

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
    """Options that all blocks of a network share."""

    dimensions: int
    norm: Norm = "instance"
    activation: Activation = "leaky_relu"
    dropout: float = 0.0  # probability of dropping a whole feature map, in each block
    padded: bool = True  # convolutions of stride 1 keep the size

    @property
    def unit(self) -> tuple[int, ...]:
        """Stride or kernel size of 1 along each axis."""
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
    """Return a convolution, padded by half its kernel size if the style is padded."""
    padding = tuple((size - 1) // 2 if style.padded else 0 for size in kernel)
    return _CONVOLUTION[style.dimensions](
        num_inputs, num_outputs, tuple(kernel), tuple(stride or style.unit), padding, bias=bias
    )


def norm_layer(style: Style, width: int) -> nn.Module:
    """Return the style's normalisation layer with a weight and a bias per channel; group norm has up to 8 groups."""
    if style.norm == "none":
        return nn.Identity()
    if style.norm == "group":
        return nn.GroupNorm(math.gcd(_MAX_GROUPS, width), width)
    table = _INSTANCE if style.norm == "instance" else _BATCH
    return table[style.dimensions](width, eps=1e-5, affine=True)


def activation_layer(style: Style) -> nn.Module:
    """Return the style's activation; not in place, which is slower because autograd then copies the norm's view."""
    return nn.LeakyReLU(0.01) if style.activation == "leaky_relu" else nn.ReLU()


def conv_block(
    style: Style, num_inputs: int, num_outputs: int, kernel: Sequence[int], stride: Sequence[int]
) -> nn.Sequential:
    """Return convolution, norm, activation and, if configured, dropout of whole feature maps."""
    parts = [
        convolution(style, num_inputs, num_outputs, kernel, stride),
        norm_layer(style, num_outputs),
        activation_layer(style),
    ]
    if style.dropout:
        parts.append(_DROPOUT[style.dimensions](style.dropout))
    return nn.Sequential(*parts)


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut connection, which has average pooling and a 1×1 convolution where needed.

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
        """Map `(B, C, I, J[, K])` to the size divided by the stride."""
        return self.activation(self.conv2(self.conv1(x)) + self.shortcut(x))


class Stage(nn.Sequential):
    """Blocks in sequence; with multi-scale input the downsampled image is concatenated after the first block."""

    def forward(self, x: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
        """Map `(B, C, I, J[, K])` to the stage's size; `image` already has that size."""
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
    """Return an encoder stage of `depth` plain or residual blocks, downsampled by a strided block or by max-pooling.

    The first stage of a residual network starts with a plain block, its stem. `image_channels` is the number of
    channels concatenated after the stage's first part (multi-scale input).
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
        extra = image_channels if len(parts) == 1 else 0
        parts.append(block(style, num_inputs + extra, width, kernel, stride))
        num_inputs, stride = width, style.unit
    return Stage(*parts)


def decoder_stage(
    style: Style, num_inputs: int, width: int, kernel: Sequence[int], *, depth: int
) -> nn.Sequential:
    """Return a decoder stage of `depth` plain blocks."""
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
    """Return a transposed convolution, or linear interpolation followed by a convolution of the given kernel size."""
    if interpolate_kernel is None:
        return _TRANSPOSED[style.dimensions](num_inputs, width, tuple(stride), tuple(stride))
    return nn.Sequential(
        nn.Upsample(scale_factor=tuple(float(step) for step in stride), mode=_LINEAR[style.dimensions]),
        convolution(style, num_inputs, width, interpolate_kernel),
    )


def head(style: Style, num_inputs: int, num_outputs: int) -> nn.Module:
    """Return the 1×1 convolution that maps features to logits."""
    return convolution(style, num_inputs, num_outputs, style.unit)


def initialise(network: nn.Module) -> None:
    """Initialise weights as nnU-Net: He-normal, zero biases, and residual blocks that start as their shortcut."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, ResidualBlock) and not isinstance(norm := module.conv2[1], nn.Identity):
            assert isinstance(norm.weight, nn.Parameter)
            nn.init.zeros_(norm.weight)
