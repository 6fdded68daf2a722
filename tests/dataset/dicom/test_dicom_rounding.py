"""Rounded headers are not taken for anatomy: one volume within its residual; true tilt, gaps and scans are told."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from tiny_dicom import OBLIQUE, make_series, normal_of, write_slices
from tiny_series import codes_of, fault_of, only_part, parts_of

from medunet.dataset.dicom.heights import fit_steps, usual_distance
from medunet.dataset.dicom.rounding import cosine_unit, fit_line, written_unit
from medunet.dataset.dicom.series_checks import Part
from medunet.imaging.geometry import shear_degrees

TILTED = (0.999873, 0.0, -0.015901, -0.002593, 0.986616, -0.163044)


def series(
    num_slices: int = 22,
    distance_mm: float = 6.5,
    *,
    decimals: int | None = None,
    cosines: int | None = None,
    jitter: float = 0.0,
    tilt_degrees: float = 0.0,
    lost: tuple[int, ...] = (),
    extent: int = 256,
) -> list[Dataset]:
    """Return the slices of an oblique series, with tags rounded to this many decimals."""
    draw = np.random.default_rng(0)
    slices = []
    for index, one in enumerate(make_series(num_slices, orientation=TILTED, distance_mm=distance_mm)):
        height = index * distance_mm
        position = np.array([-107.98, -86.79, -64.59]) + height * normal_of(TILTED)
        position = position + height * np.tan(np.deg2rad(tilt_degrees)) * np.array(TILTED[3:])
        orientation = np.array(TILTED) + draw.uniform(-jitter, jitter, 6)
        if decimals is not None:
            position = np.round(position, decimals)
        if cosines is not None:
            orientation = np.round(orientation, cosines)
        one.ImagePositionPatient = [f"{mm:.10g}" for mm in position]
        one.ImageOrientationPatient = [f"{cosine:.10g}" for cosine in orientation]
        one.Rows = one.Columns = extent
        if index not in lost:
            slices.append(one)
    return slices


def true_corner(column: int, row: int, place: int, distance_mm: float) -> np.ndarray:
    """Return the RAS+ mm of a voxel as it was before rounding."""
    first = np.array([-107.98, -86.79, -64.59]) + place * distance_mm * normal_of(TILTED)
    lps = first + column * 0.5 * np.array(TILTED[:3]) + row * 0.8 * np.array(TILTED[3:])
    return lps * (-1, -1, 1)


def farthest_mm(part: Part, distance_mm: float) -> float:
    """Return how far the corners of the volume are from where they were before rounding."""
    assert part.stack is not None
    columns, rows, num_slices = part.stack.shape
    far = [
        np.linalg.norm(
            (part.stack.affine() @ (column, row, place, 1))[:3] - true_corner(column, row, place, distance_mm)
        )
        for column in (0, columns - 1)
        for row in (0, rows - 1)
        for place in (0, num_slices - 1)
    ]
    return float(max(far))


@pytest.mark.parametrize("distance_mm", [6.5, 2.5])
@pytest.mark.parametrize(
    ("changes", "off_mm"),
    [
        ({"decimals": 3}, 0.001),
        ({"decimals": 1}, 0.12),
        ({"decimals": 0}, 1.1),
        ({"cosines": 4}, 0.05),
        ({"cosines": 3}, 0.3),
        ({"cosines": 2}, 2.5),
        ({"jitter": 3e-4}, 0.2),
        ({"jitter": 3e-4, "cosines": 3}, 0.5),
        ({"decimals": 1, "cosines": 3}, 0.5),
        ({"decimals": 0, "cosines": 2}, 4),
    ],
    ids=str,
)
def test_rounded_tags_are_one_volume_within_its_residual(
    tmp_path: Path, changes: dict[str, float], off_mm: float, distance_mm: float
) -> None:
    part = only_part(series(distance_mm=distance_mm, **changes), tmp_path)  # type: ignore[arg-type]
    fault = fault_of(part, "D018")
    assert not part.is_refused
    assert fault.severity == "note"
    assert set(codes_of(part)) <= {"D006", "D018"}
    assert part.stack is not None
    assert part.stack.shape == (256, 256, 22)
    assert np.isclose(part.stack.slice_spacing_mm, distance_mm, atol=0.03)
    residual_mm = part.stack.residual_mm
    assert residual_mm <= off_mm
    assert f"up to {residual_mm:.2g} mm" in fault.measured
    rotation_mm = 0.5 * part.stack.direction_unit * (128 + 205)  # within its plane, which no position tells
    assert farthest_mm(part, distance_mm) <= 1.1 * residual_mm + rotation_mm
    assert shear_degrees(part.stack.affine()) < 0.02


@pytest.mark.parametrize("num_slices", [2, 3, 4])
@pytest.mark.parametrize("decimals", [0, 1])
def test_a_few_rounded_slices_are_upright(tmp_path: Path, num_slices: int, decimals: int) -> None:
    part = only_part(series(num_slices, decimals=decimals), tmp_path)
    assert codes_of(part) == ["D018"]
    assert part.stack is not None
    assert shear_degrees(part.stack.affine()) < 0.02


def test_slices_at_most_twice_the_rounding_apart_are_refused_with_this_reason(tmp_path: Path) -> None:
    part = only_part(series(distance_mm=1.25, decimals=0), tmp_path)
    fault = fault_of(part, "D019")
    assert part.is_refused
    assert "written to 1 mm, but slices are 1.25 mm apart" in fault.measured
    assert fault.expected == "more than 2 mm between slices"
    assert not {"D002", "D004", "D005"} & set(codes_of(part))
    slices = make_series(22, distance_mm=0.5)
    for one in slices:
        one.ImagePositionPatient = [round(float(mm)) for mm in one.ImagePositionPatient]
        one.PixelData = bytes(np.full(120, one.InstanceNumber, np.int16))
    part = only_part(slices, tmp_path / "halves")
    assert "positions are written to 1 mm, which may move slices" in fault_of(part, "D003").measured


def test_whole_positions_on_even_heights_are_not_rounded(tmp_path: Path) -> None:
    slices = make_series(8, distance_mm=1)
    part = only_part(slices, tmp_path)
    assert part.faults == ()
    part = only_part(slices[:3] + slices[4:], tmp_path / "gap")
    assert fault_of(part, "D002").measured.startswith("2 mm from slice 3")


@pytest.mark.parametrize(("degrees", "tilted"), [(0.3, False), (1.5, True)])
def test_a_drift_that_whole_millimetres_hide_is_no_tilt(tmp_path: Path, degrees: float, tilted: bool) -> None:
    """A stack that is slightly oblique has a constant x and y and even heights once its positions are rounded."""
    sine, cosine = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))

    def round_position(one: Dataset, index: int) -> None:
        one.ImagePositionPatient = [-20, 15, 40 + 3 * index]

    orientation = (1.0, 0.0, 0.0, 0.0, float(cosine), float(sine))
    part = only_part(make_series(12, round_position, orientation=orientation), tmp_path)
    assert part.is_refused is tilted
    assert codes_of(part)[0] == ("D005" if tilted else "D018")


@pytest.mark.parametrize(
    "changes",
    [{}, {"decimals": 3}, {"decimals": 1}, {"cosines": 4}, {"decimals": 1, "cosines": 4}],
    ids=str,
)
def test_a_true_tilt_is_told_with_its_figure(tmp_path: Path, changes: dict[str, int]) -> None:
    part = only_part(series(tilt_degrees=0.3, **changes), tmp_path)  # type: ignore[arg-type]
    fault = fault_of(part, "D005")
    assert part.is_refused
    assert abs(float(fault.measured.split("°")[0]) - 0.3) < 0.03


@pytest.mark.parametrize(
    "changes", [{"decimals": 1}, {"decimals": 0}, {"cosines": 2, "jitter": 1e-3}], ids=str
)
@pytest.mark.parametrize("lost", [1, 9, 20])
def test_a_true_gap_is_told_in_spite_of_rounding(
    tmp_path: Path, changes: dict[str, float], lost: int
) -> None:
    part = only_part(series(lost=(lost,), **changes), tmp_path)  # type: ignore[arg-type]
    fault = fault_of(part, "D002")
    assert part.is_refused
    assert f"from slice {lost} (InstanceNumber {lost}) to slice {lost + 1}" in fault.measured
    assert abs(float(fault.measured.split()[0]) - 13) < 1


def test_echoes_with_rounded_tags_stay_two_volumes(tmp_path: Path) -> None:
    slices = series(8, decimals=1, cosines=3) + series(8, decimals=1, cosines=3)
    for place, one in enumerate(slices):
        one.SOPInstanceUID, one.EchoTime = f"1.2.3.{place}", 12 if place < 8 else 95
    write_slices(slices, tmp_path)
    parts = parts_of(tmp_path)
    assert ["D014" in codes_of(part) for part in parts] == [True, True]
    assert [len(part.stack.slices) for part in parts if part.stack] == [8, 8]


def test_directions_that_alternate_by_more_are_no_two_half_volumes(tmp_path: Path) -> None:
    slices = series(12)
    for one in slices[1::2]:
        one.ImageOrientationPatient = [1, 0, 0, 0, *TILTED[4:]]
    part = only_part(slices, tmp_path)
    fault = fault_of(part, "D004")
    assert part.is_refused
    assert fault.measured.startswith("orientations that alternate within one stack by 0.911°, 2.1 mm")


def test_directions_need_not_have_unit_length(tmp_path: Path) -> None:
    slices = series(8)
    for one in slices:
        one.ImageOrientationPatient = [1.01 * cosine for cosine in TILTED]
    part = only_part(slices, tmp_path)
    assert fault_of(part, "D006").measured == "directions have lengths of up to 1.01"
    assert farthest_mm(part, 6.5) < 0.01


def test_pixel_spacing_may_be_rounded_in_some_slices(tmp_path: Path) -> None:
    slices = series(8)
    for one in slices[::2]:
        one.PixelSpacing = [0.8001, 0.5]
    part = only_part(slices, tmp_path)
    assert "up to 0.013 mm" in fault_of(part, "D018").measured


def test_one_shifted_slice_does_not_bend_the_line(tmp_path: Path) -> None:
    slices = make_series(9, orientation=OBLIQUE)
    x, y, z = (float(mm) for mm in slices[8].ImagePositionPatient)
    slices[8].ImagePositionPatient = [x + 40 * OBLIQUE[0], y + 40 * OBLIQUE[1], z + 40 * OBLIQUE[2]]
    part = only_part(slices, tmp_path)
    assert codes_of(part) == ["D004"]
    assert part.faults[0].measured == "shifted in its plane by 40 mm: slice 9 (InstanceNumber 9)"


def test_the_written_unit_is_that_of_all_values_together() -> None:
    assert written_unit(np.array([-108.0, 12.0])) == 1
    assert written_unit(np.array([-108.0, 12.3])) == 0.1
    assert written_unit(np.array([-107.9, 12.3], np.float32).astype(float)) == 0.1
    assert np.isclose(written_unit(np.array([0.42971, 1.0])), 1e-5)
    assert written_unit(np.array([1 / 3])) == 1e-6
    assert cosine_unit(np.array([[1.0, 0, 0, 0, 1, 0]])) == 1e-6  # not rounded, however short
    assert cosine_unit(np.array([[1.0, 0, 0, 0, 0.99, -0.17]])) == 0.01


def test_the_smallest_usual_distance_is_the_spacing() -> None:
    assert usual_distance(np.array([2.5] * 10 + [5.0] * 17), 0) == 2.5
    assert usual_distance(np.array([5.0] * 9 + [2.5]), 0) == 2.5  # of which all are multiples
    assert usual_distance(np.array([2.5, 2.5, 1.2, 3.8, 2.5, 2.5]), 0) == 2.5
    assert usual_distance(np.array([0.0]), 0) > 0
    heights = np.round(1.25 * np.arange(200), 1)
    assert np.isclose(fit_steps(heights, 0.05)[0], 1.25, atol=1e-4)
    assert np.isclose(fit_steps(np.delete(heights, 70), 0.05)[0], 1.25, atol=1e-4)


def test_a_line_is_fitted_without_foreign_points() -> None:
    points = np.outer(np.arange(9.0), (0, 0.1, 2)) + np.array([1, 2, 3])
    points[[3, 8]] += (50, 0, 0)
    origin, step = fit_line(np.arange(9.0), points, 0.1)
    assert np.allclose(origin, (1, 2, 3))
    assert np.allclose(step, (0, 0.1, 2))
