"""`medunet manifest FOLDER`: the folder is the data root; its description stays in the run and can be written out."""

import json
import re
from pathlib import Path

import pytest
from tiny_cohort import write_tiny_cohort
from tiny_pictures import write_pictures
from typer.testing import CliRunner, Result

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.cli.app import app
from medunet.dataset.checks.manifest_checks import read_faults
from medunet.records.description import Description
from medunet.records.manifest import Manifest


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def write_nnunet(root: Path) -> Path:
    """Write the tiny cohort as a raw dataset with fixed splits beside it."""
    raw = write_tiny_cohort(root / "nnUNet_raw/Dataset001_Tiny", 4)
    for path in (raw / "imagesTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
    labels = {"background": 0, "liver": [1, 2], "tumour": 2}
    plain = {"channel_names": {"0": "CT"}, "labels": labels, "regions_class_order": [1, 2], "numTraining": 4}
    (raw / "dataset.json").write_text(json.dumps({**plain, "file_ending": ".nii.gz"}))
    return raw


def test_an_nnunet_user_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, run = write_nnunet(tmp_path), tmp_path / "run"
    monkeypatch.setenv("MEDUNET_DATA_ROOT", str(tmp_path))  # the folder given counts
    ids = [f"case_0{i}" for i in range(4)]
    splits = [
        {"train": ids[2:], "val": ids[:2]},
        {"train": ids[:2], "val": ids[2:]},
    ]
    preprocessed = tmp_path / "nnUNet_preprocessed" / raw.name
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    result = call("manifest", raw, "--run", run)
    assert result.exit_code == 0, result.output
    assert "Recognised: an nnU-Net raw dataset" in result.output
    assert "left out 1 of type .json" in result.output
    assert "splits_final.json" in result.output
    manifest = Manifest.read(run / "manifest.json")
    assert {case.id: case.fold for case in manifest.cases} == dict(zip(ids, (0, 0, 1, 1), strict=True))
    assert manifest.description.targets == {"liver": (1, 2), "tumour": (2,)}
    assert call("check", run, "--data-root", raw).exit_code == 0
    assert call("check", run, "--data-root", raw, "--exclude", "case_00=motion").exit_code == 0
    assert len(Manifest.read(run / "manifest.json").used) == 3
    for path in run.glob("*.*"):
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    other = call("manifest", raw, "--run", tmp_path / "other", "--set", "holdout=0.25")
    assert other.exit_code == 0, other.output
    assert "splits_final" not in other.output


def test_splits_final_as_a_folds_file(tmp_path: Path) -> None:
    raw = write_nnunet(tmp_path)
    splits = [{"train": ["case_02", "case_03"], "val": ["case_00", "case_01"]}]
    (tmp_path / "mine.json").write_text(json.dumps(splits))
    result = call("manifest", raw, "--run", tmp_path / "run", "--folds-file", tmp_path / "mine.json")
    assert result.exit_code == 0, result.output
    assert read_json(tmp_path / "run/run_folds.json") == {
        "folds": [["case_00", "case_01"], ["case_02", "case_03"]]
    }


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("nothere", "nothere' is neither a dataset description nor an existing folder or file"),
        ("nothere.csv", "nothere.csv' is neither a dataset description"),
        ("scan.nii.gz", "scan.nii.gz: is not a folder, CSV or description"),
    ],
)
def test_what_is_no_dataset(tmp_path: Path, dataset: str, message: str) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b")
    result = call("manifest", tmp_path / dataset, "--run", tmp_path / "run")
    assert isinstance(result.exception, InputError)
    assert re.search(message, str(result.exception)), str(result.exception)


