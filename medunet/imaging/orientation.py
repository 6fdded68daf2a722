"""Arrays turned to RAS+ axis order by permuting and flipping axes, no voxel resampled."""

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine


def to_ras(array: NDArray, affine: Affine) -> tuple[NDArray, Affine]:
    """Return `(C, I, J, K)` and its affine with axes as close to R, A, S as they come; oblique stays oblique."""
    orientation = nib.io_orientation(affine)
    spatial = array.shape[1:]
    moved = np.moveaxis(nib.apply_orientation(np.moveaxis(array, 0, -1), orientation), -1, 0)
    return moved, affine @ nib.orientations.inv_ornt_aff(orientation, spatial)
