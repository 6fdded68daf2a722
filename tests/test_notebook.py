"""The notebooks run from fresh kernels on tiny runs, show what is true, define nothing and hold no outputs."""

import ast
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient
from nbformat import NotebookNode, read
from nbformat.v4 import new_code_cell
from tiny_run import DESCRIPTION, ODD_ID, make_run

from medunet.imaging.nifti import read_header, write_mask
from medunet.records.manifest import Case, Manifest
from medunet.records.run_folder import RunFolder
from medunet.runs.run import Run, open_run
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.tables import write_scores

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def code(request: pytest.FixtureRequest) -> list[NotebookNode]:
    """The code cells of a notebook."""
    return code_of(read(request.param, as_version=4))


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_defines_nothing_and_holds_no_outputs(code: list[NotebookNode]) -> None:
    assert code
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))


def test_imports_only_public_names(code: list[NotebookNode]) -> None:
    public = set(re.findall(r"`(medunet\.[\w.]+)`", (REPOSITORY / "docs" / "python.md").read_text()))
    nodes = [node for cell in code for node in ast.walk(ast.parse(cell.source))]
    assert not [
        alias.name
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
        if "medunet" in alias.name
    ]
    used = {
        f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("medunet")
        for alias in node.names
    }
    assert used - public == set()


def test_docs_name_every_notebook() -> None:
    page = (REPOSITORY / "docs" / "reports.md").read_text()
    assert set(re.findall(r"`notebooks/(\w+\.ipynb)`", page)) == {path.name for path in NOTEBOOKS}


@dataclass(frozen=True)
class Shown:
    """What an executed notebook shows."""

    printed: list[str]  # lines
    tables: str
    num_pictures: int
    asked: Any  # what the expression gives


def execute(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, expression: str, **variables: object
) -> Shown:
    """Run a notebook in a folder, with variables `MEDUNET_...`; `expression` gives JSON of its own variables."""
    for key, value in variables.items():
        monkeypatch.setenv(f"MEDUNET_{key.upper()}", str(value))
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    notebook = read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)
    notebook.cells.append(new_code_cell(f"print({expression})"))
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(folder))
    *cells, asked = code_of(notebook)
    outputs = [output for cell in cells for output in cell.outputs]
    return Shown(
        "".join(
            each.text for each in outputs if each.output_type == "stream" and each.name == "stdout"
        ).splitlines(),
        "".join(each.data.get("text/plain", "") for each in outputs if "data" in each),
        sum("image/png" in each.get("data", {}) for each in outputs),
        json.loads(asked.outputs[0].text),
    )


