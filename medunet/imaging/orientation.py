"""Reorient arrays to RAS+ axis order by permuting and flipping axes, without resampling."""

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine


def to_ras(array: NDArray, affine: Affine) -> tuple[NDArray, Affine]:
    """Return an array `(C, I, J, K)` and its affine with the axes closest to R, A and S; obliqueness remains."""
    orientation = nib.io_orientation(affine)
    spatial = array.shape[1:]
    moved = np.moveaxis(nib.apply_orientation(np.moveaxis(array, 0, -1), orientation), -1, 0)
    return moved, affine @ nib.orientations.inv_ornt_aff(orientation, spatial)
