"""Repair at import: gaps interpolated and tilt sheared away, exactly, and only where it is asked for."""

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from tiny_dicom import OBLIQUE, load_volume, make_series, voxel_position, write_slices

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
