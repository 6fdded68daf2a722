"""`medunet preprocess` writes what training reads, by processes of this computer or by workers of Ray."""

import importlib.util
import shutil

import pytest

from medunet.base.pool import Workers
from medunet.base.ray_engine import ray_engine
from medunet.commands.preprocess import run_preprocess
from medunet.runs.run import Run, open_run
from medunet.training import cache
from medunet.training.cache import prepare_cases

has_ray = importlib.util.find_spec("ray") is not None  # imported later: it reads its settings at import


def count_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> int:
    """Prepare the cases of fold 0, as training does, and return how many of them are preprocessed."""
    jobs: list[object] = []
    monkeypatch.setattr(cache, "_write_entries", lambda missing, *_: jobs.extend(missing))
    training, validation = run.read_manifest().split_fold(0)
    cases = {case.id: case for case in (*training, *validation)}.values()
    prepare_cases(
        list(cases),
        run.read_manifest().description,
        run.read_plan(),
        run.data_root,
        run.folder.cache,
        seed=run.config.seed,
    )
    return len(jobs)


def test_training_finds_all_its_cases(own_run: Run, monkeypatch: pytest.MonkeyPatch, capsys):
    shutil.rmtree(own_run.folder.cache)
    run = open_run(own_run.folder.root, own_run.data_root)
    assert run_preprocess(run) == len(run.read_manifest().split_fold("all")[0])
    assert f"Preprocess: {run_preprocess(run)} cases" in capsys.readouterr().out
    assert count_written(run, monkeypatch) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("one_ray")
@pytest.mark.skipif(not has_ray, reason="Ray is not installed")
def test_workers_of_ray_write_the_same(own_run: Run, monkeypatch: pytest.MonkeyPatch):
    shutil.rmtree(own_run.folder.cache)
    run_preprocess(own_run)
    here = {path.name: path.read_bytes() for path in own_run.folder.cache.iterdir() if path.is_file()}
    shutil.rmtree(own_run.folder.cache)
    monkeypatch.setattr(cache, "_LITTLE_WORK", 0)
    monkeypatch.setattr(cache, "choose_workers", lambda *_, **__: Workers(2))
    with ray_engine(None):
        run_preprocess(own_run)
    there = {path.name: path.read_bytes() for path in own_run.folder.cache.iterdir() if path.is_file()}
    assert here == there
    assert len(here) >= 2 * len(own_run.read_manifest().split_fold("all")[0])
