"""What the terminal says while a fold trains, and when it warns."""

import math

import lightning as L
import pytest

from medunet.training.module import SegmentationModule
from medunet.training.progress_line import ProgressLine, parted

FALLING = (1.0,) * 5 + (0.8,) * 5


class Trained(SegmentationModule):
    """A module as the callback sees it: no network, only what it has come to."""

    current_epoch = 9

    def __init__(self, history: list[dict[str, float]]) -> None:
        L.LightningModule.__init__(self)
        self.history, self.elapsed_s = history, 570.0

    def progress(self) -> float:
        return 0.25


def epochs(training: tuple[float, ...], validation: tuple[float, ...]) -> list[dict[str, float]]:
    return [
        {"epoch": number, "loss": loss, "validation_loss": unseen, "dice": 0.7, "minutes": float(number)}
        for number, (loss, unseen) in enumerate(zip(training, validation, strict=True))
    ]


def drive(module: Trained, num_epochs: int = 1) -> None:
    line, trainer = ProgressLine(), L.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    line.on_train_start(trainer, module)
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
def test_it_warns_where_the_losses_part(training: tuple, validation: tuple, warns: bool):
    assert bool(parted(epochs(training, validation))) is warns


def test_the_warning_gives_both_changes():
    text = parted(epochs(FALLING, (0.5,) * 5 + (0.6,) * 5))
    assert "training loss changed by -20%" in text
    assert "validation loss by +20%" in text


def test_a_log_gets_a_line_an_epoch_and_one_warning(capsys: pytest.CaptureFixture):
    drive(Trained(epochs(FALLING, (0.5,) * 5 + (0.6,) * 5)), num_epochs=2)
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("Train 25%: epoch 9, loss 0.800, Dice 0.700, 9.5 minutes") == 2
    assert sum("Training and validation part" in line for line in lines) == 1
    assert len(lines) == 3


def test_an_epoch_without_a_validation_shows_no_older_scores(capsys: pytest.CaptureFixture):
    drive(Trained(epochs((1.0,) * 5, (1.0,) * 5)))
    drive(Trained([]))
    assert capsys.readouterr().err.splitlines() == ["Train 25%: epoch 9, 9.5 minutes"] * 2


def test_a_terminal_gets_one_bar(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    drive(Trained(epochs((1.0,), (1.0,))))
    shown = capsys.readouterr().err
    assert "epoch 9, Dice 0.700" in shown
    assert "25%" in shown
    assert "loss" not in shown
