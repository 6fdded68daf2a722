"""Hounsfield units told by a sample of voxels: air where it should be, whatever was clipped, padded or cropped."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_case import CT, MR, check

from medunet.dataset.checks.image_checks import check_hounsfield, sample_voxels
from medunet.phantoms.phantom import make_phantom


def hounsfield_codes(image: np.ndarray) -> list[str]:
    return [fault.code for fault in check_hounsfield("x", "CT", sample_voxels(image).astype(float))]


def padded(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[: len(image) // 5] = -2000
    return changed


HOUNSFIELD: list[tuple[str, Callable[[np.ndarray], np.ndarray], list[str]]] = [
    ("good", lambda hu: hu, []),
    ("clipped", lambda hu: np.clip(hu, -200, 300), []),
    ("clipped to its scanner's range", lambda hu: np.maximum(hu, -1000), []),
    ("padded", padded, []),
    ("cropped", lambda hu: hu[tuple(slice(2 * n // 5, 3 * n // 5) for n in hu.shape)], []),
    ("normalised", lambda hu: (np.clip(hu, -1000, 1000) + 1000) / 2000, ["N026"]),
    ("windowed to 8 bits", lambda hu: ((np.clip(hu, -150, 250) + 150) * 255 / 400).astype(int), ["N026"]),
    ("as stored", lambda hu: hu + 1024, ["N019"]),
    ("as stored, clipped", lambda hu: np.maximum(hu + 1024, 0), ["N019"]),
    ("intercept twice", lambda hu: hu - 1024, ["N020"]),
    ("200 off", lambda hu: hu + 200, ["N020"]),
]


@pytest.mark.parametrize(
    ("change", "codes"), [case[1:] for case in HOUNSFIELD], ids=[case[0] for case in HOUNSFIELD]
)
def test_hounsfield_units_of_a_phantom(change: Callable[[np.ndarray], np.ndarray], codes: list[str]) -> None:
    image = make_phantom(3, spacing_mm=(4.0, 4.0, 5.0)).image.astype(int)
    assert hounsfield_codes(change(image)) == codes


def test_a_ct_as_stored_is_told_by_the_check(tmp_path: Path) -> None:
    phantom = make_phantom(3, spacing_mm=(4.0, 4.0, 5.0))
    (fault,) = check(tmp_path, phantom.image + np.int16(1024), phantom.label, CT, affine=phantom.affine)
    assert (fault.code, fault.severity, fault.subject) == ("N019", "warning", "CT")
    assert check(tmp_path, phantom.image + np.int16(1024), None, MR, affine=phantom.affine) == []


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("change", "codes"), [case[1:] for case in HOUNSFIELD], ids=[case[0] for case in HOUNSFIELD]
)
def test_hounsfield_units_of_a_scan(
    shared_data: Path, change: Callable[[np.ndarray], np.ndarray], codes: list[str]
) -> None:
    image = np.asarray(nib.load(shared_data / "ct_abdomen" / "ct.nii.gz").dataobj).astype(int)
    assert hounsfield_codes(change(image)) == codes
