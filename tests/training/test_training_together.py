"""Two processes that train together: killed, left alone or asked to end, they go on and end with the same weights."""

import csv
import shutil
import signal
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import TINY
from planned_run import begin_run
from safetensors.numpy import load_file
from training_together import Moment, end_all, marks, stamp, start, told, wait_until

from medunet.commands.train import run_train
from medunet.runs.run import Run, open_run
from medunet.training.checkpoints import CheckpointState, is_readable

CHANGES = (
    *TINY,
    "training.augment=true",
    "training.epochs=1",
    "training.steps_per_epoch=8",
    "training.accumulate=2",
    "training.ema_decay=0.9",
    "training.checkpoint_minutes=0",  # after every step
    "planning.batch_size=4",
    "training.optimizer=sgd",  # Adam would make much of rounding where gradients are small
    "training.learning_rate=1e-3",
)
BATCH_NORM = ("planning.network.norm=batch", "planning.network.dropout=0.1")
WEIGHTS = ("weights.safetensors", "weights_final.safetensors")
ONLY_WHEN_ASKED = "training.checkpoint_minutes=60"
PREEMPTED = 75

pytestmark = pytest.mark.slow


def begin(root: Path, data_root: Path, *changes: str) -> Run:
    """Train one epoch; copies of the run go on from there, because what was timed then bounds their validation."""
    begun = begin_run(root / "begun", data_root, (*CHANGES, *changes))
    run_train(begun)
    return begun


def copy(begun: Run, root: Path, *changes: str) -> Run:
    """Copy a run, to train two more epochs."""
    changed = ["training.epochs=3", *changes]
    copied = open_run(shutil.copytree(begun.folder.root, root), begun.data_root, changes=changed)
    copied.save()
    shutil.rmtree(copied.folder.model(0))
    return copied


