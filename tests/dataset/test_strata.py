"""Strata: volumes measured from label files, thirds, absence and sites."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medunet.base.errors import InputError
from medunet.dataset.manifest import make_manifest
from medunet.dataset.splits import make_folds, stratify_folds
from medunet.dataset.strata import make_strata, measure_labels
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description
from medunet.records.manifest import Case

LIVER = Description.model_validate(
    {
        "name": "liver",
        "layout": "pairs",
        "channels": {"CT": {"modality": "CT"}},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 255},
        "folds": 4,
    }
)
AFFINE = np.diag([-2.0, 1.0, 5.0, 1.0])  # 10 mm³ a voxel


def write_label(path: Path, num_liver: int, num_tumour: int, dtype: type = np.uint8) -> Path:
    label = np.zeros((5, 6, 7), dtype)
    label.flat[:num_liver] = 1
    label.flat[num_liver : num_liver + num_tumour] = 2
    label.flat[-1] = 255
    write_volume(path, label, AFFINE)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_volumes_are_measured_in_ml(tmp_path: Path, dtype: type) -> None:
    labels = {"a": write_label(tmp_path / "a.nii.gz", 100, 7, dtype)}
    assert measure_labels(labels, LIVER) == {
        "a": {"liver": pytest.approx(1.0), "tumour": pytest.approx(0.07)}
    }


def test_values_beyond_the_described_ones_are_not_counted(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.nii.gz", np.full((2, 2, 2), 257, np.int16), AFFINE)
    assert measure_labels({"a": tmp_path / "a.nii.gz"}, LIVER) == {"a": {"liver": 0.0, "tumour": 0.0}}


def test_every_label_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    labels = {name: write_label(tmp_path / f"{name}.nii.gz", 9, 9) for name in "abcd"}
    labels["b"].write_bytes(b"broken")
    nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.5, np.float32), AFFINE), labels["c"])
    labels["d"].unlink()
    with pytest.raises(
        InputError, match=r"3 label.*case b: .*; case c: .*whole numbers.*; case d: no such file"
    ):
        measure_labels(labels, LIVER)
    assert set(measure_labels(labels, LIVER, may_fail={"b", "c", "d"})) == {"a"}


def test_strata_are_thirds_of_those_who_have_the_label() -> None:
    volumes = {f"c{i}": {"liver": 1000.0 + i, "tumour": max(0.0, i - 2.0)} for i in range(9)}
    strata = make_strata(volumes, dict.fromkeys(volumes))
    assert [strata[f"c{i}"] for i in (0, 2, 3, 5, 8)] == [
        {"liver small", "tumour absent"},
        {"liver small", "tumour absent"},
        {"liver medium", "tumour small"},
        {"liver medium", "tumour medium"},
        {"liver large", "tumour large"},
    ]
    for order in itertools.islice(itertools.permutations(volumes.items()), 0, 5000, 700):
        assert make_strata(dict(order), dict.fromkeys(volumes)) == strata


def test_equal_volumes_share_a_stratum_and_sites_count_where_known() -> None:
    volumes = {name: {"cell": 3.0} for name in "abc"}
    strata = make_strata(volumes, {"a": "north", "b": None, "c": "south"})
    assert strata == {
        "a": {"cell small", "site north"},
        "b": {"cell small", "site unknown"},
        "c": {"cell small", "site south"},
    }
    assert make_strata({}, {"a": None}) == {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Sixteen cases, of which the last four alone have a tumour."""
    for i in range(16):
        write_volume(tmp_path / f"images/case_{i:02d}.nii.gz", np.ones((5, 6, 7), np.int16), AFFINE)
        write_label(tmp_path / f"labels/case_{i:02d}.nii.gz", 60, 20 if i >= 12 else 0)
    return tmp_path


def test_a_stratified_manifest_has_a_tumour_in_every_fold(root: Path) -> None:
    for seed in range(5):
        manifest = make_manifest(LIVER, root, seed=seed, stratify=True)
        assert [case.fold for case in manifest.cases[:12]].count(0) == 3
        assert {case.fold for case in manifest.cases[12:]} == {0, 1, 2, 3}
        held_out = make_manifest(LIVER, root, seed=seed, stratify=True, holdout=0.25)
        assert [case.fold for case in held_out.cases[12:]].count(0) == 1
        drawn = make_manifest(LIVER, root, seed=seed, stratify=True, test_share=0.25)
        assert [case.split for case in drawn.cases[12:]].count("test") == 1
        assert sum(case.split == "test" for case in drawn.cases) == 4
        assert {case.fold for case in drawn.cases if case.split == "test"} == {None}


def test_a_broken_label_is_named_unless_its_case_is_excluded(root: Path) -> None:
    whole = make_manifest(LIVER, root, stratify=True, test_share=0.25)
    (root / "labels/case_03.nii.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"1 label\(s\) cannot be read: case case_03: .*without --stratify"):
        make_manifest(LIVER, root, stratify=True)
    assert make_manifest(LIVER, root).num_folds == 4  # labels are read only where asked
    manifest = make_manifest(LIVER, root, stratify=True, test_share=0.25, exclude={"case_03": "broken"})
    assert sum(case.split == "test" for case in manifest.cases) == 4
    assert sum(case.split == "test" for case in whole.cases) == 4


def test_leaving_a_case_out_changes_no_other_ones_split(root: Path) -> None:
    for stratify in (False, True):
        before = make_manifest(LIVER, root, stratify=stratify, test_share=0.25)
        for left_out in ("case_00", "case_15"):
            after = make_manifest(
                LIVER, root, stratify=stratify, test_share=0.25, exclude={left_out: "motion"}
            )
            assert [case.split for case in after.cases] == [case.split for case in before.cases]


@pytest.mark.parametrize("volumes_ml", [(1, 50), (1, 7, 50)])
def test_the_few_cases_with_a_label_are_spread_so_that_every_fold_trains_on_it(volumes_ml) -> None:
    sizes = {f"c{number}": {"tumour": 0.0} for number in range(10)}
    sizes |= {f"t{number}": {"tumour": float(ml)} for number, ml in enumerate(volumes_ml)}
    cases = [Case(id=name, patient=name, images={"CT": f"{name}.nii"}) for name in sizes]
    strata = make_strata(sizes, dict.fromkeys(sizes))
    for seed in range(20):
        folds = stratify_folds(cases, make_folds(cases, 5, seed), strata, seed)
        assert len({folds[name] for name in sizes if name[0] == "t"}) == len(volumes_ml)
