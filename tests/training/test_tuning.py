"""The search for better settings, mostly with a training that only says how good its settings are."""

import itertools
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import optuna
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from medunet.base.errors import DataError, InputError, NoMemoryError
from medunet.records.config import Config, change_config, load_config
from medunet.training import tuning
from medunet.training.module import SegmentationModule
from medunet.training.tuning import search
from medunet.training.tuning_space import check_space, to_table_values

RATES = "training.learning_rate: {low: 1e-4, high: 1e-1, log: true}"
SETTINGS = f"{RATES}, planning.batch_size: {{low: 2, high: 8, integer: true}}, training.loss: [dice, auto]"


def configure(space: str, *changes: str) -> Config:
    return change_config({"dataset": "x"}, [f"tuning.space={{{space}}}", *changes], "test")


def run_epochs(callbacks: Sequence[L.Callback], dice: Sequence[float]) -> float:
    """Do as Lightning does: tell the callbacks after every epoch, until they stop the training."""
    module, trainer = Mock(spec=SegmentationModule), Mock(should_stop=False)
    module.history = []
    for epoch, value in enumerate(dice):
        module.history.append({"epoch": epoch, "dice": value, "minutes": (epoch + 1) / 4})
        for callback in callbacks:
            callback.on_train_epoch_end(trainer, module)
        if trainer.should_stop:
            break
    return max(row["dice"] for row in module.history)


