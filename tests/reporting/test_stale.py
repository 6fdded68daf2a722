"""Scores that are older than the files: the report names masks that changed and cases that are excluded since."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny_run import make_run

from medunet.base.files import read_json, write_json
from medunet.records.manifest import Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.report import report_run
from medunet.reporting.stale import find_stale
from medunet.scoring.mask_hashes import hash_mask
from medunet.scoring.tables import read_scores


@pytest.fixture
def made(tmp_path: Path) -> tuple[RunFolder, Path]:
    return make_run(tmp_path)


def warnings_of(run: RunFolder, data_root: Path) -> list[str]:
    found = find_stale(read_scores(run.scores), Manifest.read(run.manifest), data_root, run.predictions)
    return found.warnings


def test_scores_of_unchanged_files_are_not_old(made: tuple[RunFolder, Path]) -> None:
    assert warnings_of(*made) == []


def test_a_replaced_mask_is_named_on_page_and_console(
    made: tuple[RunFolder, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run, data_root = made
    shutil.copy(run.predictions / "lps_poor.nii.gz", run.predictions / "ras_good.nii.gz")
    with caplog.at_level(logging.WARNING):
        page = report_run(run, data_root, scores=read_scores(run.scores)).read_text()
    text = "The predicted mask was replaced since scoring: ras_good. These scores are old"
    assert text in caplog.text
    assert text in page
    case = (run.report / "cases" / "ras_good.html").read_text()
    assert "The predicted mask was replaced since scoring: these scores are old." in case
    assert "these scores are old" not in (run.report / "cases" / "lps_poor.html").read_text()


def test_every_kind_of_change_is_named(made: tuple[RunFolder, Path]) -> None:
    run, data_root = made
    manifest = read_json(run.manifest)
    manifest["excluded"] = [{"id": "ras_good", "reason": "motion"}]
    manifest["cases"] = [case for case in manifest["cases"] if case["id"] != "oblique_healthy"]
    write_json(run.manifest, manifest)
    shutil.copy(run.predictions / "ras_good.nii.gz", run.predictions / "no_prediction.nii.gz")
    (run.predictions / "lps_poor.nii.gz").unlink()
    label = next(case["label"] for case in manifest["cases"] if case["id"] == "ras_good")
    (data_root / label).write_bytes((data_root / label).read_bytes() + b"0")
    assert sorted(text.partition(". These")[0] for text in warnings_of(run, data_root)) == [
        "A predicted mask was added since scoring: no_prediction",
        "Excluded from the manifest since scoring: ras_good",
        "No longer in the manifest: oblique_healthy",
        "The predicted mask was removed since scoring: lps_poor",
        "The reference mask was replaced since scoring: ras_good",
    ]


def test_a_table_without_hashes_is_still_compared_by_its_cases(made: tuple[RunFolder, Path]) -> None:
    run, data_root = made
    old = pd.read_csv(run.scores, dtype=str).drop(
        columns=["reference_sha256", "prediction_sha256", "patient"]
    )
    old.to_csv(run.scores, index=False)
    shutil.copy(run.predictions / "lps_poor.nii.gz", run.predictions / "ras_good.nii.gz")
    assert warnings_of(run, data_root) == []
    manifest = read_json(run.manifest)
    write_json(run.manifest, {**manifest, "excluded": [{"id": "ras_good", "reason": "motion"}]})
    (text,) = warnings_of(run, data_root)
    assert text.startswith("Excluded from the manifest since scoring: ras_good")


def test_a_hash_covers_the_file_that_holds_the_voxels(tmp_path: Path) -> None:
    import SimpleITK as sitk

    path = tmp_path / "mask.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), dtype=np.uint8)), str(path))
    before = hash_mask(path)
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"\1" + raw.read_bytes()[1:])
    assert len(before) == 16
    assert hash_mask(path) != before
    assert hash_mask(tmp_path / "none.nii.gz") == hash_mask(None) == ""
