"""Loading workers serve the patches that the training process itself would read, however they are started."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from conftest import TINY
from planned_run import begin_run

from medunet.commands.train import run_train
from medunet.compute.processes import ALONE
from medunet.runs.run import Run
from medunet.training.cache import load_into_memory, prepare_cases
from medunet.training.data import FoldData
from medunet.transforms.patches import PreparedCase


@pytest.fixture(params=["fork", "forkserver", "spawn"])
def start_method(request: pytest.FixtureRequest):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


def data_of(run: Run, cases: list[PreparedCase], num_workers: int) -> FoldData:
    config = run.config.training
    return FoldData(
        cases, cases[:1], run.read_plan(), config, seed=0, num_workers=num_workers, processes=ALONE
    )


@pytest.mark.parametrize("ram_gb", [1.0, 1e-6], ids=["in_memory", "on_disk"])
def test_workers_serve_the_same_patches(finished_run: Run, tmp_path: Path, ram_gb: float):
    run = finished_run
    cases, _ = run.read_manifest().split_fold(0)
    on_disk = prepare_cases(
        cases, run.read_manifest().description, run.read_plan(), run.data_root, tmp_path, seed=0
    )
    expected = list(data_of(run, on_disk, 0).train_dataloader())
    assert len(expected) == run.config.training.steps_per_epoch
    shared = data_of(run, load_into_memory(on_disk, ram_gb, shared=True), 2)
    for one, other in zip(expected, shared.train_dataloader(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "label", "address"))


def trained_weights(root: Path, data_root: Path, *, workers: int, ram_gb: float) -> bytes:
    changes = (f"training.workers={workers}", f"training.ram_gb={ram_gb}", "training.epochs=1",
               "training.steps_per_epoch=8", "training.augment=true")  # fmt: skip
    run = begin_run(root, data_root, (*TINY, *changes))
    run_train(run)
    return (run.folder.model(0) / "weights_final.safetensors").read_bytes()


@pytest.fixture(scope="module")
def weights_without_workers(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = tmp_path_factory.mktemp("alone") / "run"
    return trained_weights(root, finished_run.data_root, workers=0, ram_gb=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("ram_gb", [1.0, 1e-6], ids=["in_memory", "on_disk"])
def test_training_with_workers_ends_with_the_same_weights(
    finished_run: Run, tmp_path: Path, start_method: str, ram_gb: float, weights_without_workers: bytes
):
    weights = trained_weights(tmp_path / "run", finished_run.data_root, workers=2, ram_gb=ram_gb)
    assert weights == weights_without_workers
