"""`medunet predict --roi`: new scans and held-out cases in a region of interest, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from medunet.base.files import read_json, write_json
from medunet.imaging.nifti import write_volume
from medunet.imaging.volumes import read_volume
from medunet.runs.run import Run


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """A scan of four times the training scans' cross-section, with a box as they have."""
    rng = np.random.default_rng(0)
    image = rng.normal(-80, 8, (70, 60, 30))
    image[8:26, 6:22, 4:12] += 190
    path = tmp_path / "large.nii.gz"
    write_volume(path, image.astype(np.int16), np.diag([2.0, 2.0, 4.0, 1.0]))
    return path


def test_new_scans_are_predicted_in_the_region_of_a_model_or_a_run(
    call, finished_run: Run, scan: Path, tmp_path: Path
) -> None:
    run, out = finished_run.folder, tmp_path / "out"
    given = ("predict", run.model(0), scan, "--out", out, "--device", "cpu", "--accept", "N028")
    roi = ("--roi-targets", "liver", "--roi-margin-mm", "6")
    code, text = call(*given, "--roi", run.root, *roi)
    assert code == 0, text
    assert "region of interest: liver with 6 mm" in text
    entry = read_json(out / "index.json")["cases"]["large"]
    assert entry["roi"]["targets"] == ["liver"]
    assert entry["roi"]["margin_mm"] == 6
    assert entry["roi"]["model_sha256"] == entry["model_sha256"]
    (i, j, k) = (slice(*span) for span in entry["roi_box"])
    mask = read_volume(out / "large.nii.gz").array
    assert mask[i, j, k].any()
    mask[i, j, k] = 0
    assert not mask.any()
    time = (out / "large.nii.gz").stat().st_mtime_ns
    code, text = call(*given, "--roi", run.model(0), *roi)
    assert code == 0, text
    assert (out / "large.nii.gz").stat().st_mtime_ns == time, "the same model of the same run"
    code, text = call(*given)
    assert "1 of 1 cases is predicted again: the whole scan (1)" in text
    assert "roi" not in read_json(out / "index.json")["cases"]["large"]


def test_held_out_cases_are_predicted_by_both_models_of_their_fold(
    call, own_run: Run, tmp_path: Path
) -> None:
    root, data = own_run.folder.root, ("--data-root", own_run.data_root)
    coarse = tmp_path / "coarse"
    shutil.copytree(root, coarse)
    code, text = call("predict", root, *data, "--roi", coarse)
    assert code == 0, text
    entries = read_json(own_run.folder.predictions / "index.json")["cases"].values()
    assert entries
    assert all(entry["roi"]["fold"] == entry["fold"] for entry in entries)
    assert all(entry["roi"]["margin_mm"] == 20 for entry in entries)
    card = coarse / "folds/0/model/model.json"
    held_out = list(read_json(own_run.folder.predictions / "index.json")["cases"])
    write_json(card, {**read_json(card), "training_cases": held_out})
    code, text = call("predict", root, *data, "--roi", coarse)
    assert code == 2
    assert f"the coarse model was trained on {len(held_out)} of the held-out cases" in text
    (coarse / "folds/0").rename(coarse / "folds/1")
    code, text = call("predict", root, *data, "--roi", coarse)
    assert code == 2
    assert "coarse: no trained network of fold 0" in text, "not the model of another fold"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--roi-targets", "liver"), "--roi-targets: there is no region of interest"),
        (("--roi-margin-mm", "5"), "--roi-margin-mm: there is no region of interest"),
        (("--roi", "RUN", "--roi-targets", "kidney"), "the coarse model has no ['kidney']"),
        (("--roi", "RUN", "--roi-targets", "liver,"), "the coarse model has no ['']"),
        (("--roi", "RUN", "--roi-margin-mm", "-5"), "-5 mm is no margin"),
        (("--roi", "nowhere"), "there is no model 'nowhere'"),
    ],
)
def test_what_makes_no_region_is_refused(
    call, finished_run: Run, scan: Path, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    run, out = finished_run.folder, tmp_path / "out"
    given = [run.root if option == "RUN" else option for option in options]
    code, text = call("predict", run.model(0), scan, "--out", out, *given)
    assert code == 2
    assert words in text
    assert not (out / "large.nii.gz").exists()
