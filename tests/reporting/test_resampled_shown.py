"""Masks of another grid on the pages: shown as they were scored, and the page says so."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_run import DESCRIPTION, affine_of, make_run

from medunet.base.files import read_json, write_json
from medunet.imaging.geometry import Affine
from medunet.imaging.nifti import write_volume
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_label
from medunet.records.manifest import Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting import triptych
from medunet.reporting.report import report_run
from medunet.reporting.scans import load_scan
from medunet.reporting.scores import is_resampled
from medunet.reporting.triptych import draw_triptych, save_triptychs
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.tables import read_scores, write_scores

SHOWN = "The prediction is shown as it was scored: resampled to the reference&#39;s grid."
VALUES = {"liver": (3, 9), "tumour": (9,)}  # of a model that writes other values than the dataset


def make_finer(labels: NDArray, affine: Affine) -> tuple[NDArray, Affine]:
    """Return a label map with each voxel cut in two along the second axis, its first and last axis swapped."""
    cut = affine @ nib.affines.from_matvec(np.diag([1, 0.5, 1]), (0, -0.25, 0))
    swap = np.eye(4)[[2, 1, 0, 3]]
    return labels.repeat(2, axis=1).transpose(2, 1, 0), cut @ swap


def cut_finer(run: RunFolder, case: str) -> tuple[Path, Volume]:
    """Make a case's prediction finer; return its path and what stood there before."""
    path = run.predictions / f"{case}.nii.gz"
    volume = read_label(path)
    write_volume(path, *make_finer(volume.array, volume.affine))
    return path, volume


def score(run: RunFolder, data_root: Path, *, resample: bool, predicted: dict | None = None) -> None:
    pairs = []
    for case in Manifest.read(run.manifest).cases:
        prediction = run.predictions / f"{case.id}.nii.gz"
        assert case.label
        pairs.append(Pair(case.id, data_root / case.label, prediction if prediction.exists() else None))
    targets = DESCRIPTION.targets
    scores = score_pairs(pairs, targets, predicted or targets, resample=resample, workers=1)
    write_scores(scores, run.root, about={"resample": resample}, targets=targets)


def page_of(run: RunFolder, data_root: Path, case: str) -> str:
    report_run(run, data_root, scores=read_scores(run.scores))
    return (run.report / "cases" / f"{case}.html").read_text()


def pictures(page: str) -> list[str]:
    return re.findall(r'<img src="([^"]+)"', page)


@pytest.fixture
def made(tmp_path: Path) -> tuple[RunFolder, Path]:
    return make_run(tmp_path)


def test_a_mask_cut_finer_is_shown_as_the_mask_that_it_was(made: tuple[RunFolder, Path]) -> None:
    run, data_root = made
    before = page_of(run, data_root, "lps_poor")
    assert len(pictures(before)) > 2
    cut_finer(run, "lps_poor")
    score(run, data_root, resample=True)
    page = page_of(run, data_root, "lps_poor")
    assert pictures(page) == pictures(before)
    assert page.count(SHOWN) == 1
    assert "was resampled from 5×0.75×2 mm to the reference&#39;s grid for scoring" in page
    assert "away from the scan" not in page
    assert SHOWN not in before
    assert SHOWN not in (run.report / "cases/ras_good.html").read_text()
    assert "Cases without pictures" not in (run.report / "index.html").read_text()


@pytest.mark.parametrize("is_same_shape", [False, True])
def test_the_shown_masks_have_the_scores_beside_them(
    made: tuple[RunFolder, Path], is_same_shape: bool
) -> None:
    run, data_root = made
    path = run.predictions / "ras_good.nii.gz"
    volume = read_label(path)
    if is_same_shape:
        labels, affine = volume.array, affine_of("RAS", (2.1, 2.0, 1.8), tilt_degrees=4)
    else:
        labels, affine = volume.array[::2, ::-1, 1::3], affine_of("RAS", (4, 2, 6))
        affine = affine @ nib.affines.from_matvec(np.diag([1, -1, 1]), (0, 33, 0.33))
    declared = np.choose(labels, (0, 3, 9)).astype(np.uint8)
    write_volume(path, declared, affine)
    index = read_json(run.predictions / "index.json")
    write_json(run.predictions / "index.json", {**index, "targets": VALUES})
    score(run, data_root, resample=True, predicted=VALUES)
    rows = read_scores(run.scores).query("case == 'ras_good'")
    assert is_resampled(rows)
    assert (rows["dice"] < 1).all()

    case = next(case for case in Manifest.read(run.manifest).cases if case.id == "ras_good")
    scan = load_scan(case, DESCRIPTION, data_root, path, VALUES, resample=True)
    assert scan.is_resampled
    assert scan.warnings == ()
    for name, dice in zip(rows["label"], rows["dice"], strict=True):
        truth, found = (
            np.isin(mask, DESCRIPTION.targets[name]) for mask in (scan.reference, scan.prediction)
        )
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) == pytest.approx(dice, abs=1e-12)
    page = page_of(run, data_root, "ras_good")
    assert pictures(page)
    assert SHOWN in page


def test_a_mask_that_was_not_resampled_has_no_pictures_and_a_mend(made: tuple[RunFolder, Path]) -> None:
    run, data_root = made
    cut_finer(run, "ras_good")
    score(run, data_root, resample=False)
    page = page_of(run, data_root, "ras_good")
    assert not pictures(page)
    assert "prediction shape (20, 68, 30) differs from the scan&#39;s (30, 34, 20). Score it with" in page
    assert "`--resample` to see it" in page


def test_a_mask_that_was_moved_away_since_is_not_shown(made: tuple[RunFolder, Path]) -> None:
    run, data_root = made
    path, volume = cut_finer(run, "ras_good")
    score(run, data_root, resample=True)
    write_volume(path, volume.array, nib.affines.from_matvec(np.eye(3), (500, 0, 0)) @ volume.affine)
    page = page_of(run, data_root, "ras_good")
    assert "No pictures: case ras_good: the two grids do not overlap" in page
    assert pictures((run.report / "cases/lps_poor.html").read_text())


def test_pictures_for_slides_show_what_was_scored_too(
    made: tuple[RunFolder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data_root = made
    path, _ = cut_finer(run, "ras_good")
    score(run, data_root, resample=True)
    assert set(save_triptychs(run, data_root)) == {"ras_good"}  # without scores nothing says to resample
    assert save_triptychs(run, data_root, read_scores(run.scores)) == {}
    case = next(case for case in Manifest.read(run.manifest).cases if case.id == "ras_good")
    scan = load_scan(case, DESCRIPTION, data_root, path, resample=True)
    titles: list[str] = []
    original = triptych.draw_sheet

    def record(rows, legend, **options):
        titles.extend(place.title for place in rows[0])
        return original(rows, legend, **options)

    monkeypatch.setattr(triptych, "draw_sheet", record)
    draw_triptych(scan, {})
    assert titles[1:] == ["reference", "prediction, resampled"]
