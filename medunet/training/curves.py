"""Learning curves of a fold: training.csv after every validation, and curves.png once a minute."""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medunet.base.files import atomic_write, write_text
from medunet.training.checkpoints import best_row
from medunet.training.module import SegmentationModule

_DRAW_EVERY_S = 60.0  # drawing takes as long as several steps
_MOST_TARGETS = 8  # more could not be distinguished
_MOST_MARKED = 60  # epochs up to which each one is marked by a point
Rows = list[dict[str, float]]


class Curves(L.Callback):
    """Write training.csv and curves.png from the history in the checkpoint, so that they continue after a resume."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._drawn_at = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the table, and once a minute the plot."""
        assert isinstance(pl_module, SegmentationModule)
        if not pl_module.history:
            return
        write_text(self.folder / "training.csv", history_csv(pl_module.history))
        if time.monotonic() - self._drawn_at > _DRAW_EVERY_S:
            self._draw(pl_module.history)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the plot of the whole training."""
        assert isinstance(pl_module, SegmentationModule)
        if pl_module.history:
            self._draw(pl_module.history)

    def _draw(self, history: Rows) -> None:
        with atomic_write(self.folder / "curves.png", suffix=".png") as temporary:
            draw_curves(history).savefig(temporary, dpi=100)
        self._drawn_at = time.monotonic()


def history_csv(history: Rows) -> str:
    """Return the history as CSV with six significant digits; undefined values are blank, infinite ones `inf`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(history[0])
    for row in history:
        writer.writerow(_cell(value) for value in row.values())
    return stream.getvalue()


def _cell(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def draw_curves(history: Rows) -> Figure:
    """Plot losses, validation Dice and HD95 per target, and the learning rate over the minutes of training.

    Each target has one colour in all plots. An infinite HD95 is shown as a triangle at the top; a dotted line marks
    the validation with the best weights.
    """
    figure = Figure(figsize=(16, 4.2), layout="constrained")
    losses, dice, distance, rate = figure.subplots(1, 4)
    style: dict[str, Any] = {
        "lw": 1.2,
        "marker": "." if len(history) <= _MOST_MARKED else "",
        "markersize": 4,
    }

    def draw(axes: Axes, key: str, **options: Any) -> None:
        axes.plot(minutes, [row[key] for row in history], **style | options)

    minutes = [row["minutes"] for row in history]
    draw(losses, "loss", label="training (patches)")
    draw(losses, "validation_loss", label="validation (windows)")
    losses.legend(loc="upper right", fontsize="small")
    targets = [key.removeprefix("dice_") for key in history[0] if key.startswith("dice_")]
    for number, target in enumerate(targets[:_MOST_TARGETS]):
        colour = f"C{number}"
        draw(dice, f"dice_{target}", label=target, color=colour)
        key = f"hd95_mm_{target}"
        draw(distance, key, color=colour)
        missed = [row["minutes"] for row in history if math.isinf(row[key])]
        high = [0.97 - 0.04 * number] * len(missed)
        distance.plot(missed, high, "^", color=colour, markersize=5, transform=distance.get_xaxis_transform())
    draw(dice, "dice", label="mean", color="black", lw=2.5)
    dice.axvline(minutes[best_row(history)], color="grey", linestyle=":", label="best weights")
    draw(rate, "learning_rate")
    lowest = min((row[key] for row in history for key in row if _is_dice(key) and row[key] >= 0), default=0.0)
    dice.set_ylim(math.floor(10 * min(lowest, 0.9)) / 10, 1)
    distance.set_ylim(bottom=0)
    figure.legend(*dice.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize="small")
    titles = ("loss", "validation Dice", "validation HD95, mm (▲ infinite: missed)", "learning rate")
    for axes, title in zip((losses, dice, distance, rate), titles, strict=True):
        axes.set(xlabel="minutes")
        axes.set_title(title, fontsize="medium")
        axes.grid(alpha=0.3)
    return figure


def _is_dice(key: str) -> bool:
    return key == "dice" or key.startswith("dice_")
