"""Read NRRD, including 3D Slicer segmentations, and MetaImage files with SimpleITK.

Arrays are `(I, J, K)` with an affine to RAS+ mm; SimpleITK's reversed axes and LPS coordinates are converted here.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medunet.base.errors import DataError
from medunet.imaging.geometry import LPS_TO_RAS, Affine
from medunet.imaging.segment_names import merge_segments
from medunet.imaging.volume import Header, Segment, StoredVoxels
from medunet.records.data_files import count_listed_slices, outside_data_file

_SEPARATE = (
    "In 3D Slicer, export the segments to several label maps, so that those in one file do not overlap."
)
_TOGETHER = (
    "Put the data file beside its header and name it there without a folder, or save both as one file."
)


@dataclass(frozen=True)
class ItkReader:
    """A reader for the files of one of SimpleITK's image IOs."""

    image_io: str  # SimpleITK's name for it

    def read_header(self, path: Path, *, label: bool = False) -> Header:
        """Read a file's grid without its voxels.

        Raises:
            DataError: the file is missing, not of this format, or has more than three axes.
        """
        reader = self._open(path)
        size = tuple(int(n) for n in reader.GetSize())[:3]
        shape = size if len(size) == 3 else (*size, 1)
        return Header(path, shape, _affine(reader), _dtype(reader), segments=_segments(reader, path))

    def read_stored(self, header: Header, *, label: bool = False) -> StoredVoxels:
        """Read a scan or label map `(I, J, K)` in its stored data type.

        The layers of a Slicer segmentation are merged into one label map of the values of the header's segments. An
        image `(I, J)` becomes one slice 1 mm thick.

        Raises:
            DataError: as `read_header`; or the file is truncated or has several values per voxel; or as
                `merge_segments`.
        """
        import SimpleITK as sitk

        path = header.path
        reader = self._open(path)
        num_files, num_slices = count_listed_slices(path), reader.GetSize()[-1]
        if num_files not in (0, num_slices):
            raise DataError(
                f"its header lists {num_files} data files for {num_slices} slices",
                where=path.name,
                hint="List one file for each slice, or name a single file of all slices (ElementDataFile = NAME).",
            )
        try:
            values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise DataError(
                "the voxels cannot be read: the file is truncated or corrupt, or its separate data file is missing",
                where=path.name,
                hint="Copy or export it again.",
            ) from error
        count = reader.GetNumberOfComponents()
        if reader.GetDimension() == 4:
            layers = [layer.T for layer in values]
        else:
            layers = [values[..., number].T for number in range(count)] if count > 1 else [values.T]
        layers = [layer if layer.ndim == 3 else layer[:, :, None] for layer in layers]
        if header.segments:
            return StoredVoxels(merge_segments(layers, header.segments, path, _SEPARATE))
        if len(layers) > 1:
            raise DataError(
                f"has {len(layers)} values per voxel, and no label values of 3D Slicer segments",
                where=path.name,
                hint="Save it as a label map with one value per voxel.",
            )
        return StoredVoxels(layers[0])

    def _open(self, path: Path) -> Any:
        """Return a SimpleITK reader that has read the file's header."""
        import SimpleITK as sitk

        if not path.exists():
            raise DataError("no such file", where=path.name)
        if outside := outside_data_file(path):
            raise DataError(outside, where=path.name, hint=_TOGETHER)
        reader = sitk.ImageFileReader()
        reader.SetImageIO(self.image_io)
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            kind = path.suffix[1:].upper()
            raise DataError(
                f"not a readable {kind} file", where=path.name, hint="Export it again."
            ) from error
        is_layered = reader.GetDimension() == 4 and (reader.GetSize()[3] == 1 or _segments(reader, path))
        if reader.GetDimension() not in (2, 3) and not is_layered:
            raise DataError(
                f"has {reader.GetDimension()} axes, not three", where=path.name, hint="Split the file."
            )
        return reader


def _affine(reader: Any) -> Affine:
    """Return the affine to RAS+ mm of the image whose header the SimpleITK reader has read."""
    num_axes = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (num_axes, num_axes))
    affine = np.eye(4)
    steps = direction * np.array(reader.GetSpacing())  # a column for each axis
    num_axes = min(num_axes, 3)  # a fourth one is that of a segmentation's layers
    affine[:num_axes, :num_axes] = steps[:num_axes, :num_axes]
    affine[:num_axes, 3] = reader.GetOrigin()[:num_axes]
    return LPS_TO_RAS @ affine


def _dtype(reader: Any) -> np.dtype[Any]:
    """Return the data type of an image's voxels, from SimpleITK's name such as "16-bit signed integer"."""
    import SimpleITK as sitk

    name = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    match = re.search(r"(complex of )?(\d+)-bit (unsigned|signed|float)", name)
    assert match, name
    bits = int(match[2])
    if match[1]:
        return np.dtype(f"complex{2 * bits}")
    return np.dtype({"unsigned": f"uint{bits}", "signed": f"int{bits}", "float": f"float{bits}"}[match[3]])


def _segments(reader: Any, path: Path) -> tuple[Segment, ...]:
    """Return the segments that 3D Slicer lists in the file's header, in their order there.

    Slicer before 4.11 writes neither label values nor layers: each segment has a layer of its own, with the value 1.
    """
    notes = {key: str(reader.GetMetaData(key)).strip() for key in reader.GetMetaDataKeys()}
    matches = [re.fullmatch(r"Segment(\d+)_(Name|LabelValue)", key) for key in notes]
    segments = []
    for number in sorted({int(match[1]) for match in matches if match}):
        start = f"Segment{number}_"
        value = notes.get(f"{start}LabelValue", "1")
        layer = notes.get(f"{start}Layer", "0" if f"{start}LabelValue" in notes else str(number))
        if not (value.isdecimal() and layer.isdecimal()):
            raise DataError(
                f"{start}LabelValue or {start}Layer is not a whole number of 0 or more", where=path.name
            )
        name, meaning = notes.get(f"{start}Name", ""), _coded_meaning(notes.get(f"{start}Tags", ""))
        segments.append(Segment(name, int(value), int(layer), meaning, value=int(value)))
    return tuple(segments)


def _coded_meaning(tags: str) -> str:
    """Return the meaning of a segment's coded type: Liver of `TerminologyEntry:context~category~SCT^1^Liver~...`."""
    match = re.search(r"TerminologyEntry:[^~|]*~[^~|]*~[^~|]*\^([^~|^]*)~", tags)
    return match[1] if match else ""
