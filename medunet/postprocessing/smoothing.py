"""Smoothing of a mask's boundary: what is smaller than the given size in mm is evened out, the rest stays put.

Beyond the volume's border the mask is taken to go on as it is there, so that it does not shrink at the border.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage, signal

from medunet.postprocessing.boxes import Mask, on_box
from medunet.postprocessing.morphology import ball_reach, make_ball


def smooth_gaussian(mask: Mask, sigma_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return where the mask `(I, J, K)`, blurred by a Gaussian of `sigma_mm`, is above one half."""
    sigma_voxels = [sigma_mm / step for step in spacing_mm]

    def blur(frame: Mask) -> Mask:
        return ndimage.gaussian_filter(frame.astype(np.float32), sigma_voxels, mode="nearest") > 0.5

    return on_box(mask, blur)


def smooth_median(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return where most voxels of the ball of `radius_mm` belong to the mask `(I, J, K)`.

    The ball is that of `morphology.make_ball`: always an odd number of voxels, so that there are no ties.
    """
    ball = make_ball(radius_mm, spacing_mm, mask.shape)

    def vote(frame: Mask) -> Mask:
        # The counts are whole numbers but for rounding, which stays far from the half between two of them.
        counts = signal.fftconvolve(frame.astype(float), ball.astype(float), mode="same")
        return counts > ball.sum() / 2

    return on_box(mask, vote, pad_voxels=ball_reach(ball))
