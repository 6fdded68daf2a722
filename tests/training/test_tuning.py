"""The search for better settings, with a training that only says how good its settings are."""

import itertools
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tiny_search import RATES, SETTINGS, Training, configure, go, run_epochs

from medunet.base.errors import InputError
from medunet.records.config import load_config
from medunet.training.tuning_space import to_table_values


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


def test_without_optuna_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    for name in ("medunet.training.tuning", "medunet.training.tuning_space"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(InputError, match=r"Optuna is not installed\. Run `pip install 'medunet\[tune\]'`"):
        import medunet.training.tuning  # noqa: F401
