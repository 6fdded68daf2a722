"""DICOM segmentations: label maps that lie where their series does, and a clear word on those that cannot be one."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medunet.base.errors import DataError
from medunet.imaging.segment_names import UndeclaredError
from medunet.imaging.volumes import read_header, read_label
from medunet.records.label_rules import LabelRules

ORIGIN_LPS = (12.5, -30.0, 7.25)
DIRECTION_LPS = np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0], [0.6, 0.0, 0.8]])  # tilted by 37 degrees


def test_dicom_without_its_library_names_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.setitem(sys.modules, "highdicom.seg", None)
    with pytest.raises(DataError, match="no such file"):
        read_label(tmp_path / "a.dcm")
    (tmp_path / "a.dcm").touch()
    with pytest.raises(DataError, match=r'pip install "medunet\[dicom\]"'):
        read_label(tmp_path / "a.dcm")


def make_series(direction: np.ndarray) -> list[Any]:
    """Return a CT series of 6 slices of 10 rows and 12 columns, from the last slice along the normal to the first."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    images = []
    for number in range(6):
        image = Dataset()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, generate_uid()
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 1, number + 1
        for name in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID"):
            setattr(image, name, "")
        for name in ("AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName"):
            setattr(image, name, "")
        image.Rows, image.Columns, image.SliceThickness = 10, 12, 2.5
        image.PixelSpacing = [0.8, 0.7]  # between rows, between columns
        image.ImageOrientationPatient = direction.T[:2].ravel().tolist()
        image.ImagePositionPatient = (ORIGIN_LPS - number * 2.5 * direction[:, 2]).tolist()
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.PixelData = bytes(2 * 10 * 12)
        images.append(image)
    return images


def save_segments(
    path: Path,
    images: list[Any],
    masks: np.ndarray,
    labels: tuple[str, ...] = ("segment 1", "segment 2"),
    meanings: tuple[str, ...] = ("Liver", "Liver"),
    kind: str = "BINARY",
) -> Path:
    """Write masks `(slice, row, column, segment)` as a DICOM segmentation."""
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segments = [
        hd.seg.SegmentDescription(
            segment_number=number + 1,
            segment_label=labels[number],
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=getattr(codes.SCT, meanings[number]),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number in range(masks.shape[3])
    ]
    hd.seg.Segmentation(
        source_images=images,
        pixel_array=masks,
        segmentation_type=kind,
        segment_descriptions=segments,
        series_instance_uid=hd.UID(),
        series_number=2,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
    ).save_as(path)
    return path


def locate(images: list[Any], mask: np.ndarray) -> np.ndarray:
    """Return the places in RAS+ mm of a mask `(slice, row, column)`, by the series' own DICOM attributes."""
    places = []
    for number, row, column in np.argwhere(mask):
        image = images[number]
        along_row, along_column = np.reshape(image.ImageOrientationPatient, (2, 3)).astype(float)
        between_rows, between_columns = image.PixelSpacing
        place = np.array(image.ImagePositionPatient, float)
        place += column * between_columns * along_row + row * between_rows * along_column
        places.append(place * (-1, -1, 1))
    return np.array(places)


@pytest.mark.parametrize("direction", [np.eye(3), DIRECTION_LPS], ids=["axial", "tilted"])
@pytest.mark.parametrize("stored", [[0, 1, 2, 3, 4, 5], [1, 2, 4]], ids=["all", "gap"])
def test_a_dicom_segmentation_lies_where_its_series_does(
    tmp_path: Path, direction: np.ndarray, stored: list[int]
) -> None:
    pytest.importorskip("highdicom")
    images = make_series(direction)
    labels = np.random.default_rng(0).integers(0, 3, (6, 10, 12)).astype(np.uint8)
    labels[[0, 5]] = np.minimum(labels[[0, 5]], 1)  # segment 2 has no frames there
    labels[[number for number in range(6) if number not in stored]] = 0  # nor any segment here
    masks = np.stack([labels == 1, labels == 2], axis=-1).astype(np.uint8)
    path = save_segments(tmp_path / "a.dcm", images, masks)
    read = read_label(path)
    assert read.array.dtype == np.uint8
    assert read.array.shape == (12, 10, stored[-1] - stored[0] + 1)
    assert read.spacing_mm == pytest.approx((0.7, 0.8, 2.5))
    assert read_header(path).shape == read.array.shape
    assert np.array_equal(np.unique(read.array), [0, 1, 2])
    for label in (1, 2):
        voxels = np.argwhere(read.array == label)
        found = voxels @ read.affine[:3, :3].T + read.affine[:3, 3]
        expected = locate(images, labels == label)
        assert len(found) == len(expected)
        distances = np.linalg.norm(found[:, None] - expected, axis=2)
        assert max(distances.min(axis=0).max(), distances.min(axis=1).max()) < 1e-3


def test_overlapping_dicom_segments_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    masks = np.zeros((6, 10, 12, 2), np.uint8)
    masks[1:4, 2:5, 3:9, 0], masks[3:5, 4:7, 3:9, 1] = 1, 1
    path = save_segments(tmp_path / "a.dcm", make_series(np.eye(3)), masks)
    with pytest.raises(DataError, match=r"^a\.dcm: has segments that overlap\. Export one file for each"):
        read_label(path)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize(
    ("labels", "meanings"),
    [
        (("Spleen", "LIVER"), ("Tissue", "Tissue")),
        (("Segment_1", "Segment_2"), ("Spleen", "Liver")),  # by their codes
        (("spleen", "Segment_2"), ("Organ", "Liver")),
    ],
)
def test_dicom_segments_are_joined_by_name(
    tmp_path: Path, kind: str, labels: tuple[str, ...], meanings: tuple[str, ...]
) -> None:
    pytest.importorskip("highdicom")
    masks = np.zeros((6, 10, 12, 2), np.uint8)
    masks[1:4, 2:5, 3:9, 0], masks[1:5, 6:8, 3:7, 1] = 1, 1
    path = save_segments(tmp_path / "a.dcm", make_series(np.eye(3)), masks, labels, meanings, kind)
    read = read_label(path, LabelRules({"background": 0, "liver": 1, "spleen": 2}))
    own = read_label(path)
    assert np.array_equal(np.unique(own.array), [0, 1, 2])
    assert np.array_equal(read.array, np.array([0, 2, 1])[own.array])
    assert (read.array == 2).sum() == masks[..., 0].sum()
    with pytest.raises(UndeclaredError, match=r"'(Liver|LIVER|Segment_2)' \(32 voxels\)"):
        read_label(path, LabelRules({"background": 0, "spleen": 2}))
    left = read_label(path, LabelRules({"background": 0, "spleen": 2}, others="left out"))
    assert np.array_equal(left.array, read.array * (read.array == 2))


def test_dicom_segments_may_overlap_what_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    masks = np.zeros((6, 10, 12, 2), np.uint8)
    masks[1:4, 2:5, 3:9, 0], masks[3:5, 4:7, 3:9, 1] = 1, 1
    path = save_segments(tmp_path / "a.dcm", make_series(np.eye(3)), masks, ("body", "spleen"))
    names = {"background": 0, "spleen": 5}
    read = read_label(path, LabelRules(names, others="left out"))
    assert (read.array == 5).sum() == masks[..., 1].sum()
    with pytest.raises(DataError, match="has segments that overlap"):
        read_label(path, LabelRules(names))
