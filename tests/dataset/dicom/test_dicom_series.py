"""Files of a tree gathered into series, series into stacks; every fault named with its slice."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    write_series,
    write_slices,
)

from medunet.dataset.dicom.series import UnreadableFile, read_tree
from medunet.dataset.dicom.series_checks import Part, check_series
from medunet.records.fault import Fault

TURNED = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)


def move(one: Dataset, *mm: float) -> None:
    one.ImagePositionPatient = [
        float(old) + new for old, new in zip(one.ImagePositionPatient, mm, strict=True)
    ]


def parts_of(folder: Path, *, repair: bool = False) -> list[Part]:
    return [part for series in read_tree(folder).series for part in check_series(series, repair=repair)]


def only_part(slices: list[Dataset], folder: Path, *, repair: bool = False) -> Part:
    write_slices(slices, folder)
    (part,) = parts_of(folder, repair=repair)
    return part


def fault_of(part: Part, code: str) -> Fault:
    (found,) = [fault for fault in part.faults if fault.code == code]
    return found


def codes_of(part: Part) -> list[str]:
    return [fault.code for fault in part.faults]


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


def test_a_tree_of_mixed_studies(tmp_path: Path) -> None:
    mixed = [*make_series(5, series="1"), *make_series(4, series="2", modality="MR")]
    write_slices(mixed, tmp_path / "all")
    write_series(tmp_path / "deep" / "er", 6, series="3", patient_id="X-2")
    (tmp_path / "README.txt").write_text("a colleague's notes")
    (tmp_path / "broken").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 40)
    tree = read_tree(tmp_path)
    assert [len(series.files) for series in tree.series] == [5, 4, 6]
    assert [series.patient_key for series in tree.series] == ["id MRN-4711-0815"] * 2 + ["id X-2"]
    assert tree.num_others + len(tree.unreadable) == 2


def test_the_output_folder_and_links_to_folders_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "scans", 4)
    write_series(tmp_path / "out", 4, series="2")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(read_tree(tmp_path, leave_out=tmp_path / "out").series) == 1


def test_a_folder_that_may_not_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "open")
    write_series(tmp_path / "locked")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may open whatever its mode forbids
    tree = read_tree(tmp_path)
    assert len(tree.series) == 1
    assert tree.unreadable == (UnreadableFile(tmp_path / "locked", "Permission denied"),)
    assert tree.num_others == 0


def test_series_whose_identity_was_emptied_are_told_by_folder(tmp_path: Path) -> None:
    def empty(one: Dataset, index: int) -> None:
        one.SeriesInstanceUID = one.StudyInstanceUID = one.PatientID = ""

    write_series(tmp_path / "a", 4, empty)
    write_series(tmp_path / "b", 4, empty)
    parts = parts_of(tmp_path)
    assert [codes_of(part) for part in parts] == [["D017"], ["D017"]]
    assert [part.series.patient_key for part in parts] == ["folder a", "folder b"]


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
    copy = make_slice(4)
    copy.SOPInstanceUID, copy.InstanceNumber = "1.2.3.4", 30
    part = only_part([*slices, copy], tmp_path)
    fault = fault_of(part, "D003")
    assert part.is_refused
    assert fault.measured == "at one height: slice 5 (InstanceNumber 5) and slice 6 (InstanceNumber 30)"


def test_the_very_same_file_twice_is_a_fault_too(tmp_path: Path) -> None:
    paths = write_slices(make_series(6), tmp_path)
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    (part,) = parts_of(tmp_path)
    assert codes_of(part) == ["D003"]
    assert "slice 3 (InstanceNumber 3)" in part.faults[0].measured
    assert part.faults[0].measured.endswith("; 1 of 7 are copies, by SOPInstanceUID")


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


@pytest.mark.parametrize(("jitter", "codes"), [(1e-6, ["D006"]), (5e-5, ["D006"]), (5e-4, ["D004"])])
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


def echo(one: Dataset, second: bool) -> None:
    one.EchoTime = 95 if second else 12


def b_value(one: Dataset, second: bool) -> None:
    one.DiffusionBValue = 800.0 if second else 0.0


def phase(one: Dataset, second: bool) -> None:
    one.ImageType = ["ORIGINAL", "PRIMARY", "P" if second else "M"]


def time(one: Dataset, second: bool) -> None:
    one.AcquisitionTime = f"1{int(second)}00{one.InstanceNumber:02d}"


@pytest.mark.parametrize(
    ("change", "by"),
    [(echo, "echo time"), (b_value, "b-value"), (phase, "image type"), (time, "acquisition time")],
)
def test_acquisitions_at_the_same_places_become_volumes(
    tmp_path: Path, change: Callable[[Dataset, bool], None], by: str
) -> None:
    slices = make_series(6, modality="MR") + make_series(6, modality="MR")
    for place, one in enumerate(slices):
        one.SOPInstanceUID = f"1.2.3.{place}"
        change(one, place >= 6)
    write_slices(slices, tmp_path)
    parts = parts_of(tmp_path)
    assert [part.number for part in parts] == [1, 2]
    for part in parts:
        assert part.stack is not None
        assert len(part.stack.slices) == 6
        assert codes_of(part) == ["D014"]
        assert part.faults[0].measured == f"2 volumes, told apart by {by}"


@pytest.mark.parametrize("offset_mm", [0.7, 1.25, 0])
def test_acquisitions_that_overlap_become_volumes(tmp_path: Path, offset_mm: float) -> None:
    write_slices(make_overlap(offset_mm), tmp_path)
    parts = parts_of(tmp_path)
    assert [codes_of(part) for part in parts] == [["D014"]] * 3
    assert parts[0].faults[0].measured == "3 volumes, told apart by acquisition number"
    assert [len(part.stack.slices) for part in parts if part.stack] == [12, 12, 12]
    numbers = [
        {one.frame.told_apart["acquisition number"] for one in part.stack.slices}
        for part in parts
        if part.stack
    ]
    assert numbers == [{1}, {2}, {3}]


def make_overlap(offset_mm: float) -> list[Dataset]:
    """Return three acquisitions of 12 slices, each beginning two slices, and more, before the last one's end."""
    slices = []
    for number in range(3):
        for one in make_series(12):
            x, y, z = one.ImagePositionPatient
            one.ImagePositionPatient = [x, y, float(z) + number * (10 * 2.5 - offset_mm)]
            one.AcquisitionNumber = number + 1
            one.SOPInstanceUID = f"{one.SOPInstanceUID}.{number + 1}"
            slices.append(one)
    return slices


