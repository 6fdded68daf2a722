"""Training killed by SIGKILL at any moment goes on, and ends with the very weights of an undisturbed run."""

import multiprocessing
import random
import shutil
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY
from planned_run import begin_run

from medunet.commands.train import run_train
from medunet.runs.run import Run, open_run
from medunet.training.checkpoints import is_readable

CHANGES = (
    *TINY,
    "training.augment=true",
    "training.epochs=4",
    "training.steps_per_epoch=12",
    "training.accumulate=2",
    "training.ema_decay=0.9",
    "training.checkpoint_minutes=0",  # after every step, so that a kill often meets a checkpoint being written
    "training.warmup_steps=10",
    "training.elastic=true",
    "training.validation_cases=1",
    "planning.network.dropout=0.1",
)
LONGER = ("training.epochs=4",)
NUM_KILLS = 4


def train(root: Path, data_root: Path, threads: int) -> None:
    """Train in a process of its own."""
    torch.set_num_threads(threads)
    run_train(open_run(root, data_root))


@pytest.mark.slow
def test_killed_at_many_moments_training_ends_with_the_same_weights(finished_run: Run, tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medunet.commands.train", "medunet.training.train"])
    data_root, threads = finished_run.data_root, torch.get_num_threads()
    begun = begin_run(tmp_path / "begun", data_root, (*CHANGES, "training.epochs=1"))
    run_train(begun)  # both go on from here: what was timed at the start bounds their validation
    calm, killed = (
        open_run(shutil.copytree(begun.folder.root, tmp_path / name), data_root, changes=LONGER)
        for name in ("calm", "killed")
    )
    calm.save()
    killed.save()
    shutil.rmtree(killed.folder.model(0))
    undisturbed = context.Process(target=train, args=(calm.folder.root, data_root, threads))
    undisturbed.start()
    undisturbed.join()
    assert undisturbed.exitcode == 0

    checkpoints = killed.folder.fold(0) / "checkpoints"
    last = checkpoints / "last.ckpt"
    moments, num_kills, num_while_writing = random.Random(0), 0, 0
    weights = killed.folder.model(0) / "weights.safetensors"
    while not weights.exists():
        process = context.Process(target=train, args=(killed.folder.root, data_root, threads))
        process.start()
        if num_kills < NUM_KILLS:
            while_writing = num_kills % 2 == 1
            _wait_for_another(last, process)
            if while_writing:
                _wait_for_writing(checkpoints, process)
            else:
                time.sleep(moments.uniform(0, 0.5))
            num_while_writing += any(checkpoints.glob(".last.ckpt*"))
            process.kill()
            num_kills += 1
        process.join()
    assert num_kills == NUM_KILLS
    assert num_while_writing >= 2
    for name in ("weights.safetensors", "weights_final.safetensors"):
        assert (killed.folder.model(0) / name).read_bytes() == (calm.folder.model(0) / name).read_bytes()
    assert is_readable(checkpoints / "last.ckpt")
    rows = [run.folder.fold(0).joinpath("training.csv").read_text().splitlines() for run in (calm, killed)]
    assert [_untimed(row) for row in rows[0]] == [_untimed(row) for row in rows[1]]


def _wait_for_another(checkpoint: Path, process) -> None:
    """Wait until this life of the process has written a checkpoint of its own."""
    before, deadline = _stamp(checkpoint), time.monotonic() + 60
    while process.is_alive() and _stamp(checkpoint) == before and time.monotonic() < deadline:
        time.sleep(0.001)


def _wait_for_writing(checkpoints: Path, process) -> None:
    deadline = time.monotonic() + 60
    while process.is_alive() and not any(checkpoints.glob(".last.ckpt*")) and time.monotonic() < deadline:
        pass


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def _untimed(row: str) -> list[str]:
    """Return a row of training.csv without what the clock says: minutes and patches per second."""
    return [value for number, value in enumerate(row.split(",")) if number not in (2, 6)]
