"""Geometry of voxel grids from RAS+ affines in mm: spacing, orientation and distances between grids."""

import itertools
import math
import os

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError

Affine = NDArray[np.float64]

LPS_TO_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
# Two files are on the same grid if their corners differ by at most this fraction of the smallest spacing.
GRID_TOLERANCE_VOXELS = 0.1
_CAP_VARIABLE = "MEDUNET_MAX_VOLUME_GB"
_DEFAULT_CAP_GB = 16.0


def spacing_of(affine: Affine) -> tuple[float, ...]:
    """Return the voxel size in mm along each array axis: the lengths of the affine's columns."""
    return tuple(float(x) for x in nib.affines.voxel_sizes(affine))


def axis_codes(affine: Affine) -> str:
    """Return the closest anatomical direction of each axis, such as 'RAS' or 'LPS'; '?' if it has none."""
    return "".join(code or "?" for code in nib.aff2axcodes(affine))


def corners(shape: tuple[int, ...], affine: Affine) -> NDArray[np.float64]:
    """Return the world positions (8, 3) in mm of a grid's corner voxels."""
    index = np.array(list(itertools.product(*[(0, n - 1) for n in shape[:3]])), dtype=float)
    return nib.affines.apply_affine(affine, index)


def corner_displacement_mm(shape: tuple[int, ...], affine: Affine, other: Affine) -> float:
    """Return the largest displacement in mm of a grid's corner voxels between two affines."""
    return float(np.linalg.norm(corners(shape, affine) - corners(shape, other), axis=1).max())


def shear_degrees(affine: Affine) -> float:
    """Return the largest deviation of the angles between axes from 90 degrees."""
    unit = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(unit.T @ unit - np.eye(3)).max()
    return float(np.rad2deg(np.arcsin(min(1.0, cosines))))


def max_volume_bytes() -> int:
    """Return the maximum size in bytes of a file's voxels: `MEDUNET_MAX_VOLUME_GB`, by default 16 GB.

    Raises:
        InputError: the variable is not a positive number.
    """
    text = os.environ.get(_CAP_VARIABLE, "") or str(_DEFAULT_CAP_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = math.nan
    if not 0 < gigabytes < math.inf:
        raise InputError(
            f"{text!r} is not a positive number of gigabytes",
            where=_CAP_VARIABLE,
            hint="Set it to a number above 0, such as 16.",
        )
    return int(gigabytes * 1e9)
