"""Volumes brought to another grid: labels take the value of the nearest voxel, images are interpolated."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.errors import DataError
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
    resampled = np.zeros(shape, dtype=labels.dtype, order="F")
    # Plain "constant" would lose the outer half of the border's voxels.
    _resample(labels, affine, onto, resampled, order=0, mode="grid-constant", cval=0)
    return resampled


def resample_image(
    image: NDArray[np.float32], affine: Affine, shape: tuple[int, ...], onto: Affine
) -> NDArray[np.float32]:
    """Return an image `(I, J, K)` that lies at `affine` on the grid of `shape` at `onto`, linearly interpolated.

    Outside it has its darkest value. Affines and errors as `resample_labels` has them.
    """
    resampled = np.empty(shape, dtype=np.float32, order="F")
    _resample(image, affine, onto, resampled, order=1, mode="constant", cval=float(image.min()))
    return resampled


def _resample(
    volume: NDArray[Any], affine: Affine, onto: Affine, resampled: NDArray[Any], **options: Any
) -> None:
    """Fill the new grid's voxels by SciPy's affine transform."""
    for matrix in (affine, onto):
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:3, :3]) > _WORST_CONDITION:
            raise DataError("a grid's affine spans no volume", hint="Export the file again.")
    to_index = np.linalg.inv(affine) @ onto  # from an index of the new grid to one of the old
    if lie_apart(volume.shape, resampled.shape, to_index):
        raise DataError("the two grids do not meet", hint="Check that both belong to one scan.")
    ndimage.affine_transform(
        volume, to_index[:3, :3], to_index[:3, 3], output=resampled, prefilter=False, **options
    )


def lie_apart(old: tuple[int, ...], new: tuple[int, ...], to_old: Affine) -> bool:
    """Say whether two grids do not meet; `to_old` leads from an index of the new one to an index of the old.

    The new voxels' centres then all lie beyond one face of the old grid, or the old grid beyond them.

    Both are asked, since a turned grid beside a corner of the other can lie beyond none of its faces.
    """
    to_corner = nib.affines.from_matvec(np.eye(3), (-0.5,) * 3)  # of a voxel, from its centre
    hull = corners(tuple(size + 1 for size in old), np.linalg.inv(to_old) @ to_corner)
    sides = ((corners(new, to_old), -0.5, np.array(old) - 0.5), (hull, 0.0, np.array(new) - 1.0))
    return any(
        bool(((points < low).all(axis=0) | (points > high).all(axis=0)).any()) for points, low, high in sides
    )
