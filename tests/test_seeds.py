"""Several networks of a fold: each in its own folder with its own seed, resumed by itself, and listed in order."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TINY
from planned_run import begin_run
from training_together import end_all, start
from typer.testing import CliRunner

from medunet.base.errors import InputError, StoppedError
from medunet.base.files import hash_file, read_json
from medunet.base.lock import LockedError, hold
from medunet.cli import app as cli
from medunet.commands.train import run_train
from medunet.records.config import Config
from medunet.records.model_card import ModelCard
from medunet.records.run_folder import RunFolder
from medunet.runs.run import Run, describe_untrained, member_folders, open_run, trained_cards
from medunet.training import train

FOLDS = [["case_00", "case_03", "case_05"], ["case_01", "case_02", "case_04"]]
QUICK = (
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "training.validation_cases=1",
    "training.augment=true",
    "seed=7",
)


@pytest.fixture
def begun(finished_run: Run, tmp_path: Path) -> Run:
    """A run on two fixed folds, planned and not trained."""
    (tmp_path / "folds.json").write_text(json.dumps({"folds": FOLDS}))
    return begin_run(
        tmp_path / "run", finished_run.data_root, (*TINY, *QUICK, f"folds_file={tmp_path}/folds.json")
    )


def opened(run: Run, *changes: str) -> Run:
    return open_run(run.folder.root, run.data_root, changes=["device=cpu", *changes])


def files_of(folder: Path) -> dict[str, int]:
    """Return when the files of a training, but not of its export, were last written."""
    return {
        path.name: path.stat().st_mtime_ns
        for path in (
            *folder.glob("checkpoints/*"),
            *folder.glob("tensorboard/*"),
            folder / "training.csv",
            folder / "validation.json",
        )
    }


def test_every_fold_with_every_seed_in_one_command(begun: Run):
    root = begun.folder.root
    arguments = ("train", root, "--data-root", begun.data_root, "--fold", "each", "--seeds", 2)
    done = CliRunner().invoke(
        cli.app, [str(each) for each in (*arguments, "--device", "cpu")], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    for text in ("Training fold 0 on", "Training fold 0, seed 1 on", "Training fold 1, seed 1 on"):
        assert text in done.output
    folders = [root / "folds" / place / "model" for place in ("0", "0/seeds/1", "1", "1/seeds/1")]
    assert member_folders(begun.folder) == member_folders(begun.folder, "each") == folders
    assert member_folders(begun.folder, 1) == folders[2:]
    cards = [ModelCard.read(folder / "model.json") for folder in folders]
    assert [(card.fold, card.seed) for card in cards] == [(0, 7), (0, 8), (1, 7), (1, 8)]
    assert len({card.final_weights_sha256 for card in cards}) == 4
    assert cards[0].training_cases == cards[1].training_cases
    assert cards[0].validation_cases == cards[1].validation_cases
    for folder in folders:
        assert list(folder.parent.glob("tensorboard/events*"))
    entries = read_json(begun.folder.provenance)["folds"]
    assert {key: entry["seed"] for key, entry in entries.items()} == {
        "0": 7, "0/seeds/1": 8, "1": 7, "1/seeds/1": 8,
    }  # fmt: skip
    assert read_json(begun.folder.provenance)["seed"] == 7
    kept = open_run(root, begun.data_root)
    assert kept.config.training.seeds == 2
    assert kept.config.seed == 7
    # What takes one model of each fold takes its first.
    assert {fold: card.seed for fold, card in trained_cards(kept).items()} == {0: 7, 1: 7}
    num_cached = len(list(begun.folder.cache.glob("*.json")))
    assert num_cached == 6  # every case was preprocessed once
    assert describe_untrained(kept, [0, 1], "predicted") == ""


def test_further_seeds_leave_the_first_as_it_is(begun: Run):
    run_train(opened(begun))
    first = begun.folder.fold(0)
    before, weights = files_of(first), hash_file(first / "model/weights_final.safetensors")
    cards = run_train(opened(begun, "training.seeds=3"))
    assert [card.seed for card in cards] == [7, 8, 9]
    assert files_of(first) == before
    assert hash_file(first / "model/weights_final.safetensors") == weights


def test_a_seed_trains_as_a_run_with_that_seed(begun: Run, tmp_path: Path):
    member = run_train(opened(begun, "training.seeds=2", "training.member=1"))
    assert not begun.folder.model(0).exists()
    other = begin_run(
        tmp_path / "other", begun.data_root, (*TINY, *QUICK, f"folds_file={tmp_path}/folds.json")
    )
    alone = run_train(opened(other, "seed=8", f"training.validation_cases={1}"))
    assert member[0].final_weights_sha256 == alone[0].final_weights_sha256


def test_a_stopped_seed_goes_on_by_itself(begun: Run, monkeypatch: pytest.MonkeyPatch):
    fit, fitted = train.L.Trainer.fit, []

    def stop_at_the_second(trainer, *arguments, **options):
        fitted.append(trainer)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        return fit(trainer, *arguments, **options)

    monkeypatch.setattr(train.L.Trainer, "fit", stop_at_the_second)
    with pytest.raises(StoppedError, match="to resume from the last checkpoint"):
        run_train(opened(begun, "training.seeds=2"))
    before = files_of(begun.folder.fold(0))
    assert member_folders(begun.folder) == [begun.folder.model(0)]
    kept = open_run(begun.folder.root, begun.data_root)
    assert describe_untrained(kept, [0], "predicted") == (
        "fold 1 is not trained; its 3 cases are not predicted; seed 1 of fold 0 is not trained"
    )
    run_train(opened(begun))
    assert len(fitted) == 3
    assert files_of(begun.folder.fold(0)) == before
    assert member_folders(begun.folder) == [begun.folder.model(0), begun.folder.model(0, 1)]


def test_a_seed_of_other_draws_is_not_resumed(begun: Run):
    run_train(opened(begun, "training.seeds=2"))
    with pytest.raises(InputError, match="another plan, case list, seed") as error:
        run_train(opened(begun, "training.seeds=2", "training.member=1", "seed=8"))
    assert "remove folds/0/seeds/1 to train it again" in str(error.value)


def test_seeds_are_trained_in_parallel_but_none_twice(begun: Run):
    with hold(begun.folder.root, "train", ["fold 0, seed 1"]):
        with pytest.raises(LockedError, match="fold 0, seed 1"):
            run_train(opened(begun, "training.seeds=2", "training.member=1"))
        run_train(opened(begun, "training.seeds=2", "training.member=0"))


def test_numbers_sort_as_numbers_and_all_comes_in_only_alone(tmp_path: Path):
    run = RunFolder(tmp_path)
    for fold, member in (("all", 0), ("all", 1)):
        _touch(run.model(fold, member))
    assert member_folders(run) == [run.model("all"), run.model("all", 1)]
    for fold, member in ((10, 0), (2, 10), (2, 0), (2, 9)):
        _touch(run.model(fold, member))
    assert member_folders(run) == [run.model(2), run.model(2, 9), run.model(2, 10), run.model(10)]
    assert member_folders(run, "all") == [run.model("all"), run.model("all", 1)]
    assert member_folders(run, 3) == []


def _touch(model: Path) -> None:
    model.mkdir(parents=True)
    (model / "model.json").touch()


def test_the_seed_wraps_and_a_member_is_one_of_the_seeds():
    plain = {"dataset": "phantoms", "seed": 2**32 - 1, "training": {"seeds": 2, "member": 1}}
    config = Config.parse(plain, "test")
    assert config.training_seed == 0
    assert "member" not in config.to_dict()["training"]  # it is for one command
    with pytest.raises(InputError, match=r"training.member 2 is not one of the training.seeds 0..1"):
        Config.parse({**plain, "training": {"seeds": 2, "member": 2}}, "test")


def test_a_card_before_seeds_keeps_its_text(finished_run: Run):
    path = finished_run.folder.model(0) / "model.json"
    plain = {key: value for key, value in read_json(path).items() if key != "seed"}
    assert "seed" not in ModelCard.parse(plain, "test").to_dict()
    assert ModelCard.read(path).seed == finished_run.config.seed


@pytest.mark.slow
def test_jobs_for_one_seed_each_run_side_by_side(begun: Run, tmp_path: Path):
    other = RunFolder(shutil.copytree(begun.folder.root, tmp_path / "other"))
    jobs = [
        start(
            other.root,
            begun.data_root,
            count=1,
            changes=["device=cpu", "training.seeds=2", f"training.member={member}"],
        )
        for member in (0, 1)
    ]
    assert [end_all(job) for job in jobs] == [[0], [0]]
    in_turn = run_train(opened(begun, "training.seeds=2"))
    for member, card in enumerate(in_turn):
        beside = ModelCard.read(other.model(0, member) / "model.json")
        assert beside.final_weights_sha256 == card.final_weights_sha256
    assert {*read_json(other.provenance)["folds"]} == {"0", "0/seeds/1"}
    assert open_run(other.root, begun.data_root).config == open_run(begun.folder.root, begun.data_root).config


def test_member_names_one_of_the_seeds(begun: Run, call):
    arguments = ("train", begun.folder.root, "--data-root", begun.data_root, "--device", "cpu", "--seeds", 2)
    code, text = call(*arguments, "--member", 2)
    assert code == 2
    assert "training.member 2 is not one of the training.seeds 0..1" in text
    code, text = call(*arguments, "--member", 1)
    assert code == 0, text
    assert member_folders(begun.folder) == [begun.folder.model(0, 1)]
