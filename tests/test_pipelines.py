"""The pipeline scripts, with the arguments that their users give; small networks and few steps."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import nibabel as nib
import pandas as pd
import pytest
from conftest import REPOSITORY

from medunet.base.files import read_json, write_json
from medunet.commands import demo
from medunet.commands.terminal import console
from medunet.phantoms.phantom import write_cohort

QUICK = (
    "planning.base_features=4", "planning.max_features=16", "planning.patch_size=[32, 32, 16]",
    "planning.batch_size=2", "training.epochs=1",
    "training.steps_per_epoch=3", "training.precision=fp32", "training.validation_cases=1",
    "inference.overlap=0.0",
)  # fmt: skip


def start(script: str, run: Path, *arguments: object, quick: tuple[str, ...] = QUICK, code: int = 0) -> str:
    """Start a script as from a shell, but in this process, which has all imported; return what it printed."""
    settings = [part for change in quick for part in ("--set", change)]
    path, printed, ended = REPOSITORY / "pipelines" / f"{script}.py", io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", [str(part) for part in (path, "--run", run, *arguments, *settings)])
        patch.syspath_prepend(str(path.parent))
        patch.setattr(console, "_width", 160)
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            ended = stop.code
    assert ended == code, printed.getvalue()
    return printed.getvalue()


@pytest.mark.slow
def test_demo_ends_with_scores_report_log_and_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "_NUM_CASES", 5)
    quick = ("training.epochs=1", "training.steps_per_epoch=3")
    output = start("demo", tmp_path / "demo", quick=quick, code=1)  # three steps teach it too little
    verdict, report = output.strip().splitlines()[-2:]
    assert re.search(r"^Demo: mean Dice liver .* too low$", verdict)
    assert report.startswith("Report: open in a browser (")
    assert (tmp_path / "demo/report/index.html").exists()
    assert "tensorboard --logdir" in output
    labels = set(pd.read_csv(tmp_path / "demo/scores.csv").label)
    assert labels == {"liver", "tumour"}


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "dataset"), [("msd", "msd_task03_liver"), ("lits", "lits_2017")])
def test_liver_tumour_reads_both_layouts(tmp_path, layout, dataset):
    write_cohort(tmp_path / "data", num_cases=5, layout=layout)
    output = start(
        "liver_tumour", tmp_path / "run", "--data-root", tmp_path / "data", "--set", f"dataset={dataset}"
    )
    assert "5 cases in 5 folds" in output
    assert (tmp_path / "run/scores.csv").exists()


@pytest.mark.slow
@pytest.mark.real_data
def test_liver_model_is_tried_on_a_real_ct(tmp_path, shared_data: Path):
    write_cohort(tmp_path / "data", num_cases=5)
    arguments = ("--data-root", tmp_path / "data", "--external-root", shared_data / "ct_abdomen")
    start("liver_tumour", tmp_path / "run", *arguments)
    scores = pd.read_csv(tmp_path / "run/external/totalsegmentator/scores.csv")
    assert list(scores.label) == ["liver"]
    assert scores.reference_ml[0] > 100
    assert scores.status[0] in ("ok", "missed")


@pytest.mark.slow
@pytest.mark.real_data
def test_brats_runs_on_a_real_patient_and_compares_readers(tmp_path, shared_data: Path):
    whole = shared_data / "brats" / "TCGA-FG-6692"
    root = tmp_path / "data" / whole.name
    for path in whole.rglob("*.nii.gz"):  # around the tumour: three steps outline noise, slow to score
        target = root / path.relative_to(whole)
        target.parent.mkdir(parents=True, exist_ok=True)
        nib.load(path).slicer[45:125, 40:136, 36:136].to_filename(target)
    start("brats", tmp_path / "run", "--data-root", root, "--readers", root / "raters")
    scores = pd.read_csv(tmp_path / "run/scores.csv")
    assert set(scores.label) == {"whole_tumour", "tumour_core", "enhancing_tumour"}
    readers = pd.read_csv(tmp_path / "run/readers/scores.csv")
    assert readers.case.nunique() == 5
    whole = readers[(readers.case == "hnfnetv1-20") & (readers.label == "whole_tumour")]
    assert whole.dice.item() == pytest.approx(
        0.97829861, abs=1e-6
    )  # surface-distance, MedPy and SimpleITK agree
    card = read_json(tmp_path / "run/folds/0/model/model.json")
    assert card["train_is_validation"]
    assert (tmp_path / "run/pictures/TCGA-FG-6692.png").exists()


@pytest.mark.slow
@pytest.mark.real_data
def test_hippocampus_runs_on_its_fixed_folds(tmp_path, shared_data: Path):
    quick = (
        "planning.base_features=4",
        "training.epochs=1",
        "training.steps_per_epoch=3",
        "training.validation_cases=2",
        "inference.shifts=1",
    )
    fixed = read_json(shared_data.parent / "splits" / "hippocampus.json")["folds"]
    folds = tmp_path / "folds.json"  # few are held out: each takes a prediction, a scoring and a page
    write_json(
        folds, {"folds": [fixed[0][:5], [*fixed[0][5:], *(case for fold in fixed[1:] for case in fold)]]}
    )
    arguments = ("--data-root", shared_data / "hippocampus", "--folds-file", folds)
    output = start("hippocampus", tmp_path / "run", *arguments, quick=quick)
    for stray in ("hippocampus_118", "hippocampus_010", "hippocampus_281"):
        assert stray in output
    assert "S002" in output, "the duplicate label is named"
    scores = pd.read_csv(tmp_path / "run/scores.csv")
    assert sorted(scores.case.unique()) == sorted(fixed[0][:5])


@pytest.mark.slow
@pytest.mark.parametrize(("dimensions", "patch_size"), [(3, [24, 32, 16]), (2, [32, 40])])
def test_brats_trains_on_phantoms_and_saves_pictures(tmp_path, dimensions, patch_size):
    run = tmp_path / "run"
    arguments = ("--phantoms", 5, "--spacing-mm", 6, 6, 7)
    quick = (*QUICK, f"planning.dimensions={dimensions}", f"planning.patch_size={patch_size}")
    start("brats", run, *arguments, quick=quick)
    scores = pd.read_csv(run / "scores.csv")
    assert set(scores.label) == {"whole_tumour", "tumour_core", "enhancing_tumour"}
    assert set(scores.status) <= {"ok", "missed", "both_empty", "false_positive"}
    assert read_json(run / "plan.json")["dimensions"] == dimensions
    (case,) = scores.case.unique()
    (mask,) = (run / "predictions").glob("*.nii.gz")
    assert nib.load(mask).shape == nib.load(run / f"data/labelsTr/{case}.nii.gz").shape
    assert [path.name for path in (run / "pictures").iterdir()] == [f"{case}.png"]
