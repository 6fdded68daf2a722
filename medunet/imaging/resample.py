"""Label maps brought to another grid: each new voxel takes the value of the old one nearest to its centre."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.errors import DataError
from medunet.imaging.geometry import Affine, corners

_WORST_CONDITION = 1e8  # of an affine: beyond it the axes do not span a volume


def resample_labels(
    labels: NDArray[np.integer], affine: Affine, shape: tuple[int, ...], onto: Affine
) -> NDArray[np.integer]:
    """Return a label map `(I, J, K)` that lies at `affine` on the grid of `shape` at `onto`, 0 outside it.

    Both affines lead from voxel index to RAS+ mm; the grids may be turned and flipped against one another.

    Raises:
        DataError: an affine spans no volume, or the grids do not meet.
    """
    for matrix in (affine, onto):
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:3, :3]) > _WORST_CONDITION:
            raise DataError("a grid's affine spans no volume", mend="Export the file again.")
    to_index = np.linalg.inv(affine) @ onto  # from an index of the new grid to one of the old
    reached = corners(shape, to_index)
    beyond = reached > np.array(labels.shape) - 0.5
    if ((reached < -0.5).all(axis=0) | beyond.all(axis=0)).any():
        raise DataError("the two grids do not meet", mend="Check that both belong to one scan.")
    resampled = np.zeros(shape, dtype=labels.dtype, order="F")
    ndimage.affine_transform(
        labels,
        to_index[:3, :3],
        to_index[:3, 3],
        output=resampled,
        order=0,
        mode="grid-constant",  # plain "constant" would lose the outer half of the border's voxels
        cval=0,
        prefilter=False,
    )
    return resampled
