"""`medunet tune` on a tiny cohort: trials that train, are killed and go on, and the files that they leave."""

import multiprocessing
import time
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY
from planned_run import begin_run
from typer.testing import CliRunner

from medunet.base.errors import InputError
from medunet.cli import app as cli
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.tune import run_tune
from medunet.compute import device_memory
from medunet.records.config import load_config
from medunet.records.model_card import ModelCard
from medunet.runs.run import Run, open_run

QUICK = ("training.epochs=2", "training.steps_per_epoch=2", "training.validation_cases=1", "tuning.trials=2")
SPACE = (
    "tuning.space={training.learning_rate: {low: 1e-4, high: 1e-1, log: true}, planning.batch_size: [2, 4], "
    "planning.patch_size: [[24, 24, 8], [16, 16, 8]], training.loss: [dice, auto], "
    "planning.network.dropout: [0.0, 0.2], training.augment: [true, false]}"
)


@pytest.fixture
def prepared(finished_run: Run, tmp_path: Path) -> Run:
    """A run that is planned and not trained."""
    return begin_run(tmp_path / "run", finished_run.data_root, (*TINY, *QUICK, "holdout=0.3"))


def change(run: Run, *changes: str) -> Run:
    return open_run(run.folder.root, run.data_root, changes=[*changes, "device=cpu"])


def test_every_trial_is_a_run_with_its_own_settings(prepared: Run):
    table = run_tune(change(prepared, SPACE, "tuning.sampler=random"))
    folder = prepared.folder.root / "tuning"
    assert set(table.state) <= {"complete", "pruned"}
    for row in table.to_dict("records"):
        trial = open_run(folder / row["trial"], prepared.data_root)
        assert trial.config.training.learning_rate == row["training.learning_rate"]
        assert trial.config.training.loss == row["training.loss"]
        assert trial.config.training.augment == row["training.augment"]
        assert trial.read_plan().batch_size == row["planning.batch_size"]
        assert str(list(trial.read_plan().patch_size)) == row["planning.patch_size"]
        assert trial.read_plan().network.dropout == row["planning.network.dropout"]
        card = ModelCard.read(trial.folder.model(0) / "model.json")
        assert card.validation_dice["dice"] == pytest.approx(row["dice"], abs=1e-6)
        assert not trial.folder.cache.exists()  # preprocessed once, for all
    best = load_config(folder / "best.yaml")
    assert best.planning.batch_size == table.iloc[0]["planning.batch_size"]
    assert best.training.learning_rate == table.iloc[0]["training.learning_rate"]
    for path in folder.rglob("*"):
        if path.suffix in (".csv", ".yaml", ".json"):
            assert str(prepared.data_root) not in path.read_text(), path
            assert str(prepared.folder.root) not in path.read_text(), path
    run = open_run(
        prepared.folder.root, prepared.data_root, config_file=folder / "best.yaml", changes=["device=cpu"]
    )
    assert run_plan(run).batch_size == best.planning.batch_size
    trial = change(open_run(folder / table.iloc[0]["trial"], prepared.data_root))
    assert run_predict(trial) == {}


def test_the_same_command_again_adds_nothing_and_more_trials_go_on(prepared: Run):
    run = change(prepared, "tuning.space={training.augment: [true, false], training.loss: [dice, auto]}")
    first = run_tune(run)
    begun = {path: path.stat().st_mtime_ns for path in run.folder.root.rglob("*.safetensors")}
    pd.testing.assert_frame_equal(run_tune(run), first)
    assert len(run_tune(change(run, "tuning.trials=3"))) == 3
    assert begun.items() < {p: p.stat().st_mtime_ns for p in run.folder.root.rglob("*.safetensors")}.items()
    with pytest.raises(InputError, match="holds trials of another search"):
        run_tune(change(run, "training.weight_decay=0.1"))


def tune_in_a_process(root: Path, data_root: Path) -> None:
    run_tune(open_run(root, data_root, changes=["device=cpu"]))


@pytest.mark.slow
def test_a_killed_trial_goes_on_from_its_checkpoint(
    prepared: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    space = "tuning.space={planning.patch_size: [[16, 16, 8], [24, 24, 8]]}"
    run = change(prepared, space, "tuning.sampler=grid", "training.epochs=20", "tuning.prune=false")
    run.save()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["medunet.commands.train", "medunet.training.train", "medunet.training.tuning"]
    )
    process = context.Process(target=tune_in_a_process, args=(run.folder.root, run.data_root))
    process.start()
    checkpoint = run.folder.root / "tuning/trial_0001/folds/0/checkpoints/previous.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert checkpoint.exists()
    plan = (run.folder.root / "tuning/trial_0001/plan.json").read_text()
    monkeypatch.setattr(
        device_memory, "free_memory_gb", lambda device: 0.5
    )  # a plan made now would be another
    table = run_tune(run)
    assert "Resuming fold 0 at step" in capfd.readouterr().err
    assert (run.folder.root / "tuning/trial_0001/plan.json").read_text() == plan
    assert sorted(table.trial) == ["trial_0000", "trial_0001"]
    assert list(table.state) == ["complete"] * 2
    assert list(table.epochs) == [20, 20]
    curves = pd.read_csv(run.folder.root / "tuning/trial_0001/folds/0/training.csv")
    assert list(curves.step) == [
        4 * validation for validation in range(1, 11)
    ]  # every other epoch of two steps


def test_a_search_can_begin_from_another_models_weights(prepared: Run, finished_run: Run):
    begin = f"training.init_from={finished_run.folder.model(0)}"
    run = change(prepared, "tuning.space={training.augment: [false]}", "tuning.trials=1", begin)
    run_tune(run)
    trial = run.folder.root / "tuning/trial_0000"
    assert (trial / "folds/0/initial_weights.json").exists()
    assert str(finished_run.folder.root) not in (trial / "config.yaml").read_text()


def test_settings_that_do_not_fit_fail_by_name(prepared: Run):
    space = "tuning.space={training.loss: [dice_ce], planning.batch_size: [2]}"
    with pytest.raises(InputError, match="no trial was completed"):
        run_tune(change(prepared, space, "tuning.trials=1"))  # a softmax loss, but the labels are regions
    table = pd.read_csv(prepared.folder.root / "tuning/trials.csv")
    assert list(table.state) == ["failed"]
    assert "dice_ce (softmax) with the regions liver, tumour" in table.reason[0]


def test_a_space_that_cannot_be_searched_leaves_the_run_as_it_was(prepared: Run):
    before = prepared.folder.config.read_text()
    with pytest.raises(InputError, match="nonsense"):
        run_tune(change(prepared, "tuning.space={training.loss: [nonsense]}"))
    assert prepared.folder.config.read_text() == before
    assert not (prepared.folder.root / "tuning").exists()


def test_the_command_with_a_server(prepared: Run, tmp_path: Path):
    arguments = ["tune", str(prepared.folder.root), "--data-root", str(prepared.data_root), "--device", "cpu"]
    arguments += ["--storage", f"sqlite:///{tmp_path}/server.db", "--fold", "0"]
    arguments += ["--set", "tuning.space={training.augment: [true, false]}", "--set", "tuning.sampler=grid"]
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "best validation Dice" in done.output
    assert not (prepared.folder.root / "tuning/study.db").exists()
    assert (tmp_path / "server.db").exists()
    assert sorted(pd.read_csv(prepared.folder.root / "tuning/trials.csv")["training.augment"]) == [
        False,
        True,
    ]
