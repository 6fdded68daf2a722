"""Preprocessed cases on disk and in memory hold the same, within the memory that is allowed."""

import numpy as np
import pytest

from medunet import runs
from medunet.training import cache
from medunet.training.cache import hold_in_memory, prepare_cases, ram_needed_gb
from medunet.training.data import PatchDataset


def prepared(run: runs.Run):
    cases, _ = run.manifest.split_fold(0)
    return prepare_cases(cases, run.manifest.description, run.plan, run.data_root, run.folder.cache, seed=0)


def test_patches_from_disk_equal_those_from_memory(finished_run: runs.Run):
    on_disk = prepared(finished_run)
    in_memory = hold_in_memory(on_disk, 1.0, num_processes=1)
    assert all(isinstance(case.image, np.ndarray) for case in in_memory)
    assert not any(isinstance(case.image, np.ndarray) for case in on_disk)
    config = finished_run.config.training
    one, other = (PatchDataset(cases, finished_run.plan, config, seed=0) for cases in (on_disk, in_memory))
    for index in range(12):
        first, second = one[(0, index)], other[(0, index)]
        for key in ("image", "label"):
            np.testing.assert_array_equal(first[key].numpy(), second[key].numpy())


def test_what_is_over_the_limit_stays_on_disk_and_says_so(finished_run: runs.Run, capsys):
    cases = prepared(finished_run)
    needed_gb = ram_needed_gb(cases)
    assert hold_in_memory(cases, 1.01 * needed_gb, num_processes=1) is not cases
    assert hold_in_memory(cases, 1.01 * needed_gb, num_processes=2) is cases
    assert "over the limit" in capsys.readouterr().err


def test_another_batch_size_needs_no_preprocessing(finished_run: runs.Run, monkeypatch: pytest.MonkeyPatch):
    plan = finished_run.plan.model_copy(update={"batch_size": 7, "patch_size": (16, 16, 8)})
    before = {path.name: path.stat().st_mtime_ns for path in finished_run.folder.cache.iterdir()}
    cases, _ = finished_run.manifest.split_fold(0)
    description = finished_run.manifest.description
    prepare_cases(cases, description, plan, finished_run.data_root, finished_run.folder.cache, seed=0)
    assert {path.name: path.stat().st_mtime_ns for path in finished_run.folder.cache.iterdir()} == before


def test_another_description_or_version_is_preprocessed_anew(
    finished_run: runs.Run, monkeypatch: pytest.MonkeyPatch, tmp_path
):
    cases, _ = finished_run.manifest.split_fold(0)
    description, plan = finished_run.manifest.description, finished_run.plan

    def num_files(description=description, plan=plan, seed=0) -> int:
        prepare_cases(cases[:1], description, plan, finished_run.data_root, tmp_path, seed=seed)
        return len(list(tmp_path.iterdir()))

    assert num_files() == num_files() == 3
    assert num_files(description.model_copy(update={"sided": not description.sided})) == 6
    assert num_files(plan=plan.model_copy(update={"crop_nonzero": not plan.crop_nonzero})) == 9
    monkeypatch.setattr(cache, "__version__", "0.0")
    assert num_files() == 12


def test_a_batch_of_one_holds_foreground_as_often_as_asked(finished_run: runs.Run):
    plan = finished_run.plan.model_copy(update={"batch_size": 1, "patch_size": (2, 2, 2)})
    shares = {}
    for share in (0.0, 0.5, 1.0):
        config = finished_run.config.training.model_copy(update={"foreground_share": share})
        patches = PatchDataset(prepared(finished_run), plan, config, seed=0)
        shares[share] = np.mean([bool((patches[(0, index)]["label"] > 0).any()) for index in range(100)])
    assert shares[0.0] + 0.2 < shares[0.5] < shares[1.0] == 1.0
