"""The test list: drawn or named, whole patients, and every contradiction refused at once."""

import re
from pathlib import Path

import pytest
from tiny_cohort import write_tiny_cohort
from typer.testing import CliRunner

from medunet.base.errors import InputError
from medunet.cli import app as cli
from medunet.commands.manifest import run_manifest
from medunet.dataset.held_out import check_split_options, choose_test_cases, read_test_names
from medunet.records.manifest import Case, Manifest, Split
from medunet.runs.run import open_run


def case(case_id: str, patient: str, split: Split = "train", fold: int | None = None) -> Case:
    label = None if split == "unlabelled" else f"{case_id}.nii.gz"
    return Case(id=case_id, patient=patient, images={}, label=label, split=split, fold=fold)


CASES = [case("a1", "a"), case("a2", "a"), case("b1", "b"), case("c1", "c"), case("u1", "u", "unlabelled")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("test.txt", "# held out in 2024\n\n a1 \nb\n"),
        ("test.csv", "a1\r\nb\r\n"),
        ("test.txt", "\ufeffa1\nb"),
        ("test.json", '["a1", "b"]'),
        ("test.json", '{"about": "fixed", "test": ["a1", "b"]}'),
    ],
)
def test_lists_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_test_names(tmp_path / name) == ["a1", "b"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("test.txt", "# nothing\n", "has no test list"),
        ("test.json", '{"tests": ["a"]}', "has no test list"),
        ("test.json", "[1, 2]", "has no test list"),
        ("test.json", "[", "not valid JSON"),
        ("test.txt", "a\nb\na\n", "names occur twice: a"),
    ],
)
def test_lists_that_cannot_be_used(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_test_names(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read_test_names(tmp_path / "absent.txt")


def test_cases_are_named_by_id_or_patient() -> None:
    training = [each for each in CASES if each.split == "train"]
    assert choose_test_cases(training, None, ["a", "c1"], {}, 0) == {"a1", "a2", "c1"}
    check_split_options(CASES, test_names=["a", "c1"])
    check_split_options(CASES, test_names=["a1", "a2"], folds=[["b1"], ["c1"]])


def test_a_drawn_share_holds_whole_patients() -> None:
    training = [each for each in CASES if each.split == "train"]
    for seed in range(10):
        drawn = choose_test_cases(training, 0.5, None, {}, seed)
        assert len(drawn & {"a1", "a2"}) in (0, 2)
        assert 1 <= len(drawn) <= 3
    assert choose_test_cases(training, None, None, {}, 0) == set()


@pytest.mark.parametrize(
    ("cases", "options", "messages"),
    [
        (CASES, {"folds": [["a1"]], "holdout": 0.2}, ["exclude each other"]),
        (CASES, {"test_share": 0.2, "test_names": ["c1"]}, ["test share and a test list exclude"]),
        (CASES, {"folds": [["a1"]], "test_share": 0.2}, ["test_share cannot be combined with fixed folds"]),
        (CASES, {"folds": [["a1"]], "stratify": True}, ["fixed folds cannot be stratified"]),
        (
            [case("a1", "a", fold=0), case("b1", "b", fold=1)],
            {"stratify": True, "test_share": 0.2},
            ["combined with the case list's own folds", "case list's own folds cannot be stratified"],
        ),
        ([case("a1", "a", fold=0), case("b1", "b", fold=1)], {"test_names": ["b"]}, ["no case in fold 1"]),
        ([*CASES, case("t1", "t", "test")], {"test_share": 0.2}, ["already have 1 labelled test case.s."]),
        (CASES[:2], {"test_share": 0.5}, ["one patient cannot be divided"]),
        (
            CASES,
            {"test_names": ["a1", "u1", "zz"]},
            [
                "neither case nor patient: zz",
                "not among the labelled training cases: u1",
                "has only some of the cases of patients: a",
            ],
        ),
        (CASES, {"test_names": ["a", "b", "c"]}, ["leaves no training case"]),
        ([case("a", "d"), case("e", "a"), *CASES[2:]], {"test_names": ["a"]}, ["a patient and a case of another"]),
    ],
)  # fmt: skip
def test_contradictions_are_named_all_at_once(
    cases: list[Case], options: dict[str, object], messages: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        check_split_options(cases, **options)  # type: ignore[arg-type]
    for message in messages:
        assert re.search(message, str(caught.value)), str(caught.value)
    assert str(caught.value).count(";") == len(messages) - 1


def test_a_datalists_test_cases_without_labels_do_no_harm() -> None:
    bare = Case(id="t1", patient="t", images={}, split="test")
    check_split_options([*CASES, bare], test_share=0.2, stratify=True)


def test_the_run_keeps_its_test_list(tmp_path: Path) -> None:
    data_root = write_tiny_cohort(tmp_path / "data")
    (tmp_path / "test.txt").write_text("case_01\ncase_04\n")
    changes = [f"test_file={tmp_path}/test.txt", "stratify=true"]
    run = open_run(tmp_path / "run", data_root, dataset="phantoms", changes=changes)
    run_manifest(run)
    (tmp_path / "test.txt").unlink()
    again = open_run(tmp_path / "run", data_root)
    manifest = run_manifest(again)
    assert [each.id for each in manifest.cases if each.split == "test"] == ["case_01", "case_04"]
    assert str(tmp_path) not in (tmp_path / "run/config.yaml").read_text()
    assert Manifest.read(again.folder.manifest) == manifest
    training, validation = manifest.split_fold(0)
    assert {each.id for each in (*training, *validation)} == {"case_00", "case_02", "case_03", "case_05"}


def test_the_commands_options(tmp_path: Path) -> None:
    data_root = write_tiny_cohort(tmp_path / "data")
    arguments = ["manifest", "phantoms", "--run", f"{tmp_path}/run", "--data-root", f"{data_root}"]
    options = ["--test-share", "0.34", "--stratify"]
    done = CliRunner().invoke(cli.app, [*arguments, *options], catch_exceptions=False)
    assert "6 cases in 4 folds, 2 in the test set" in " ".join(done.output.split())
    config = open_run(tmp_path / "run", data_root).config
    assert (config.test_share, config.stratify, config.test_file) == (0.34, True, None)
    (tmp_path / "test.txt").write_text("case_01")
    with pytest.raises(InputError, match="exclude each other: give test_share or test_file"):
        CliRunner().invoke(
            cli.app, [*arguments, "--test-file", f"{tmp_path}/test.txt"], catch_exceptions=False
        )