def test_a_gap_where_acquisitions_overlap_is_a_fault(tmp_path: Path) -> None:
    slices = make_overlap(0.7)
    del slices[17]
    write_slices(slices, tmp_path)
    (part,) = parts_of(tmp_path)
    assert part.is_refused
    assert "D002" in codes_of(part)


@pytest.mark.parametrize("lost", [5, 9])
def test_a_gap_between_acquisitions_is_no_overlap(tmp_path: Path, lost: int) -> None:
    """Halves one after the other, or every other slice: a slice that is lost leaves no two volumes."""
    for name, in_second in (("halves", lambda index: index > lost), ("others", lambda index: index % 2)):
        slices = make_series(11 if lost == 9 else 12)
        for index, one in enumerate(slices):
            one.AcquisitionNumber = 2 if in_second(index) else 1
        del slices[lost]
        write_slices(slices, tmp_path / name)
        (part,) = parts_of(tmp_path / name)
        assert "D002" in codes_of(part)


def test_echoes_in_one_file_become_volumes_in_their_order(tmp_path: Path) -> None:
    slices = make_series(6, modality="MR") + make_series(6, modality="MR")
    for place, one in enumerate(slices):
        echo(one, place < 6)
    write_slices([make_multi_frame(slices)], tmp_path)
    stacks = [part.stack for part in parts_of(tmp_path)]
    times = [{one.frame.told_apart["echo time"] for one in stack.slices} for stack in stacks if stack]
    assert times == [{12.0}, {95.0}]


def test_a_gap_in_one_echo_refuses_that_volume_alone(tmp_path: Path) -> None:
    slices = make_series(6, modality="MR") + make_series(6, modality="MR")
    for place, one in enumerate(slices):
        one.SOPInstanceUID = f"1.2.3.{place}"
        echo(one, place >= 6)
    del slices[8]
    write_slices(slices, tmp_path)
    assert [part.is_refused for part in parts_of(tmp_path)] == [False, True]


def test_stacks_turned_against_each_other_become_volumes(tmp_path: Path) -> None:
    slices = make_series(5) + make_series(4, orientation=OBLIQUE)
    for place, one in enumerate(slices):
        one.SOPInstanceUID = f"1.2.3.{place}"
    write_slices(slices, tmp_path)
    parts = parts_of(tmp_path)
    assert [len(part.stack.slices) for part in parts if part.stack] == [5, 4]
    assert fault_of(parts[0], "D014").measured == "2 volumes, told apart by orientation"


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
