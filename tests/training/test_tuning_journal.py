"""A search that several processes share through a journal file: no trial twice, none lost."""

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import lightning as L
import pandas as pd
import pytest
from tiny_search import RATES, Training, configure, go

from medunet.base import lock
from medunet.base.errors import InputError, PreemptedError
from medunet.training import tuning, tuning_storage
from medunet.training.tuning_storage import TrialStorage

TRIALS = 6


def journal_of(folder: Path) -> str:
    return str(folder / "shared.journal")


def search_in_turns(folder: Path, journal: str, killed_in: str | None) -> None:
    """Search with a training that takes a while and logs its name; killed by SIGKILL in the trial `killed_in`."""

    def train(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        with (folder / "log").open("a") as log:
            log.write(f"{name} {changes[0]} {os.getpid()}\n")
        if name == killed_in:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2)
        return 0.5

    config = configure(RATES, f"tuning.trials={TRIALS}", "tuning.sampler=random")
    go(config, folder / "tuning", train, storage_url=journal)


def start(folder: Path, killed_in: str | None = None) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medunet.training.tuning"])
    process = context.Process(target=search_in_turns, args=(folder, journal_of(folder), killed_in))
    process.start()
    return process


@pytest.mark.slow
def test_two_processes_share_the_trials_and_take_up_one_that_was_killed(tmp_path: Path):
    processes = [start(tmp_path, killed_in="trial_0002"), start(tmp_path)]
    for process in processes:
        process.join(300)
    assert processes[1].exitcode == 0
    rows = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    killed = processes[0].exitcode == -signal.SIGKILL
    names = [name for name, *_ in rows]
    assert names.count("trial_0002") == 1 + killed
    assert len({*names}) == TRIALS
    settings = {change for name, change, _ in rows if name == "trial_0002"}
    assert len(settings) == 1  # it went on with its own settings
    table = pd.read_csv(tmp_path / "tuning/trials.csv")
    assert list(table.state) == ["complete"] * TRIALS
    assert table["training.learning_rate"].nunique() == TRIALS


@pytest.mark.slow
def test_a_killed_trial_is_taken_up_by_the_next_command(tmp_path: Path):
    process = start(tmp_path, killed_in="trial_0001")
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    process = start(tmp_path)
    process.join(300)
    assert process.exitcode == 0
    names = [line.split()[0] for line in (tmp_path / "log").read_text().splitlines()]
    assert names[:3] == ["trial_0000", "trial_0001", "trial_0001"]
    assert len({*names}) == TRIALS


def test_a_trial_at_work_is_left_alone_and_counts(tmp_path: Path):
    config = configure(RATES, "tuning.trials=2", "tuning.sampler=random")
    other = Training()

    def train(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        if name == "trial_0000":  # another machine joins meanwhile
            go(config, tmp_path / "other", other, storage_url=journal_of(tmp_path))
        return 0.5

    table = go(config, tmp_path / "first", train, storage_url=journal_of(tmp_path))
    assert other.names == ["trial_0001"]
    assert list(table.state) == ["complete"] * 2
    assert not (tmp_path / "first/study.db").exists()


def test_without_locks_nobody_is_held_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no_locks(*_: object) -> None:
        raise OSError(next(iter(lock._UNSUPPORTED)), "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    storage = TrialStorage(tmp_path / "tuning", journal_of(tmp_path))
    study = storage.open_study("test")
    study.ask()
    assert storage.lost_trials(study) == []


def test_where_locks_are_local_only_trials_of_this_host_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    monkeypatch.setattr(tuning_storage, "has_local_locks", lambda path: True)
    storage = TrialStorage(tmp_path / "tuning", journal_of(tmp_path))
    study = storage.open_study("test")
    assert "do not reach other hosts" in capfd.readouterr().err
    here, there = study.ask(), study.ask()
    here.set_user_attr("host", tuning_storage.platform.node())
    there.set_user_attr("host", "another")
    assert [trial.number for trial in storage.lost_trials(study)] == [here.number]


def test_asked_to_end_a_trial_is_kept_for_later(tmp_path: Path):
    config = configure(RATES, "tuning.trials=2")
    tries: list[tuple[str, list[str]]] = []

    def train(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        tries.append((name, changes))
        if len(tries) == 1:
            raise PreemptedError("asked to end by SIGTERM")
        return 0.5

    with pytest.raises(PreemptedError):
        go(config, tmp_path / "tuning", train, storage_url=journal_of(tmp_path))
    go(config, tmp_path / "tuning", train, storage_url=journal_of(tmp_path))
    assert tries[0] == tries[1]
    assert len(tries) == 3


def test_sqlite_on_a_network_folder_is_refused_with_the_journal_as_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning_storage, "shared_type", lambda path: "nfs4")
    config = configure(RATES, "tuning.trials=1")
    for options in ({}, {"storage_url": f"sqlite:///{tmp_path}/server.db"}):
        with pytest.raises(InputError, match=r"SQLite does not work on a network folder \(nfs4\).*\.journal"):
            go(config, tmp_path / "tuning", Training(), **options)
    assert list(go(config, tmp_path / "tuning", Training(), storage_url=journal_of(tmp_path)).state) == [
        "complete"
    ]


@pytest.mark.parametrize("damage", ["a folder that is missing", "a file that is no journal"])
def test_a_journal_that_cannot_be_used_is_refused(damage: str, tmp_path: Path):
    path = tmp_path / "absent" / "x.journal"
    if damage == "a file that is no journal":
        path = tmp_path / "x.journal"
        path.write_text("no journal\nat all\n")
    with pytest.raises(InputError, match=r"--storage: x\.journal cannot be used"):
        go(configure(RATES), tmp_path / "tuning", Training(), storage_url=str(path))
    assert not (tmp_path / "tuning/study.json").exists()


def test_a_journal_is_not_sqlite(tmp_path: Path):
    config = configure(RATES, "tuning.trials=1")
    go(config, tmp_path / "tuning", Training(), storage_url=journal_of(tmp_path))
    with pytest.raises(InputError, match="another search"):
        go(config, tmp_path / "tuning", Training())
    assert tuning.TrialStorage(tmp_path, "postgresql://me@host/x.journal").kind == "server"
