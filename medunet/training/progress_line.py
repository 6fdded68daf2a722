"""What a terminal shows while a fold trains: from the first step on, when it ends; and whether the losses part."""

import logging
import math
import time
from datetime import datetime, timedelta
from typing import Any

import lightning as L

from medunet.base.progress import PercentBar
from medunet.training.module import SegmentationModule

_log = logging.getLogger(__name__)
_WINDOW = 5  # validations that are compared with as many before them


class ProgressLine(L.Callback):
    """One bar for the whole training, by steps or by minutes, whichever ends it first; in a log, lines."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the bar."""
        assert isinstance(pl_module, SegmentationModule)
        self._warned, self._told = False, -1
        self._start, self._start_progress = time.monotonic(), pl_module.progress()
        self._bar = PercentBar("Train")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar; in a log, say after the first step and at each tenth when training will end."""
        assert isinstance(pl_module, SegmentationModule)
        done = pl_module.progress(now=True)  # the module reads the clock behind its callbacks
        end = expected_end(time.monotonic() - self._start, done - self._start_progress, 1 - done)
        if self._bar.is_shown:
            dice = f", Dice {pl_module.history[-1]['dice']:.3f}" if pl_module.history else ""
            text = f"epoch {pl_module.current_epoch}{dice}, {end}"
            self._bar.update(done, text)
        elif int(10 * done) > self._told and done < 1:
            self._told = int(10 * done)
            _log.info(f"Train {done:.0%}: {end}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Where there is no terminal, print a line an epoch for the log; warn once of overfitting."""
        assert isinstance(pl_module, SegmentationModule)
        if not self._bar.is_shown:
            row = pl_module.history[-1] if pl_module.history else None
            text = f"epoch {pl_module.current_epoch}"
            if row is not None and row["epoch"] == pl_module.current_epoch:
                text += f", loss {row['loss']:.3f}, Dice {row['dice']:.3f}"
            minutes = f"{pl_module.elapsed_s / 60:.1f} minutes"
            _log.info(f"Train {pl_module.progress():.0%}: {text}, {minutes}")
        if not self._warned and (reason := parted(pl_module.history)):
            self._warned = True
            _log.warning(reason)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        if hasattr(self, "_bar"):
            self._bar.stop()


def expected_end(spent_s: float, done: float, left: float) -> str:
    """Say how long training goes on and until when, where `done` of it took `spent_s` and `left` is to come.

    Shares are of the whole training; what validation took so far counts, what it will take is not known.
    """
    if done <= 0:
        return "its end is not known yet"
    left_s = spent_s * left / done
    if left_s < 99.5:
        told = f"{left_s:.0f} s"
    else:
        told = f"{left_s / 60:.0f} min" if left_s < 99.5 * 60 else f"{left_s / 3600:.0f} h"
    end = datetime.now() + timedelta(seconds=left_s)
    return f"about {told} left, until {end:%H:%M}" + (end.date() > datetime.now().date()) * f" of {end:%d %b}"


def parted(history: list[dict[str, float]]) -> str:
    """Say that training and validation part: the one's loss falls on while the other's rises; else return "".

    The last five validations are compared with the five before: the validation loss must have risen by over 5% while
    the training loss fell.
    """
    if len(history) < 2 * _WINDOW:
        return ""

    def change(key: str) -> float:
        before = [row[key] for row in history[-2 * _WINDOW : -_WINDOW]]
        after = [row[key] for row in history[-_WINDOW:]]
        return (sum(after) - sum(before)) / max(1e-9, abs(sum(before)))

    training, validation = change("loss"), change("validation_loss")
    if math.isnan(validation) or not (training < 0 and validation > 0.05):
        return ""
    return (
        f"Training and validation part: over the last {_WINDOW} validations the training loss changed by "
        f"{training:+.0%}, the validation loss by {validation:+.0%}. The network learns its cases by heart: more "
        "cases, stronger augmentation or dropout, a smaller network or fewer epochs may help; the best weights so "
        "far are kept."
    )
