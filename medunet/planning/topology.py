"""Rules for target spacing, pooling and initial patch size, of nnU-Net and of other U-Nets.

Source: Isensee et al., Nature Methods 2021, and the experiment planner of nnU-Net v2, with identical results.
Sizes are in voxels, spacings in mm, both in axis order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medunet.records.unpadded import unpadded_size

ANISOTROPY = 3.0  # an axis this many times coarser than the others is treated separately
_MIN_BOTTLENECK = 4  # minimum number of voxels of an axis at the deepest stage


@dataclass(frozen=True)
class Topology:
    """Kernel sizes and strides of a U-Net's stages, per axis, and a patch size that they can process."""

    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisors: tuple[int, ...]  # of the patch size, per axis


def target_spacing(
    spacings_mm: NDArray[np.float64], shapes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], bool]:
    """Return the target spacing for cases' spacings `(N, 3)` and whether the coarse-axis rule was applied.

    The target is the per-axis median. If one axis is more than 3 times coarser and its size less than a third of the
    others', its target is the 10th percentile, but not finer than the other axes.
    """
    target = np.median(spacings_mm, axis=0)
    size = np.median(shapes, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarse]
    anisotropic = target[coarse] > ANISOTROPY * target[others].max()
    few_slices = size[coarse] * ANISOTROPY < size[others].min()
    if not (anisotropic and few_slices):
        return target, False
    target[coarse] = max(np.percentile(spacings_mm[:, coarse], 10), target[others].max())
    return target, True


def initial_patch(spacing_mm: Sequence[float], median_shape: Sequence[float]) -> tuple[int, ...]:
    """Return the initial patch: aspect ratio 1/spacing, a volume of 256³ (2048² in 2D), at most the median shape."""
    volume = 256**3 if len(spacing_mm) == 3 else 2048**2
    aspect = 1 / np.asarray(spacing_mm)
    patch = np.round(aspect * (volume / aspect.prod()) ** (1 / len(aspect)))
    return tuple(math.ceil(min(a, b)) for a, b in zip(patch, median_shape, strict=True))


def plan_topology(
    patch_size: Sequence[int], spacing_mm: Sequence[float], num_stages: int | None = None
) -> Topology:
    """Return nnU-Net's stages: pool an axis while it has 8 voxels and is within a factor 2 of the finest spacing.

    The kernel size along an axis is 1 until its spacing is within a factor 2 of the finest, then 3. There are at most
    `num_stages` stages, fewer if the patch cannot be halved that often.
    """
    size, spacing = [int(n) for n in patch_size], [float(mm) for mm in spacing_mm]
    num_axes = len(size)
    kernel = [1] * num_axes
    kernels: list[tuple[int, ...]] = []
    strides: list[tuple[int, ...]] = [(1,) * num_axes]
    while num_stages is None or len(strides) < num_stages:
        large = [axis for axis in range(num_axes) if size[axis] >= 2 * _MIN_BOTTLENECK]
        if not large:
            break
        finest = min(spacing[axis] for axis in large)
        pooled = [axis for axis in large if spacing[axis] / finest < 2]
        if len(pooled) == 1 and size[pooled[0]] < 3 * _MIN_BOTTLENECK:
            break
        for axis in range(num_axes):
            if spacing[axis] / min(spacing) < 2:
                kernel[axis] = 3
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in range(num_axes)))
        for axis in pooled:
            spacing[axis] *= 2
            size[axis] = -(-size[axis] // 2)
    kernels.append((3,) * num_axes)
    divisors = tuple(int(n) for n in np.prod(strides, axis=0))
    padded = tuple(-(-n // d) * d for n, d in zip(patch_size, divisors, strict=True))
    return Topology(tuple(kernels), tuple(strides), padded, divisors)


def uniform_topology(
    patch_size: Sequence[int], num_stages: int, *, unpadded_convolutions: int | None = None
) -> Topology:
    """Return stages that halve every axis, with kernels of 3 throughout; the patch is rounded up to a valid size.

    In an unpadded network the size must be even after the `unpadded_convolutions` of each stage.
    """
    num_axes = len(patch_size)
    kernels = ((3,) * num_axes,) * num_stages
    strides = ((1,) * num_axes, *((2,) * num_axes,) * (num_stages - 1))
    divisor = 2 ** (num_stages - 1)
    fitting = (
        tuple(-(-size // divisor) * divisor for size in patch_size)
        if unpadded_convolutions is None
        else unpadded_size(patch_size, kernels, strides, unpadded_convolutions, up=True)
    )
    return Topology(kernels, strides, fitting, (divisor,) * num_axes)


def stage_features(num_stages: int, base: int, maximum: int | None) -> tuple[int, ...]:
    """Return the number of channels of each stage: doubled at every stage, up to an optional maximum."""
    widths = (base * 2**stage for stage in range(num_stages))
    return tuple(width if maximum is None else min(width, maximum) for width in widths)
