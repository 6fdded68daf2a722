"""Read DICOM segmentations with highdicom as one label map of the segment numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import LPS_TO_RAS
from medunet.imaging.volume import Header, StoredVoxels


@dataclass(frozen=True)
class _DecodedHeader(Header):
    """The header of a segmentation with its voxels, which must be decoded to find the grid."""

    array: NDArray[Any] = field(kw_only=True, repr=False)


def read_header(path: Path, *, label: bool = False) -> Header:
    """Read a segmentation's grid: the stored slices as `(I, J, K)`, with an affine to RAS+ mm.

    Raises:
        DataError: the file is missing, it is not a DICOM segmentation, its segments overlap, or highdicom is not
            installed.
    """
    if not path.exists():
        raise DataError("no such file", where=path.name)
    try:
        from highdicom.seg import segread
    except ImportError as error:
        raise DataError(
            'DICOM segmentations need highdicom (pip install "medunet[dicom]")', where=path.name
        ) from error
    try:
        volume = segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
    except Exception as error:  # of many types; their texts may contain values of the file
        if "overlap" in str(error).lower():
            raise DataError(
                "has segments that overlap", where=path.name, hint="Export one file for each segment."
            ) from error
        raise DataError(
            f"not a readable DICOM segmentation ({type(error).__name__})",
            where=path.name,
            hint="Export it again as binary segments on parallel slices.",
        ) from error
    array = np.transpose(volume.array, (2, 1, 0))  # stored as slices, rows, columns
    affine = LPS_TO_RAS @ np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
    return _DecodedHeader(path, array.shape, affine, array.dtype, array=array)


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Return the label map that was decoded with the header."""
    assert isinstance(header, _DecodedHeader), "the header is of another format"
    return StoredVoxels(header.array)
