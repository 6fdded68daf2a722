"""What the terminal says while a fold trains, and when it warns."""

import math
import re
from types import SimpleNamespace

import lightning as L
import pytest

from medunet.records.config import change_config
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice
from medunet.training.progress_line import ProgressLine, describe_remaining, overfitting_warning

FALLING = (1.0,) * 5 + (0.8,) * 5


class Trained(SegmentationModule):
    """A module as the callback sees it: no network, only what it has come to."""

    current_epoch = 9

    def __init__(self, history: list[dict[str, float]]) -> None:
        L.LightningModule.__init__(self)
        self.history, self.elapsed_s, self.done, self.cases = history, 570.0, 0.0, []

    def progress(self, *, now: bool = False) -> float:
        return self.done


def epochs(training: tuple[float, ...], validation: tuple[float, ...]) -> list[dict[str, float]]:
    return [
        {"epoch": number, "loss": loss, "validation_loss": unseen, "dice": 0.7, "minutes": float(number)}
        for number, (loss, unseen) in enumerate(zip(training, validation, strict=True))
    ]


def drive(module: Trained, num_epochs: int = 1) -> None:
    line, trainer = ProgressLine(), L.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    line.on_train_start(trainer, module)
    module.done = 0.25
    for _ in range(num_epochs):
        line.on_train_batch_end(trainer, module, None, None, 0)
        line.on_train_epoch_end(trainer, module)
    line.on_train_end(trainer, module)


@pytest.mark.parametrize(
    ("training", "validation", "warns"),
    [
        (FALLING, (0.5,) * 5 + (0.6,) * 5, True),
        (FALLING, (-0.6,) * 5 + (-0.5,) * 5, True),  # a loss may be negative
        (FALLING, (0.5,) * 5 + (0.52,) * 5, False),  # by 4% only
        (FALLING, FALLING, False),
        ((1.0,) * 5 + (1.1,) * 5, (0.5,) * 5 + (0.6,) * 5, False),  # both rise: no overfitting
        (FALLING[1:], (0.5,) * 4 + (0.6,) * 5, False),  # too few epochs
        ((9.0, *FALLING), (9.0,) + (0.5,) * 5 + (0.6,) * 5, True),  # the last ten count
        (FALLING, (math.nan,) * 10, False),
        (FALLING, (0.5,) * 5 + (0.6,) * 4 + (math.nan,), False),
    ],
)
def test_it_warns_of_overfitting(training: tuple, validation: tuple, warns: bool):
    assert bool(overfitting_warning(epochs(training, validation))) is warns


def test_the_warning_gives_both_changes():
    text = overfitting_warning(epochs(FALLING, (0.5,) * 5 + (0.6,) * 5))
    assert "training loss changed by -20%" in text
    assert "validation loss by +20%" in text


def test_a_log_gets_a_line_an_epoch_and_one_warning(capsys: pytest.CaptureFixture):
    drive(Trained(epochs(FALLING, (0.5,) * 5 + (0.6,) * 5)), num_epochs=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("Train 25%: epoch 9, loss 0.800, Dice 0.700, 9.5 minutes") == 2
    assert sum("Overfitting: over the last 5 validations" in line for line in lines) == 1
    assert len(lines) == 4
    assert re.fullmatch(r"Train 25%: about 0 s left, until \d\d:\d\d", lines[0])  # once, not at every step


@pytest.mark.parametrize(
    ("spent_s", "done", "left", "told"),
    [
        (1.0, 0.01, 0.99, "about 99 s left"),
        (1.0, 0.01, 1.0, "about 2 min left"),
        (60.0, 0.5, 0.5, "about 60 s left"),
        (3600.0, 0.25, 0.75, "about 3 h left"),
        (0.1, 0.0, 1.0, "remaining time not known yet"),
        (100.0, 0.1, 0.5, "about 8 min left"),  # a resumed run: its own speed counts, not what came before
    ],
)
def test_it_says_when_training_ends(spent_s: float, done: float, left: float, told: str):
    assert describe_remaining(spent_s, done, left).startswith(told)


def test_another_day_is_named():
    assert re.search(r"until \d\d:\d\d of \d\d \w+", describe_remaining(3600.0, 0.01, 0.99))


def test_an_epoch_without_a_validation_shows_no_older_scores(capsys: pytest.CaptureFixture):
    drive(Trained(epochs((1.0,) * 5, (1.0,) * 5)))
    drive(Trained([]))
    lines = [line for line in capsys.readouterr().err.splitlines() if "epoch" in line]
    assert lines == ["Train 25%: epoch 9, 9.5 minutes"] * 2


def test_a_terminal_gets_one_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    drive(Trained(epochs((1.0,), (1.0,))))
    shown = capsys.readouterr().err
    assert "epoch 9, Dice 0.700" in shown
    assert "25%" in shown
    assert "loss" not in shown


def test_minutes_count_from_the_first_step_on(tiny_plan, finished_run):
    config = change_config({"dataset": "phantoms"}, ["training.max_minutes=1"], "test")
    module = SegmentationModule(
        tiny_plan, finished_run.read_description(), config, ComputeChoice("fp32"), "id"
    )
    module._trainer = SimpleNamespace(world_size=1, global_step=0)  # type: ignore[assignment]
    module.on_train_start()
    assert module._clock_s is not None
    module._clock_s -= (
        6.0  # the first step took six seconds, and its callbacks come before the module's clock
    )
    assert module.progress(now=True) == pytest.approx(0.1, abs=0.01)
    assert module.progress() < 0.001
