"""Read DICOM segmentations with highdicom as one label map of the values of the segments."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medunet.base.errors import DataError
from medunet.imaging.geometry import LPS_TO_RAS
from medunet.imaging.segment_names import merge_segments
from medunet.imaging.volume import Header, Segment, StoredVoxels

_SEPARATE = "Export one file for each segment."


@dataclass(frozen=True)
class _SegHeader(Header):
    """The header of a segmentation with highdicom's segmentation, whose frames must be read to find the grid."""

    segmentation: Any = field(kw_only=True, repr=False)


def read_header(path: Path, *, label: bool = False) -> Header:
    """Read a segmentation's grid: the stored slices as `(I, J, K)`, with an affine to RAS+ mm.

    Raises:
        DataError: the file is missing, it is not a DICOM segmentation, or highdicom is not installed.
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
        segmentation = segread(path)
        grid = segmentation.get_volume_geometry(allow_missing_positions=True)
        segments = tuple(map(_segment, segmentation.SegmentSequence))
    except Exception as error:  # of many types; their texts may contain values of the file
        raise _unreadable(path, type(error).__name__) from error
    if grid is None:
        raise _unreadable(path, "its slices are not parallel or evenly spaced")
    affine = LPS_TO_RAS @ np.asarray(grid.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
    segments = tuple(segment for segment in segments if segment.stored)  # a label map may list its background
    dtype = np.min_scalar_type(max((segment.stored for segment in segments), default=0))
    shape = tuple(int(n) for n in reversed(grid.spatial_shape))  # stored as slices, rows, columns
    return _SegHeader(path, shape, affine, dtype, segments=segments, segmentation=segmentation)


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Return the label map `(I, J, K)` of the values of the header's segments; segments of value 0 are not decoded.

    Raises:
        DataError: the segments overlap, or the frames cannot be decoded; or as `merge_segments`.
    """
    assert isinstance(header, _SegHeader), "the header is of another format"
    path = header.path
    numbers = [segment.stored for segment in header.segments if segment.value != 0]
    if not numbers:
        return StoredVoxels(np.zeros(header.shape, header.dtype))
    try:
        volume = header.segmentation.get_volume(
            combine_segments=True, segment_numbers=numbers, allow_missing_positions=True
        )
    except Exception as error:
        if "overlap" in str(error).lower():
            raise DataError("has segments that overlap", where=path.name, hint=_SEPARATE) from error
        raise _unreadable(path, type(error).__name__) from error
    array = np.transpose(volume.array, (2, 1, 0))
    return StoredVoxels(merge_segments([array], header.segments, path, _SEPARATE))


def _segment(item: Any) -> Segment:
    """Return an item of the segment sequence: its number, its label, and the meaning of its coded type."""
    codes = item.get("SegmentedPropertyTypeCodeSequence") or []
    meaning = str(codes[0].get("CodeMeaning", "")) if codes else ""
    number = int(item.SegmentNumber)
    return Segment(str(item.get("SegmentLabel", "")).strip(), number, 0, meaning.strip(), value=number)


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(
        f"not a readable DICOM segmentation ({why})",
        where=path.name,
        hint="Export it again as binary segments on parallel slices.",
    )
