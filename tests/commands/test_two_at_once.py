"""Two commands at once: what would overwrite one another is refused with exit code 2, all else goes side by side."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cohort import write_tiny_cohort
from tiny_dicom import write_study
from typer.testing import CliRunner, Result

from medunet.base.lock import LockedError, hold
from medunet.cli.app import app
from medunet.commands.predict import run_predict
from medunet.commands.report import run_report
from medunet.commands.score import run_score
from medunet.dataset.dicom.importer import import_tree
from medunet.runs.provenance import add_provenance, read_provenance
from medunet.runs.run import Run


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize(
    ("stage", "parts", "arguments"),
    [
        ("manifest", None, ("manifest", "phantoms", "--run", "RUN", "--data-root", "DATA")),
        ("manifest", None, ("check", "RUN", "--data-root", "DATA")),
        ("plan", None, ("plan", "RUN", "--data-root", "DATA", "--set", "planning.batch_size=3")),
        ("train", ["fold 0"], ("train", "RUN", "--data-root", "DATA", "--fold", "0", "--device", "cpu")),
        ("predict", None, ("predict", "RUN", "--data-root", "DATA", "--overwrite", "--device", "cpu")),
        ("score", None, ("score", "RUN", "--data-root", "DATA")),
        ("report", None, ("report", "RUN", "--data-root", "DATA")),
        ("tune", None, ("tune", "RUN", "--data-root", "DATA", "--device", "cpu", "--set", "tuning.trials=1")),
        ("compare", None, ("compare", "RUN", "RUN/scores.csv", "--out", "RUN")),
        ("import-dicom", None, ("import-dicom", "DATA", "RUN")),
    ],
)
def test_a_second_command_on_the_same_stage_changes_nothing(
    own_run: Run, stage: str, parts: list[str] | None, arguments: tuple[str, ...]
) -> None:
    root = own_run.folder.root
    given = [each.replace("RUN", str(root)).replace("DATA", str(own_run.data_root)) for each in arguments]
    folder = own_run.folder.predictions if stage == "predict" else root
    if stage == "predict":
        parts = [path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz")]
    with hold(folder, stage, parts):
        before = contents(root)
        result = call(*given)
        assert isinstance(result.exception, LockedError), result.output
        assert result.exception.exit_code == 2
        assert f"process {os.getpid()} on " in str(result.exception)
        assert contents(root) == before


def test_what_only_reads_goes_on_while_a_fold_is_trained(own_run: Run) -> None:
    root = own_run.folder.root
    with hold(root, "train", ["fold 0"]), hold(root, "train", ["fold 1"]):
        assert run_predict(own_run) == {}
        run_score(own_run)
        run_report(own_run)
    assert not list(root.rglob(".medunet*"))


def test_folds_in_parallel_keep_each_others_provenance(own_run: Run) -> None:
    script = (
        "import sys; from pathlib import Path; from medunet.runs.run import open_run; "
        "from medunet.runs.provenance import add_provenance\n"
        "run = open_run(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "for number in range(10): add_provenance(run, 'folds', {f'{sys.argv[3]}{number}': {}})"
    )
    places = (str(own_run.folder.root), str(own_run.data_root))
    processes = [subprocess.Popen([sys.executable, "-c", script, *places, name]) for name in "ab"]
    for number in range(10):
        add_provenance(own_run, "folds", {f"c{number}": {}})
    assert [process.wait() for process in processes] == [0, 0]
    assert {f"{name}{number}" for name in "abc" for number in range(10)} <= read_provenance(own_run)[
        "folds"
    ].keys()


STOPPED = """
import sys, time
from pathlib import Path
from medunet.commands.import_dicom import import_and_show
from medunet.dataset.dicom import conversion
write = conversion.write_volume
def stop(path, *rest):
    if "s02" in path.name:
        path.with_name(f".{path.name}.abcdefgh.nii.gz").write_bytes(b"half")
        print("writing", flush=True)
        time.sleep(60)
    write(path, *rest)
conversion.write_volume = stop
import_and_show(Path(sys.argv[1]), Path(sys.argv[2]), None, repair=False, workers=1)
"""


def test_two_imports_into_one_folder_and_a_kill(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    command = [sys.executable, "-c", STOPPED, str(tmp_path / "tree"), str(tmp_path / "out")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    result = call("import-dicom", tmp_path / "tree", tmp_path / "out")
    assert isinstance(result.exception, LockedError)
    assert f"`medunet import-dicom` is already running in this folder: process {process.pid}" in str(
        result.exception
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert call("import-dicom", tmp_path / "tree", tmp_path / "out").exit_code == 1  # a refused series
    import_tree(tmp_path / "tree", tmp_path / "fresh")
    names = sorted(contents(tmp_path / "fresh"))
    assert sorted(contents(tmp_path / "out")) == names
    for name in (*(name for name in names if name.endswith(".nii.gz")), "series.json", "manifest_CT.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes(), name


@pytest.mark.parametrize(
    "options",
    [
        ("--folds-file", "FILE"),
        ("--test-file", "FILE"),
        ("--set", "seed=7", "--set", "holdout=0.25", "--test-share", "0.99"),
        ("--exclude", "none=no such case"),
    ],
)
def test_a_failed_manifest_changes_nothing(tmp_path: Path, options: tuple[str, ...]) -> None:
    root, run = write_tiny_cohort(tmp_path / "data", 4), tmp_path / "run"
    (tmp_path / "bad.json").write_text('{"folds": [["nobody"]], "test": ["nobody"]}')
    given = [option.replace("FILE", str(tmp_path / "bad.json")) for option in options]
    new = call("manifest", root, "--run", run, *given, "--describe", tmp_path / "new.yaml")
    assert new.exit_code != 0
    assert not run.exists()
    assert not (tmp_path / "new.yaml").exists()
    good = ["case_00", "case_01"], ["case_02", "case_03"]
    (tmp_path / "folds.json").write_text(str({"folds": [*map(list, good)]}).replace("'", '"'))
    assert call("manifest", root, "--run", run, "--folds-file", tmp_path / "folds.json").exit_code == 0
    before = contents(run)
    assert {"run_folds.json", "run_description.json", "manifest.json", "config.yaml"} == before.keys()
    write_tiny_cohort(tmp_path / "other", 3)  # another description, too
    assert call("manifest", tmp_path / "other", "--run", run, *given).exit_code != 0
    assert contents(run) == before
