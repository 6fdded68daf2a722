"""Resample volumes to another grid, labels by nearest neighbour and images linearly."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine, corners

_MAX_CONDITION = 1e8  # condition number of an affine, above which its axes do not span a volume


def resample_labels(
    labels: NDArray[np.integer], affine: Affine, shape: tuple[int, ...], onto: Affine
) -> NDArray[np.integer]:
    """Resample a label map `(I, J, K)` by nearest neighbour to another grid; voxels outside the map become 0.

    Both affines lead from voxel index to RAS+ mm; the grids may be rotated and flipped against each other.

    Args:
        affine: of the label map.
        shape: of the new grid.
        onto: affine of the new grid.

    Raises:
        DataError: an affine is singular, or the grids do not overlap.
    """
    resampled = np.zeros(shape, dtype=labels.dtype, order="F")
    # With mode "constant" the outer half of the border voxels would become 0.
    _resample(labels, affine, onto, resampled, order=0, mode="grid-constant", cval=0)
    return resampled


def resample_image(
    image: NDArray[np.float32], affine: Affine, shape: tuple[int, ...], onto: Affine
) -> NDArray[np.float32]:
    """Resample an image `(I, J, K)` linearly to another grid; voxels outside the image get its smallest value.

    Arguments and errors are those of `resample_labels`.
    """
    resampled = np.empty(shape, dtype=np.float32, order="F")
    _resample(image, affine, onto, resampled, order=1, mode="constant", cval=float(image.min()))
    return resampled


def _resample(
    volume: NDArray[Any], affine: Affine, onto: Affine, resampled: NDArray[Any], **options: Any
) -> None:
    """Fill `resampled` with the volume's values on the new grid."""
    for matrix in (affine, onto):
        if not np.isfinite(matrix).all() or np.linalg.cond(matrix[:3, :3]) > _MAX_CONDITION:
            raise DataError("a grid's affine is singular", hint="Export the file again.")
    to_index = np.linalg.inv(affine) @ onto  # from an index of the new grid to one of the old
    if are_disjoint(volume.shape, resampled.shape, to_index):
        raise DataError("the two grids do not overlap", hint="Check that both belong to one scan.")
    ndimage.affine_transform(
        volume, to_index[:3, :3], to_index[:3, 3], output=resampled, prefilter=False, **options
    )


def are_disjoint(old: tuple[int, ...], new: tuple[int, ...], to_old: Affine) -> bool:
    """Return whether two grids do not overlap: one is completely beyond a face of the other.

    The new grid is represented by its voxels' centres, the old one by its voxels' outer corners. Both directions are
    tested, since a rotated grid near a corner of the other may not be beyond any of its faces.

    Args:
        old: shape of the old grid.
        new: shape of the new grid.
        to_old: affine from an index of the new grid to one of the old grid.
    """
    to_corner = nib.affines.from_matvec(np.eye(3), (-0.5,) * 3)  # from a voxel's centre
    hull = corners(tuple(size + 1 for size in old), np.linalg.inv(to_old) @ to_corner)
    sides = ((corners(new, to_old), -0.5, np.array(old) - 0.5), (hull, 0.0, np.array(new) - 1.0))
    return any(
        bool(((points < low).all(axis=0) | (points > high).all(axis=0)).any()) for points, low, high in sides
    )
