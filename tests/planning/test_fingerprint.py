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


def test_what_the_scans_show_is_kept_along_the_axes_of_the_body(tmp_path: Path) -> None:
    rng, cases = np.random.default_rng(0), []
    grids = {"a": ((20, 12, 8), np.diag([-1.0, 2.0, 3.0, 1.0])), "b": ((9, 11, 31), np.eye(4)[[2, 0, 1, 3]])}
    for name, (shape, affine) in grids.items():
        image, label = rng.normal(-300, 100, shape).astype(np.float32), np.zeros(shape, np.uint8)
        label[4, 5, 6] = 1
        image[:3] = 0  # no part of the nonzero box, and part of the field of view
        for kind, array in (("image", image), ("label", label)):
            nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}_{kind}.nii.gz")
        files = {"images": {"T1": f"{name}_image.nii.gz"}, "label": f"{name}_label.nii.gz"}
        cases.append(Case(id=name, patient=name, split="train", fold=0, **files))
    found = compute_fingerprint(cases, DESCRIPTION, tmp_path, seed=0)
    # a: 20 × 24 × 24 mm; b's axes run to A, S and R: 31 × 9 × 11 mm
    assert found.field_of_view_mm == (31.0, 24.0, 24.0)
    values = [nib.load(tmp_path / f"{name}_image.nii.gz").get_fdata() for name in grids]
    expected = np.median([np.percentile(each, 0.5) for each in values])
    assert found.darkest["T1"] == pytest.approx(expected, abs=30)
    earlier = found.model_copy(update={"shown": None})
    assert found.is_of_same_data(earlier), "of a version that did not keep it"
    assert not found.is_of_same_data(earlier.model_copy(update={"num_cases": 3}))
    assert found.is_of_same_data(found)
    assert "shown" not in earlier.to_dict(), "hashes of earlier plans stay"
