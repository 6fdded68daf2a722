"""A volume in memory: its header, its voxels as a file stores them, and its values, whatever the file's format."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine, spacing_of

PIXELS = "px"


@dataclass(frozen=True)
class Forms:
    """What a NIfTI header says twice of where voxels lie, in its own unit of length; None where a code is 0."""

    sform: Affine | None
    qform: Affine | None
    qform_fault: str = ""  # why a qform that is there cannot be read

    @property
    def are_missing(self) -> bool:
        """Whether the header says nothing of where voxels lie: both codes are 0."""
        return self.sform is None and self.qform is None and not self.qform_fault


@dataclass(frozen=True)
class Header:
    """What a file says of a volume, whatever its format: shape, place and type of the voxels.

    A 2D picture has no place in a patient, and its lengths are pixels.
    """

    path: Path
    shape: tuple[int, ...]  # as stored
    affine: Affine  # from voxel index to RAS+ mm
    dtype: np.dtype[Any]  # of the voxels as stored
    unit: str = (
        "mm"  # of length in the file: mm, metres, micrometres, unknown, "unit code 5"; px in a picture
    )
    slope: float = 1.0  # 0: values are the stored ones
    intercept: float = 0.0
    forms: Forms | None = None  # None: the format states the place of voxels once

    @property
    def is_picture(self) -> bool:
        """Whether it is a 2D picture."""
        return self.unit == PIXELS

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size in mm along each array axis."""
        return spacing_of(self.affine)

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels as the header promises them."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class StoredVoxels:
    """Voxels as a file stores them, `(I, J, K)` or `(I, J, K, frames)`; values are `array * slope + intercept`."""

    array: NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0
    num_surplus: int = 0  # bytes that follow the last voxel

    @property
    def is_scaled(self) -> bool:
        """Whether values are others than the stored ones."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def values(self, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the values as `dtype`, scaled in float64."""
        scaled = self.array
        if self.is_scaled:
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = apply_read_scaling(scaled, np.float64(self.slope), np.float64(self.intercept))
        with np.errstate(over="ignore"):  # what is beyond the type becomes infinite
            return scaled.astype(dtype, order="K", copy=False)


@dataclass(frozen=True)
class Volume:
    """A volume's voxels, array `(I, J, K)` or `(I, J, K, frames)`, with its header."""

    array: NDArray[Any]
    header: Header

    @property
    def affine(self) -> Affine:
        """Affine from voxel index to RAS+ mm, (4, 4)."""
        return self.header.affine

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size in mm along each array axis."""
        return self.header.spacing_mm


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return a type's name as NIfTI has it, such as 'int16', or 'RGB' of colours."""
    return "".join(dtype.names) if dtype.names else dtype.name
