"""nnU-Net's windows: evenly spaced along each axis, with the Gaussian weights that it adds them up with."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medunet.inference.windows import Grid, Span
from medunet.records.plan import Plan

_SIGMA = 1 / 8  # of the Gaussian, as a share of the patch
_PEAK = 10.0  # its largest weight


def nnunet_grid(shape: Sequence[int], plan: Plan, overlap: float) -> Grid:
    """Return the windows of a volume `shape` that is at least as large as the patch."""
    sizes = list(plan.patch_size)
    if plan.dimensions == 2:
        sizes.insert(plan.slice_axis, 1)
    first, second, third = (
        even_spans(length, size, 1 - overlap) for length, size in zip(shape, sizes, strict=True)
    )
    return first, second, third


def even_spans(length: int, size: int, step: float) -> list[Span]:
    """Return windows along an axis with even steps of at most `step` patches; the last one ends with the axis."""
    count = math.ceil((length - size) / (size * step)) + 1
    distance = (length - size) / max(1, count - 1)
    starts = [round(distance * number) for number in range(count)]
    return [Span(start, start, start + size) for start in starts]


@lru_cache(maxsize=4)
def nnunet_weights(size: tuple[int, ...]) -> torch.Tensor:
    """Return float32 weights `size` of a window's voxels, as nnU-Net has them in half precision.

    There the lowest are 0, in place of which it takes the smallest that is not.
    """
    weights = np.zeros(size)
    weights[tuple(n // 2 for n in size)] = 1
    weights = gaussian_filter(weights, [n * _SIGMA for n in size], 0, mode="constant", cval=0)
    halves = (weights / weights.max() * _PEAK).astype(np.float16)
    halves[halves == 0] = halves[halves > 0].min()
    return torch.from_numpy(halves.astype(np.float32))
