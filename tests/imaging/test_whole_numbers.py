"""Whole numbers: one rule for every stage, exact but for the rounding of a scale."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medunet.base.errors import DataError
from medunet.dataset.checks.label_checks import check_label
from medunet.imaging.volume import StoredVoxels
from medunet.imaging.volumes import read_header, read_label, read_stored
from medunet.imaging.whole_numbers import as_integers, label_values
from medunet.records.description import Description
from medunet.transforms.chain import LoadCased

SHAPE = (6, 7, 5)
LABELS = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
DESCRIPTION = Description.parse(
    {
        "name": "scaled",
        "layout": "pairs",
        "labels": {"background": 0, "a": 1, "b": 2, "c": 3},
        "channels": {"image": {"modality": "MR"}},
    },
    where="scaled",
)


def save_scaled(path: Path, stored: np.ndarray, slope: float, intercept: float = 0.0) -> Path:
    """Write stored numbers with a scale, as tools do that save every volume in their own range."""
    image = nib.Nifti1Image(stored, np.diag([1.0, 1.0, 2.0, 1.0]))
    nib.save(image, path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("factor", "slope", "offset", "intercept"),
    [
        *[(10, 0.1, 0, 0.0), (85, 1 / 85, 0, 0.0), (10, 0.1, -3, 0.3), (7, 1 / 7, 7000, -1000.0)],
        *[(20, 0.04975, 0, 0.0), (1, 1 + 4e-6, 0, 0.0)],  # to half a step of the slope; noise in the slope
    ],
)
def test_check_and_training_see_the_same_voxels_of_a_scaled_label(
    tmp_path: Path, factor: int, slope: float, offset: int, intercept: float
) -> None:
    stored = LABELS.astype(np.int16) * factor + np.int16(offset)
    path = save_scaled(tmp_path / "label.nii", stored, slope, intercept)
    assert not np.array_equal(nib.load(path).get_fdata(), LABELS)  # float64 shows the rounding
    header = read_header(path, label=True)
    faults, facts, foreground = check_label(
        "a", path.name, header, read_stored(header, label=True), DESCRIPTION
    )
    assert [fault.code for fault in faults if fault.severity == "error"] == []
    assert facts is not None
    assert facts.values == {0, 1, 2, 3}
    assert foreground is not None
    read = read_label(path).array
    assert read.dtype == np.uint8
    assert np.array_equal(read, LABELS)
    assert np.array_equal(foreground.labels, LABELS[foreground.box])
    nib.save(nib.Nifti1Image(LABELS.astype(np.float32), np.eye(4)), tmp_path / "scan.nii")
    case = {"image": [tmp_path / "scan.nii"], "label": path, "resample": False}
    assert np.array_equal(LoadCased(["image", "label"])(case)["label"].numpy()[0], LABELS)


def test_what_lies_farther_from_a_whole_number_is_refused_by_both(tmp_path: Path) -> None:
    path = save_scaled(tmp_path / "label.nii", LABELS.astype(np.int16) * 10, 0.106)
    header = read_header(path, label=True)
    faults, _, _ = check_label("a", path.name, header, read_stored(header, label=True), DESCRIPTION)
    assert [fault.code for fault in faults] == ["L002"]
    with pytest.raises(DataError, match="not whole numbers"):
        read_label(path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("noise", [1e-7, -1e-7, 3e-7])
def test_the_noise_of_calculations_is_rounded_and_noted(tmp_path: Path, dtype: type, noise: float) -> None:
    labels = LABELS.astype(np.float64)
    for number, noisy in enumerate((labels * (1 + noise), labels + noise)):
        path = tmp_path / f"{number}.nii"
        nib.save(nib.Nifti1Image(noisy.astype(dtype), np.diag([1.0, 1.0, 2.0, 1.0])), path)
        header = read_header(path, label=True)
        faults, facts, _ = check_label("a", path.name, header, read_stored(header, label=True), DESCRIPTION)
        assert {fault.code for fault in faults if fault.severity == "note"} == {"L004", "L010"}
        assert facts is not None
        assert facts.values == {0, 1, 2, 3}
        assert np.array_equal(read_label(path).array, LABELS)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8])
@pytest.mark.parametrize("highest", [1, 2, 7, 104])
def test_floats_saved_with_the_header_of_an_integer_scan(tmp_path: Path, dtype: type, highest: int) -> None:
    """NiBabel spreads the values over the range of the type, so that a whole number is off by up to half a step."""
    labels = np.random.default_rng(1).integers(0, highest + 1, SHAPE)
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    scan = nib.Nifti1Image(np.zeros(SHAPE, dtype), affine)
    nib.save(nib.Nifti1Image(labels.astype(float), affine, scan.header), tmp_path / "label.nii")
    assert np.array_equal(read_label(tmp_path / "label.nii").array, labels)


def test_only_rounding_errors_are_forgiven() -> None:
    almost = np.array([0.0, 1.0 + 2e-5, 2.0]).reshape(3, 1, 1)
    assert np.array_equal(label_values(StoredVoxels(almost)).array, almost)
    assert as_integers(almost) is None
    whole = np.array([0.0, 1.0, 2.0]).reshape(3, 1, 1)
    assert label_values(StoredVoxels(whole)).array is whole  # and no copy is made
    odd = label_values(
        StoredVoxels(np.array([np.nan, np.inf, 20.0]).reshape(3, 1, 1), slope=0.1 + 1e-9)
    ).array
    assert np.array_equal(odd.ravel(), [np.nan, np.inf, 2.0], equal_nan=True)
    coarse = label_values(StoredVoxels(np.array([0, 1, 2]).reshape(3, 1, 1), slope=0.9)).array
    assert np.array_equal(coarse.ravel(), [0, 0.9, 1.8])  # half of that step would round any value
    large = label_values(StoredVoxels(np.array([123456.5]).reshape(1, 1, 1))).array
    assert large.item() == 123456.5


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], np.uint8),
        ([-1, 300], np.int16),
        ([0, 70_000], np.int32),
        ([0, 2**40], np.int64),
        ([0.0, -2.0], np.int16),
        ([False, True], np.uint8),
        ([0.5], None),
        ([np.nan, 1.0], None),
        ([1e30], None),
    ],
)
def test_narrowest_type(values: list[float], dtype: type | None) -> None:
    whole = as_integers(np.array(values))
    assert (None if whole is None else whole.dtype) == dtype
