"""Every fold with one word: trained one after the other, each case predicted by the model that held it out."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import TINY
from planned_run import begin_run
from typer.testing import CliRunner

from medunet.base.errors import StoppedError
from medunet.base.files import read_json
from medunet.cli import app as cli
from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.records.config import Config
from medunet.records.model_card import ModelCard
from medunet.records.scores import UNSCORED
from medunet.runs.run import Run, open_run
from medunet.training import train

FOLDS = [["case_00", "case_03", "case_05"], ["case_01", "case_02", "case_04"]]
QUICK = ("training.epochs=1", "training.steps_per_epoch=2", "training.validation_cases=1")


def call(*arguments: object) -> str:
    """Run `medunet ...` and return what it said."""
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def begun(finished_run: Run, tmp_path: Path) -> Run:
    """A run on two fixed folds, planned and not trained."""
    (tmp_path / "folds.json").write_text(json.dumps({"folds": FOLDS}))
    changes = (*TINY, *QUICK, f"folds_file={tmp_path}/folds.json")
    return begin_run(tmp_path / "run", finished_run.data_root, changes)


def each(run: Run) -> Run:
    return open_run(run.folder.root, run.data_root, changes=["training.fold=each", "device=cpu"])


def check_whole(run: Run) -> None:
    """Check that every case was predicted and scored by the model that held it out."""
    entries = read_json(run.folder.predictions / "index.json")["cases"]
    assert set(entries) == {case for fold in FOLDS for case in fold}
    hashes = set()
    for fold, held_out in enumerate(FOLDS):
        card = ModelCard.read(run.folder.model(fold) / "model.json")
        assert set(card.training_cases) == set(FOLDS[1 - fold])
        assert {entries[case]["model_sha256"] for case in held_out} == {card.final_weights_sha256}
        hashes.add(card.final_weights_sha256)
    assert len(hashes) == 2
    scores = pd.read_csv(run.folder.scores)
    assert sorted(scores.case.unique()) == sorted(entries)
    assert not set(scores.status) & set(UNSCORED)
    assert read_json(run.folder.root / "scores.json")["about"]["folds"] == ["0", "1"]


def test_one_command_after_the_other(begun: Run):
    root, data = begun.folder.root, begun.data_root
    call("train", root, "--data-root", data, "--fold", "each", "--device", "cpu")
    output = call("predict", root, "--data-root", data, "--device", "cpu")  # the run remembers its folds
    assert output.count("3 of 3 cases") == 2
    call("score", root, "--data-root", data)
    call("report", root, "--data-root", data)
    check_whole(each(begun))
    assert len(list((begun.folder.report / "cases").glob("*.html"))) == 6


@pytest.mark.slow
def test_all_stages_with_every_fold(begun: Run, tmp_path: Path):
    Config.parse({**begun.config.to_dict(), "folds_file": str(tmp_path / "folds.json")}, "test").write(
        tmp_path / "all.yaml"
    )
    arguments = (
        "--run",
        tmp_path / "all",
        "--data-root",
        begun.data_root,
        "--fold",
        "each",
        "--device",
        "cpu",
    )
    call("run", tmp_path / "all.yaml", *arguments)
    check_whole(open_run(tmp_path / "all", begun.data_root))


def test_a_fold_that_is_trained_is_not_trained_again(begun: Run):
    run_train(begun)
    before = _stamps(begun, 0)
    cards = run_train(each(begun))
    assert [card.fold for card in cards] == [0, 1]
    assert _stamps(begun, 0) == before


def test_stopped_between_two_folds_it_goes_on(begun: Run, monkeypatch: pytest.MonkeyPatch):
    fit, fitted = train.L.Trainer.fit, []

    def stop_at_the_second(trainer, *arguments, **options):
        fitted.append(trainer)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        return fit(trainer, *arguments, **options)

    monkeypatch.setattr(train.L.Trainer, "fit", stop_at_the_second)
    with pytest.raises(StoppedError, match="to resume from the last checkpoint"):
        run_train(each(begun))
    before = _stamps(begun, 0)
    assert not (begun.folder.model(1) / "model.json").exists()
    run = each(begun)
    run_train(run)
    assert len(fitted) == 3
    assert _stamps(begun, 0) == before
    assert run_predict(run) == {}
    run_score(run)
    check_whole(run)


def _stamps(run: Run, fold: int) -> dict[str, int]:
    """Return when each checkpoint of a fold, and its curves, were last written."""
    folder = run.folder.fold(fold)
    return {
        path.name: path.stat().st_mtime_ns
        for path in (*folder.glob("checkpoints/*"), *folder.glob("tensorboard/*"), folder / "training.csv")
    }
