"""What a header says, whatever the file's format: type of the voxels, unit of length, and where voxels lie."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medunet.imaging.nifti import NiftiHeader
from medunet.imaging.volume import Forms, Header, StoredVoxels, dtype_name
from medunet.imaging.volumes import read_header

SHAPE = (4, 5, 6)


def save(path: Path, dtype: str = "<i2", *, sform: int = 1, qform: int = 1, unit: int = 2) -> Header:
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    image = nib.Nifti1Image(np.zeros(SHAPE, dtype), None, header)
    image.set_sform(np.diag([1.0, 1, 2, 1]), sform)
    image.set_qform(np.diag([1.0, 1, 3, 1]), qform)
    image.header["xyzt_units"] = unit
    nib.save(image, path)
    return read_header(path)


@pytest.mark.parametrize("dtype", ["<u1", "<i2", ">i2", ">f4", "<f8"])
def test_type_and_bytes_of_the_voxels(tmp_path: Path, dtype: str) -> None:
    header = save(tmp_path / "a.nii", dtype)
    assert header.dtype.name == np.dtype(dtype).name
    assert header.num_bytes == 120 * np.dtype(dtype).itemsize


@pytest.mark.parametrize(
    ("code", "unit", "mm"),
    [(0, "unknown", 1), (1, "metres", 1000), (2, "mm", 1), (3, "micrometres", 0.001), (5, "unit code 5", 1)],
)
def test_unit_of_length(tmp_path: Path, code: int, unit: str, mm: float) -> None:
    header = save(tmp_path / "a.nii", unit=code)
    assert header.unit == unit
    assert header.spacing_mm == pytest.approx((mm, mm, 2 * mm))
    assert not header.is_picture


def test_forms_are_those_whose_code_is_set(tmp_path: Path) -> None:
    both = save(tmp_path / "a.nii").forms
    assert both is not None
    assert both.sform is not None
    assert both.qform is not None
    assert (both.sform[2, 2], both.qform[2, 2]) == (2, 3)
    one = save(tmp_path / "a.nii", sform=0).forms
    assert one is not None
    assert (one.sform, one.are_missing) == (None, False)
    none = save(tmp_path / "a.nii", sform=0, qform=0).forms
    assert none is not None
    assert none.are_missing
    assert not Forms(None, None, "it is broken").are_missing


def test_a_qform_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    save(tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[256:260] = np.array([3.0], "<f4").tobytes()  # no part of a unit quaternion
    (tmp_path / "a.nii").write_bytes(content)
    forms = read_header(tmp_path / "a.nii").forms
    assert forms is not None
    assert forms.qform is None
    assert "w2 should be positive" in forms.qform_fault


def test_only_a_nifti_header_holds_nibabels(tmp_path: Path) -> None:
    assert isinstance(save(tmp_path / "a.nii"), NiftiHeader)
    assert "nifti" not in Header.__dataclass_fields__


def test_values_are_scaled_in_float64() -> None:
    stored = StoredVoxels(np.array([2**24 + 1], np.int32), slope=2.0, intercept=-1.0)
    assert stored.values(np.float64).item() == 2.0 * (2**24 + 1) - 1
    assert stored.values().dtype == np.float32
    assert not StoredVoxels(stored.array).is_scaled


def test_names_of_types() -> None:
    colours = nib.nifti1.data_type_codes.dtype["RGB"]
    assert [dtype_name(np.dtype(each)) for each in (">i2", np.float32)] == ["int16", "float32"]
    assert dtype_name(colours) == "RGB"
