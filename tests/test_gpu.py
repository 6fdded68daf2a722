"""Training, prediction, resume and lack of memory on a card; where it can be, the same on a CPU.

`pytest -m gpu` runs what needs a card: a few minutes.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import TINY
from planned_run import begin_run
from safetensors.torch import load_file

from medunet.base.errors import InputError
from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.runs.provenance import read_provenance
from medunet.runs.run import Run

WAYS = [
    ("cpu", "fp32"),
    pytest.param("cuda", "bf16", marks=pytest.mark.gpu),
    pytest.param("cuda", "fp16", marks=pytest.mark.gpu),
]


def begin(finished_run: Run, root: Path, device: str, *changes: str) -> Run:
    """Plan a run on the tiny cohort for a device."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA card here")
    return begin_run(root / "run", finished_run.data_root, (*TINY, f"device={device}", *changes))


@pytest.mark.parametrize(("device", "precision"), WAYS)
def test_a_run_trains_resumes_and_predicts(
    finished_run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], device: str, precision: str
):
    asked = f"training.precision={precision}"
    run_train(begin(finished_run, tmp_path, device, asked, "training.epochs=1"))
    capfd.readouterr()
    run = begin(finished_run, tmp_path, device, asked)  # three epochs
    run_train(run)
    assert "Resuming fold 0 at step 16" in capfd.readouterr().err
    with (run.folder.fold(0) / "training.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [16, 32, 48]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert read_provenance(run)["folds"]["0"]["compute"]["precision"] == precision
    weights = load_file(run.folder.model(0) / "weights.safetensors")
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in weights.values())

    assert run_predict(run) == {}
    liver = [row.dice for row in run_score(run) if row.label == "liver"]
    assert sum(liver) / len(liver) > 0.7


@pytest.mark.gpu
def test_augmentation_of_a_card_is_that_of_a_cpu(finished_run: Run, tmp_path: Path):
    """Drawn by (seed, epoch, index) and applied where training runs: the first losses are the same."""
    losses = []
    for device in ("cpu", "cuda"):
        changes = ("training.augment=true", "training.epochs=1", "training.steps_per_epoch=4")
        run = begin(finished_run, tmp_path / device, device, *changes)
        run_train(run)
        with (run.folder.fold(0) / "training.csv").open() as stream:
            losses.append(float(next(csv.DictReader(stream))["loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=0.02)  # a card multiplies in TF32


@pytest.fixture
def full_card() -> Iterator[None]:
    """A card of which this process may take nothing more."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA card here")
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.gpu
@pytest.mark.usefixtures("full_card")
def test_a_full_card_is_a_message_in_training_and_in_prediction(finished_run: Run, tmp_path: Path):
    run = begin(finished_run, tmp_path, "cuda")
    with pytest.raises(InputError, match=r"memory ran out.*planning\.batch_size") as caught:
        run_train(run)
    assert caught.value.exit_code == 2
    with pytest.raises(InputError, match=r"free memory.*--device cpu"):
        run_predict(Run(finished_run.folder, run.config, finished_run.data_root))


@pytest.mark.gpu
def test_a_scan_that_a_card_cannot_hold_is_named(finished_run: Run, tmp_path: Path):
    run = begin(finished_run, tmp_path, "cuda", "training.epochs=1")
    run_train(run)
    model_gb = torch.cuda.memory_allocated() / torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(model_gb + 2e-4)  # the weights and little more
    try:
        failed = run_predict(run)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert failed
    assert all("memory ran out on cuda" in reason for reason in failed.values())
