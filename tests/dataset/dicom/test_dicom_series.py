"""Slices of a series made into a stack; every fault named with its slice."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from tiny_dicom import (
    AXIAL,
    OBLIQUE,
    PATIENT_ID,
    Change,
    make_multi_frame,
    make_series,
    make_slice,
    voxel_position,
    write_slices,
)
from tiny_series import codes_of, fault_of, only_part, parts_of

TURNED = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def move(one: Dataset, *mm: float) -> None:
    one.ImagePositionPatient = [
        float(old) + new for old, new in zip(one.ImagePositionPatient, mm, strict=True)
    ]


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE, TURNED], ids=["axial", "oblique", "sagittal"])
@pytest.mark.parametrize("in_frames", [False, True], ids=["files", "frames"])
def test_a_good_series_has_no_fault_and_its_voxels_lie_where_dicom_says(
    tmp_path: Path, orientation: tuple[float, ...], in_frames: bool
) -> None:
    slices = make_series(8, orientation=orientation)
    part = only_part([make_multi_frame(slices)] if in_frames else slices, tmp_path)
    assert part.faults == ()
    assert part.stack is not None
    assert part.stack.shape == (12, 10, 8)
    for row, column, place in ((0, 0, 0), (9, 11, 7), (3, 5, 2), (8, 1, 6)):
        world = part.stack.affine() @ (column, row, place, 1)
        assert np.allclose(world[:3], voxel_position(slices[place], row, column), atol=1e-3)


def test_slices_are_sorted_by_position_not_by_number(tmp_path: Path) -> None:
    def renumber(one: Dataset, index: int) -> None:
        one.InstanceNumber = (5 * index) % 8

    part = only_part(make_series(8, renumber), tmp_path)
    assert part.stack is not None
    assert [one.frame.number for one in part.stack.slices] == [(5 * index) % 8 for index in range(8)]
    assert np.allclose(part.stack.distances_mm, 2.5)


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path: Path) -> None:
    slices = make_series(8)
    del slices[3]
    part = only_part(slices, tmp_path)
    fault = fault_of(part, "D002")
    assert part.is_refused
    assert fault.severity == "error"
    assert fault.measured == "5 mm from slice 3 (InstanceNumber 3) to slice 4 (InstanceNumber 5)"
    assert fault.expected == "2.5 mm between slices"


@pytest.mark.parametrize(("off_mm", "found"), [(0.09, False), (0.11, True)])
def test_a_gap_is_a_fault_from_a_tenth_of_a_millimetre(tmp_path: Path, off_mm: float, found: bool) -> None:
    def shift(one: Dataset, index: int) -> None:
        move(one, 0, 0, off_mm if index == 7 else 0)

    assert ("D002" in codes_of(only_part(make_series(8, shift), tmp_path))) is found


def test_distances_that_grow_unnoticed_are_a_fault(tmp_path: Path) -> None:
    def stretch(one: Dataset, index: int) -> None:
        move(one, 0, 0, 0.0008 * index**2)

    part = only_part(make_series(40, stretch), tmp_path)
    assert "off even heights: slice" in fault_of(part, "D002").measured


def test_a_slice_that_is_there_twice_is_named(tmp_path: Path) -> None:
    slices = make_series(8)
    other = make_slice(4)
    other.SOPInstanceUID, other.InstanceNumber, other.PixelData = "1.2.3.4", 30, slices[6].PixelData
    part = only_part([*slices, other], tmp_path)
    fault = fault_of(part, "D003")
    assert part.is_refused
    assert fault.measured == "at one height: slice 5 (InstanceNumber 5) and slice 6 (InstanceNumber 30)"


def other_patient(one: Dataset, index: int) -> None:
    if index == 5:
        one.PatientID = "SOMEONE-ELSE"


def other_frame(one: Dataset, index: int) -> None:
    if index == 5:
        one.FrameOfReferenceUID = "1.2.3"


def other_matrix(one: Dataset, index: int) -> None:
    if index == 5:
        one.Rows, one.Columns = 5, 24


def other_direction(one: Dataset, index: int) -> None:
    if index == 5:
        one.ImageOrientationPatient = list(OBLIQUE)


def other_modality(one: Dataset, index: int) -> None:
    if index == 5:
        one.Modality = "MR"


def aside(one: Dataset, index: int) -> None:
    move(one, 0, 0.15 if index == 5 else 0, 0)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (other_patient, "another patient"),
        (other_frame, "another frame of reference"),
        (other_matrix, "another matrix"),
        (other_direction, "another orientation"),
        (other_modality, "another modality"),
        (aside, "shifted in its plane by 0.15 mm"),
    ],
)
def test_a_slice_of_another_series_is_named(tmp_path: Path, change: Change, what: str) -> None:
    part = only_part(make_series(8, change), tmp_path)
    fault = fault_of(part, "D004")
    assert part.is_refused
    assert fault.measured.startswith(what)
    assert "slice 6 (InstanceNumber 6)" in fault.measured
    assert "SOMEONE" not in fault.measured


@pytest.mark.parametrize("spacing", [None, [0.8, 0.6], [0, 0]])
def test_pixel_spacing_must_be_there_and_one(tmp_path: Path, spacing: list[float] | None) -> None:
    def change(one: Dataset, index: int) -> None:
        if index == 2:
            one.PixelSpacing = spacing

    part = only_part(make_series(6, change), tmp_path)
    assert part.is_refused
    assert "slice 3 (InstanceNumber 3)" in fault_of(part, "D010").measured


def test_a_tilted_gantry_is_measured(tmp_path: Path) -> None:
    def tilt(one: Dataset, index: int) -> None:
        move(one, 0, np.tan(np.deg2rad(12)) * 2.5 * index, 0)

    part = only_part(make_series(8, tilt), tmp_path)
    fault = fault_of(part, "D005")
    assert part.is_refused
    assert codes_of(part) == ["D005"]
    assert fault.measured.startswith("12°: slice 8 (InstanceNumber 8) is 3.72 mm off the normal")


@pytest.mark.parametrize(
    ("jitter", "codes"), [(1e-6, ["D006"]), (5e-5, ["D006"]), (5e-4, ["D006", "D018"]), (0.1, ["D004"])]
)
def test_orientation_may_jitter(tmp_path: Path, jitter: float, codes: list[str]) -> None:
    def shake(one: Dataset, index: int) -> None:
        if index == 4:
            one.ImageOrientationPatient = [1, jitter, 0, -jitter, 1, 0]

    assert codes_of(only_part(make_series(8, shake), tmp_path)) == codes


def test_localizers_and_reports_are_left_out_and_counted(tmp_path: Path) -> None:
    def mark(one: Dataset, index: int) -> None:
        if index < 2:
            one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
            one.ImageOrientationPatient = list(TURNED)

    slices = make_series(9, mark)
    report = make_slice(40)
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del report.Rows, report.Columns, report.PixelData
    part = only_part([*slices, report], tmp_path)
    assert part.stack is not None
    assert len(part.stack.slices) == 7
    assert [(fault.severity, fault.measured) for fault in part.faults] == [
        ("note", "2 images: localizer"),
        ("note", "1 image: no pixels"),
    ]


def test_an_image_without_position_is_warned_of_where_a_volume_may_miss_it(tmp_path: Path) -> None:
    def lose(one: Dataset, index: int) -> None:
        if index == 7:
            del one.ImagePositionPatient

    part = only_part(make_series(8, lose), tmp_path)
    fault = fault_of(part, "D001")
    assert (fault.severity, fault.measured) == ("warning", "1 image: no position")


@pytest.mark.parametrize("directions", [[1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
def test_directions_that_are_none_leave_an_image_out(tmp_path: Path, directions: list[float]) -> None:
    def turn(one: Dataset, index: int) -> None:
        if index == 0:
            one.ImageOrientationPatient = directions

    fault = fault_of(only_part(make_series(8, turn), tmp_path), "D001")
    assert (fault.severity, "directions" in fault.measured) == ("warning", True)


def test_the_cap_counts_what_repair_adds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tilt(one: Dataset, index: int) -> None:
        move(one, 0, 2 * index, 0)

    slices = make_series(8, tilt)
    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", "5e-6")  # 12×10×8 voxels of 4 bytes, but not 12×28×8
    write_slices(slices, tmp_path)
    assert [codes_of(part) for part in parts_of(tmp_path)] == [["D005"]]
    assert [codes_of(part) for part in parts_of(tmp_path, repair=True)] == [["N018", "D005"]]


def test_a_series_without_positions_is_left_out(tmp_path: Path) -> None:
    def lose(one: Dataset, index: int) -> None:
        del one.ImagePositionPatient

    part = only_part(make_series(3, lose), tmp_path)
    assert part.stack is None
    assert not part.is_refused
    assert fault_of(part, "D001").severity == "note"


def test_a_single_slice_is_left_out(tmp_path: Path) -> None:
    part = only_part(make_series(1), tmp_path)
    assert part.stack is None
    assert not part.is_refused
    assert codes_of(part) == ["D013"]


def derive(one: Dataset, index: int) -> None:
    one.ImageType = ["DERIVED", "SECONDARY", "OTHER"]


def thicken(one: Dataset, index: int) -> None:
    one.SliceThickness = 5


def rescale(one: Dataset, index: int) -> None:
    one.RescaleSlope = 1 + index


def invert(one: Dataset, index: int) -> None:
    one.PhotometricInterpretation = "MONOCHROME1"


@pytest.mark.parametrize(
    ("change", "code", "severity", "measured"),
    [
        (derive, "D007", "warning", "ImageType says DERIVED and SECONDARY"),
        (thicken, "D011", "note", "SliceThickness 5 mm, distance 2.5 mm"),
        (rescale, "D015", "note", "8 different rescales"),
        (invert, "D016", "note", "PhotometricInterpretation is MONOCHROME1"),
    ],
)
def test_what_is_imported_all_the_same_is_said(
    tmp_path: Path, change: Change, code: str, severity: str, measured: str
) -> None:
    part = only_part(make_series(8, change), tmp_path)
    assert not part.is_refused
    assert codes_of(part) == [code]
    assert (part.faults[0].severity, part.faults[0].measured) == (severity, measured)


def test_the_memory_cap_holds_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enlarge(one: Dataset, index: int) -> None:
        one.Rows = one.Columns = 60_000

    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", "16")
    part = only_part(make_series(8, enlarge), tmp_path)
    assert part.is_refused
    assert fault_of(part, "N018").measured == "115 GB"


@pytest.mark.parametrize(
    ("missing", "repaired"), [([3], True), ([3, 4], True), ([2, 3, 4], False)], ids=["one", "two", "three"]
)
def test_repair_makes_a_gap_a_warning_unless_it_is_large(
    tmp_path: Path, missing: list[int], repaired: bool
) -> None:
    slices = [one for index, one in enumerate(make_series(9)) if index not in missing]
    part = only_part(slices, tmp_path, repair=True)
    fault = fault_of(part, "D002")
    assert part.is_refused is not repaired
    assert ("repaired: interpolated at even heights" in fault.measured) is repaired


def test_faults_name_no_patient(tmp_path: Path) -> None:
    slices = make_series(8, other_patient)
    del slices[2]
    part = only_part(slices, tmp_path)
    text = " ".join(f"{fault.subject} {fault.measured} {fault.expected}" for fault in part.faults)
    assert PATIENT_ID not in text
    assert str(tmp_path) not in text
