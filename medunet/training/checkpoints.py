"""Checkpoints written whole, the newest readable one found, the best weights kept."""

import errno
import math
import os
import shutil
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint

from medunet.base.errors import InputError
from medunet.base.files import atomic_write, hash_value
from medunet.records.config import Config
from medunet.records.manifest import Manifest
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.training.module import SegmentationModule

_ASK_EVERY = 10  # steps between two questions whether to save, where several processes must agree


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, flushed to disk and renamed into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write the checkpoint whole or not at all."""
        with atomic_write(Path(path), suffix=".ckpt") as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's way of saying that the disk is full
                raise OSError(errno.ENOSPC, "no space left, or the folder's limit is reached") from error


class KeepCheckpoints(Checkpoint):
    """last.ckpt, the one before as previous.ckpt, and the best by validation Dice.

    Saved after every epoch, and within one whenever `minutes` have passed since, so that a kill costs no more.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.interval_s = folder, 60 * minutes
        self._saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save between two steps of an epoch, never after its last, which the epoch's end saves."""
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_step or trainer.is_last_batch or trainer.should_stop:
            return
        is_due = time.monotonic() - self._saved_at >= self.interval_s
        if trainer.world_size > 1:
            if trainer.global_step % _ASK_EVERY:
                return
            is_due = trainer.strategy.broadcast(is_due)
        if is_due:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; the file before stays until the new one is whole."""
        assert isinstance(pl_module, SegmentationModule)
        self._save(trainer)
        history = pl_module.history
        is_validated = bool(history) and history[-1]["step"] == trainer.global_step
        if trainer.is_global_zero and is_validated and best_row(history) == len(history) - 1:
            link(self.folder / "last.ckpt", self.folder / "best.ckpt")

    def _save(self, trainer: L.Trainer) -> None:
        last = self.folder / "last.ckpt"
        if trainer.is_global_zero and last.exists():
            link(last, self.folder / "previous.ckpt")
        trainer.save_checkpoint(last)
        self._saved_at = time.monotonic()


class StopWithoutGain(L.Callback):
    """Ends training after `patience` validations in a row without a better Dice.

    Judged by the history alone, as `out_of_patience` judges a run to be resumed. Lightning's EarlyStopping keeps a
    count and a patience of its own in the checkpoint, which then overrule a patience that was changed since.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the patience is at an end."""
        assert isinstance(pl_module, SegmentationModule)
        if out_of_patience(pl_module.history, self.patience):
            trainer.should_stop = True


def out_of_patience(history: list[dict[str, float]], patience: int | None) -> bool:
    """Say whether the last `patience` epochs brought no better Dice; None: there is no end of patience.

    Epochs, not validations, which may be fewer: how many there are follows from how fast the computer is.
    """
    if patience is None or not history:
        return False
    return history[-1]["epoch"] - history[best_row(history)]["epoch"] >= patience


def best_row(history: list[dict[str, float]]) -> int:
    """Return the index of the row with the highest Dice, the first of equals; undefined counts as lowest."""
    scores = [-1.0 if math.isnan(row["dice"]) else row["dice"] for row in history]
    return scores.index(max(scores))


def newest_readable(folder: Path) -> Path | None:
    """Return last.ckpt if it can be read, else previous.ckpt, else None where nothing was saved yet.

    Raises:
        InputError: there are checkpoints but none can be read.
    """
    found = [folder / name for name in ("last.ckpt", "previous.ckpt") if (folder / name).exists()]
    for path in found:
        if is_readable(path):
            return path
    if found:
        raise InputError(
            f"neither of {[path.name for path in found]} can be read",
            where=str(folder),
            hint="Remove the checkpoints folder to train this fold anew.",
        )
    return None


@dataclass(frozen=True)
class Saved:
    """What a checkpoint says of itself."""

    identity: str
    step: int
    elapsed_s: float
    history: list[dict[str, float]]

    @classmethod
    def of(cls, path: Path) -> "Saved":
        """Read what a checkpoint says; of whose making, `identity` tells."""
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        own = checkpoint["medunet"]
        return cls(own["identity"], checkpoint["global_step"], own["elapsed_s"], own["history"])

    def batch_in_epoch(self, config: Config) -> int:
        """Return the batch of its epoch before which it was saved; 0 between two epochs."""
        return (self.step - self._last_end) % config.training.steps_per_epoch * config.training.accumulate

    def epochs_in_all(self, config: Config) -> int:
        """Return how many epochs the configured steps make, where a limit of minutes has cut some short."""
        training = config.training
        steps_left = training.epochs * training.steps_per_epoch - self._last_end
        num_ended = int(self.history[-1]["epoch"]) + 1 if self.history else 0  # the cut ones were validated
        return num_ended + math.ceil(steps_left / training.steps_per_epoch)

    def ends_best_epoch(self) -> bool:
        """Say whether it was saved at the end of the best epoch so far."""
        return self._ends_epoch and best_row(self.history) == len(self.history) - 1

    def is_over(self, config: Config) -> bool:
        """Say whether a limit of the configuration has been reached: steps, minutes or patience."""
        training = config.training
        if not self._ends_epoch:  # its epoch was not validated yet
            return False
        if self.step >= training.epochs * training.steps_per_epoch:
            return True
        if training.max_minutes is not None and self.elapsed_s >= 60 * training.max_minutes:
            return True
        return out_of_patience(self.history, training.patience)

    @property
    def _last_end(self) -> int:
        """The step at which the last validated epoch ended."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def _ends_epoch(self) -> bool:
        return bool(self.history) and self._last_end == self.step


def tidy(folder: Path, resume: Path | None) -> None:
    """Clear up after a kill: remove parts of files, and let last.ckpt be the one that is gone on from.

    A broken last.ckpt that stayed would replace the good one before it at the next save.
    """
    for part in folder.glob(".*.ckpt*"):
        part.unlink()
    if resume is not None and resume.name != "last.ckpt":
        link(resume, folder / "last.ckpt")


def is_readable(path: Path) -> bool:
    """Say whether a checkpoint's archive is complete, every part's checksum right."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def link(source: Path, target: Path) -> None:
    """Give a file a second name (a copy where links are not to be had), replacing whole what had it before."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # renaming leaves both names where they are of one file already


def find_resume(
    run: RunFolder, manifest: Manifest, plan: Plan, config: Config
) -> tuple[str, Path | None, Saved | None]:
    """Return the fold's identity, and the checkpoint to go on from with what it says, if there is one.

    Raises:
        InputError: the checkpoint belongs to another plan, case list, seed or kind of training, or the fold does not
            exist.
    """
    training, _ = manifest.split_fold(config.training.fold)
    cases = [case.id for case in training]
    kept = ("optimizer", "loss", "class_weights", "steps_per_epoch", "accumulate", "freeze_encoder")
    training_config = config.training.model_dump(include={*kept})
    averaged = config.training.ema_decay is not None
    identity = hash_value(
        [plan.hash_input, manifest.description.to_dict(), cases, config.seed, training_config, averaged]
    )
    checkpoints = run.fold(config.training.fold) / "checkpoints"
    path = newest_readable(checkpoints)
    if path is None:
        return identity, None, None
    saved = Saved.of(path)
    if saved.identity != identity:
        raise InputError(
            "the checkpoints were made with another plan, case list, seed, optimizer, loss or epoch length",
            where=str(checkpoints),
            hint="Choose another run folder, or remove this fold's folder to train it anew.",
        )
    return identity, path, saved
