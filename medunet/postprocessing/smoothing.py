"""Smoothing of a mask's boundary by a Gaussian or median filter with a size in mm.

The mask is continued beyond the volume's border by its outermost voxels, so that it does not shrink there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.postprocessing.boxes import Mask, apply_in_box, apply_in_slabs
from medunet.postprocessing.morphology import ball_reach, make_ball, shifted

_CUT_SIGMA = 4.0  # where the Gaussian is cut off


def smooth_gaussian(mask: Mask, sigma_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the mask `(I, J, K)` blurred by a Gaussian of `sigma_mm` and thresholded at 0.5."""
    sigma_voxels = [sigma_mm / step for step in spacing_mm]
    reach_voxels = int(_CUT_SIGMA * sigma_voxels[0] + 0.5)

    def blur(slab: Mask) -> Mask:
        volume = slab.astype(np.float32)
        return ndimage.gaussian_filter(volume, sigma_voxels, mode="nearest", truncate=_CUT_SIGMA) > 0.5

    return apply_in_box(mask, lambda frame: apply_in_slabs(frame, blur, reach_voxels))


def smooth_median(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the mask `(I, J, K)` after a median filter with a ball of `radius_mm`.

    The ball is that of `morphology.make_ball`. Its number of voxels is always odd, so that there are no ties.
    """
    ball = make_ball(radius_mm, spacing_mm, mask.shape)

    num_voxels = int(ball.sum())

    def median(slab: Mask) -> Mask:
        return _count_in_ball(slab, ball, np.min_scalar_type(num_voxels)) > num_voxels // 2

    reach = ball_reach(ball)
    return apply_in_box(mask, lambda frame: apply_in_slabs(frame, median, reach[0]), pad_voxels=reach)


def _count_in_ball(mask: Mask, ball: Mask, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return for each voxel the number of the mask's voxels within the ball around it, within the mask's array.

    As in dilation, the ball is decomposed into line segments along the last axis.
    """
    reach_i, reach_j, reach_k = ball_reach(ball)
    half_lengths = ball[:, :, reach_k:].sum(axis=2) - 1  # of the ball's line segment at each (i, j); -1: none
    single = np.ascontiguousarray(mask).view(np.uint8)
    along = single.astype(dtype)
    counts = np.zeros(mask.shape, dtype)
    for half_length in range(reach_k + 1):
        if half_length > 0:
            along[:, :, half_length:] += single[:, :, :-half_length]
            along[:, :, :-half_length] += single[:, :, half_length:]
        for i, j in np.argwhere(half_lengths == half_length) - (reach_i, reach_j):
            to_i, from_i = shifted(int(i), mask.shape[0])
            to_j, from_j = shifted(int(j), mask.shape[1])
            counts[to_i, to_j] += along[from_i, from_j]
    return counts
