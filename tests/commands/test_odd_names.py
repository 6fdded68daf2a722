"""Cases with odd names go through all stages: nothing is run, split at a delimiter, escaped wrongly or mixed up."""

import csv
import shutil
from pathlib import Path

from tiny_cohort import write_tiny_cohort
from typer.testing import CliRunner, Result

from medunet.base.files import read_json
from medunet.cli.app import app
from medunet.records.manifest import Manifest
from medunet.reporting.page import page_names
from medunet.scoring.tables import read_scores

NAMES = ("$HOME", "a; touch x; b", "肝臓_01", "CON", "=1+1")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def test_odd_names_go_through_all_stages(tmp_path: Path) -> None:
    root, run = write_tiny_cohort(tmp_path / "data", len(NAMES)), tmp_path / "run"
    for path in [*root.rglob("*.nii.gz")]:
        path.rename(path.with_name(f"{NAMES[int(path.name[5:7])]}.nii.gz"))
    result = call("manifest", root, "--run", run)
    assert result.exit_code == 0, result.output
    manifest = Manifest.read(run / "manifest.json")
    assert {case.id for case in manifest.cases} == set(NAMES)
    result = call("check", run, "--data-root", root, "--exclude", "=1+1=looked odd")
    assert result.exit_code == 0, result.output
    assert [entry.id for entry in Manifest.read(run / "manifest.json").excluded] == ["=1+1"]
    kept = sorted(set(NAMES) - {"=1+1"})
    for name in kept:
        (run / "predictions").mkdir(exist_ok=True)
        shutil.copy(root / f"labelsTr/{name}.nii.gz", run / "predictions")
    out = tmp_path / "scores"
    masks = ("score", root / "labelsTr", run / "predictions", "--dataset", run / "run_description.json")
    result = call(*masks, "--out", out)
    scores = read_scores(out / "scores.csv")
    assert {name: set(scores["status"][scores["case"] == name]) <= {"ok", "both_empty"} for name in kept} == (
        dict.fromkeys(kept, True)
    )
    assert set(scores["case"]) == set(NAMES)
    with (out / "scores.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["case"].removeprefix("'") for row in rows} == set(NAMES)
    assert not any(row["case"].startswith("=") for row in rows)
    shutil.copy(out / "scores.csv", run / "scores.csv")
    shutil.copy(out / "scores.json", run / "scores.json")
    result = call("report", run, "--data-root", root)
    assert result.exit_code == 0, (result.output, result.exception)
    index = (run / "report/index.html").read_text(encoding="utf-8")
    for name, page in page_names(kept).items():
        assert (run / "report/cases" / page).is_file(), name
    assert "肝臓_01" in index
    assert not (tmp_path / "x").exists()
    assert not Path("x").exists()
    assert read_json(run / "manifest.json")


def test_no_page_has_a_name_of_a_device_of_windows() -> None:
    names = page_names(["CON", "aux", "Com1", "nul.1", "contour", "COM12"])
    assert {case for case, name in names.items() if name == f"{case}.html"} == {"contour", "COM12"}
