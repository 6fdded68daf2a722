"""Read NRRD, including 3D Slicer segmentations, and MetaImage files with SimpleITK.

Arrays are `(I, J, K)` with an affine to RAS+ mm; SimpleITK's reversed axes and LPS coordinates are converted here.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import LPS_TO_RAS, Affine
from medunet.imaging.volume import Header, StoredVoxels

_SEPARATE = (
    "In 3D Slicer, export the segments to several label maps, so that those in one file do not overlap."
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
        size = tuple(int(n) for n in reader.GetSize())
        return Header(path, size if len(size) == 3 else (*size, 1), _affine(reader), _dtype(reader))

    def read_stored(self, header: Header, *, label: bool = False) -> StoredVoxels:
        """Read a scan or label map `(I, J, K)` in its stored data type.

        The layers of a Slicer segmentation are merged into one label map of its segments' label values. An image
        `(I, J)` becomes one slice 1 mm thick.

        Raises:
            DataError: as `read_header`; or the file is truncated, has several values per voxel, or its segments
                overlap or share a value.
        """
        import SimpleITK as sitk

        path = header.path
        reader = self._open(path)
        try:
            values = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise DataError(
                "the voxels cannot be read: the file is truncated or corrupt, or its separate data file is missing",
                where=path.name,
                hint="Copy or export it again.",
            ) from error
        count = reader.GetNumberOfComponents()
        layers = [values[..., number].T for number in range(count)] if count > 1 else [values.T]
        array = _merge(layers, _segments(reader, path), path)
        return StoredVoxels(array if array.ndim == 3 else array[:, :, None])

    def _open(self, path: Path) -> Any:
        """Return a SimpleITK reader that has read the file's header."""
        import SimpleITK as sitk

        if not path.exists():
            raise DataError("no such file", where=path.name)
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
        if reader.GetDimension() not in (2, 3):
            raise DataError(
                f"has {reader.GetDimension()} axes, not three", where=path.name, hint="Split the file."
            )
        return reader


def _affine(reader: Any) -> Affine:
    """Return the affine to RAS+ mm of the image whose header the SimpleITK reader has read."""
    num_axes = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (num_axes, num_axes))
    affine = np.eye(4)
    affine[:num_axes, :num_axes] = direction * np.array(reader.GetSpacing())  # a column for each axis
    affine[:num_axes, 3] = reader.GetOrigin()
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


def _segments(reader: Any, path: Path) -> list[tuple[int, int]]:
    """Return the layer and the label value of each segment that 3D Slicer lists in the file's header."""
    segments = []
    for key in reader.GetMetaDataKeys():
        if not (match := re.fullmatch(r"Segment(\d+)_LabelValue", key)):
            continue
        layer = f"Segment{match.group(1)}_Layer"
        try:
            number = int(reader.GetMetaData(layer)) if reader.HasMetaDataKey(layer) else 0
            segments.append((number, int(reader.GetMetaData(key))))
        except ValueError as error:
            raise DataError(f"{key} or {layer} is not a whole number", where=path.name) from error
    return segments


def _merge(layers: list[NDArray[Any]], segments: list[tuple[int, int]], path: Path) -> NDArray[Any]:
    """Merge the layers, each `(I, J, K)`, into one label map.

    Raises:
        DataError: the layers cannot be merged into one map, or hold undeclared values.
    """
    if not segments:
        if len(layers) > 1:
            raise DataError(
                f"has {len(layers)} values per voxel, and no label values of 3D Slicer segments",
                where=path.name,
                hint="Save it as a label map with one value per voxel.",
            )
        return layers[0]
    values = [value for _, value in segments]
    if shared := sorted({value for value in values if values.count(value) > 1}):
        raise DataError(
            f"has several segments with the label values {shared}", where=path.name, hint=_SEPARATE
        )
    merged = layers[0]
    for number, layer in enumerate(layers):
        declared = [value for of_layer, value in segments if of_layer == number]
        # Plane by plane, since NumPy converts the array to 8-byte integers.
        if not all(np.isin(plane, [0, *declared]).all() for plane in layer.T):
            raise DataError(
                f"layer {number} holds values other than its segments' label values {declared}",
                where=path.name,
                hint="Save the segmentation again in 3D Slicer.",
            )
        if number > 0:
            if ((merged != 0) & (layer != 0)).any():
                raise DataError("has segments that overlap", where=path.name, hint=_SEPARATE)
            merged = np.maximum(merged, layer)
    return merged
