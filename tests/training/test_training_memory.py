"""A training that does not fit the memory is refused before it begins; memory that runs out is a message."""

import pytest
import torch
from tiny_networks import describe, plan_network

from medunet.base.errors import InputError
from medunet.commands.train import run_train
from medunet.compute.processes import ALONE, Processes
from medunet.records.config import TrainingConfig
from medunet.runs.run import Run
from medunet.training import memory
from medunet.training.module import SegmentationModule

PLAN = plan_network("plain", 3, planning={"patch_size": (64, 64, 64), "base_features": 32})
CPU = torch.device("cpu")
STEP_GB = memory.step_gb(PLAN, describe(), device=CPU, precision="bf16")
CARD_GB = memory.step_gb(PLAN, describe(), device=torch.device("cuda"), precision="bf16")
HELD_GB = memory.cases_gb(PLAN, describe(), 100)  # scans of 300×280×64: 25 bytes to each five voxels


def require(
    monkeypatch: pytest.MonkeyPatch, free_gb: float, *, card_gb: float | None = None, ram_gb: float | None = None,
    processes: Processes = ALONE,
) -> None:  # fmt: skip
    def free(device: torch.device) -> float:
        return card_gb if device.type == "cuda" and card_gb is not None else free_gb

    monkeypatch.setattr(memory, "free_memory_gb", free)
    memory.require_memory(
        PLAN,
        describe(),
        TrainingConfig(ram_gb=ram_gb),
        num_cases=100,
        precision="bf16",
        device=torch.device("cpu" if card_gb is None else "cuda"),
        processes=processes,
    )


def test_an_element_takes_more_in_full_precision_and_on_a_cpu():
    single = memory.step_gb(PLAN, describe(), device=CPU, precision="fp32")
    assert CARD_GB < STEP_GB < single < 4 * CARD_GB


def test_held_cases_by_hand():
    assert pytest.approx(100 * 300 * 280 * 64 * 5 / 1e9) == HELD_GB


def test_a_step_that_does_not_fit_is_refused_with_the_keys_to_lower(monkeypatch):
    require(monkeypatch, STEP_GB + 0.01, ram_gb=0.1)
    message = rf"cpu: .*batch of 2 takes about {STEP_GB:.1f} GB.*planning\.batch_size.*planning\.memory_gb"
    with pytest.raises(InputError, match=message):
        require(monkeypatch, STEP_GB - 0.01, ram_gb=0.1)


def test_held_cases_count_beside_the_step_on_a_cpu(monkeypatch):
    require(monkeypatch, STEP_GB + HELD_GB + 0.01, ram_gb=10)
    with pytest.raises(
        InputError, match=r"training\.ram_gb: 100 preprocessed cases.*--ram-gb.*read from disk"
    ):
        require(monkeypatch, STEP_GB + HELD_GB - 0.01, ram_gb=10)
    require(monkeypatch, STEP_GB + HELD_GB - 0.01, ram_gb=0.9 * HELD_GB)  # too many to be held at all


def test_on_a_card_the_step_lies_there_and_the_cases_do_not(monkeypatch):
    require(monkeypatch, HELD_GB + 0.01, card_gb=CARD_GB + 0.01, ram_gb=10)
    with pytest.raises(InputError, match=r"cuda: .*takes about"):
        require(monkeypatch, 100, card_gb=CARD_GB - 0.01)
    with pytest.raises(InputError, match=r"training\.ram_gb"):
        require(monkeypatch, HELD_GB - 0.01, card_gb=100, ram_gb=10)


def test_processes_share_the_batch_and_the_computer(monkeypatch):
    """Two on one computer: each holds its own weights and half of the batch, and both the same cases."""
    half = memory.step_gb(PLAN, describe(), precision="bf16", device=CPU, num_processes=2)
    assert STEP_GB / 2 < half < STEP_GB
    two = Processes(2, 0, 2)
    require(monkeypatch, 2 * half + HELD_GB + 0.01, ram_gb=20, processes=two)
    with pytest.raises(InputError, match=r"training\.ram_gb"):
        require(monkeypatch, 2 * half + HELD_GB - 0.01, ram_gb=20, processes=two)


def test_training_asks_before_it_begins(own_run: Run, monkeypatch: pytest.MonkeyPatch):
    for path in (own_run.folder.fold(0) / "checkpoints").iterdir():
        path.unlink()
    monkeypatch.setattr(memory, "free_memory_gb", lambda device: 0.001)
    with pytest.raises(InputError, match=r"cpu: .*0\.0 GB are free"):
        run_train(own_run)
    assert not list((own_run.folder.fold(0) / "checkpoints").iterdir())


@pytest.mark.parametrize("step", ["training_step", "validation_step"])
def test_memory_that_runs_out_in_training_is_a_message(own_run, monkeypatch: pytest.MonkeyPatch, step: str):
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    for path in (own_run.folder.fold(0) / "checkpoints").iterdir():
        path.unlink()
    monkeypatch.setattr(SegmentationModule, step, exhausted)
    with pytest.raises(InputError, match=r"fold 0 on cpu: memory ran out.*planning\.batch_size") as caught:
        run_train(own_run)
    assert caught.value.exit_code == 2


def test_other_errors_pass_as_they_are():
    with pytest.raises(RuntimeError, match="shapes differ"), memory.explain_out_of_memory("here"):
        raise RuntimeError("shapes differ")
