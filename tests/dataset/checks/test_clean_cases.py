"""Clean data raises nothing: all orientations, oblique, of every type, byte order, version and form of NIfTI."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from corruptions import AFFINE, SHAPE, describe, save
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from tiny_case import MR

from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.checks.case_facts import hash_content
from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.dataset.manifest import make_manifest
from medunet.imaging.volumes import read_volume
from medunet.records.manifest import Case


def all_orientations() -> Iterator[str]:
    for axes in itertools.permutations(("RL", "AP", "SI")):
        for signs in itertools.product((0, 1), repeat=3):
            yield "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))


def test_clean_data_of_all_orientations_types_and_tilts_has_no_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    angle = np.deg2rad(17)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    types = (np.int16, np.uint8, np.float32, np.int32, np.float64)
    for index, codes in enumerate(all_orientations()):
        affine = AFFINE @ inv_ornt_aff(axcodes2ornt(codes), SHAPE)
        affine = turn @ affine if index % 2 else affine
        for channel in ("t1", "t2"):
            image = rng.normal(120, 20, SHAPE).astype(types[index % len(types)])
            save(tmp_path / f"c{index}_{channel}.nii.gz", image, affine)
        if index % 3 == 0:  # stored as scaled integers
            scaled_image = nib.Nifti1Image(rng.normal(120, 20, SHAPE), affine)
            scaled_image.set_data_dtype(np.int16)
            nib.save(scaled_image, tmp_path / f"c{index}_t1.nii.gz")
        save(tmp_path / f"c{index}_seg.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8), affine)
    manifest = make_manifest(describe(), tmp_path)
    assert len(manifest.cases) == 48
    assert check_manifest(manifest, tmp_path) == []


TYPES = (np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32, np.float64)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img"])
def test_clean_data_of_all_forms_has_no_fault(tmp_path: Path, ending: str, version: int, order: str) -> None:
    """Every type of voxel; one time without a scale, one time stored as scaled integers."""
    kinds = {
        (1, False): nib.Nifti1Image,
        (1, True): nib.Nifti1Pair,
        (2, False): nib.Nifti2Image,
        (2, True): nib.Nifti2Pair,
    }
    kind = kinds[version, ending[1] in "hi"]
    rng = np.random.default_rng(5)
    label = rng.integers(0, 3, SHAPE)
    for number, (dtype, is_scaled) in enumerate(itertools.product(TYPES, (False, True))):
        scan = rng.normal(60, 15, SHAPE)

        def write(name: str, array: np.ndarray, stored: Any) -> None:
            image = kind(array, AFFINE)
            image.header.set_xyzt_units("mm")
            image.set_sform(AFFINE, 1)
            image.set_qform(AFFINE, 1)
            image.set_data_dtype(stored)
            nib.save(kind(array, None, image.header.as_byteswapped(order)), tmp_path / name)

        write(f"{number}{ending}", scan if is_scaled else scan.astype(dtype), dtype)
        write(f"{number}_label{ending}", label.astype(np.uint8), np.uint8)
        files = {"T1": f"{number}{ending}"}
        case = Case(id="x", patient="x", images=files, label=f"{number}_label{ending}")
        faults, facts = check_case(case, MR, tmp_path)
        assert faults == [], (dtype, is_scaled)
        expected = nib.load(tmp_path / files["T1"]).get_fdata(dtype=np.float32)
        assert np.array_equal(read_volume(tmp_path / files["T1"]).array, expected)
        assert facts.images[0].content == hash_content(expected)


def test_equal_voxels_hash_alike_whatever_their_type() -> None:
    whole = np.random.default_rng(0).integers(0, 100, SHAPE)
    hashes = {hash_content(whole.astype(dtype)) for dtype in (*TYPES, ">i2", np.uint64)}
    hashes |= {hash_content(np.asfortranarray(whole)), hash_content(whole.astype("f4") * 1.0)}
    assert len(hashes) == 1
    assert hash_content(whole + 0.5) == hash_content((whole + 0.5).astype(np.float32))
    assert hash_content(whole) != hash_content(-whole)
    assert hash_content(whole) != hash_content(whole.reshape(SHAPE[::-1]))
    assert hash_content(np.zeros(SHAPE)) == ""


def test_volumes_are_in_ml_by_value(tmp_path: Path) -> None:
    label = np.zeros(SHAPE, np.int16)
    label[2:4, 2:5, 2] = 1
    label[6, 5, 3] = 2
    save(tmp_path / "x.nii", np.random.default_rng(0).normal(500, 80, SHAPE).astype(np.int16))
    save(tmp_path / "y.nii", label)
    faults, facts = check_case(Case(id="x", patient="x", images={"T1": "x.nii"}, label="y.nii"), MR, tmp_path)
    assert faults == []
    assert facts.label is not None
    assert facts.label.volumes_ml == pytest.approx({1: 6 * 2.4e-3, 2: 2.4e-3})  # voxels of 0.8×1×3 mm
    assert facts.label.values == {0, 1, 2}
    united = describe(
        channels={"T1": {"modality": "MR"}}, labels={"background": 0, "cell": 5}, instances=True
    )
    _, facts = check_case(Case(id="x", patient="x", images={"T1": "x.nii"}, label="y.nii"), united, tmp_path)
    assert facts.label is not None
    assert facts.label.volumes_ml == pytest.approx({5: 7 * 2.4e-3})
