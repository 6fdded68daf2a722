"""Repair at import: gaps interpolated and tilt sheared away, exactly, and only where it is asked for."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from tiny_dicom import OBLIQUE, load_volume, make_series, voxel_position, write_slices
from tiny_series import fault_of, only_part

from medunet.dataset.dicom.importer import import_tree


def ramp(one: Dataset, origin: np.ndarray) -> None:
    """Give a slice the values 20 x + 30 y + 40 z of its pixels' LPS positions, relative to `origin`."""
    values = np.empty((one.Rows, one.Columns))
    for row, column in np.ndindex(values.shape):
        values[row, column] = (voxel_position(one, row, column) * (-1, -1, 1) - origin) @ (20, 30, 40)
    del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
    one.BitsAllocated, one.Modality = 32, "MR"
    one.RescaleIntercept = 0
    one.FloatPixelData = values.astype(np.float32).tobytes()


def has_ramp(array: np.ndarray, affine: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return which voxels hold the ramp's value at their own world position."""
    index = np.moveaxis(np.indices(array.shape), 0, -1)
    lps = (index @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1)
    return np.abs((lps - origin) @ (20, 30, 40) - array) < 0.02


def test_repair_interpolates_a_gap_exactly(tmp_path: Path) -> None:
    slices = make_series(9, orientation=OBLIQUE)
    origin = np.array(slices[0].ImagePositionPatient, dtype=float)
    for one in slices:
        ramp(one, origin)
    write_slices(slices[:3] + slices[5:], tmp_path / "tree")
    imported = import_tree(tmp_path / "tree", tmp_path / "out", repair=True)
    (row,) = imported.rows
    assert (row.status, row.repaired, row.shape, row.num_slices) == ("imported", "gaps", (12, 10, 9), 7)
    assert np.isclose(row.spacing_mm[2], 2.5, atol=1e-4)
    assert has_ramp(*load_volume(tmp_path / "out", row.case), origin).all()
    assert [(fault.code, fault.severity) for fault in imported.faults] == [("D002", "warning")]
    assert "repaired" in imported.faults[0].measured


@pytest.mark.parametrize("gap", [False, True])
def test_repair_shears_a_tilt_away_exactly(tmp_path: Path, gap: bool) -> None:
    slices = make_series(9, orientation=OBLIQUE)
    for index, one in enumerate(slices):
        directions = np.array(one.ImageOrientationPatient, dtype=float)
        drift = 0.7 * index * directions[3:] - 0.15 * index * directions[:3]
        position = np.array(one.ImagePositionPatient, dtype=float) + drift
        one.ImagePositionPatient = [f"{mm:.8g}" for mm in position]
    origin = np.array(slices[0].ImagePositionPatient, dtype=float)
    for one in slices:
        ramp(one, origin)
    if gap:
        del slices[4]
    write_slices(slices, tmp_path / "tree")
    (row,) = import_tree(tmp_path / "tree", tmp_path / "out", repair=True).rows
    assert row.repaired == ("gaps and tilt" if gap else "tilt")
    array, affine = load_volume(tmp_path / "out", row.case)
    assert array.shape == (12 + 3, 10 + 7, 9)  # nothing is cut off
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    exact = has_ramp(array, affine, origin)
    assert exact.sum(axis=(0, 1)).min() >= 11 * 9  # all voxels between others
    assert (exact | (array == array.min())).all()  # beyond the scan there is its smallest value


def test_without_repair_nothing_is_resampled(tmp_path: Path) -> None:
    slices = make_series(9)
    write_slices(slices[:3] + slices[4:], tmp_path / "tree")
    (row,) = import_tree(tmp_path / "tree", tmp_path / "out").rows
    assert (row.status, row.repaired) == ("refused", "")


@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("decimals", [5, 1])
def test_the_smaller_of_two_distances_is_the_grid_and_no_measured_slice_is_lost(
    tmp_path: Path, decimals: int, upside_down: bool
) -> None:
    heights = np.concatenate([np.arange(11) * 2.5, 25 + np.arange(1, 18) * 5.0])
    heights = heights[-1] - heights[::-1] if upside_down else heights
    slices = make_series(28, orientation=OBLIQUE)
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    for one, height in zip(slices, heights, strict=True):
        one.ImagePositionPatient = [f"{mm:.{decimals}f}" for mm in np.array([-20, 15, 40]) + height * normal]
    write_slices(slices, tmp_path / "tree")
    assert import_tree(tmp_path / "tree", tmp_path / "plain").rows[0].status == "refused"
    imported = import_tree(tmp_path / "tree", tmp_path / "out", repair=True)
    (row,) = imported.rows
    assert (row.status, row.num_slices, row.shape) == ("imported", 28, (12, 10, 45))
    assert imported.faults[0].measured == (
        "distances of 5 mm (17×), 2.5 mm (10×); repaired: interpolated at even heights, 28 → 45 slices"
    )
    array, _ = load_volume(tmp_path / "out", row.case)
    for one, height in zip(slices, heights, strict=True):
        stored = np.frombuffer(one.PixelData, np.int16).reshape(10, 12).T - 1024
        assert np.array_equal(array[:, :, round(height / 2.5)], stored)


def test_measured_slices_between_the_grids_heights_are_named(tmp_path: Path) -> None:
    heights = [0, 2.5, 5, 7.5, 10, 14, 18, 22, 26]
    slices = make_series(9)
    for one, height in zip(slices, heights, strict=True):
        one.ImagePositionPatient = [-20, 15, 40 + height]
    write_slices(slices, tmp_path / "tree")
    imported = import_tree(tmp_path / "tree", tmp_path / "out", repair=True)
    assert "9 → 11 slices, none of them at the height of slice" in imported.faults[0].measured


def test_no_hint_promises_a_repair_that_would_be_refused(tmp_path: Path) -> None:
    gap = [one for index, one in enumerate(make_series(12)) if index not in (4, 5, 6)]
    steep = make_series(12)
    for index, one in enumerate(steep):
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x, float(y) + 3 * index, z]
    for name, slices, code, limit in (
        ("gap", gap, "D002", "up to 2 missing"),
        ("tilt", steep, "D005", "45°"),
    ):
        for repair in (False, True):
            fault = fault_of(only_part(slices, tmp_path / f"{name}{repair}", repair=repair), code)
            assert fault.severity == "error"
            assert limit in fault.hint
            assert "import with" not in fault.hint.lower()
