"""What a person watches while a fold trains: one progress line, curves, and pictures in TensorBoard."""

import csv
import io
import math
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from medunet.files import whole_file, write_text
from medunet.imaging.figures import draw_planes, figure_array, largest_cross_sections
from medunet.training.module import SegmentationModule


class ProgressLine(L.Callback):
    """One bar for the whole training, by steps or by minutes, whichever ends it first."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("Train"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        assert isinstance(pl_module, SegmentationModule)
        dice = f", Dice {pl_module.history[-1]['dice']:.3f}" if pl_module.history else ""
        loss = float(trainer.callback_metrics.get("loss", math.nan))
        text = f"epoch {pl_module.current_epoch}, loss {loss:.3f}{dice}"
        self._bar.update(self._task, completed=pl_module.progress(), description=text)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Where there is no terminal, print a line an epoch for the log."""
        assert isinstance(pl_module, SegmentationModule)
        if not self._console.is_terminal:
            row = pl_module.history[-1]
            text = f"epoch {row['epoch']}, loss {row['loss']:.3f}, Dice {row['dice']:.3f}"
            self._console.print(f"Train {pl_module.progress():.0%}: {text}, {row['minutes']:.1f} minutes")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        if hasattr(self, "_bar"):
            self._bar.stop()


class Curves(L.Callback):
    """After each epoch: training.csv and curves.png from the history, and a picture in TensorBoard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the files whole; they always agree with the history that the checkpoint holds."""
        assert isinstance(pl_module, SegmentationModule)
        write_text(self.folder / "training.csv", history_csv(pl_module.history))
        with whole_file(self.folder / "curves.png", suffix=".png") as temporary:
            draw_curves(pl_module.history).savefig(temporary, dpi=100)
        writer = getattr(pl_module.logger, "experiment", None)
        if writer is None or pl_module.shown is None:
            return
        case_id, image, label, prediction = pl_module.shown
        figure = draw_planes(
            image[0].numpy(),
            np.diag([*pl_module.plan.spacing_mm, 1.0]),
            reference=label.numpy(),
            prediction=prediction.numpy(),
            targets=pl_module.description.targets,
            centre=largest_cross_sections(label.numpy() > 0),
            modality="other",  # intensities are normalised here: no HU window fits
        )
        writer.add_image(
            f"validation/{case_id}", figure_array(figure), pl_module.global_step, dataformats="HWC"
        )


def history_csv(history: list[dict[str, float]]) -> str:
    """Return the history as CSV, undefined values blank."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(history[0])
    for row in history:
        writer.writerow("" if math.isnan(value) else round(value, 6) for value in row.values())
    return stream.getvalue()


def draw_curves(history: list[dict[str, float]]) -> Figure:
    """Draw loss, Dice per target and learning rate over the minutes of training."""
    minutes = [row["minutes"] for row in history]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, dice, rate = figure.subplots(1, 3)
    loss.plot(minutes, [row["loss"] for row in history], marker=".")
    for key in history[0]:
        if key.startswith("dice"):
            name = "mean" if key == "dice" else key.removeprefix("dice_")
            dice.plot(
                minutes, [row[key] for row in history], marker=".", label=name, lw=2.5 if key == "dice" else 1
            )
    rate.plot(minutes, [row["learning_rate"] for row in history], marker=".")
    dice.set(ylim=(0, 1))
    dice.legend(loc="lower right")
    titles = ("training loss", "validation Dice", "learning rate")
    for axes, title in zip((loss, dice, rate), titles, strict=True):
        axes.set(title=title, xlabel="minutes")
        axes.grid(alpha=0.3)
    return figure
