"""The notebook runs from a fresh kernel on a tiny run, defines nothing and is stored without outputs."""

import ast
import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tiny_run import ODD_ID, make_run

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "review_cases.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_defines_nothing_and_holds_no_outputs(notebook: nbformat.NotebookNode) -> None:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not any(isinstance(node, kinds) for node in ast.walk(ast.parse(cell.source)))


@pytest.mark.slow
def test_runs_and_shows_the_worst_case_first(
    notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data_root = make_run(tmp_path)
    monkeypatch.setenv("MEDUNET_RUN", str(run.root))
    monkeypatch.setenv("MEDUNET_DATA_ROOT", str(data_root))
    paths = [str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert printed.splitlines()[0].startswith(f"{ODD_ID} | False positive: tumour")
    assert len(pictures) == 2 + 2 * 3  # two plots, and planes and errors of the three worst
    tables = "".join(output.data.get("text/plain", "") for output in outputs if "data" in output)
    assert "no_prediction" in tables
