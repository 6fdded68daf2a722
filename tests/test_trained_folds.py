"""Stages agree on which folds exist: those that are trained, whatever `training.fold` is set to."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY
from planned_run import begin_run
from tiny_cohort import write_tiny_cohort
from typer.testing import CliRunner

from medunet.base.errors import FaultsError, InputError
from medunet.base.files import read_json
from medunet.cli import app as cli
from medunet.commands.check import run_check
from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.imaging.volumes import read_label, write_mask
from medunet.records.scores import UNSCORED
from medunet.runs.run import Run, open_run

QUICK = ("training.epochs=1", "training.steps_per_epoch=2", "training.validation_cases=1")
FOLDS = [["case_00"], ["case_01"], ["case_02"]]


def write_cohort(root: Path, *, with_tumour: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Write three cases, of which only some have a tumour."""
    write_tiny_cohort(root / "data", 4)
    for path in (root / "data").glob("*/case_03.nii.gz"):
        path.unlink()
    for number in {0, 1, 2} - set(with_tumour):
        path = root / f"data/labelsTr/case_{number:02d}.nii.gz"
        label = read_label(path)
        write_mask(path, label.array.clip(0, 1), label.header)
    (root / "folds.json").write_text(json.dumps({"folds": FOLDS}))
    return root / "data"


def begin(root: Path, **cohort: tuple[int, ...]) -> Run:
    data = write_cohort(root, **cohort)
    return begin_run(root / "run", data, (*TINY, *QUICK, f"folds_file={root}/folds.json"))


def configured(run: Run, fold: int | str) -> Run:
    return open_run(run.folder.root, run.data_root, changes=[f"training.fold={fold}", "device=cpu"])


def words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def check_scored(run: Run, cases: set[str]) -> None:
    scores = pd.read_csv(run.folder.scores)
    assert set(scores.case) == cases
    assert not set(scores.status) & set(UNSCORED)


def test_folds_trained_one_by_one_are_predicted_and_scored(tmp_path: Path, capsys) -> None:
    run = begin(tmp_path)
    for fold in (2, 0):
        run_train(configured(run, fold))
    for fold in (1, "each", "all", 0):  # whatever it is set to
        capsys.readouterr()
        assert run_predict(configured(run, fold)) == {}
        assert "fold 1 is not trained; its 1 case is not predicted" in words(capsys)
        run_score(configured(run, fold))
        assert "fold 1 is not trained; its 1 case is not scored" in words(capsys)
        check_scored(run, {"case_00", "case_02"})
    assert read_json(run.folder.root / "scores.json")["about"]["folds"] == ["0", "2"]
    run_train(configured(run, 1))
    capsys.readouterr()
    assert run_predict(configured(run, 0)) == {}
    run_score(configured(run, 0))
    assert "not trained" not in words(capsys)
    check_scored(run, {"case_00", "case_01", "case_02"})


def test_one_fold_can_be_predicted_alone(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for fold in (0, 1):
        run_train(configured(run, fold))
    arguments = ["predict", run.folder.root, "--data-root", run.data_root, "--fold", "1", "--device", "cpu"]
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert set(read_json(run.folder.predictions / "index.json")["cases"]) == {"case_01"}


def test_a_run_whose_fold_0_is_not_trained_predicts_scans_with_the_fold_that_is(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run_train(configured(run, 1))
    scan = run.data_root / "imagesTr/case_00.nii.gz"
    arguments = ["predict", run.folder.root, scan, "--out", tmp_path / "out", "--device", "cpu"]
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Fold 0 is not trained: the model of fold 1 is used." in " ".join(done.output.split())


def test_an_untrained_run_is_not_scored_as_missing_throughout(tmp_path: Path) -> None:
    run = begin(tmp_path)
    for stage in (run_predict, run_score):
        with pytest.raises(InputError, match=r"no fold is trained.*medunet train"):
            stage(run)


def test_a_fold_without_a_class_is_refused_and_the_others_are_not(tmp_path: Path, capsys, caplog) -> None:
    run = begin(tmp_path, with_tumour=(1,))  # planned with fold 0, which has the class
    run_train(configured(run, 0))
    assert "trains without" not in caplog.text
    for fold in (1, "each"):
        with pytest.raises(FaultsError, match=r"fold 1 \(S015: .*tumour \(only in case_01\)") as refused:
            run_train(configured(run, fold))
        assert "--accept S015" in str(refused.value)
    run_check(configured(run, 1), accept=["S015:=there is one tumour"])
    run_train(configured(run, 1))
    assert "Fold 1 trains without tumour" in caplog.text


def test_a_run_is_planned_although_its_configured_fold_lacks_a_class(tmp_path: Path) -> None:
    run = begin(tmp_path, with_tumour=(0,))  # fold 0, the configured one, trains without it
    run_train(configured(run, 2))
    with pytest.raises(FaultsError, match=r"fold 0 \(S015"):
        run_train(configured(run, 0))


def test_an_export_says_which_fold_it_is_of(own_run, call, tmp_path):
    pytest.importorskip("openvino")
    folds = own_run.folder.root / "folds"
    (folds / "0").rename(folds / "1")
    code, text = call("export", own_run.folder.root, "--to", "openvino", "--out", tmp_path / "exported")
    assert code == 0, text
    assert "Fold 0 is not trained: the model of fold 1 is used." in text
