"""A search that fails, is stopped, killed or shared by machines: every trial ends once, and the others go on."""

import math
import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import optuna
import pandas as pd
import pytest
from tiny_search import RATES, SETTINGS, Training, configure, go

from medunet.base.errors import DataError, InputError, NoMemoryError
from medunet.training import tuning
from medunet.training.module import SegmentationModule


def test_settings_that_fail_stand_in_the_table_and_the_others_go_on(tmp_path: Path, capfd):
    data_root = tmp_path / "secret" / "scans"

    def train(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        if name == "trial_0001":
            raise InputError("the loss became nan", where="training", hint="Lower it.")
        if name == "trial_0002":
            raise DataError("is cut short", where=f"case a: {data_root}/a.nii.gz", hint="Copy it again.")
        return 0.7

    table = go(configure(RATES, "tuning.trials=4"), tmp_path / "tuning", train)
    assert list(table.state) == ["complete", "complete", "failed", "failed"]
    assert table.dice.notna().tolist() == [True, True, False, False]
    assert table.reason.tolist()[2:] == ["training: the loss became nan. Lower it.", "is cut short"]
    assert "trial_0001 failed: training: the loss became nan" in capfd.readouterr().err
    assert "secret" not in (tmp_path / "tuning/trials.csv").read_text()


def test_a_full_disk_ends_the_search_and_its_trial_goes_on_later(tmp_path: Path):
    config = configure(RATES, "tuning.trials=3", "tuning.sampler=random")
    train, tries = Training(), []

    def train_on_a_full_disk(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        tries.append((name, changes))
        if len(tries) == 2:
            raise InputError("cannot be written", where="x", hint="Free space.") from OSError("no space left")
        return train(name, changes, callbacks)

    with pytest.raises(InputError, match="cannot be written"):
        go(config, tmp_path, train_on_a_full_disk)
    table = go(config, tmp_path, train_on_a_full_disk)
    assert [name for name, _ in tries] == [
        "trial_0000", "trial_0001", "trial_0001", "trial_0003",  # number 2 was spent on the one that went on
    ]  # fmt: skip
    assert tries[1] == tries[2]
    assert list(table.state) == ["complete"] * 3


@pytest.mark.parametrize("storage", ["sqlite", "server"])
def test_ctrl_c_keeps_the_trial_for_later(storage: str, tmp_path: Path):
    config = configure(SETTINGS, "tuning.trials=3")
    tries = []
    options = {"storage_url": f"sqlite:///{tmp_path}/server.db"} if storage == "server" else {}

    def train(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        tries.append((name, changes))
        if len(tries) == 3:
            raise KeyboardInterrupt
        return 0.5

    with pytest.raises(KeyboardInterrupt):
        go(config, tmp_path / "tuning", train, **options)
    table = go(config, tmp_path / "tuning", train, **options)
    assert tries[2] == tries[3]
    assert len(tries) == 4
    assert list(table.state) == ["complete"] * 3
    assert (tmp_path / "tuning/study.db").exists() == (storage == "sqlite")


def search_and_be_killed(folder: Path, killed_at: int) -> None:
    """Search a grid in a process of its own, killed by SIGKILL in its n-th training, counted over all lives."""
    config = configure(
        "training.augment: [true, false], training.loss: [dice, auto]",
        "tuning.trials=9",
        "tuning.sampler=grid",
    )

    def train(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        with (folder / "log").open("a") as log:
            log.write(f"{name} {changes}\n")
        if len((folder / "log").read_text().splitlines()) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0.5

    go(config, folder, train)


@pytest.mark.slow
def test_killed_and_started_again_every_trial_ends_once(tmp_path: Path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medunet.training.tuning"])

    def start(killed_at: int) -> int | None:
        process = context.Process(target=search_and_be_killed, args=(tmp_path, killed_at))
        process.start()
        process.join()
        return process.exitcode

    assert start(2) == -signal.SIGKILL
    assert start(3) == -signal.SIGKILL  # the same trial, killed again
    assert start(6) == -signal.SIGKILL  # the grid's last point
    assert start(0) == 0
    log = (tmp_path / "log").read_text().splitlines()
    assert log[1] == log[2] == log[3]
    assert [line.split()[0] for line in log] == [
        "trial_0000", "trial_0001", "trial_0001", "trial_0001", "trial_0004", "trial_0005",
        "trial_0005",
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table.state) == ["complete"] * 4
    assert len(table[["training.augment", "training.loss"]].drop_duplicates()) == 4


def test_a_search_that_goes_on_draws_other_settings(tmp_path: Path):
    train = Training()
    for trials in (2, 4):
        go(configure(RATES, "tuning.sampler=random", f"tuning.trials={trials}"), tmp_path, train)
    rates = [config.training.learning_rate for config in train.configs]
    assert len({*rates}) == 4
    again = Training()
    go(configure(RATES, "tuning.sampler=random", "tuning.trials=4"), tmp_path / "again", again)
    assert [config.training.learning_rate for config in again.configs] == rates


def test_a_trial_that_goes_on_tells_of_its_epochs_before_the_kill(tmp_path: Path):
    trial = Mock(spec=optuna.Trial)
    trial.should_prune.return_value = False
    module = Mock(spec=SegmentationModule)
    module.history = [
        {"epoch": epoch, "dice": dice, "minutes": 1.0} for epoch, dice in enumerate([0.2, math.nan, 0.6])
    ]
    pruning = tuning.Pruning(trial, prune=True)
    pruning.on_train_epoch_end(Mock(), module)
    assert [call.args for call in trial.report.call_args_list] == [(0.2, 0), (0.0, 1), (0.6, 2)]
    module.history.append({"epoch": 3, "dice": 0.7, "minutes": 1.5})
    pruning.on_train_epoch_end(Mock(), module)
    assert trial.report.call_args.args == (0.7, 3)
    assert trial.report.call_count == 4


def test_a_machine_that_went_silent_is_relieved_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"sqlite:///{tmp_path}/server.db"
    config = configure(RATES, "tuning.trials=2", "tuning.sampler=random")
    first: list[list[str]] = []

    def relieve(name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        """Have another machine join while the first is at work on its last trial."""
        first.append(changes)
        if name == "trial_0001":
            other = Training()
            table = go(config, tmp_path / "other", other, storage_url=url)
            assert other.names == []  # the first one is alive
            assert list(table.state) == ["complete", "running"]
            raise SystemExit  # Optuna leaves such a trial as a kill does
        return 0.5

    monkeypatch.setattr(tuning, "queue", lambda *_: None)  # killed: nothing is said
    with pytest.raises(SystemExit):
        go(config, tmp_path / "first", relieve, storage_url=url)
    monkeypatch.undo()
    monkeypatch.setattr(
        optuna.storages.RDBStorage, "_get_stale_trial_ids",
        lambda storage, study: [t._trial_id for t in storage.get_all_trials(study) if t.state.name == "RUNNING"],
    )  # fmt: skip
    other = Training()
    table = go(config, tmp_path / "other", other, storage_url=url)
    assert other.names == ["trial_0001"]
    assert [f"training.learning_rate={other.configs[0].training.learning_rate}"] == first[1]
    assert list(table.state) == ["complete", "complete"]


def test_an_unreachable_server_is_refused_without_its_password(tmp_path: Path):
    for url in ("nonsense", "sqlite:////no/such/folder/x.db", "nodatabase://me:secret@host/x"):
        with pytest.raises(InputError, match="--storage: cannot be used") as caught:
            go(configure(RATES), tmp_path / "tuning", Training(), storage_url=url)
        assert "secret" not in str(caught.value)
    go(configure(RATES, "tuning.trials=1"), tmp_path / "tuning", Training())  # nothing was claimed


def test_a_folder_keeps_to_one_search(tmp_path: Path):
    go(configure(RATES, "tuning.trials=1"), tmp_path, Training())
    with pytest.raises(InputError, match="holds trials of another search"):
        go(configure(RATES, "tuning.trials=1"), tmp_path, Training(), study_name="another")
    with pytest.raises(InputError, match="holds trials of another search"):
        go(
            configure(RATES, "tuning.trials=1"),
            tmp_path,
            Training(),
            storage_url=f"sqlite:///{tmp_path}/s.db",
        )


def test_a_search_keeps_to_one_plan_and_to_the_same_initial_weights(tmp_path: Path):
    config = configure(RATES, "tuning.trials=1")
    go(config, tmp_path, Training())  # medunet 0.6 recorded neither
    go(config, tmp_path, Training(), made_from={"plan_sha256": "a", "initial_weights_sha256": "b"})
    for key in ("plan_sha256", "initial_weights_sha256"):
        with pytest.raises(InputError, match=r"another search: .*plan, initial weights"):
            go(config, tmp_path, Training(), made_from={key: "c"})


def test_lack_of_memory_is_a_trials_fault_only_where_it_changes_the_plan():
    error = NoMemoryError("memory ran out")
    assert tuning._is_caused_by_settings(error, ["planning.batch_size=8", "training.learning_rate=0.1"])
    assert not tuning._is_caused_by_settings(error, ["training.learning_rate=0.1"])
    assert tuning._is_caused_by_settings(InputError("does not fit"), [])
