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
    [(10, 0.1, 0, 0.0), (85, 1 / 85, 0, 0.0), (10, 0.1, -3, 0.3), (7, 1 / 7, 7000, -1000.0)],
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
    path = save_scaled(tmp_path / "label.nii", LABELS.astype(np.int16) * 10, 0.10001)
    header = read_header(path, label=True)
    faults, _, _ = check_label("a", path.name, header, read_stored(header, label=True), DESCRIPTION)
    assert [fault.code for fault in faults] == ["L002"]
    with pytest.raises(DataError, match="not whole numbers"):
        read_label(path)


def test_only_the_rounding_of_a_scale_is_forgiven() -> None:
    almost = np.array([0.0, 1.0 + 1e-7, 2.0]).reshape(3, 1, 1)
    assert label_values(StoredVoxels(almost)) is almost
    assert as_integers(almost) is None
    tiny = label_values(StoredVoxels(np.ones((1, 1, 1)), slope=1e-9))
    assert tiny.item() == 1e-9
    odd = label_values(StoredVoxels(np.array([np.nan, np.inf, 20.0]).reshape(3, 1, 1), slope=0.1 + 1e-9))
    assert np.array_equal(odd.ravel(), [np.nan, np.inf, 2.0], equal_nan=True)


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
