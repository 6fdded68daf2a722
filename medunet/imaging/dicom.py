"""Read the headers of DICOM files: identifiers, position, orientation, spacing and rescaling of each frame.

Positions and directions are in DICOM's LPS+ coordinates, in mm. Single-frame files and multi-frame files (enhanced
and legacy converted CT and MR, whose frames are described by functional groups) give the same records.
"""

import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from medunet.base.errors import DataError
from medunet.imaging.dicom_tags import (
    read_integer,
    read_items,
    read_numbers,
    read_text,
    read_words,
    silence_pydicom,
)

_PREAMBLE = 128
_SKIPPED_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "segmentation",  # label map
    "1.2.840.10008.5.1.4.1.1.481.2": "radiation dose",
}
_SCANS = tuple(
    f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("2", "2.1", "2.2", "4", "4.1", "4.4", "128", "130")
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME_SOURCE = "PerFrameFunctionalGroupsSequence"
# Values that distinguish two acquisitions: the tag in a single-frame file, then the functional group and tag in it.
_ACQUISITION_TAGS = {
    "echo time": ("EchoTime", "MREchoSequence", "EffectiveEchoTime"),
    "b-value": ("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue"),
    "time point": ("TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex"),
    "trigger time": (
        "TriggerTime",
        "CardiacSynchronizationSequence",
        "NominalCardiacTriggerDelayTime",
    ),
    "inversion time": ("InversionTime", "MRModifierSequence", "InversionTimes"),
    "acquisition number": ("AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber"),
    "echo number": ("EchoNumbers", "", ""),
    "acquisition time": ("AcquisitionTime", "FrameContentSequence", "FrameAcquisitionDateTime"),
    "content time": ("ContentTime", "", ""),
}
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("PatientID", "PatientName", "StudyDate", "SeriesNumber", "InstanceNumber", "Modality", "ImageType"),
    "SeriesDescription",
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated"),
    *("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    *(_MULTI_FRAME_SOURCE, "SharedFunctionalGroupsSequence"),
    *(places[0] for places in _ACQUISITION_TAGS.values()),
)


@dataclass(frozen=True)
class Frame:
    """One 2D image: its position (None if the header does not give it) and how its values are rescaled."""

    number: int | None  # InstanceNumber; in a multi-frame file the number of the frame, from 1
    index: int  # within its file, from 0
    position_mm: tuple[float, ...] | None  # (x, y, z) of the first voxel's centre, LPS+
    orientation: tuple[float, ...] | None  # along a row, then along a column, LPS+
    spacing_mm: tuple[float, ...] | None  # between rows, then between columns
    thickness_mm: float | None
    slope: float | None  # None: no RescaleSlope in the header
    intercept: float | None
    rescale_type: str
    image_type: frozenset[str]
    acquisition: dict[
        str, float | str
    ]  # values that distinguish acquisitions, if given: echo time, b-value, ...


@dataclass(frozen=True)
class DicomFile:
    """The header of a DICOM file. Texts are unchanged and may identify the patient."""

    path: Path
    size: int  # bytes
    modified_ns: int  # modification time in the file system
    patient_id: str
    patient_name: str
    study_date: str
    study_uid: str
    series_uid: str
    series_number: str
    series_description: str
    instance_uid: str
    frame_of_reference: str
    modality: str
    transfer_syntax: str
    shape: tuple[int, int]  # rows, columns
    bytes_per_voxel: int
    photometric: str
    secondary: bool  # secondary capture or derived from other images
    skip_reason: str  # why none of its frames can be part of a volume; "" if they can
    frames: tuple[Frame, ...]


@dataclass(frozen=True)
class Slice:
    """A frame and the file that contains it."""

    file: DicomFile
    frame: Frame


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM: it has the prefix after the preamble, or starts with a usual first tag.

    Raises:
        DataError: the file cannot be opened.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_PREAMBLE + 4)
    except OSError as error:
        raise DataError(error.strerror or "cannot be opened", where=path.name) from error
    if head[_PREAMBLE:] == b"DICM":
        return True
    if len(head) < 8:
        return False
    group, element = struct.unpack("<HH", head[:4])
    return (group == 2 and element <= 3) or (group == 8 and element in (0, 1, 5, 8, 0x12, 0x16, 0x18))


def read_file(path: Path) -> DicomFile | None:
    """Read the header of a DICOM file; return None for a DICOMDIR or a file that is not DICOM after all.

    Raises:
        DataError: the header is damaged; the message names the tag, never its value.
    """
    with silence_pydicom():
        dataset = _open(path)
        kind = read_text(getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID")
        sop_class = read_text(dataset, "SOPClassUID") or kind
        if sop_class == "1.2.840.10008.1.3.10":
            return None
        if not (sop_class or read_text(dataset, "Modality")):
            if dataset.preamble:
                raise DataError("the header is cut off", where=path.name)
            return None
        return _describe(path, dataset, sop_class, kind)


def _open(path: Path) -> Dataset:
    try:
        return pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(_TAGS))
    except OSError as error:
        raise DataError(error.strerror or "cannot be read", where=path.name) from error
    except (InvalidDicomError, EOFError) as error:
        raise DataError("the header is cut off or is not DICOM", where=path.name) from error
    except Exception as error:  # damaged bytes may raise any exception in pydicom
        raise DataError(f"the header is damaged ({type(error).__name__})", where=path.name) from error


