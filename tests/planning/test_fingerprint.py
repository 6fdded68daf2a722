"""The fingerprint names labels that cropping to the nonzero voxels would cut away."""

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medunet.planning.fingerprint import compute_fingerprint
from medunet.records.description import Description
from medunet.records.manifest import Case

DESCRIPTION = Description.model_validate(
    {
        "name": "t",
        "layout": "pairs",
        "channels": {"T1": {"modality": "MR"}},
        "labels": {"background": 0, "core": 1, "ignore": 2},
    }
)


def test_labels_beyond_the_nonzero_voxels_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, label = np.zeros((10, 12, 8), np.float32), np.zeros((10, 12, 8), np.uint8)
    image[:5, 2:10, 1:7] = np.random.default_rng(0).uniform(50, 90, (5, 8, 6))
    label[2:7, 4, 3], label[9] = 1, 2
    affine = np.diag([-1.0, 1.0, 2.0, 1.0])  # the first axis is turned on the way to RAS
    for name, array in (("image", image), ("label", label)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    case = Case(
        id="a", patient="a", images={"T1": "image.nii.gz"}, label="label.nii.gz", split="train", fold=0
    )
    with caplog.at_level(logging.WARNING, "medunet"):
        compute_fingerprint([case], DESCRIPTION, tmp_path, seed=0)
    assert "a (2 voxels)" in caplog.text
    caplog.clear()
    label[5:7] = 0
    nib.save(nib.Nifti1Image(label, affine), tmp_path / "label.nii.gz")
    compute_fingerprint([case], DESCRIPTION, tmp_path, seed=0)
    assert not caplog.records
