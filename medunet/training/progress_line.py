"""Progress of training on a terminal or in a log: a bar or lines with the remaining time; overfitting warnings."""

import logging
import math
import time
from datetime import datetime, timedelta
from typing import Any

import lightning as L

from medunet.base.progress import PercentBar, describe_seconds
from medunet.training.module import SegmentationModule
from medunet.training.validation import describe_unjudged, dice_text

_log = logging.getLogger(__name__)
_WINDOW = 5  # validations that are compared with the same number before them


class ProgressLine(L.Callback):
    """Show a progress bar of the whole training on a terminal, or write lines to a log."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the progress bar."""
        assert isinstance(pl_module, SegmentationModule)
        self._warned, self._is_named, self._last_tenth = False, False, -1
        self._start, self._start_progress = time.monotonic(), pl_module.progress()
        self._bar = PercentBar("Train")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the bar; in a log, report the remaining time after the first step and every tenth of training."""
        assert isinstance(pl_module, SegmentationModule)
        done = pl_module.progress(now=True)  # the module updates its clock after the callbacks
        remaining = describe_remaining(time.monotonic() - self._start, done - self._start_progress, 1 - done)
        if self._bar.is_shown:
            dice = f", {dice_text(pl_module.history[-1]['dice'])}" if pl_module.history else ""
            text = f"epoch {pl_module.current_epoch}{dice}, {remaining}"
            self._bar.update(done, text)
        elif int(10 * done) > self._last_tenth and done < 1:
            self._last_tenth = int(10 * done)
            _log.info(f"Train {done:.0%}: {remaining}")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Without a terminal, log a line per epoch; warn once of unjudged cases and of overfitting."""
        assert isinstance(pl_module, SegmentationModule)
        if not self._bar.is_shown:
            row = pl_module.history[-1] if pl_module.history else None
            text = f"epoch {pl_module.current_epoch}"
            if row is not None and row["epoch"] == pl_module.current_epoch:
                text += f", loss {row['loss']:.3f}, {dice_text(row['dice'])}"
            minutes = f"{pl_module.elapsed_s / 60:.1f} minutes"
            _log.info(f"Train {pl_module.progress():.0%}: {text}, {minutes}")
        if not self._is_named and pl_module.cases:
            self._is_named = True
            if text := describe_unjudged(pl_module.cases):
                _log.warning(text)
        if not self._warned and (warning := overfitting_warning(pl_module.history)):
            self._warned = True
            _log.warning(warning)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the bar."""
        self._bar.stop()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Stop the bar after an error, so that the terminal can be used again."""
        if hasattr(self, "_bar"):
            self._bar.stop()


def describe_remaining(spent_s: float, done: float, left: float) -> str:
    """Return the remaining time of training and its expected end as text.

    `done` and `left` are shares of the whole training; `done` took `spent_s` seconds, including validations so far.
    """
    if done <= 0:
        return "remaining time not known yet"
    left_s = spent_s * left / done
    end = datetime.now() + timedelta(seconds=left_s)
    return (
        f"about {describe_seconds(left_s)} left, until {end:%H:%M}"
        + (end.date() > datetime.now().date()) * f" of {end:%d %b}"
    )


def overfitting_warning(history: list[dict[str, float]]) -> str:
    """Return a warning if the validation loss rises while the training loss falls, otherwise "".

    The means of the last five validations are compared with those of the five before: the validation loss must have
    risen by over 5%, and the training loss must have fallen.
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
        f"Overfitting: over the last {_WINDOW} validations the training loss changed by {training:+.0%}, the "
        f"validation loss by {validation:+.0%}. More cases, stronger augmentation or dropout, a smaller network or "
        "fewer epochs may help; the best weights so far are kept."
    )
