"""Repair of stacks with gaps or gantry tilt: linear resampling to a grid of evenly spaced slices without tilt.

Slices at positions of the new grid keep their voxels. A tilt is removed by shifting slices within their plane; the
grid is enlarged so that nothing is cut off. Voxels outside the scan get its smallest value.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from medunet.dataset.dicom.stacks import Stack
from medunet.imaging.geometry import Affine

Array = NDArray[np.float32]


def repair_stack(array: Array, stack: Stack) -> tuple[Array, Affine]:
    """Resample a stack to evenly spaced slices without tilt; return voxels `(I, J, K)` and affine to RAS+ mm."""
    places = np.arange(float(stack.upright_shape[2]))
    if len(places) > len(stack.slices) or not stack.is_on_grid().all():
        spacing_mm = stack.slice_spacing_mm
        array = interpolate_slices(array, stack.places * spacing_mm, places * spacing_mm, stack.tolerance_mm)
    if not stack.is_tilted:
        return array, stack.affine()
    origin, step = stack.line
    height_mm = float(step @ stack.normal)
    between_rows, between_columns = stack.pixel_spacing_mm
    voxels_per_mm = stack.orientation @ stack.drift / (between_columns, between_rows)
    array, first = shift_slices(array, height_mm * places[:, None] * voxels_per_mm)
    in_plane = first * (between_columns, between_rows) @ stack.orientation
    return array, stack.affine_of(origin + in_plane, height_mm * stack.normal)


def interpolate_slices(
    array: Array, heights_mm: NDArray[np.float64], wanted_mm: NDArray[np.float64], tolerance_mm: float
) -> Array:
    """Interpolate slices linearly at the heights `wanted_mm`; a slice within the tolerance is kept unchanged."""
    result = np.empty((*array.shape[:2], len(wanted_mm)), np.float32, order="F")
    for index, height in enumerate(wanted_mm):
        nearest = int(np.abs(heights_mm - height).argmin())
        if abs(heights_mm[nearest] - height) <= tolerance_mm:
            result[:, :, index] = array[:, :, nearest]
            continue
        above = int(np.searchsorted(heights_mm, height))
        share = (height - heights_mm[above - 1]) / (heights_mm[above] - heights_mm[above - 1])
        result[:, :, index] = (1 - share) * array[:, :, above - 1] + share * array[:, :, above]
    return result


def shift_slices(array: Array, shifts: NDArray[np.float64]) -> tuple[Array, NDArray[np.float64]]:
    """Shift each slice within its plane by `shifts` voxels, (K, 2), with linear interpolation.

    Returns the voxels on a grid that contains all shifted slices, and the index of its first voxel in the old grid.
    """
    first, last = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    size = tuple(int(count) for count in array.shape[:2] + last - first)
    outside = float(array.min())
    result = np.empty((*size, array.shape[2]), np.float32, order="F")
    for index, shift in enumerate(shifts):
        result[:, :, index] = affine_transform(
            array[:, :, index],
            np.ones(2),
            offset=first - shift,
            output_shape=size,
            order=1,
            mode="constant",
            cval=outside,
        )
    return result, first
