"""The check of a whole manifest: faults of the set, what is left of them, how they are written; the real sets."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from corruptions import SHAPE, T1, T2, copy, describe, save
from rich.console import Console

from medunet.base.errors import InputError
from medunet.dataset.checks.manifest_checks import (
    check_manifest,
    errors_left,
    fault_table,
    read_faults,
    write_faults,
)
from medunet.dataset.manifest import make_manifest
from medunet.dataset.splits import read_folds
from medunet.records.description import load_description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted, Excluded, Manifest


def test_good_data_has_no_faults(good_set: Path, good_manifest: Manifest) -> None:
    assert check_manifest(good_manifest, good_set) == []


def test_one_patient_in_two_folds(good_set: Path) -> None:
    manifest = make_manifest(describe(patient="([ab])"), good_set, folds=[["a", "b"], ["c", "d"]])
    cases = tuple(case.model_copy(update={"patient": "p"}) for case in manifest.cases)
    (fault,) = check_manifest(manifest.model_copy(update={"cases": cases}), good_set)
    assert (fault.code, fault.severity, fault.case) == ("S003", "error", "c")
    assert fault.measured == "in fold 1, while case a of the same patient is in fold 0"


def test_patient_in_training_and_test(good_set: Path, good_manifest: Manifest) -> None:
    cases = [
        case.model_copy(update={"patient": "p" if case.id in "ad" else case.id})
        for case in good_manifest.cases
    ]
    cases[3] = cases[3].model_copy(update={"split": "test", "fold": None})
    faults = check_manifest(good_manifest.model_copy(update={"cases": tuple(cases)}), good_set)
    assert [(fault.code, fault.case) for fault in faults] == [("S003", "d")]


@pytest.mark.parametrize(
    ("regions", "loss", "code"),
    [
        (True, "dice_ce", "S007"),
        (True, "dice_bce", None),
        (True, "auto", None),
        (False, "dice_bce", "S007"),
        (False, "dice_ce", None),
        (False, "auto", None),
    ],
)
def test_loss_must_fit_the_labels(good_set: Path, regions: bool, loss: str, code: str | None) -> None:
    overlap = {"regions": {"whole": ["oedema", "core"], "core": ["core"]}, "region_order": ["whole", "core"]}
    description = describe(**(overlap if regions else {}))
    faults = check_manifest(make_manifest(description, good_set), good_set, loss=loss)
    assert [fault.code for fault in faults] == ([code] if code else [])
    assert all("auto" in fault.hint for fault in faults)


def test_intensity_outliers(tmp_path: Path) -> None:
    """One of twelve scans is stored 300 times brighter; twice as bright is no matter."""
    rng = np.random.default_rng(1)
    for index in range(12):
        factor = {3: 300.0, 5: 2.0}.get(index, 1.0)
        for channel in ("t1", "t2"):
            image = rng.normal(500, 80, SHAPE).astype(np.float32)
            save(tmp_path / f"c{index}_{channel}.nii.gz", image * (factor if channel == "t2" else 1.0))
        save(tmp_path / f"c{index}_seg.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8))
    faults = check_manifest(make_manifest(describe(), tmp_path), tmp_path)
    assert [(f.code, f.severity, f.case, f.subject) for f in faults] == [("N012", "warning", "c3", "T2")]


def test_frames_of_one_file(tmp_path: Path) -> None:
    """A 4D file of two declared channels is good; its constant frame and a third frame are not."""
    rng = np.random.default_rng(2)
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    image = rng.normal(500, 80, (*SHAPE, 2)).astype(np.float32)
    save(tmp_path / "labelsTr" / "x.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8))

    def codes() -> list[tuple[str, str]]:
        manifest = make_manifest(describe(layout="msd"), tmp_path)
        return [(fault.code, fault.subject) for fault in check_manifest(manifest, tmp_path)]

    save(tmp_path / "imagesTr" / "x.nii.gz", image)
    assert codes() == []
    image[..., 1] = 3
    save(tmp_path / "imagesTr" / "x.nii.gz", image)
    assert codes() == [("N011", "T2")]
    save(tmp_path / "imagesTr" / "x.nii.gz", rng.normal(size=(*SHAPE, 3)))
    assert codes() == [("N005", "T1+T2")]


def test_excluded_and_accepted_errors_are_not_left(good_set: Path, good_manifest: Manifest) -> None:
    (good_set / T2).unlink()
    save(good_set / "c_seg.nii.gz", np.full(SHAPE, 9, np.uint8))
    faults = check_manifest(good_manifest, good_set)
    assert {(fault.code, fault.case) for fault in errors_left(faults, good_manifest)} == {
        ("N001", "b"),
        ("L001", "c"),
    }
    excluded = good_manifest.model_copy(update={"excluded": (Excluded(id="b", reason="lost"),)})
    assert [fault.case for fault in errors_left(faults, excluded)] == ["c"]
    accepted = excluded.model_copy(update={"accepted": (Accepted(code="L001", case="c", reason="known"),)})
    assert errors_left(faults, accepted) == []


def test_an_excluded_twin_is_no_duplicate(good_set: Path, good_manifest: Manifest) -> None:
    copy("c_t1.nii.gz", T1)(good_set)
    assert [fault.code for fault in check_manifest(good_manifest, good_set)] == ["S001"]
    excluded = good_manifest.model_copy(update={"excluded": (Excluded(id="c", reason="copy"),)})
    assert check_manifest(excluded, good_set) == []


def test_faults_are_written_and_read_again(tmp_path: Path) -> None:
    faults = [
        Fault("L001", "error", "=cmd()", "label", "-3 in 2 voxels", "0, 1", "@mend"),
        Fault("S004", "warning", "", "raters/ä,b.nii.gz", 'a "quoted"\nreason', "", "+1"),
    ]
    write_faults(faults, tmp_path)
    assert read_faults(tmp_path / "checks.json") == faults
    with (tmp_path / "checks.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    columns = ["code", "severity", "case", "subject", "measured", "expected", "mend", "accepted"]
    assert list(rows[0]) == columns
    assert (rows[0]["case"], rows[0]["measured"], rows[0]["mend"]) == ("'=cmd()", "'-3 in 2 voxels", "'@mend")
    assert (rows[1]["measured"], rows[1]["mend"]) == ('a "quoted"\nreason', "'+1")
    write_faults([], tmp_path)
    assert read_faults(tmp_path / "checks.json") == []
    (tmp_path / "checks.json").write_text('{"schema": "medunet.checks/1", "faults": [{"code": "N001"}]}')
    with pytest.raises(InputError, match="medunet check"):
        read_faults(tmp_path / "checks.json")


def test_table_shows_errors_first_and_markup_as_it_is() -> None:
    faults = [
        Fault("S004", "warning", "", "a.nii.gz", "[bold]stray", "", ""),
        Fault("N001", "error", "b", "T1", "missing", "a file", "restore"),
    ]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(fault_table(faults))
    text = console.export_text()
    assert "1 error, 1 warning, 0 notes" in text
    assert "[bold]stray" in text
    assert text.index("N001") < text.index("S004")


@pytest.mark.real_data
def test_hippocampus(shared_data: Path) -> None:
    folds = read_folds(shared_data.parent / "splits" / "hippocampus.json")
    root = shared_data / "hippocampus"
    manifest = make_manifest(load_description("msd_task04_hippocampus"), root, folds=folds)
    faults = check_manifest(manifest, root)
    assert errors_left(faults, manifest) == []
    assert not [fault for fault in faults if fault.severity == "error"]
    strays = {fault.subject: fault.measured for fault in faults if fault.code == "S004"}
    assert strays["imagesTr/hippocampus_118.nii.gz"] == "image without a label"
    assert strays["labelsTr/hippocampus_010.nii.gz"] == "label without an image"
    assert "unlike the cases: 512×512×94" in strays["labelsTr/hippocampus_281.nii.gz"]
    (twin,) = [fault for fault in faults if fault.code == "S002"]
    assert (twin.case, twin.subject) == ("hippocampus_011", "labelsTr/hippocampus_010.nii.gz")
    floats = {fault.case for fault in faults if fault.code == "L004"}
    assert floats == {"hippocampus_003", "hippocampus_243"}
    outliers = {fault.case for fault in faults if fault.code == "N012"}
    assert len(outliers) == 22
    assert {"hippocampus_044", "hippocampus_212"} <= outliers
    assert {fault.code for fault in faults} == {"S004", "S002", "L004", "N012"}


@pytest.mark.real_data
def test_brats_case_with_raters(shared_data: Path) -> None:
    root = shared_data / "brats" / "TCGA-FG-6692"
    manifest = make_manifest(load_description("brats_2018_2021"), root)
    faults = check_manifest(manifest, root)
    assert [case.id for case in manifest.cases] == ["TCGA-FG-6692"]
    assert {fault.code for fault in faults} == {"S004"}
    assert len(faults) == 5
    assert all(fault.subject.startswith("raters/") for fault in faults)


@pytest.mark.real_data
def test_modalities_that_were_never_registered(shared_data: Path) -> None:
    root = shared_data / "brats" / "raw_not_coregistered"
    manifest = make_manifest(load_description("brats_2018_2021"), root)
    errors = errors_left(check_manifest(manifest, root), manifest)
    assert {(fault.code, fault.subject) for fault in errors} == {
        ("P004", "T1w"),
        ("P004", "T1gd"),
        ("P004", "T2w"),
    }
    assert errors[0].expected == "208×256×26, the shape of FLAIR"