@pytest.fixture(scope="module")
def begun(finished_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with averaged weights after one epoch."""
    return begin(tmp_path_factory.mktemp("begun"), finished_run.data_root)


@pytest.fixture(scope="module")
def calm(begun: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, gone on with undisturbed in two processes."""
    run = copy(begun, tmp_path_factory.mktemp("calm") / "run")
    assert end_all(start(run.folder.root, run.data_root)) == [0, 0]
    return run


def last_of(run: Run) -> Path:
    return run.folder.fold(0) / "checkpoints" / "last.ckpt"


def history(run: Run) -> list[dict[str, str]]:
    """Return the rows of training.csv without what the clock says."""
    with (run.folder.fold(0) / "training.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    return [{key: row[key] for key in row if key not in ("minutes", "patches_per_s")} for row in rows]


def assert_same(one: Run, other: Run) -> None:
    for name in WEIGHTS:
        assert (one.folder.model(0) / name).read_bytes() == (other.folder.model(0) / name).read_bytes()
    assert history(one) == history(other)


def pause(run: Run, folder: Path, at: Moment, count: int = 2) -> tuple[list[BaseProcess], list[Path]]:
    """Start processes and wait until all of them pause at a moment; return them and the files to remove."""
    mark = folder / f"paused in {at}"
    processes = start(run.folder.root, run.data_root, count=count, mark=mark, at=at)
    files = marks(mark, count)
    wait_until(lambda: all(file.exists() for file in files), processes)
    return processes, files


def test_killed_in_an_epoch_and_in_validation_two_end_with_the_same_weights(
    finished_run: Run, tmp_path: Path
):
    begun = begin(tmp_path, finished_run.data_root, *BATCH_NORM)
    calm, killed = (copy(begun, tmp_path / name) for name in ("calm", "killed"))
    assert end_all(start(calm.folder.root, calm.data_root)) == [0, 0]

    last = last_of(killed)
    before = stamp(last)
    both = start(killed.folder.root, killed.data_root)
    wait_until(lambda: stamp(last) != before, both)
    kill(both)
    both, _ = pause(killed, tmp_path, "validation")
    kill(both)
    assert len(history(killed)) == 1  # no validation but that of the first epoch has ended
    assert CheckpointState.read(last).step > 8
    assert end_all(start(killed.folder.root, killed.data_root)) == [0, 0]
    assert_same(calm, killed)
    assert len(history(calm)) == 3


def kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    end_all(processes)


def test_one_dies_the_other_ends_at_once_and_both_go_on(begun: Run, calm: Run, tmp_path: Path):
    left = copy(begun, tmp_path / "left")
    for dead in (1, 0):
        both, files = pause(left, tmp_path, "epoch")
        both[dead].kill()
        for file in files:
            file.unlink()
        codes = end_all(both, within_s=60)
        assert codes[dead] == -signal.SIGKILL
        assert codes[1 - dead] == 2
        assert "another process has ended" in told(left.folder.root)
    assert end_all(start(left.folder.root, left.data_root)) == [0, 0]
    assert_same(calm, left)


@pytest.mark.parametrize(("asked", "number"), [([0, 1], signal.SIGTERM), ([1], signal.SIGUSR1)])
def test_asked_to_end_both_save_after_the_same_step_and_go_on(
    asked: list[int], number: signal.Signals, begun: Run, calm: Run, tmp_path: Path
):
    stopped = copy(begun, tmp_path / "stopped", ONLY_WHEN_ASKED)
    assert stop(stopped, tmp_path, asked, number, count=2) == [PREEMPTED] * 2
    text = told(stopped.folder.root)
    assert f"asked to end by {number.name}, after step 10; the checkpoint is whole" in text
    assert text.count("after step 10") == 2
    assert is_readable(last_of(stopped))
    assert CheckpointState.read(last_of(stopped)).step == 10
    assert not list(stopped.folder.root.glob(".medunet.*.lock"))
    assert end_all(start(stopped.folder.root, stopped.data_root)) == [0, 0]
    assert_same(calm, stopped)


def stop(run: Run, folder: Path, asked: list[int], number: signal.Signals, *, count: int) -> list[int | None]:
    """Send a signal to some of the processes and their children in the middle of an epoch; return the exit codes."""
    processes, files = pause(run, folder, "epoch", count)
    for rank in asked:
        process = psutil.Process(processes[rank].pid)
        for each in (*process.children(recursive=True), process):
            each.send_signal(number)
    for file in files:
        file.unlink()
    return end_all(processes)


def test_one_process_asked_to_end_with_its_loaders_goes_on(begun: Run, tmp_path: Path):
    loaders = "training.workers=1"  # they get the signal too, as from Slurm
    calm = copy(begun, tmp_path / "calm")
    stopped = copy(begun, tmp_path / "stopped", ONLY_WHEN_ASKED, loaders)
    assert end_all(start(calm.folder.root, calm.data_root, count=1)) == [0]
    assert stop(stopped, tmp_path, [0], signal.SIGTERM, count=1) == [PREEMPTED]
    assert "asked to end by SIGTERM, after step 10" in told(stopped.folder.root)
    assert end_all(start(stopped.folder.root, stopped.data_root, count=1)) == [0]
    assert_same(calm, stopped)


def test_asked_to_end_during_validation_it_is_done_again(begun: Run, calm: Run, tmp_path: Path):
    stopped = copy(begun, tmp_path / "stopped")
    both, files = pause(stopped, tmp_path, "validation")
    both[1].terminate()  # the other one has not heard of it
    for file in files:
        file.unlink()
    assert end_all(both) == [PREEMPTED] * 2
    assert "during validation" in told(stopped.folder.root)
    assert CheckpointState.read(last_of(stopped)).step < 16
    assert end_all(start(stopped.folder.root, stopped.data_root)) == [0, 0]
    assert_same(calm, stopped)


def test_asked_to_end_while_lightning_prepares_both_end(begun: Run, calm: Run, tmp_path: Path):
    stopped = copy(begun, tmp_path / "stopped")
    both, files = pause(stopped, tmp_path, "start")
    both[1].terminate()  # Lightning's handler would talk to the other process, which is elsewhere
    for file in files:
        file.unlink()
    assert end_all(both, within_s=60) == [PREEMPTED] * 2
    assert "asked to end by SIGTERM" in told(stopped.folder.root)
    assert end_all(start(stopped.folder.root, stopped.data_root)) == [0, 0]
    assert_same(calm, stopped)


def test_two_train_as_one_with_averaged_weights(begun: Run, calm: Run, tmp_path: Path):
    one = copy(begun, tmp_path / "one")
    assert end_all(start(one.folder.root, one.data_root, count=1)) == [0]
    for name in WEIGHTS:
        alone, together = (load_file(run.folder.model(0) / name) for run in (one, calm))
        assert {*alone} == {*together}
        largest = max(float(np.abs(alone[key] - together[key]).max()) for key in alone)
        assert largest < 1e-5, name
    for alone_row, row in zip(history(one), history(calm), strict=True):
        for key in ("loss", "validation_loss"):
            assert float(alone_row[key]) == pytest.approx(float(row[key]), abs=1e-5)