def _describe(path: Path, dataset: Dataset, sop_class: str, kind: str) -> DicomFile:
    meta, stored = getattr(dataset, "file_meta", Dataset()), path.stat()
    image_type = read_words(dataset, "ImageType")
    rows, columns = (read_integer(dataset, keyword) for keyword in ("Rows", "Columns"))
    groups = read_items(dataset, _MULTI_FRAME_SOURCE)
    num_frames = read_integer(dataset, "NumberOfFrames") or 1
    skip_reason = _SKIPPED_CLASSES.get(sop_class, "")
    if not skip_reason and (not rows or not columns):
        if sop_class in _SCANS or kind in _SCANS:  # CT, MR and PET always have them
            raise DataError("the header is cut off, or has no Rows and Columns", where=path.name)
        skip_reason = "no pixels"
    elif not skip_reason and (read_integer(dataset, "SamplesPerPixel") or 1) != 1:
        skip_reason = "colour picture"
    elif not skip_reason and num_frames > 1 and not groups:
        skip_reason = "frames without positions"
    elif not skip_reason and groups and len(groups) != num_frames:
        raise DataError(
            f"NumberOfFrames is {num_frames}, but {len(groups)} frames are described", where=path.name
        )
    photometric = read_text(dataset, "PhotometricInterpretation").upper()
    if not skip_reason and photometric == "PALETTE COLOR":
        skip_reason = "colour picture"
    if skip_reason:
        frames: tuple[Frame, ...] = ()
    elif groups:
        shared = next(iter(read_items(dataset, "SharedFunctionalGroupsSequence")), Dataset())
        frames = tuple(
            _frame([_Groups(group), _Groups(shared), dataset], index, image_type, len(groups))
            for index, group in enumerate(groups)
        )
    else:
        frames = (_frame([dataset], 0, image_type, 1),)
    return DicomFile(
        path=path,
        size=stored.st_size,
        modified_ns=stored.st_mtime_ns,
        patient_id=unicodedata.normalize("NFC", read_text(dataset, "PatientID")),
        patient_name=read_text(dataset, "PatientName"),
        study_date=read_text(dataset, "StudyDate"),
        study_uid=read_text(dataset, "StudyInstanceUID"),
        series_uid=read_text(dataset, "SeriesInstanceUID"),
        series_number=read_text(dataset, "SeriesNumber"),
        series_description=read_text(dataset, "SeriesDescription"),
        instance_uid=read_text(dataset, "SOPInstanceUID") or read_text(meta, "MediaStorageSOPInstanceUID"),
        frame_of_reference=read_text(dataset, "FrameOfReferenceUID"),
        modality=read_text(dataset, "Modality").upper(),
        transfer_syntax=read_text(meta, "TransferSyntaxUID"),
        shape=(rows or 0, columns or 0),
        bytes_per_voxel=max(1, (read_integer(dataset, "BitsAllocated") or 0) // 8),
        photometric=photometric,
        secondary=sop_class.startswith(_SECONDARY_CAPTURE)
        or bool(image_type & {"DERIVED", "SECONDARY"})
        or any(frame.image_type & {"DERIVED", "SECONDARY"} for frame in frames),
        skip_reason=skip_reason,
        frames=frames,
    )


class _Groups:
    """The functional groups of a frame; a tag is looked up in the group that contains it."""

    def __init__(self, item: Dataset) -> None:
        self._item = item

    def group(self, name: str) -> Dataset | None:
        return next(iter(read_items(self._item, name)), None)


_GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}
_FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
_Source = Sequence["_Groups | Dataset"]


def _holder(sources: _Source, keyword: str, group: str) -> Dataset:
    """Return the first data set with a tag: of the frame's own groups, the shared groups and the file itself."""
    for source in sources:
        held = source.group(group) if isinstance(source, _Groups) else source
        if held is not None and keyword in held:
            return held
    return Dataset()


def _frame(sources: _Source, index: int, image_type: frozenset[str], num_frames: int) -> Frame:
    def holder(keyword: str) -> Dataset:
        return _holder(sources, keyword, _GROUP_OF[keyword])

    def numbers(keyword: str, count: int) -> tuple[float, ...] | None:
        return read_numbers(holder(keyword), keyword, count)

    def number(keyword: str) -> float | None:
        values = numbers(keyword, 1)
        return values[0] if values else None

    if number("RescaleSlope") == 0:
        raise DataError("RescaleSlope is 0")
    file = sources[-1]
    assert isinstance(file, Dataset)
    for name in _FRAME_TYPES:
        image_type = image_type | read_words(_holder(sources[:-1], "FrameType", name), "FrameType")
    return Frame(
        number=read_integer(file, "InstanceNumber") if num_frames == 1 else index + 1,
        index=index,
        position_mm=numbers("ImagePositionPatient", 3),
        orientation=numbers("ImageOrientationPatient", 6),
        spacing_mm=numbers("PixelSpacing", 2),
        thickness_mm=number("SliceThickness"),
        slope=number("RescaleSlope"),
        intercept=number("RescaleIntercept"),
        rescale_type=read_text(holder("RescaleType"), "RescaleType").upper(),
        image_type=image_type,
        acquisition=dict(_acquisition_values(sources)),
    )


def _acquisition_values(sources: _Source) -> Iterator[tuple[str, float | str]]:
    for what, (keyword, group, in_group) in _ACQUISITION_TAGS.items():
        for source in sources:
            if isinstance(source, _Groups):
                held, name = (source.group(group) if group else None), in_group
            else:
                held, name = source, keyword
            if held is not None and (text := read_text(held, name)):
                yield what, float(text) if re.fullmatch(r"[+-]?\d+(\.\d*)?", text) else text
                break
