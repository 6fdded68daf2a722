"""Scale factors of NIfTI that are 0 or not finite: read as NiBabel and SimpleITK do, refused where they differ."""

import itertools
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from medunet.base.errors import DataError
from medunet.dataset.checks.header_checks import check_readable
from medunet.imaging.volumes import read_header, read_label, read_volume

STORED = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
SLOPES = (0.0, math.nan, math.inf, -math.inf, 1.0, 2.0, 1e-17)
INTERCEPTS = (0.0, math.nan, math.inf, 5.0)


def save_scaled(path: Path, slope: float, intercept: float) -> Path:
    nib.save(nib.Nifti1Image(STORED, np.diag([1.0, 2.0, 3.0, 1.0])), path)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    path.write_bytes(content)
    return path


def read_elsewhere(path: Path) -> list[np.ndarray | None]:
    """Return what NiBabel and SimpleITK read; None where one refuses the file."""
    try:
        by_nibabel = nib.load(path).get_fdata()
    except nib.spatialimages.HeaderDataError:
        by_nibabel = None
    return [by_nibabel, sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat64)).T]


@pytest.mark.parametrize(("slope", "intercept"), itertools.product(SLOPES, INTERCEPTS))
def test_every_pair_of_factors(tmp_path: Path, slope: float, intercept: float) -> None:
    path = save_scaled(tmp_path / "a.nii", slope, intercept)
    one, other = read_elsewhere(path)
    agree = one is not None and other is not None and np.allclose(one, other)
    codes = [fault.code for fault in check_readable("a", "label", read_header(path), 1)]
    if not agree:
        assert codes == ["N022"]
        for read in (read_volume, read_label):
            with pytest.raises(DataError, match="NiBabel and SimpleITK apply its scale factors differently"):
                read(path)
        return
    assert codes == ([] if math.isfinite(slope) else ["N024"])
    assert one is not None
    assert np.array_equal(read_volume(path).array, one)
    assert np.array_equal(read_label(path).array, one)
