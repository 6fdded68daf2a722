"""Several acquisitions in one series become volumes of their own, and a gap is never taken for two of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from tiny_dicom import OBLIQUE, make_multi_frame, make_series, write_slices
from tiny_series import codes_of, fault_of, parts_of


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
        {one.frame.acquisition["acquisition number"] for one in part.stack.slices}
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
    times = [{one.frame.acquisition["echo time"] for one in stack.slices} for stack in stacks if stack]
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


@pytest.mark.parametrize(
    ("offset_mm", "step_mm", "volumes"), [(1.0, 2.5, 2), (1.0, 5.0, 2), (1.25, 2.5, 1)], ids=str
)
def test_interleaved_acquisitions_are_one_scan_only_on_one_grid(
    tmp_path: Path, offset_mm: float, step_mm: float, volumes: int
) -> None:
    """Two scans at other heights, which `--repair` would blend, are told apart; every other slice of one is not."""
    second = make_series(8, distance_mm=step_mm)
    for one in second:
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x, y, float(z) + offset_mm]
        one.AcquisitionNumber, one.SOPInstanceUID = 2, f"{one.SOPInstanceUID}.2"
    first = make_series(8, lambda one, index: setattr(one, "AcquisitionNumber", 1))
    write_slices([*first, *second], tmp_path)
    parts = parts_of(tmp_path)
    assert [len(part.stack.slices) for part in parts if part.stack] == [16 // volumes] * volumes
    assert not any(part.is_refused for part in parts)