@pytest.mark.slow
def test_volumes_intensities_and_faults_of_a_dataset(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = execute(
        *("explore_dataset", tmp_path, monkeypatch),
        '"[" + volumes.to_json() + "," + intensities.set_index("case").to_json() + "]"',
        run=finished_run.folder.root,
        data_root=finished_run.data_root,
    )
    volumes, intensities = shown.asked
    livers_ml = {}
    for path in sorted((finished_run.data_root / "labelsTr").iterdir()):
        case, label = path.name.removesuffix(".nii.gz"), nib.load(path)
        labels, voxel_ml = np.asanyarray(label.dataobj), np.prod(label.header.get_zooms()) / 1000
        livers_ml[case] = voxel_ml * (labels > 0).sum()
        assert volumes["liver"][case] == pytest.approx(livers_ml[case], rel=1e-4)
        assert volumes["tumour"][case] == pytest.approx(voxel_ml * (labels == 2).sum(), rel=1e-4)
        image = np.asanyarray(nib.load(finished_run.data_root / "imagesTr" / path.name).dataobj)
        for name, percentile in (("low", 5), ("median", 50), ("high", 95)):
            assert intensities[name][case] == pytest.approx(np.percentile(image[labels > 0], percentile))
    first, *cases = shown.printed
    assert first == "6 of 6 labelled cases read"
    order = sorted(livers_ml, key=livers_ml.__getitem__)
    named = [line.partition(" | ")[0] for line in cases]
    assert named[0] == order[0]
    assert named[-1] == order[-1]
    assert "S010" in shown.tables
    assert shown.num_pictures == 3 + 3


@pytest.mark.slow
def test_curves_and_validation_pictures_of_a_training(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = execute(
        *("watch_training", tmp_path, monkeypatch),
        "[entry.step for entry in events.Images('validation_worst')]",
        run=finished_run.folder.root,
    )
    dice = pd.read_csv(finished_run.folder.fold(0) / "training.csv")["dice"]
    assert shown.printed[0].startswith("3 of 3 epochs in ")
    assert shown.printed[1].startswith(f"mean Dice at best {dice.max():.3f}, in epoch {dice.argmax()};")
    assert shown.asked == [16, 32, 48]
    assert shown.num_pictures == 2 + 4  # two plots; the first and the worst case, early and late


def make_two_runs(folder: Path) -> tuple[RunFolder, RunFolder, Path]:
    """Write the tiny run with nine more cases, and a run that predicts these worse; return both and the data."""
    run, data_root = make_run(folder)
    manifest = Manifest.read(run.manifest)
    good = manifest.cases[0]
    assert good.label is not None
    more = [
        Case(id=f"more_{number}", patient=f"more_{number}", images=good.images, label=good.label, fold=0)
        for number in range(9)
    ]
    manifest = Manifest(description=DESCRIPTION, cases=(*manifest.cases, *more))
    manifest.write(run.manifest)
    open_run(run.root, data_root, dataset=DESCRIPTION).save()
    other = RunFolder(folder / "other")
    shutil.copytree(run.predictions, other.predictions)
    label = nib.load(data_root / good.label)
    for each, moved in ((run, 1), (other, 2)):
        for number, case in enumerate(more):
            labels = np.roll(np.asanyarray(label.dataobj), moved * (number % 3), axis=0)
            write_mask(each.predictions / f"{case.id}.nii.gz", labels, read_header(data_root / good.label))
        pairs = []
        for case in manifest.cases:
            assert case.label is not None
            mask = each.predictions / f"{case.id}.nii.gz"
            pairs.append(Pair(case.id, data_root / case.label, mask if mask.exists() else None))
        scores = score_pairs(pairs, DESCRIPTION.targets, DESCRIPTION.targets)
        write_scores(scores, each.root, about={}, targets=DESCRIPTION.targets)
    return run, other, data_root


@pytest.mark.slow
def test_worst_cases_and_the_differences_of_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other, data_root = make_two_runs(tmp_path)
    shown = execute(
        *("review_runs", tmp_path, monkeypatch),
        '"[" + pairs.to_json(orient="records") + "," + apart.to_json() + "]"',
        run=run.root,
        other_run=other.root,
        data_root=data_root,
    )
    pairs, apart = shown.asked
    tables = [pd.read_csv(each.root / "scores.csv") for each in (run, other)]
    first, second = (
        table.assign(dice=table["dice"].where(table["status"] != "missing", 0.0)).pivot_table(
            index="case", columns="label", values="dice"
        )
        for table in tables
    )
    assert first.loc["no_prediction"].tolist() == [0, 0]
    for label in ("liver", "tumour"):
        (pair,) = (pair for pair in pairs if pair["label"] == label and pair["metric"] == "dice")
        difference = (first[label] - second[label]).dropna()
        assert pair["mean_difference"] == pytest.approx(difference.mean())
        assert pair["num_patients"] == len(difference)
        assert pair["low"] < pair["mean_difference"] < pair["high"]
    mean = (first - second).mean(axis=1).abs()
    assert mean[next(iter(apart["liver"]))] == pytest.approx(mean.max())
    assert shown.printed[0].startswith(f"{ODD_ID} | tumour: false_positive")
    assert "no_prediction" in shown.tables
    assert (
        shown.num_pictures == 2 + 2 * 3 + 2 * 3
    )  # two plots, the three worst cases, three cases of both runs


@pytest.mark.slow
def test_an_array_gets_the_mask_that_its_file_gets(
    finished_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = execute(
        *("arrays_to_scores", tmp_path, monkeypatch),
        """__import__('json').dumps([held_out[0].id, mask.tolist(), {key: rows[key]["dice"] for key in rows}])""",
        run=finished_run.folder.root,
        data_root=finished_run.data_root,
    )
    case, mask, dice = shown.asked
    predicted, reference = (
        np.asanyarray(nib.as_closest_canonical(nib.load(folder / f"{case}.nii.gz")).dataobj)
        for folder in (finished_run.folder.predictions, finished_run.data_root / "labelsTr")
    )
    assert np.mean(np.array(mask) == predicted) > 0.999
    for name, least in (("liver", 1), ("tumour", 2)):
        truth, found = reference >= least, np.array(mask) >= least
        assert dice[name] == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))
    assert shown.num_pictures == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == []  # no file is written