class Training:
    """A training that remembers what it was asked for; by default the better, the nearer the rate is to 0.01."""

    def __init__(self, dice: Callable[[Config], float] | None = None) -> None:
        self.names: list[str] = []
        self.configs: list[Config] = []
        self.dice = dice or (lambda config: 1 - abs(math.log10(config.training.learning_rate) + 2) / 4)

    def __call__(self, name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        config = change_config({"dataset": "x"}, changes, "trial")
        self.names.append(name)
        self.configs.append(config)
        return run_epochs(callbacks, [0.5 * self.dice(config), self.dice(config)])


def go(config: Config, folder: Path, train: Any, **options: Any) -> pd.DataFrame:
    check_space(config)
    return search(config, folder, train, **{"study_name": "test", **options})


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_settings_are_drawn_within_the_space(sampler: str, tmp_path: Path):
    train = Training()
    config = configure(SETTINGS, f"tuning.sampler={sampler}", "tuning.trials=6", "tuning.prune=false")
    table = go(config, tmp_path, train)
    assert train.names == [f"trial_{number:04d}" for number in range(6)]
    rates = [config.training.learning_rate for config in train.configs]
    assert len({*rates}) == 6
    assert min(rates) >= 1e-4
    assert max(rates) <= 1e-1
    assert {config.planning.batch_size for config in train.configs} <= {2, 3, 4, 5, 6, 7, 8}
    assert {config.training.loss for config in train.configs} == {"dice", "auto"}
    assert list(table.columns) == [
        "trial", "state", "dice", "epochs", "minutes", "training.learning_rate", "planning.batch_size",
        "training.loss", "reason",
    ]  # fmt: skip
    assert list(table.dice) == sorted(table.dice, reverse=True)
    assert set(table.minutes) == {0.5}


def test_a_grid_is_searched_whole_once_and_ends(tmp_path: Path):
    config = configure(
        "training.augment: [true, false], planning.patch_size: [[24, 24, 8], [16, 16, 8], null]",
        "tuning.sampler=grid",
        "tuning.trials=50",
    )
    train = Training(dice=lambda config: 0.5)
    table = go(config, tmp_path, train)
    tried = [(config.training.augment, config.planning.patch_size) for config in train.configs]
    patches: list[Any] = [(24, 24, 8), (16, 16, 8), None]
    assert sorted(tried, key=str) == sorted(itertools.product((True, False), patches), key=str)
    assert len(table) == 6
    go(config, tmp_path, train)
    assert len(train.names) == 6


def test_fewer_trials_than_the_grid_holds(tmp_path: Path):
    train = Training()
    for trials in (1, 2):
        config = configure(
            "training.augment: [true, false]", "tuning.sampler=grid", f"tuning.trials={trials}"
        )
        assert len(go(config, tmp_path, train)) == trials
    assert {config.training.augment for config in train.configs} == {True, False}


def test_a_trial_below_the_median_ends_early(tmp_path: Path):
    curves = iter([[0.5, 0.6, 0.7, 0.8]] * 3 + [[0.1, 0.2, 0.9, 0.95]] + [[0.5, 0.7, 0.8, 0.85]])
    config = configure(RATES, "tuning.trials=5", "tuning.sampler=random")
    table = go(config, tmp_path, lambda name, changes, callbacks: run_epochs(callbacks, next(curves)))
    assert list(table.state) == ["complete"] * 4 + ["pruned"]
    pruned = table.iloc[-1]
    assert pruned.trial == "trial_0003"
    assert pruned.epochs == 2
    assert pruned.dice == 0.2
    assert pruned.minutes == 0.5
    assert table.iloc[0].trial == "trial_0004"


def test_nothing_is_pruned_where_that_is_switched_off(tmp_path: Path):
    curves = iter([[0.5, 0.6, 0.7]] * 4 + [[0.1, 0.2, 0.9]])
    config = configure(RATES, "tuning.trials=5", "tuning.prune=false")
    table = go(config, tmp_path, lambda name, changes, callbacks: run_epochs(callbacks, next(curves)))
    assert set(table.state) == {"complete"}
    assert set(table.epochs) == {3}


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

    monkeypatch.setattr(tuning, "_queue", lambda *_: None)  # killed: nothing is said
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


def test_results_stand_in_tensorboard_table_and_best_configuration(tmp_path: Path):
    config = configure(f"{SETTINGS}, planning.patch_size: [[24, 24, 8]]", "tuning.trials=4", "seed=3")
    train = Training()
    table = go(config, tmp_path, train)
    best = table.iloc[0]
    stored = pd.read_csv(tmp_path / "trials.csv")
    pd.testing.assert_frame_equal(stored.fillna(""), table.fillna(""), check_dtype=False)
    winner = load_config(tmp_path / "best.yaml")
    assert winner == config.model_copy(
        update={
            "planning": config.planning.model_copy(
                update={"batch_size": best["planning.batch_size"], "patch_size": (24, 24, 8)}
            ),
            "training": config.training.model_copy(
                update={"learning_rate": best["training.learning_rate"], "loss": best["training.loss"]}
            ),
        }
    )
    for row in table.itertuples(index=False):
        events = EventAccumulator(str(tmp_path / "tensorboard" / row.trial)).Reload()
        (score,) = events.Scalars("best validation Dice")
        assert score.value == pytest.approx(row.dice)
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        shown = HParamsPluginData.FromString(content).session_start_info.hparams
        assert shown["training.learning_rate"].number_value == pytest.approx(row[5])
        assert shown["training.loss"].string_value == row[7]
        assert shown["planning.patch_size"].string_value == "[24, 24, 8]"


def test_settings_are_shown_as_they_are_written():
    given = {"a": '"dice"', "b": "true", "c": "[24, 24]", "d": "null", "e": 0.1, "f": "8"}
    assert to_table_values(given) == {"a": "dice", "b": True, "c": "[24, 24]", "d": "null", "e": 0.1, "f": 8}


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        ("", [], "nothing to search"),
        ("training.learning_rat: [1]", [], r"training\.learning_rat: Extra inputs"),
        ("planning.network.dropuot: [0.1]", [], r"planning\.network\.dropuot: Extra inputs"),
        ("training.epochs.x: [1]", [], "'epochs' is a value"),
        ("seed: [1, 2]", [], "'seed' is not a key of planning or training"),
        ("inference.overlap: [0.5]", [], "'inference.overlap' is not a key"),
        ("training: [1]", [], "'training' is not a key"),
        ("training.fold: [0, 1]", [], "must be the same for all trials"),
        ("training.init_from: [/a]", [], "must be the same for all trials"),
        (RATES, ["tuning.sampler=grid"], "is a range, but a grid needs a list"),
        (RATES, ["training.fold=each"], "training.fold each: trials are compared on one fold"),
        ("training.loss: []", [], "'training.loss' has no values"),
        ("training.loss: [dice, dice]", [], "a value twice"),
        ("training.loss: [dice, nonsense]", [], r'training\.loss="nonsense" \(.*Input should be'),
        ("planning.patch_size: [[24, 24]]", [], r"patch_size=\[24, 24\] \(.*has 2 axes"),
        ("planning.network.dropout: [0.1, 1.5]", [], r"dropout=1\.5 \(.*less than 1"),
        ("training.learning_rate: {low: 1, high: 100}", [], r"learning_rate=100\.0 \(.*equal to 10"),
        ("planning.batch_size: {low: 2, high: 8}", [], r"batch_size=4\.\d+ \(.*valid integer.*integer: true"),
        ("planning.batch_size: {low: 0, high: 8, integer: true}", [], r"batch_size=0 \("),
        ("training.loss: {low: 1, high: 2}", [], r"training\.loss=1\.0 \("),
        ("a: [1], training.loss: [b]", [], r"'a' is not a key.*; training\.loss=\"b\""),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_searched_is_refused_up_front(space: str, changes: list[str], message: str):
    with pytest.raises(InputError, match=rf"tuning\.space: .*{message}"):
        check_space(configure(space, *changes))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("training.loss: dice", r"training\.loss\.range: Input should be a valid dictionary"),
        ("training.learning_rate: {low: 1}", r"learning_rate\.range\.high: Field required"),
        ("training.learning_rate: {low: 0, high: 1, log: true}", r"low > 0 where log is set"),
        ("training.learning_rate: {low: 1, high: 1}", r"low < high"),
        ("planning.batch_size: {low: 1.5, high: 4, integer: true}", "whole numbers where integer is set"),
    ],
)
def test_a_space_that_is_miswritten_is_refused(space: str, message: str):
    with pytest.raises(InputError, match=message):
        configure(space)


def test_without_optuna_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("medunet.training.tuning", "medunet.training.tuning_space"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match=r"Optuna is not installed\. Run `pip install 'medunet\[tune\]'`"):
        import medunet.training.tuning  # noqa: F401


def test_lack_of_memory_is_a_trials_fault_only_where_it_changes_the_plan():
    error = NoMemoryError("memory ran out")
    assert tuning._is_caused_by_settings(error, ["planning.batch_size=8", "training.learning_rate=0.1"])
    assert not tuning._is_caused_by_settings(error, ["training.learning_rate=0.1"])
    assert tuning._is_caused_by_settings(InputError("does not fit"), [])
