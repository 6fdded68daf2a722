"""Volumes in memory, independent of the file format: header, stored voxels and rescaled values."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.typing import NDArray

from medunet.base.threads import map_threads, slices
from medunet.imaging.geometry import Affine, spacing_of

PIXELS = "px"
_PART = 1 << 22  # voxels that are rescaled together
_SAMPLED_VOXELS = 1 << 14  # enough for a percentile and a histogram


@dataclass(frozen=True)
class Forms:
    """The sform and qform affines of a NIfTI header, in its own unit of length; None if the code is 0."""

    sform: Affine | None
    qform: Affine | None
    qform_fault: str = ""  # why a qform with a code above 0 cannot be read

    @property
    def are_missing(self) -> bool:
        """Whether the header has neither: both codes are 0."""
        return self.sform is None and self.qform is None and not self.qform_fault


@dataclass(frozen=True)
class Segment:
    """A segment that a segmentation file lists by name.

    `value` is what a label map holds for it; None if it must not have voxels (see `segment_names.join_names`).
    """

    name: str
    stored: int  # its label value or segment number in the file
    layer: int = 0
    meaning: str = ""  # of the coded type, such as "Liver"
    value: int | None = None
    label: str = ""  # the description's label with this name


@dataclass(frozen=True)
class Header:
    """The header of a volume file of any format: shape, affine and type of the voxels.

    A 2D picture has no position in the patient; its lengths are in pixels.
    """

    path: Path
    shape: tuple[int, ...]  # as stored
    affine: Affine  # from voxel index to RAS+ mm
    dtype: np.dtype[Any]  # of the voxels as stored
    unit: str = (
        "mm"  # of length in the file: mm, metres, micrometres, unknown, "unit code 5"; px of a picture
    )
    slope: float = 1.0  # 0, NaN or infinite: stored values are not rescaled
    intercept: float = 0.0
    forms: Forms | None = None  # None: the format has a single affine
    segments: tuple[Segment, ...] = ()  # of a segmentation that lists them

    @property
    def is_picture(self) -> bool:
        """Whether it is a 2D picture."""
        return self.unit == PIXELS

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size in mm along each array axis."""
        return spacing_of(self.affine)

    @property
    def scaling_fault(self) -> str:
        """Why the scale factors cannot be used, "" if they can: NiBabel and SimpleITK would read different values.

        Both ignore a slope that is 0 or not finite. SimpleITK then still adds the intercept, and takes an intercept
        that is not finite as 0 where NiBabel refuses the file, and a slope below 2.2e-16 as 1.
        """
        slope, intercept = self.slope, self.intercept
        if slope == 0 or not math.isfinite(slope):
            agree = intercept == 0 or not math.isfinite(intercept)
        else:
            agree = math.isfinite(intercept) and abs(slope) >= float(np.finfo(np.float64).eps)
        return "" if agree else f"slope {slope:g}, intercept {intercept:g}"

    @property
    def num_bytes(self) -> int:
        """Size of all voxels in bytes, according to the header."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class StoredVoxels:
    """Stored voxels of a file, `(I, J, K)` or `(I, J, K, frames)`; values are `array * slope + intercept`."""

    array: NDArray[Any]
    slope: float = 1.0
    intercept: float = 0.0
    num_surplus: int = 0  # number of bytes after the last voxel

    @property
    def is_scaled(self) -> bool:
        """Whether the values differ from the stored ones."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def values(self, dtype: Any = np.float32) -> NDArray[Any]:
        """Return the values as `dtype`, rescaled in float64."""
        if not self.is_scaled and self.array.dtype == dtype:
            return self.array
        values = np.empty_like(self.array, dtype=dtype)
        flat, stored = values.ravel(order="K"), self.array.ravel(order="K")
        assert np.may_share_memory(flat, values) or not flat.size, "a dense array is flattened without a copy"
        slope, intercept = np.float64(self.slope), np.float64(self.intercept)

        def convert(part: slice) -> None:
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # values out of the type's range become infinite
                flat[part] = (
                    apply_read_scaling(stored[part], slope, intercept) if self.is_scaled else stored[part]
                )

        map_threads(convert, slices(flat.size, _PART))
        return values


@dataclass(frozen=True)
class Volume:
    """The values of a volume, array `(I, J, K)` or `(I, J, K, frames)`, with its header."""

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
    """Return the name of a data type, such as 'int16', or 'RGB' for colours."""
    return "".join(dtype.names) if dtype.names else dtype.name


def sample_voxels(frame: NDArray[Any]) -> NDArray[Any]:
    """Return at most 16,384 voxels of a frame `(I, J, K)`, with a stride that has no common divisor with its size."""
    flat = frame.ravel(order="K")
    stride = 1 + flat.size // _SAMPLED_VOXELS
    while stride > 1 and math.gcd(stride, frame.size) > 1:
        stride += 1
    return flat[::stride]
