"""Validation cases in which nothing is judged, or nothing is to be found: undefined, counted, named, never nan."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from planned_run import begin_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_cohort import write_tiny_cohort

from medunet.commands.predict import run_predict
from medunet.commands.score import run_score
from medunet.commands.train import describe_dice, run_train
from medunet.imaging.volumes import read_label, write_mask
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.runs.run import Run
from medunet.training.checkpoints import best_row, out_of_patience
from medunet.training.curves import draw_curves, history_csv

DESCRIPTION = Description.parse(
    {
        "name": "judged",
        "layout": "msd",
        "channels": {"CT": {"modality": "CT"}},
        "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 7},
    },
    "test",
)
QUICK = (
    *("training.epochs=2", "training.steps_per_epoch=2", "training.patience=1", "planning.base_features=4"),
    "training.validation_cases=2",
)


def train(root: Path, *, values: dict[int, int | None], held_out: list[str]) -> tuple[Run, ModelCard]:
    """Train a fold that holds out cases, after the labels of some cases have been filled with one value."""
    write_tiny_cohort(root / "data", 4)
    for number, value in values.items():
        path = root / f"data/labelsTr/case_{number:02d}.nii.gz"
        label = read_label(path)
        write_mask(path, np.full_like(label.array, value), label.header)
    others = sorted({f"case_{number:02d}" for number in range(4)} - set(held_out))
    (root / "folds.json").write_text(json.dumps({"folds": [held_out, others[:1], others[1:]]}))
    changes = (*TINY, *QUICK, f"folds_file={root}/folds.json")
    run = begin_run(root / "run", root / "data", changes, dataset=DESCRIPTION)
    return run, run_train(run)[0]


def check_no_nan(run: Run, text: str) -> None:
    """Check that neither the console nor a file of the training shows nan."""
    assert "nan" not in text.lower()
    fold = run.folder.fold(0)
    assert "nan" not in (fold / "training.csv").read_text()
    assert "NaN" not in (fold / "model/model.json").read_text()
    events = EventAccumulator(str(fold / "tensorboard")).Reload()
    for tag in events.Tags()["scalars"]:
        assert all(math.isfinite(event.value) for event in events.Scalars(tag)), tag
    for tag in events.Tags()["tensors"]:
        for event in events.Tensors(tag):
            assert b"nan" not in b" ".join(event.tensor_proto.string_val), tag


def test_a_fold_in_which_nothing_is_judged_uses_the_final_weights(tmp_path: Path, capsys, caplog) -> None:
    run, card = train(tmp_path, values={0: 7}, held_out=["case_00"])
    output = " ".join(capsys.readouterr().out.split())
    assert "no validation Dice: none of the 1 validation cases has foreground to find" in output
    assert "the final weights are used" in output
    assert "1 of 1 validation cases have no voxel to judge" in caplog.text
    assert "case_00" in caplog.text
    assert card.inference.weights == "final"
    assert card.validation_dice["dice"] is None
    run_predict(run)
    run_score(run)
    output += capsys.readouterr().out
    assert "mean Dice undefined over 0 cases" in " ".join(output.split())
    check_no_nan(run, output + caplog.text)


def test_a_case_in_which_nothing_is_judged_does_not_count(tmp_path: Path, capsys, caplog) -> None:
    run, card = train(tmp_path, values={0: 7}, held_out=["case_00", "case_01"])
    assert "1 of 2 validation cases have no voxel to judge" in caplog.text
    assert card.validation_dice["dice"] is not None
    check_no_nan(run, capsys.readouterr().out + caplog.text)


def test_a_fold_with_nothing_to_find_shows_no_nan(tmp_path: Path, capsys, caplog) -> None:
    run, card = train(tmp_path, values={0: 0}, held_out=["case_00"])
    output = " ".join(capsys.readouterr().out.split())
    assert "no validation Dice: none of the 1 validation cases has foreground to find" in output
    assert (card.validation_dice["dice"], card.inference.weights) == (None, "final")
    check_no_nan(run, output + caplog.text)


def rows(*dice: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "step": epoch, "minutes": epoch / 9, "learning_rate": 0.1, "loss": 1.0,
         "validation_loss": math.nan, "dice": value, "dice_liver": value, "hd95_mm_liver": value}
        for epoch, value in enumerate(dice)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dice", "best"),
    [
        ((math.nan, math.nan, math.nan), 2),
        ((0.0, math.nan, 0.0), 2),  # false positives where there is nothing to find
        ((math.nan, 0.0, math.nan), 2),
        ((0.0, 0.0, 0.0), 0),
        ((0.1, 0.4, 0.2), 1),
        ((math.nan, 0.4, 0.2), 1),
    ],
)
def test_the_best_row(dice: tuple[float, ...], best: int) -> None:
    history = rows(*dice)
    assert best_row(history) == best
    assert out_of_patience(history, 2) == (best == 0)
    assert "nan" not in history_csv(history)
    draw_curves(history).canvas.draw()


def test_a_target_without_a_dice_is_named() -> None:
    card = ModelCard.model_construct(validation_dice={"dice": 0.5, "dice_liver": 0.5, "dice_tumour": None})
    assert describe_dice(card) == "best validation Dice: mean 0.500, liver 0.500, tumour undefined"
