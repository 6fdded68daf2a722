"""Pictures through all stages, as `pipelines/nuclei.py` does: from PNG files to upright masks and a report."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from PIL import Image
from tiny_pictures import describe_pictures, draw_discs, write_pictures

from medunet.base.files import read_json
from medunet.commands.predict import run_predict
from medunet.commands.run import run_all
from medunet.runs.run import open_run

QUICK = (
    "planning.dimensions=2",
    "planning.base_features=8",
    "planning.max_features=16",
    "planning.patch_size=[32, 32]",
    "planning.batch_size=4",
    "training.steps_per_epoch=80",
    "training.epochs=1",
    "training.optimizer=adamw",
    "training.learning_rate=1e-2",
    "training.precision=fp32",
    "training.augment=false",
    "training.validation_cases=1",
)


@pytest.mark.slow
def test_masks_lie_on_their_pictures(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data", 6)
    describe_pictures().write(tmp_path / "discs.json")
    changes = (*QUICK, "holdout=0.5", "device=cpu")
    run = open_run(tmp_path / "run", data, dataset=str(tmp_path / "discs.json"), changes=changes)
    assert run_all(run)[0] == []
    held_out = [case.id for case in run.read_manifest().cases if case.fold == 0]
    assert len(held_out) == 3
    for case in held_out:
        picture, numbers = draw_discs(int(case[-2:]))
        with Image.open(run.folder.predictions / f"{case}.png") as mask:
            assert mask.mode == "L"
            assert mask.size == (picture.shape[1], picture.shape[0])
            found = np.asarray(mask)
        assert set(np.unique(found)) <= {0, 1}
        overlap = np.count_nonzero((found > 0) & (numbers > 0))
        assert 2 * overlap / (np.count_nonzero(found) + np.count_nonzero(numbers)) > 0.8  # else it is turned
    scores = pd.read_csv(run.folder.scores)
    assert sorted(scores.case) == held_out
    assert scores.dice.min() > 0.8
    assert read_json(run.folder.root / "scores.json")["about"]["unit_of_length"] == "px"
    assert (run.folder.report / "index.html").exists()
    masks = {path.name: path.stat().st_mtime_ns for path in run.folder.predictions.glob("*.png")}
    assert run_predict(run) == {}
    assert masks == {path.name: path.stat().st_mtime_ns for path in run.folder.predictions.glob("*.png")}


@pytest.mark.slow
def test_nuclei_script(tmp_path: Path) -> None:
    data = write_pictures(tmp_path / "data")
    (tmp_path / "split.json").write_text(
        '{"validation": ["disc_02"], "training": ["disc_00", "disc_01", "disc_03"]}'
    )
    quick = (*QUICK, "training.steps_per_epoch=2")
    command = [sys.executable, "pipelines/nuclei.py", "--run", tmp_path / "run", "--data-root", data]
    command += ["--folds-file", tmp_path / "split.json", "--device", "cpu"]
    command += [part for key in quick for part in ("--set", key)]
    done = subprocess.run(
        [str(part) for part in command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hd95 px" in done.stdout
    assert list(pd.read_csv(tmp_path / "run/scores.csv").case) == ["disc_02"]
