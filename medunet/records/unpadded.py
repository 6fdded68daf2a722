"""Valid input sizes and lost margin of a U-Net with unpadded convolutions (Ronneberger et al. 2015)."""

import math
from collections.abc import Sequence

UNPADDED_NETWORKS = ("unet_2015",)


def unpadded_margin(
    kernel_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], convolutions: int
) -> tuple[int, ...]:
    """Return how many voxels a U-Net with unpadded convolutions loses on each side of its input, per axis.

    A convolution of kernel size k loses (k - 1) / 2 voxels per side at its stage's resolution. Every stage except
    the coarsest is passed twice, in the encoder and in the decoder.
    """
    margins = []
    for kernels, steps in zip(zip(*kernel_sizes, strict=True), zip(*strides, strict=True), strict=True):
        scale, margin = 1, 0
        for stage, (kernel, step) in enumerate(zip(kernels, steps, strict=True)):
            scale *= step
            passes = 1 if stage == len(kernels) - 1 else 2
            margin += passes * convolutions * (kernel - 1) // 2 * scale
        margins.append(margin)
    return tuple(margins)


def unpadded_size(
    size: Sequence[int],
    kernel_sizes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    convolutions: int,
    *,
    up: bool,
) -> tuple[int, ...]:
    """Return the nearest valid input size of an unpadded U-Net: at least `size` if `up`, otherwise at most `size`.

    Every stage must be divisible by its stride, and the output must have at least one voxel. If no smaller size is
    valid, the smallest valid size is returned.
    """
    margins = unpadded_margin(kernel_sizes, strides, convolutions)
    fitting = []
    for wanted, margin, kernels, steps in zip(
        size,
        margins,
        zip(*kernel_sizes, strict=True),
        zip(*strides, strict=True),
        strict=True,
    ):
        losses = [convolutions * (kernel - 1) for kernel in kernels]
        even = 0  # a size that every stride divides; others differ by multiples of the product of the strides
        for loss, step in zip(losses[-2::-1], steps[:0:-1], strict=True):
            even = even * step + loss
        product = math.prod(steps)
        smallest = even + -(-(2 * margin + 1 - even) // product) * product
        missing = max(0, wanted - smallest)
        fitting.append(smallest + product * (-(-missing // product) if up else missing // product))
    return tuple(fitting)
