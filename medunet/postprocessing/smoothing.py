"""Smoothing of a mask's boundary by a Gaussian or median filter with a size in mm.

The mask is continued beyond the volume's border by its outermost voxels, so that it does not shrink there.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

from medunet.postprocessing.boxes import Mask, apply_in_box
from medunet.postprocessing.morphology import ball_reach, make_ball


def smooth_gaussian(mask: Mask, sigma_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the mask `(I, J, K)` blurred by a Gaussian of `sigma_mm` and thresholded at 0.5."""
    sigma_voxels = [sigma_mm / step for step in spacing_mm]

    def blur(frame: Mask) -> Mask:
        return ndimage.gaussian_filter(frame.astype(np.float32), sigma_voxels, mode="nearest") > 0.5

    return apply_in_box(mask, blur)


def smooth_median(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the mask `(I, J, K)` after a median filter with a ball of `radius_mm`.

    The ball is that of `morphology.make_ball`. Its number of voxels is always odd, so that there are no ties.
    """
    ball = make_ball(radius_mm, spacing_mm, mask.shape)

    def median(frame: Mask) -> Mask:
        # The counts are integers up to a rounding error that is far below one half.
        counts = signal.fftconvolve(frame.astype(float), ball.astype(float), mode="same")
        return counts > ball.sum() / 2

    return apply_in_box(mask, median, pad_voxels=ball_reach(ball))
