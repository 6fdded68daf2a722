"""A training leaves its best and its final weights; whatever they predict and score says which they were."""

from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file
from typer.testing import CliRunner

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json
from medunet.cli import app as cli
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import run_predict
from medunet.commands.report import run_report
from medunet.commands.score import run_score
from medunet.commands.train import run_train
from medunet.records.model_card import WEIGHTS_FILES, ModelCard
from medunet.reporting.explanations import describe_weights
from medunet.runs.run import Run, open_run
from medunet.scoring.predicted import count_weights
from medunet.training.export import export_weights


def card_of(run: Run) -> ModelCard:
    return ModelCard.read(run.folder.model(0) / "model.json")


def entries_of(run: Run) -> dict[str, dict[str, str]]:
    return read_json(run.folder.predictions / "index.json")["cases"]


def about_of(run: Run) -> dict[str, object]:
    return read_json(run.folder.root / "scores.json")["about"]


def set_card(run: Run, **changes: object) -> None:
    path = run.folder.model(0) / "model.json"
    write_json(path, {key: value for key, value in (read_json(path) | changes).items() if value is not None})


def call(*arguments: object) -> str:
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def told_by_card(run: Run, inference: dict[str, object]) -> dict[str, object]:
    return {**read_json(run.folder.model(0) / "model.json")["inference"], **inference}


@pytest.fixture
def unlike(own_run: Run) -> Run:
    """A finished run whose first validation was its best, so that best and final weights differ."""
    folder = own_run.folder.fold(0) / "checkpoints"
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    history = checkpoint["medunet"]["history"]
    history[0]["dice"] = 0.999
    for name in ("last.ckpt", "best.ckpt"):
        (folder / name).unlink()
    torch.save(checkpoint, folder / "last.ckpt")
    checkpoint["medunet"]["history"] = history[:1]
    for value in checkpoint["state_dict"].values():
        value += 0.01
    torch.save(checkpoint, folder / "best.ckpt")
    export_weights(own_run.folder, own_run.read_manifest(), own_run.read_plan(), own_run.config)
    return own_run


@pytest.mark.parametrize("averaged", [False, True])
def test_both_are_the_checkpoints_weights(averaged: bool, finished_run: Run, tmp_path: Path):
    changes = (
        "training.epochs=2",
        "training.steps_per_epoch=2",
        *(["training.ema_decay=0.9"] if averaged else []),
    )
    run = open_run(tmp_path / "run", finished_run.data_root, dataset="phantoms", changes=(*TINY, *changes))
    for stage in (run_manifest, run_check, run_plan, run_train):
        stage(run)
    prefix = "average.module." if averaged else "network."
    for weights, checkpoint in (("best", "best"), ("final", "last")):
        state = torch.load(run.folder.fold(0) / f"checkpoints/{checkpoint}.ckpt", weights_only=True)[
            "state_dict"
        ]
        given = load_file(run.folder.model(0) / WEIGHTS_FILES[weights])
        assert given
        assert all(torch.equal(value, state[prefix + name]) for name, value in given.items())
    assert set(card_of(run).validation_cases) <= {case.id for case in run.read_manifest().split_fold(0)[1]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [([], "final"), (["training.patience=9"], "best"), (["inference.weights=best"], "best"),
     (["training.patience=9", "inference.weights=final"], "final")],
)  # fmt: skip
def test_without_a_word_patience_decides(unlike: Run, changes: list[str], expected: str):
    run = open_run(unlike.folder.root, unlike.data_root, changes=changes)
    run_train(run)
    told = card_of(run)
    assert told.inference.weights == expected
    assert told.weights_sha256 != told.final_weights_sha256
    run_predict(run)
    for entry in entries_of(run).values():
        assert entry["weights"] == expected
        assert entry["model_sha256"] == told.sha256_of(expected)
    run_score(run)
    assert about_of(run)["weights"] == {expected: len(entries_of(run))}


