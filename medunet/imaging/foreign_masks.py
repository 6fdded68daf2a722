"""Reader of the files that other tools write masks to: NRRD, 3D Slicer's segmentations, MetaImage and DICOM SEG.

Arrays are `(I, J, K)` with an affine to RAS+ mm, as everywhere; the reversed axes and the LPS world of SimpleITK and
of DICOM are undone here alone.
"""

import re
from pathlib import Path, PurePath
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine
from medunet.imaging.nifti import Header, Volume

ENDINGS = (".seg.nrrd", ".nrrd", ".mha", ".mhd", ".dcm")

_ITK = {".nrrd": ("NrrdImageIO", "NRRD"), ".mha": ("MetaImageIO", "MHA"), ".mhd": ("MetaImageIO", "MHD")}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SEPARATE = (
    "In 3D Slicer, export the segments to label maps that do not overlap, one file for each of those that do."
)


def is_foreign(path: PurePath) -> bool:
    """Say by a file's ending whether it is read here."""
    return path.name.lower().endswith(ENDINGS)


def read_header(path: Path) -> Header:
    """Read a file's grid, without its voxels where the format allows it.

    Raises:
        DataError: as `read_volume`.
    """
    if path.suffix.lower() == ".dcm":
        return _read_segmentation(path).header
    reader = _open(path)
    size = tuple(int(n) for n in reader.GetSize())
    return _header(path, size if len(size) == 3 else (*size, 1), _affine(reader))


def read_volume(path: Path) -> Volume:
    """Read a scan or label map `(I, J, K)` in its own number type.

    The layers of a Slicer segmentation become one label map of its segments' label values; a DICOM segmentation
    gives the segments' numbers. An image `(I, J)` becomes one slice of 1 mm.

    Raises:
        DataError: the file is missing, of another kind or cut off; has more than three axes or several values a
            voxel; its segments overlap or share a value; or it is DICOM and highdicom is not installed.
    """
    if path.suffix.lower() == ".dcm":
        return _read_segmentation(path)
    import SimpleITK as sitk

    reader = _open(path)
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise DataError(
            "the voxels cannot be read: the file is truncated or corrupt, or the file of its voxels is missing",
            where=path.name,
            hint="Copy or export it again.",
        ) from error
    count = reader.GetNumberOfComponents()
    layers = [values[..., number].T for number in range(count)] if count > 1 else [values.T]
    array = _merge(layers, _segments(reader, path), path)
    array = array if array.ndim == 3 else array[:, :, None]
    return Volume(array, _header(path, array.shape, _affine(reader)))


def _open(path: Path) -> Any:
    """Return SimpleITK's reader of a file, its header read."""
    import SimpleITK as sitk

    if not path.exists():
        raise DataError("no such file", where=path.name)
    kind, name = _ITK[path.suffix.lower()]
    reader = sitk.ImageFileReader()
    reader.SetImageIO(kind)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise DataError(f"not a readable {name} file", where=path.name, hint="Export it again.") from error
    if reader.GetDimension() not in (2, 3):
        raise DataError(
            f"has {reader.GetDimension()} axes, not three", where=path.name, hint="Split the file."
        )
    return reader


def _affine(reader: Any) -> Affine:
    """Return the affine to RAS+ mm of an image whose header SimpleITK has read."""
    num_axes = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (num_axes, num_axes))
    affine = np.eye(4)
    affine[:num_axes, :num_axes] = direction * np.array(reader.GetSpacing())  # a column for each axis
    affine[:num_axes, 3] = reader.GetOrigin()
    return _LPS_TO_RAS @ affine


def _header(path: Path, shape: tuple[int, ...], affine: Affine) -> Header:
    """Return a header with the NIfTI geometry that a mask on this grid is written with."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_xyzt_units("mm")
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    return Header(path, shape, affine, header)


def _segments(reader: Any, path: Path) -> list[tuple[int, int]]:
    """Return the layer and the label value of each segment that 3D Slicer names in a file's header."""
    segments = []
    for key in reader.GetMetaDataKeys():
        if not (match := re.fullmatch(r"Segment(\d+)_LabelValue", key)):
            continue
        layer = f"Segment{match.group(1)}_Layer"
        try:
            place = int(reader.GetMetaData(layer)) if reader.HasMetaDataKey(layer) else 0
            segments.append((place, int(reader.GetMetaData(key))))
        except ValueError as error:
            raise DataError(f"{key} or {layer} is no whole number", where=path.name) from error
    return segments


def _merge(layers: list[NDArray[Any]], segments: list[tuple[int, int]], path: Path) -> NDArray[Any]:
    """Return one label map of all layers, each `(I, J, K)`; refuse what one map cannot hold."""
    if not segments:
        if len(layers) > 1:
            raise DataError(
                f"has {len(layers)} values at each voxel, and no label values of 3D Slicer's segments",
                where=path.name,
                hint="Save it as a label map with one value at each voxel.",
            )
        return layers[0]
    values = [value for _, value in segments]
    if shared := sorted({value for value in values if values.count(value) > 1}):
        raise DataError(
            f"has several segments with the label values {shared}", where=path.name, hint=_SEPARATE
        )
    merged = layers[0]
    for number, layer in enumerate(layers):
        declared = [value for place, value in segments if place == number]
        # Plane by plane: of a whole volume NumPy makes integers of 8 bytes.
        if not all(np.isin(plane, [0, *declared]).all() for plane in layer.T):
            raise DataError(
                f"layer {number} holds values that are not its segments' {declared}",
                where=path.name,
                hint="Save the segmentation again in 3D Slicer.",
            )
        if number > 0:
            if ((merged != 0) & (layer != 0)).any():
                raise DataError("has segments that overlap", where=path.name, hint=_SEPARATE)
            merged = np.maximum(merged, layer)
    return merged


def _read_segmentation(path: Path) -> Volume:
    """Read a DICOM segmentation as a label map of its segments' numbers, on the slices that it stores."""
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
    except Exception as error:  # many kinds, and their texts may hold the file's own
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
    affine = _LPS_TO_RAS @ np.asarray(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
    return Volume(array, _header(path, array.shape, affine))
