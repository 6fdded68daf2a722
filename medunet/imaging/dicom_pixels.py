"""Read and rescale the voxels of DICOM slices, decoded by pydicom or, if it has no decoder, by SimpleITK's GDCM.

GDCM gets a temporary file with the compressed pixels of one frame and no rescaling, since it cannot rescale frame by
frame. Images with PhotometricInterpretation MONOCHROME1 are not inverted, as in dcm2niix.
"""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import iter_pixels
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from medunet.base.errors import DataError
from medunet.imaging.dicom import Slice
from medunet.imaging.dicom_tags import silence_pydicom

_GDCM_DECODES = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)}
_PIXEL_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)


class NoDecoderError(DataError):
    """Neither pydicom nor SimpleITK can decode the transfer syntax on this machine."""


class SliceError(DataError):
    """The pixels of a slice cannot be read; `place` is the slice's index among the requested ones."""

    def __init__(self, what: str, place: int) -> None:
        super().__init__(what)
        self.place = place


@dataclass(frozen=True)
class Voxels:
    """Rescaled voxels `(I, J, K)` and their range: int16 if all values are whole and fit, otherwise float32."""

    array: NDArray[np.int16] | NDArray[np.float32]
    smallest: float  # NaN if any voxel is NaN
    largest: float


def read_slices(slices: Sequence[Slice]) -> Voxels:
    """Read slices of equal size, in the given order; axis I runs along the rows, J along the columns.

    Raises:
        NoDecoderError: there is no decoder for the transfer syntax.
        SliceError: pixels are missing, truncated or damaged, or their size differs from the header's.
    """
    rows, columns = slices[0].file.shape
    with silence_pydicom():
        return _read_all(slices, rows, columns)


def _read_all(slices: Sequence[Slice], rows: int, columns: int) -> Voxels:
    volume: NDArray[np.float32] | None = None
    whole = True
    for place, stored in _in_file_order(slices):
        if stored.shape != (rows, columns):
            raise SliceError(f"its pixels are {stored.shape}, not {(rows, columns)}", place)
        if volume is None:  # allocated only after a first slice has confirmed the size in the header
            volume = np.empty((columns, rows, len(slices)), np.float32, order="F")
        values = rescale_slice(stored, slices[place])
        whole = whole and _are_whole(stored, values, slices[place])
        with np.errstate(over="ignore"):
            volume[:, :, place] = values.T
    assert volume is not None, "a series without slices is never read"
    return make_voxels(volume, whole)


def make_voxels(volume: NDArray[np.float32], whole: bool) -> Voxels:
    """Return the voxels with their range, as int16 if they are `whole` numbers that fit, otherwise unchanged."""
    smallest, largest = float(volume.min()), float(volume.max())
    limits = np.iinfo(np.int16)
    if whole and limits.min <= smallest and largest <= limits.max:
        return Voxels(volume.astype(np.int16, order="F"), smallest, largest)
    return Voxels(volume, smallest, largest)


def _are_whole(stored: NDArray, values: NDArray[np.float64], one: Slice) -> bool:
    factors = (one.frame.slope or 0.0, one.frame.intercept or 0.0)
    if np.issubdtype(stored.dtype, np.integer) and all(factor == round(factor) for factor in factors):
        return True
    return bool(np.array_equal(values, np.rint(values)))


def rescale_slice(stored: NDArray, one: Slice) -> NDArray[np.float64]:
    """Apply a slice's own rescale slope (default 1) and intercept (default 0) to its stored values."""
    slope = 1.0 if one.frame.slope is None else one.frame.slope
    intercept = 0.0 if one.frame.intercept is None else one.frame.intercept
    return stored.astype(np.float64) * slope + intercept


def syntax_name(uid: str) -> str:
    """Return the name of a transfer syntax, or its UID if it has no known name."""
    return UID(uid).name if uid else "none given"


def _in_file_order(slices: Sequence[Slice]) -> Iterator[tuple[int, NDArray]]:
    """Yield the index and the stored values of each slice; each file is opened once for all its frames."""
    places: dict[Path, list[int]] = {}
    for place, one in enumerate(slices):
        places.setdefault(one.file.path, []).append(place)
    for in_file in places.values():
        frames = _stored_frames(slices[in_file[0]], [slices[place].frame.index for place in in_file])
        for place in in_file:
            try:
                stored = next(frames, None)
            except NoDecoderError:
                raise
            except DataError as error:
                raise SliceError(error.what, place) from error
            if stored is None:
                raise SliceError("its file holds fewer frames than its header states", place)
            yield place, stored


def _stored_frames(first: Slice, indices: list[int]) -> Iterator[NDArray]:
    """Yield frames of a file with their stored values, arrays `(rows, columns)`."""
    dataset = _read(first.file.path)
    syntax = dataset.file_meta.TransferSyntaxUID
    by_gdcm = syntax in _GDCM_DECODES
    done = 0
    if _pydicom_decodes(syntax):
        try:
            for stored in iter_pixels(dataset, indices=indices):
                yield stored
                done += 1
        except Exception as error:  # damaged bytes may raise any exception in a decoder
            if not by_gdcm:
                raise DataError(f"its pixels cannot be decoded ({type(error).__name__})") from error
    elif not by_gdcm:
        raise NoDecoderError(f"pixels are stored as {syntax_name(syntax)}")
    if done < len(indices):
        yield from _gdcm_frames(dataset, indices[done:])


def _read(path: Path) -> Dataset:
    try:
        dataset = pydicom.dcmread(path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble, the encoding shows it
            implicit = dataset.original_encoding[0]
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            )
    except OSError as error:
        raise DataError(error.strerror or "it cannot be read") from error
    except Exception as error:  # damaged bytes may raise any exception in pydicom
        raise DataError(f"its file is cut off or damaged ({type(error).__name__})") from error
    if not isinstance(dataset.file_meta.TransferSyntaxUID, UID):
        raise DataError("its TransferSyntaxUID is invalid")
    return dataset


def _pydicom_decodes(syntax: UID) -> bool:
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False


def _gdcm_frames(dataset: Dataset, indices: list[int]) -> Iterator[NDArray]:
    import SimpleITK as sitk

    try:
        frames = list(
            generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
        )
        described = {keyword: dataset[keyword].value for keyword in _PIXEL_TAGS}
    except Exception as error:  # damaged encapsulation or a missing tag
        raise DataError(f"its pixels cannot be found ({type(error).__name__})") from error
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frame.dcm"
        for index in indices:
            try:
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
                path.write_bytes(_single_frame(described, frames[index], dataset.file_meta.TransferSyntaxUID))
                reader.SetFileName(str(path))
                yield sitk.GetArrayFromImage(reader.Execute())[0]
            except Exception as error:
                raise DataError(f"its pixels cannot be decoded ({type(error).__name__})") from error


def _single_frame(described: dict[str, int], pixels: bytes, syntax: UID) -> bytes:
    """Return the bytes of a DICOM file with one compressed frame and only the tags needed to decode it."""
    single = Dataset()
    single.file_meta = FileMetaDataset()
    single.file_meta.TransferSyntaxUID = syntax
    single.file_meta.MediaStorageSOPClassUID = single.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")
    single.file_meta.MediaStorageSOPInstanceUID = single.SOPInstanceUID = generate_uid()
    single.Modality = "OT"
    single.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in described.items():
        setattr(single, keyword, value)
    single.PixelData = encapsulate([pixels])
    single["PixelData"].VR = "OB"
    buffer = io.BytesIO()
    single.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
