"""Training that is killed, cut short or stopped goes on, and ends where an undisturbed one ends."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import TINY

from medunet import runs, stages
from medunet.config import change_config
from medunet.errors import InputError
from medunet.training.checkpoints import best_row, is_readable, newest_readable
from medunet.training.data import EpochSampler
from medunet.training.train import _Saved


def weights_of(run: runs.Run) -> bytes:
    return (run.folder.model(0) / "weights.safetensors").read_bytes()


def begin(run: runs.Run, root, changes: tuple[str, ...] = ()) -> runs.Run:
    """Begin a run on the same data up to the plan."""
    begun = runs.open_run(root, run.data_root, dataset="phantoms", changes=(*TINY, *changes))
    stages.run_manifest(begun)
    stages.run_check(begun)
    stages.run_plan(begun)
    return begun


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(finished_run: runs.Run, tmp_path):
    """SIGKILL after the first epoch, then the same command: bit-identical to the undisturbed run."""
    run = begin(finished_run, tmp_path / "run", ("training.augment=true",))
    calm = begin(finished_run, tmp_path / "calm", ("training.augment=true",))
    command = [
        sys.executable,
        "-m",
        "medunet.cli",
        "train",
        str(tmp_path / "run"),
        "--data-root",
        str(run.data_root),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = run.folder.fold(0) / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not run.folder.model(0).exists()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    stages.run_train(calm)
    assert weights_of(run) == weights_of(calm)


def test_a_checkpoint_cut_short_is_passed_over_for_the_one_before(own_run: runs.Run):
    folder = own_run.folder.fold(0) / "checkpoints"
    last = folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-2000])
    assert not is_readable(last)
    assert newest_readable(folder) == folder / "previous.ckpt"
    before = weights_of(own_run)
    (own_run.folder.model(0) / "weights.safetensors").unlink()
    stages.run_train(own_run)
    assert is_readable(last)
    assert weights_of(own_run) == before


def test_two_broken_checkpoints_are_not_silently_started_anew(own_run: runs.Run):
    folder = own_run.folder.fold(0) / "checkpoints"
    for name in ("last.ckpt", "previous.ckpt"):
        path = folder / name
        path.unlink()
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match="neither of"):
        stages.run_train(own_run)


def test_more_epochs_go_on_from_the_last_one(own_run: runs.Run):
    longer = runs.open_run(own_run.folder.root, own_run.data_root, changes=["training.epochs=4"])
    stages.run_train(longer)
    rows = (longer.folder.fold(0) / "training.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["16", "32", "48", "64"]


def test_minutes_end_training_with_a_last_validation(finished_run: runs.Run, tmp_path):
    run = begin(finished_run, tmp_path / "run", ("training.max_minutes=0.02", "training.epochs=1000"))
    card = stages.run_train(run)
    rows = (run.folder.fold(0) / "training.csv").read_text().splitlines()
    assert len(rows) < 20
    assert card.validation_dice["dice"] is not None


def test_two_dimensions_train_and_predict_volumes(finished_run: runs.Run, tmp_path):
    changes = ("planning.dimensions=2", "planning.patch_size=[24, 24]", "planning.batch_size=8")
    run = begin(finished_run, tmp_path / "run", changes)
    stages.run_train(run)
    assert stages.run_predict(run) == {}
    scores = stages.run_score(run)
    assert sum(row.dice for row in scores if row.label == "liver") / 2 > 0.5


def test_all_cases_train_and_say_that_they_validate_too(finished_run: runs.Run, tmp_path):
    run = begin(finished_run, tmp_path / "run", ("training.fold=all", "training.epochs=1"))
    assert stages.run_train(run).train_is_validation


def test_the_best_weights_are_the_first_highest_dice():
    history = [{"dice": value} for value in (0.3, math.nan, 0.7, 0.7, 0.5)]
    assert best_row(history) == 2
    assert best_row([{"dice": math.nan}]) == 0


@pytest.mark.parametrize(
    ("changes", "over"),
    [([], False), (["training.epochs=2"], True), (["training.max_minutes=1"], True), (["training.patience=2"], True),
     (["training.patience=3"], False)],
)  # fmt: skip
def test_limits_that_end_a_resumed_run(changes, over):
    history = [{"dice": value} for value in (0.5, 0.8, 0.7, 0.6)]
    saved = _Saved("id", step=500, elapsed_s=60.0, history=history)
    assert saved.is_over(change_config({"dataset": "x"}, changes, "test")) is over


def test_early_stopping_ends_training_and_keeps_the_best(finished_run: runs.Run, tmp_path):
    changes = (
        "training.patience=1",
        "training.epochs=50",
        "training.learning_rate=1e-9",
        "training.steps_per_epoch=2",
    )
    run = begin(finished_run, tmp_path / "run", changes)
    stages.run_train(run)
    rows = (run.folder.fold(0) / "training.csv").read_text().splitlines()
    assert len(rows) - 1 < 10


def test_patches_are_addressed_by_epoch_and_index():
    sampler = EpochSampler(3)
    sampler.set_epoch(4)
    assert list(sampler) == [(4, 0), (4, 1), (4, 2)]
