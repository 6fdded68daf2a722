"""Sizes that a U-Net of unpadded convolutions (Ronneberger et al. 2015) can take, and the margin it loses."""

import math
from collections.abc import Sequence

UNPADDED_NETWORKS = ("unet_2015",)


def unpadded_margin(
    kernel_sizes: Sequence[Sequence[int]], strides: Sequence[Sequence[int]], convolutions: int
) -> tuple[int, ...]:
    """Return how many voxels a U-Net of unpadded convolutions loses on each side of its input, per axis.

    A convolution of size k takes (k - 1) / 2 voxels of its stage; each stage but the coarsest is passed twice.
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
    """Return the size next to `size`, itself included, that an unpadded U-Net can take: larger if `up`, else smaller.

    Every stage must halve evenly and the output keep a voxel; where no smaller size does, the smallest is returned.
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
        even = 0  # a size that halves evenly at every stage; others differ from it by the strides' product
        for loss, step in zip(losses[-2::-1], steps[:0:-1], strict=True):
            even = even * step + loss
        product = math.prod(steps)
        smallest = even + -(-(2 * margin + 1 - even) // product) * product
        missing = max(0, wanted - smallest)
        fitting.append(smallest + product * (-(-missing // product) if up else missing // product))
    return tuple(fitting)