def test_the_command_takes_either_and_both_are_scored(unlike: Run):
    root, data = unlike.folder.root, ("--data-root", unlike.data_root)
    before = unlike.folder.config.read_bytes()
    held_out = [case.id for case in unlike.read_manifest().split_fold(0)[1]]
    masks = {}
    for weights in ("best", "final"):
        call("predict", root, *data, "--weights", weights)
        assert {entry["weights"] for entry in entries_of(unlike).values()} == {weights}
        masks[weights] = [(unlike.folder.predictions / f"{case}.nii.gz").read_bytes() for case in held_out]
        said = call("score", root, *data)
        assert f"Predicted with the {weights} weights of the training." in said
        assert ("chosen on" in said) == (weights == "best")
        call("report", root, *data)
        assert f"with the {weights} weights" in (root / "report/index.html").read_text()
    assert masks["best"] != masks["final"]
    assert unlike.folder.config.read_bytes() == before
    out = root.parent / "out"
    scan = unlike.data_root / "imagesTr/case_00.nii.gz"
    call("predict", unlike.folder.model(0), scan, "--out", out, "--weights", "best", "--device", "cpu")
    assert read_json(out / "index.json")["cases"]["case_00"]["weights"] == "best"


def test_scores_name_the_cases_that_chose_the_weights(unlike: Run):
    held_out = [case.id for case in unlike.read_manifest().split_fold(0)[1]]
    set_card(unlike, validation_cases=held_out[:2], inference=told_by_card(unlike, {"weights": "best"}))
    run_predict(unlike)
    run_score(unlike)
    assert about_of(unlike)["num_chosen_on"] == 2
    page = run_report(unlike).read_text()
    assert f"chosen on 2 of the {len(held_out)} scored cases: the scores of these are optimistic" in page


def test_a_model_of_0_4_predicts_as_before_and_nothing_is_done_twice(own_run: Run):
    kept = {key: value for key, value in told_by_card(own_run, {}).items() if key != "weights"}
    set_card(own_run, validation_cases=None, final_weights_sha256=None, inference=kept)
    (own_run.folder.model(0) / WEIGHTS_FILES["final"]).unlink()
    run_predict(own_run)
    card = card_of(own_run)
    index = read_json(own_run.folder.predictions / "index.json")
    assert {entry["model_sha256"] for entry in index["cases"].values()} == {card.weights_sha256}
    for entry in index["cases"].values():  # as 0.4 wrote it
        del entry["weights"]
    write_json(own_run.folder.predictions / "index.json", index)
    masks = sorted(own_run.folder.predictions.glob("*.nii.gz"))
    times = [mask.stat().st_mtime_ns for mask in masks]
    run_predict(own_run)
    assert [mask.stat().st_mtime_ns for mask in masks] == times
    run_score(own_run)
    assert about_of(own_run)["num_chosen_on"] is None
    asked = open_run(own_run.folder.root, own_run.data_root, changes=["inference.weights=final"])
    with pytest.raises(InputError, match=r"no final weights.*--weights best"):
        run_predict(asked)


def test_what_was_chosen_on_is_counted_by_each_cases_own_model(unlike: Run):
    card = card_of(unlike)
    cards = {0: card.model_copy(update={"validation_cases": ("a", "b")}),
             1: card.model_copy(update={"validation_cases": ("c",)})}  # fmt: skip
    entries = {"a": {"fold": 0, "weights": "best"}, "b": {"fold": 0, "weights": "final"},
               "c": {"fold": 1, "weights": "best"}, "d": {"fold": 1, "weights": "best"},
               "e": {"fold": 1, "weights": "best"}}  # fmt: skip
    found = count_weights(["a", "b", "c", "d", "missing"], entries, cards)
    assert found == {"weights": {"best": 3, "final": 1}, "num_chosen_on": 2}
    assert count_weights(["a"], entries, {}) == {"weights": {"best": 1}}


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({}, ""),
        ({"weights": {"final": 9}, "num_chosen_on": 0}, "Predicted with the final weights of the training."),
        ({"weights": {"best": 9}}, "Predicted with the best weights of the training."),
        (
            {"weights": {"best": 38}, "num_chosen_on": 12},
            "chosen on 12 of the 38 scored cases: the scores of these are opt",
        ),
        ({"weights": {"best": 4}, "num_chosen_on": 0}, "chosen on none of the scored cases."),
        (
            {"weights": {"best": 4}, "num_chosen_on": None},
            "were not recorded: they may be among the scored ones.",
        ),
        (
            {"weights": {"final": 5, "best": 4}, "num_chosen_on": 1},
            "best weights (4 cases) and the final weights (5 c",
        ),
    ],
)
def test_sentences(about: dict[str, object], expected: str):
    assert expected in describe_weights(about)
    assert bool(expected) == bool(describe_weights(about))