def test_folds_that_nnunet_made_are_taken_back(tmp_path: Path) -> None:
    raw = write_nnunet(tmp_path)
    splits = [{"train": ["case_02", "case_03"], "val": ["case_00", "case_01"]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    assert call("manifest", raw, "--run", tmp_path / "run").exit_code == 0
    result = call("manifest", raw, "--run", tmp_path / "run", "--set", "holdout=0.25")
    assert "unset them with --set KEY=null" in str(result.exception)
    changes = ("--set", "holdout=0.25", "--set", "folds_file=null")
    assert call("manifest", raw, "--run", tmp_path / "run", *changes).exit_code == 0


def test_a_description_is_written_named_and_given_back(tmp_path: Path) -> None:
    root, yaml_file = write_tiny_cohort(tmp_path / "data", 4), tmp_path / "tiny.yaml"
    result = call("manifest", root, "--run", tmp_path / "a", "--describe", yaml_file)
    assert result.exit_code == 0, result.output
    made = Description.read(yaml_file)
    assert made == Manifest.read(tmp_path / "a/manifest.json").description
    assert made.labels == {"background": 0, "label_1": 1, "label_2": 2}
    yaml_file.write_text(yaml_file.read_text().replace("label_1", "liver"))
    result = call("manifest", yaml_file, "--run", tmp_path / "b", "--data-root", root)
    assert result.exit_code == 0, result.output
    assert Manifest.read(tmp_path / "b/manifest.json").description.foreground == ("liver", "label_2")
    again = call("manifest", root, "--run", tmp_path / "c", "--describe", yaml_file)
    assert isinstance(again.exception, InputError)
    assert "already exists" in str(again.exception)
    assert not (tmp_path / "c").exists()


def test_a_name_that_is_shipped_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tiny_cohort(tmp_path / "phantoms", 4)
    monkeypatch.chdir(tmp_path)
    assert call("manifest", "phantoms", "--run", "a", "--data-root", root).exit_code == 0
    assert Manifest.read(tmp_path / "a/manifest.json").description.name == "phantoms"
    assert Manifest.read(tmp_path / "a/manifest.json").description.regions
    assert call("manifest", "./phantoms", "--run", "b").exit_code == 0
    assert Manifest.read(tmp_path / "b/manifest.json").description.regions == {}


def test_an_unknown_folder_begins_no_run(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = call("manifest", tmp_path / "empty", "--run", tmp_path / "run")
    assert isinstance(result.exception, InputError)
    assert "no layout that is recognised" in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_pictures_of_numbered_objects_from_the_bare_folder(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data")
    result = call("manifest", root, "--run", tmp_path / "run")
    assert "values number the objects of one label" in result.output
    assert call("check", tmp_path / "run", "--data-root", root).exit_code == 0
    assert {fault.code for fault in read_faults(tmp_path / "run/checks.json")} == {"S008"}


def test_visits_of_one_patient_are_said_and_joined(tmp_path: Path) -> None:
    root = write_tiny_cohort(tmp_path / "data", 6)
    for path in [*root.rglob("*.nii.gz")]:
        number = int(re.findall(r"case_0(\d)", path.name)[0])
        path.rename(path.with_name(f"p{number // 2}_visit{number % 2 + 1}.nii.gz"))
    result = call("manifest", root, "--run", tmp_path / "a")
    assert result.exit_code == 0, result.output
    assert "3 patients seem to have several cases, such as p0_visit1, p0_visit2" in result.output
    assert r"'--patient=^(.+?)(?:_visit\d+)*$'" in result.output
    call("check", tmp_path / "a", "--data-root", root)
    (fault, *_) = [fault for fault in read_faults(tmp_path / "a/checks.json") if fault.code == "S003"]
    assert (fault.severity, fault.case, fault.subject) == ("warning", "p0_visit2", "patient")
    assert "by their names likely one patient" in fault.measured
    assert r"patient: '^(.+?)(?:_visit\d+)*$'" in fault.expected
    result = call("manifest", root, "--run", tmp_path / "b", r"--patient=^(.+?)(?:_visit\d+)*$")
    assert "seem to have" not in result.output
    manifest = Manifest.read(tmp_path / "b/manifest.json")
    assert {case.patient for case in manifest.cases} == {"p0", "p1", "p2"}
    assert len({(case.patient, case.fold) for case in manifest.cases}) == 3
    call("check", tmp_path / "b", "--data-root", root)
    assert "S003" not in {fault.code for fault in read_faults(tmp_path / "b/checks.json")}
    result = call("manifest", root, "--run", tmp_path / "c", "--patient", "visit1$|p(0)")
    assert "does not fit 4 case ids, whose patients are named as the case: p1_visit1, p1" in result.output
    refused = call("manifest", root, "--run", tmp_path / "d", "--patient", "visit")
    assert "patient: the expression needs exactly one group" in str(refused.exception)


def test_unlabelled_cases_beside_labelled_ones_are_said(tmp_path: Path) -> None:
    root = write_tiny_cohort(tmp_path / "data", 4)
    rows = [f"case_0{n},imagesTr/case_0{n}.nii.gz,labelsTr/case_0{n}.nii.gz" for n in range(3)]
    rows[2] = "case_02,imagesTr/case_02.nii.gz,NA"
    (root / "cases.csv").write_text("\n".join(["case,image,label", *rows]))
    result = call("manifest", root, "--run", tmp_path / "run")
    assert "1 cases without a label are not trained on: case_02" in result.output
    assert "patients of their own" not in result.output
    rows = [f"{row},{patient}" for row, patient in zip(rows, ("p1", "p1", "NA"), strict=True)]
    (root / "cases.csv").write_text("\n".join(["case,image,label,patient", *rows]))
    result = call("manifest", root, "--run", tmp_path / "run")
    assert "1 cases have no patient in the list, or one of their name" in result.output
