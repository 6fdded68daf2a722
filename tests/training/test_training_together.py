"""Two processes that train together: killed, left alone or asked to end, they go on and end with the same weights."""

import csv
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from planned_run import begin_run
from safetensors.numpy import load_file
from training_together import end_all, stamp, start, wait_until

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
    "training.learning_rate=1e-3",
)
BATCH_NORM = ("planning.network.norm=batch", "planning.network.dropout=0.1")
WEIGHTS = ("weights.safetensors", "weights_final.safetensors")
PREEMPTED = 75

pytestmark = pytest.mark.slow


def begin(
    root: Path, data_root: Path, changes: Sequence[str], *, epochs: int, names: Sequence[str]
) -> list[Run]:
    """Train one epoch, and return copies of the run that go on from there: what was timed then bounds validation."""
    begun = begin_run(root / "begun", data_root, (*CHANGES, *changes))
    run_train(begun)
    copies = [
        open_run(
            shutil.copytree(begun.folder.root, root / name), data_root, changes=[f"training.epochs={epochs}"]
        )
        for name in names
    ]
    for copy in copies:
        copy.save()
        shutil.rmtree(copy.folder.model(0))
    return copies


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


def test_killed_in_an_epoch_and_in_validation_two_end_with_the_same_weights(
    finished_run: Run, tmp_path: Path
):
    data_root = finished_run.data_root
    calm, killed = begin(tmp_path, data_root, BATCH_NORM, epochs=3, names=("calm", "killed"))
    assert end_all(start(calm.folder.root, data_root)) == [0, 0]

    last, mark = last_of(killed), tmp_path / "validates"
    before = stamp(last)
    both = start(killed.folder.root, data_root)
    wait_until(lambda: stamp(last) != before, both)
    for process in both:
        process.kill()
    end_all(both)
    both = start(killed.folder.root, data_root, mark=mark)
    wait_until(mark.exists, both)
    for process in both:
        process.kill()
    end_all(both)
    assert len(history(killed)) == 1  # no validation but that of the first epoch has ended
    assert end_all(start(killed.folder.root, data_root)) == [0, 0]
    assert_same(calm, killed)
    assert len(history(calm)) == 3


def test_one_dies_the_other_ends_at_once_and_both_go_on(finished_run: Run, tmp_path: Path, capfd):
    data_root = finished_run.data_root
    calm, left = begin(tmp_path, data_root, (), epochs=2, names=("calm", "left"))
    assert end_all(start(calm.folder.root, data_root)) == [0, 0]
    for dead in (1, 0):
        before = stamp(last_of(left))
        both = start(left.folder.root, data_root)
        wait_until(lambda before=before: stamp(last_of(left)) != before, both)
        both[dead].kill()
        codes = end_all(both, within_s=30)
        assert codes[dead] == -signal.SIGKILL
        assert codes[1 - dead] == 2
        assert "another process has ended" in " ".join(capfd.readouterr().err.split())
    assert end_all(start(left.folder.root, data_root)) == [0, 0]
    assert_same(calm, left)


@pytest.mark.parametrize(
    ("count", "asked", "number"),
    [
        (1, [0], signal.SIGTERM),
        (2, [0, 1], signal.SIGTERM),
        (2, [1], signal.SIGUSR1),
        (2, [0], signal.SIGTERM),
    ],
)
def test_asked_to_end_all_save_after_the_same_step_and_go_on(
    count: int, asked: list[int], number: signal.Signals, finished_run: Run, tmp_path: Path, capfd
):
    data_root = finished_run.data_root
    changes = (
        "training.checkpoint_minutes=60",
    )  # no checkpoint within an epoch but the one that is asked for
    calm, stopped = begin(tmp_path, data_root, changes, epochs=3, names=("calm", "stopped"))
    assert end_all(start(calm.folder.root, data_root, count=count)) == [0] * count
    before = CheckpointState.read(last_of(stopped)).step
    log = stopped.folder.fold(0) / "tensorboard"
    processes = start(stopped.folder.root, data_root, count=count)
    events = {*log.iterdir()}
    wait_until(lambda: {*log.iterdir()} != events, processes)  # the first process is about to train
    for rank in asked:
        os.kill(processes[rank].pid or 0, number)
    assert end_all(processes) == [PREEMPTED] * count
    assert f"asked to end by {number.name}, after step" in " ".join(capfd.readouterr().err.split())
    assert is_readable(last_of(stopped))
    assert CheckpointState.read(last_of(stopped)).step > before
    assert not list(stopped.folder.root.glob(".medunet.*.lock"))
    assert end_all(start(stopped.folder.root, data_root, count=count)) == [0] * count
    assert_same(calm, stopped)


def test_asked_to_end_during_validation_it_is_done_again(finished_run: Run, tmp_path: Path, capfd):
    data_root = finished_run.data_root
    calm, stopped = begin(tmp_path, data_root, (), epochs=2, names=("calm", "stopped"))
    assert end_all(start(calm.folder.root, data_root)) == [0, 0]
    mark = tmp_path / "validates"
    both = start(stopped.folder.root, data_root, mark=mark)
    wait_until(mark.exists, both)
    for process in both:
        process.terminate()
    assert end_all(both) == [PREEMPTED] * 2
    assert "during validation" in capfd.readouterr().err
    assert end_all(start(stopped.folder.root, data_root)) == [0, 0]
    assert_same(calm, stopped)


def test_two_train_as_one_with_averaged_weights(finished_run: Run, tmp_path: Path):
    data_root = finished_run.data_root
    one, two = begin(tmp_path, data_root, (), epochs=2, names=("one", "two"))
    assert end_all(start(one.folder.root, data_root, count=1)) == [0]
    assert end_all(start(two.folder.root, data_root)) == [0, 0]
    for name in WEIGHTS:
        alone, together = (load_file(run.folder.model(0) / name) for run in (one, two))
        assert {*alone} == {*together}
        largest = max(float(np.abs(alone[key] - together[key]).max()) for key in alone)
        assert largest < 1e-5, name
    for alone_row, row in zip(history(one), history(two), strict=True):
        for key in ("loss", "validation_loss"):
            assert float(alone_row[key]) == pytest.approx(float(row[key]), abs=1e-5)
