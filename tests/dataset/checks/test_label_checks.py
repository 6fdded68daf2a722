"""Faults that a label's values and their place tell: another edition's values, stray specks, a mirrored mask."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from corruptions import SHAPE, describe
from tiny_case import CT, MR, check

from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.manifest import make_manifest
from medunet.phantoms.phantom import make_phantom
from medunet.records.description import load_description
from medunet.records.manifest import Case


@pytest.mark.parametrize(("declared", "found"), [(4, 3), (3, 4)])
def test_labels_of_another_edition(tmp_path: Path, declared: int, found: int) -> None:
    labels = {"background": 0, "oedema": 2, "enhancing": declared}
    label = np.random.default_rng(1).choice(np.array([0, 2, found], np.uint8), SHAPE)
    image = np.random.default_rng(2).normal(500, 80, SHAPE).astype(np.int16)
    (fault,) = check(tmp_path, image, label, describe(channels={"T1": {"modality": "MR"}}, labels=labels))
    assert (fault.code, fault.severity) == ("L008", "error")
    assert fault.measured.startswith(f"enhancing is {found} in ")
    label[0, 0, 0] = 7  # then it is no edition's
    (fault,) = check(tmp_path, image, label, describe(channels={"T1": {"modality": "MR"}}, labels=labels))
    assert fault.code == "L001"


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".seg.nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize(("dtype", "codes"), [(np.uint8, []), (np.int16, []), (np.float32, ["L004"])])
def test_a_label_of_floats_in_any_format(tmp_path: Path, ending: str, dtype: type, codes: list[str]) -> None:
    label = ball(SHAPE, (4, 3, 3), 2.5).astype(dtype)
    image = np.random.default_rng(2).normal(500, 80, SHAPE).astype(np.int16)
    for name, array in ((f"image{ending.replace('.seg', '')}", image), (f"label{ending}", label)):
        sitk.WriteImage(sitk.GetImageFromArray(array.T), str(tmp_path / name))
    images = {"T1": f"image{ending.replace('.seg', '')}"}
    case = Case(id="x", patient="x", images=images, label=f"label{ending}", split="train")
    faults, _ = check_case(case, describe(channels={"T1": {"modality": "MR"}}), tmp_path)
    assert [fault.code for fault in faults] == codes


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    steps = np.meshgrid(*(np.arange(n) - c for n, c in zip(shape, centre, strict=True)), indexing="ij")
    return np.sqrt(sum(step.astype(float) ** 2 for step in steps)) < radius


def test_stray_specks(tmp_path: Path) -> None:
    """Told when few, small and far from their label; lesions within an organ or near it are not specks."""
    shape, affine = (60, 50, 40), np.diag([1.0, 1.0, 1.5, 1.0])
    image = np.random.default_rng(3).normal(100, 10, shape).astype(np.int16)
    label = ball(shape, (20, 20, 20), 14).astype(np.uint8)
    label[20:23, 20, 20] = 2

    def specks(changed: np.ndarray) -> list[str]:
        faults = check(tmp_path, image, changed, MR, affine=affine)
        assert {fault.code for fault in faults} <= {"L006"}
        return [fault.measured for fault in faults]

    assert specks(label) == []
    near, far, large = label.copy(), label.copy(), label.copy()
    near[38, 20, 20] = 1
    assert specks(near) == []
    far[57:59, 45, 35] = 1
    (measured,) = specks(far)
    assert measured.startswith("oedema: 1 with 2 voxels in total, more than 20 mm from its other ")
    assert measured.endswith("at (57, 45, 35)")
    large[55:59, 43:47, 35] = 1
    assert specks(large) == []
    far[57:59, 45, 35] = 2  # of a label that is as small itself
    assert specks(far) == []


@pytest.mark.parametrize("flip", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_a_mirrored_mask(tmp_path: Path, flip: tuple[int, ...]) -> None:
    phantom = make_phantom(5, spacing_mm=(4.0, 4.0, 5.0))
    label = (phantom.label > 0).astype(np.uint8)
    assert check(tmp_path, phantom.image, label, CT, affine=phantom.affine) == []
    (fault,) = check(tmp_path, phantom.image, np.flip(label, flip), CT, affine=phantom.affine)
    assert (fault.code, fault.severity, fault.subject) == ("P008", "warning", "label")
    assert [f"{axis} (" in fault.measured for axis in range(3)] == [axis in flip for axis in range(3)]


@pytest.mark.real_data
def test_mirrored_masks_of_hippocampi(shared_data: Path, tmp_path: Path) -> None:
    """Flipped along any axes, 9 of 10 are told; that the whole set raises nothing is in test_manifest_checks.py."""
    description = load_description("msd_task04_hippocampus")
    root = shared_data / "hippocampus"
    flips = [axes for n in (1, 2, 3) for axes in itertools.combinations(range(3), n)]
    found = []
    for case in make_manifest(description, root).cases[:60:4]:
        assert case.label is not None
        image, label = (np.asarray(nib.load(root / name).dataobj) for name in (case.images["MR"], case.label))
        for axes in flips:
            faults = check(tmp_path, image, np.flip(label, axes), description, affine=np.eye(4))
            found += ["P008" in {fault.code for fault in faults}]
    assert np.mean(found) > 0.9
