"""nnU-Net's published rules for spacing, pooling and patch size, as pure functions.

Source: Isensee et al., Nature Methods 2021, and nnU-Net v2's experiment planner, whose results these equal.
Sizes are in voxels, spacings in mm, both in axis order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ANISOTROPY = 3.0  # an axis this many times coarser than the others is treated apart
_MIN_BOTTLENECK = 4  # voxels an axis keeps at the deepest stage
_BYTES_PER_FEATURE = 8e9 / (
    2 * 560e6
)  # nnU-Net's reference: a batch of two at 560e6 features each fills 8 GB
_BYTES_PER_WEIGHT = 16  # weight, gradient, and two moments in float32


@dataclass(frozen=True)
class Topology:
    """Stages of a U-Net: kernel and stride of each, per axis, and the patch padded to be divisible."""

    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    patch_size: tuple[int, ...]
    divisors: tuple[int, ...]  # the patch must be divisible by these


def target_spacing(
    spacings_mm: NDArray[np.float64], shapes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], bool]:
    """Return the target spacing of cases `(N, 3)` and whether the coarse-axis rule was used.

    Per-axis median; if one axis is more than 3 times coarser and its size less than a third of the others',
    it takes its 10th percentile, but never finer than the others.
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


def initial_patch(spacing_mm: Sequence[float], median_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the starting patch: aspect ratio 1/spacing, as large as 256³ (2048² in 2D), within the median."""
    volume = 256**3 if len(spacing_mm) == 3 else 2048**2
    aspect = 1 / np.asarray(spacing_mm)
    patch = np.round(aspect * (volume / aspect.prod()) ** (1 / len(aspect)))
    return tuple(int(min(a, b)) for a, b in zip(patch, median_shape, strict=True))


def plan_topology(patch_size: Sequence[int], spacing_mm: Sequence[float]) -> Topology:
    """Pool an axis while it has at least 8 voxels and lies within a factor 2 of the finest spacing.

    A kernel is 1 along an axis until its spacing has come within a factor 2 of the finest, then 3.
    """
    size, spacing = [int(n) for n in patch_size], [float(mm) for mm in spacing_mm]
    num_axes = len(size)
    kernel = [1] * num_axes
    kernels: list[tuple[int, ...]] = []
    strides: list[tuple[int, ...]] = [(1,) * num_axes]
    while True:
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


def stage_features(num_stages: int, base: int, maximum: int) -> tuple[int, ...]:
    """Return the channels of each stage: doubled at every stage, up to a maximum."""
    return tuple(min(base * 2**stage, maximum) for stage in range(num_stages))


def num_weights(
    topology: Topology, features: Sequence[int], num_convolutions: int, num_inputs: int, num_outputs: int
) -> int:
    """Return the number of trainable weights of the plain-convolution U-Net (heads at every decoder stage)."""
    total, previous = 0, num_inputs
    for width, kernel in zip(features, topology.kernel_sizes, strict=True):
        taps = int(np.prod(kernel))
        total += taps * width * (previous + (num_convolutions - 1) * width) + 3 * width * num_convolutions
        previous = width
    for stage in range(len(features) - 2, -1, -1):
        width, below = features[stage], features[stage + 1]
        taps = int(np.prod(topology.kernel_sizes[stage]))
        total += int(np.prod(topology.strides[stage + 1])) * below * width + width
        total += taps * width * (2 * width + (num_convolutions - 1) * width) + 3 * width * num_convolutions
        total += num_outputs * (width + 1)
    return total


def training_gb(
    topology: Topology,
    features: Sequence[int],
    num_convolutions: int,
    batch_size: int,
    num_inputs: int,
    num_outputs: int,
) -> float:
    """Estimate the memory of one training step in GB: every feature map of the batch, and the weights.

    Features are counted as nnU-Net counts them (each convolution's output and each upsampling); the bytes per
    feature are nnU-Net's own reference, which its users have found to hold on their cards.
    """
    size = np.asarray(topology.patch_size, dtype=np.float64)
    elements = 0.0
    for stage, (width, stride) in enumerate(zip(features, topology.strides, strict=True)):
        size = np.ceil(size / stride)
        maps = num_convolutions * width
        if stage < len(features) - 1:
            maps += (num_convolutions + 1) * width + num_outputs
        elements += maps * size.prod()
    weights = num_weights(topology, features, num_convolutions, num_inputs, num_outputs)
    return (elements * batch_size * _BYTES_PER_FEATURE + weights * _BYTES_PER_WEIGHT) / 1e9
