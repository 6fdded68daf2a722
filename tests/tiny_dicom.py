"""Small DICOM series made for tests: a CT or MR of 12×10 pixels, whose voxels tell where they are.

The patient that they name must be found in no output but originals.csv.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

PATIENT = "Sonnenschein^Lara"
PATIENT_ID = "MRN-4711-0815"
STUDY_DATE = "19870613"
ROOT = "1.2.826.0.1.3680043.8.498.4242"
ROWS, COLUMNS = 10, 12
SPACING_MM = (0.8, 0.5)  # between rows, between columns
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.991332, 0.114987, -0.063548, -0.118794, 0.991118, -0.059771)

Change = Callable[[Dataset, int], None]


def normal_of(orientation: tuple[float, ...]) -> NDArray[np.float64]:
    normal = np.cross(orientation[:3], orientation[3:])
    return normal / np.linalg.norm(normal)


def pixels_of(index: int) -> NDArray[np.int16]:
    """Return the stored values of a slice, (rows, columns): 100 × slice + 10 × row + column."""
    return (100 * index + np.add.outer(10 * np.arange(ROWS), np.arange(COLUMNS))).astype(np.int16)


def make_slice(
    index: int,
    *,
    series: str = "1",
    modality: str = "CT",
    orientation: tuple[float, ...] = AXIAL,
    distance_mm: float = 2.5,
    patient_id: str = PATIENT_ID,
) -> Dataset:
    """Return slice `index`, from 0, of an upright series in memory."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
    one.SOPInstanceUID = UID(f"{ROOT}.{series}.{index + 1}")
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.PatientName, one.PatientID, one.PatientBirthDate = PATIENT, patient_id, "19501231"
    one.StudyDate, one.StudyTime, one.AccessionNumber = STUDY_DATE, "112233", "ACC99887766"
    one.StudyInstanceUID, one.SeriesInstanceUID = f"{ROOT}.9.{patient_id[-1]}", f"{ROOT}.{series}"
    one.FrameOfReferenceUID = f"{ROOT}.8.{patient_id[-1]}"
    one.StudyDescription = f"scan of {PATIENT}"
    one.Modality, one.SeriesNumber, one.InstanceNumber = modality, "3", index + 1
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.ImageOrientationPatient = list(orientation)
    origin = np.array([-20.0, 15.0, 40.0]) + index * distance_mm * normal_of(orientation)
    one.ImagePositionPatient = [f"{mm:.7g}" for mm in origin]
    one.PixelSpacing, one.SliceThickness = list(SPACING_MM), distance_mm
    one.Rows, one.Columns, one.SamplesPerPixel = ROWS, COLUMNS, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
    if modality == "CT":
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
    one.PixelData = pixels_of(index).tobytes()
    return one


def make_series(num_slices: int = 8, change: Change | None = None, **options: Any) -> list[Dataset]:
    """Return the slices of a series, each changed by `change(slice, index)`."""
    slices = [make_slice(index, **options) for index in range(num_slices)]
    for index, one in enumerate(slices):
        if change is not None:
            change(one, index)
    return slices


def write_slices(slices: Iterable[Dataset], folder: Path, names: str = "{:03d}") -> list[Path]:
    """Write slices into a folder, under names that tell the patient but neither the kind of file nor the order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, one in enumerate(slices):
        path = folder / f"sonnenschein_{names.format((7 * place + 3) % 101)}"
        one.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_series(
    folder: Path, num_slices: int = 8, change: Change | None = None, **options: Any
) -> list[Path]:
    """Write a series, whose files' order by name is not that of its slices."""
    return write_slices(make_series(num_slices, change, **options), folder)


def write_study(tree: Path) -> None:
    """Write two patients' series: a CT and an MR of one, a CT with a missing slice of the other."""
    write_series(tree / "x", 8, series="1", orientation=OBLIQUE)
    write_series(tree / "y", 6, series="21", modality="MR")
    slices = make_series(8, series="3", patient_id="ZZ-9")
    write_slices(slices[:4] + slices[5:], tree / "z")


def load_volume(out: Path, case: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the voxels and the affine of a case that was imported into `out`."""
    image = nib.load(out / "images" / f"{case}.nii.gz")
    return np.asanyarray(image.dataobj), image.affine


def make_multi_frame(slices: list[Dataset]) -> Dataset:
    """Return an enhanced multi-frame file of slices, in reversed order, with what all have in the shared groups."""
    frames = list(reversed(slices))
    first = frames[0]
    whole = Dataset()
    whole.file_meta = first.file_meta
    kinds = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = UID(kinds[first.Modality])
    for keyword in (
        *("SOPInstanceUID", "PatientName", "PatientID", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID"),
        *(
            "FrameOfReferenceUID",
            "Modality",
            "ImageType",
            "Rows",
            "Columns",
            "SamplesPerPixel",
            "InstanceNumber",
        ),
        *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    ):
        setattr(whole, keyword, first[keyword].value)
    whole.NumberOfFrames = len(frames)
    shared = Dataset()
    shared.PlaneOrientationSequence = _group(first, "ImageOrientationPatient")
    shared.PixelMeasuresSequence = _group(first, "PixelSpacing", "SliceThickness")
    whole.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for frame in frames:
        group = Dataset()
        group.PlanePositionSequence = _group(frame, "ImagePositionPatient")
        if "RescaleSlope" in frame:
            group.PixelValueTransformationSequence = _group(
                frame, "RescaleSlope", "RescaleIntercept", "RescaleType"
            )
        if "EchoTime" in frame:
            echo = Dataset()
            echo.EffectiveEchoTime = float(frame.EchoTime)
            group.MREchoSequence = Sequence([echo])
        groups.append(group)
    whole.PerFrameFunctionalGroupsSequence = Sequence(groups)
    whole.PixelData = b"".join(frame.PixelData for frame in frames)
    return whole


def _group(one: Dataset, *keywords: str) -> Sequence:
    group = Dataset()
    for keyword in keywords:
        setattr(group, keyword, one[keyword].value)
    return Sequence([group])


def voxel_position(one: Dataset, row: int, column: int) -> NDArray[np.float64]:
    """Return the RAS+ mm of a pixel of a slice, by DICOM's own formula (PS3.3 C.7.6.2.1.1)."""
    origin = np.array(one.ImagePositionPatient, dtype=float)
    directions = np.array(one.ImageOrientationPatient, dtype=float)
    between_rows, between_columns = (float(mm) for mm in one.PixelSpacing)
    lps = origin + column * between_columns * directions[:3] + row * between_rows * directions[3:]
    return lps * (-1, -1, 1)
