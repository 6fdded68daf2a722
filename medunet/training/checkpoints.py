"""Checkpoints: atomic writing, the newest readable one for resuming, the best one, and early stopping."""

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
from medunet.compute.processes import ALONE, Processes
from medunet.records.config import Config
from medunet.records.manifest import Manifest
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.training.module import SegmentationModule
from medunet.training.stop_request import StopRequest


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writer of Lightning's checkpoints that flushes them to disk and renames them into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write the checkpoint atomically."""
        with atomic_write(Path(path), suffix=".ckpt") as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's error for a full disk
                raise OSError(errno.ENOSPC, "no space left, or the folder's limit is reached") from error


class SaveCheckpoints(Checkpoint):
    """Save last.ckpt, the one before it as previous.ckpt, and the best by validation Dice as best.ckpt.

    Checkpoints are saved after every epoch, and within an epoch whenever `minutes` have passed since the last one.
    If the system asks one of the processes to `stop`, all of them save after the same step and end.
    """

    def __init__(
        self, folder: Path, minutes: float, processes: Processes = ALONE, stop: StopRequest | None = None
    ) -> None:
        self.folder, self.interval_s = folder, 60 * minutes
        self.processes, self.stop = processes, stop or StopRequest()
        self._saved_at = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End before a new epoch if the system asked for it during the last one's validation, which is saved."""
        if self.processes.any_of([self.stop.is_asked])[0]:
            has_begun = trainer.global_step > 0
            raise self.stop.error(
                "between two epochs; the checkpoint is whole" if has_begun else "before the first step"
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch if it is time; the last step of an epoch is saved at the end of the epoch.

        Raises:
            PreemptedError: the system asked one of the processes to end.
        """
        is_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not is_step or trainer.is_last_batch or trainer.should_stop:
            return
        is_due = trainer.is_global_zero and time.monotonic() - self._saved_at >= self.interval_s
        is_due, is_asked = self.processes.any_of([is_due, self.stop.is_asked])
        if is_due or is_asked:
            self._save(trainer)
        if is_asked:
            raise self.stop.error(f"after step {trainer.global_step}; the checkpoint is whole")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of the epoch; the previous file is kept until the new one is complete."""
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


class StopWithoutImprovement(L.Callback):
    """Early stopping: end training after `patience` epochs without a better Dice.

    The decision depends only on the history, as in `out_of_patience`. Lightning's EarlyStopping stores its own count
    and patience in the checkpoint, which would override a patience that was changed before resuming.
    """

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the patience is exhausted."""
        assert isinstance(pl_module, SegmentationModule)
        if out_of_patience(pl_module.history, self.patience):
            trainer.should_stop = True


def out_of_patience(history: list[dict[str, float]], patience: int | None) -> bool:
    """Return whether the Dice has not improved for `patience` epochs; always False if it is None.

    Epochs are counted, not validations: the number of validations depends on the speed of the computer.
    """
    if patience is None or not history:
        return False
    return history[-1]["epoch"] - history[best_row(history)]["epoch"] >= patience


def best_row(history: list[dict[str, float]]) -> int:
    """Return the index of the first row with the highest Dice, or of the last row if there is none to choose by.

    A Dice is undefined only if the validation cases have no foreground to find, in any epoch: their Dice is then 0 or
    undefined, and says nothing about which weights are better.
    """
    scores = [-1.0 if math.isnan(row["dice"]) else row["dice"] for row in history]
    if -1.0 in scores and max(scores) <= 0:
        return len(scores) - 1
    return scores.index(max(scores))


def newest_readable(folder: Path) -> Path | None:
    """Return last.ckpt if it can be read, otherwise previous.ckpt; None if there is no checkpoint yet.

    Raises:
        InputError: checkpoints exist but none can be read.
    """
    found = [folder / name for name in ("last.ckpt", "previous.ckpt") if (folder / name).exists()]
    for path in found:
        if is_readable(path):
            return path
    if found:
        raise InputError(
            f"neither of {[path.name for path in found]} can be read",
            where=str(folder),
            hint="Remove the checkpoints folder to train this fold again.",
        )
    return None


@dataclass(frozen=True)
class CheckpointState:
    """Identity, progress and history stored in a checkpoint."""

    identity: str
    step: int
    elapsed_s: float
    history: list[dict[str, float]]

    @classmethod
    def read(cls, path: Path) -> "CheckpointState":
        """Read the state from a checkpoint file."""
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        own = checkpoint["medunet"]
        return cls(own["identity"], checkpoint["global_step"], own["elapsed_s"], own["history"])

    def epoch(self, config: Config) -> int:
        """Return the epoch of the next batch; between two epochs the next one."""
        return self._num_ended + (self.step - self._last_end) // config.training.steps_per_epoch

    def batch_in_epoch(self, config: Config) -> int:
        """Return the index of the next batch in its epoch; 0 between two epochs."""
        return (self.step - self._last_end) % config.training.steps_per_epoch * config.training.accumulate

    def total_epochs(self, config: Config) -> int:
        """Return the number of epochs for the configured steps; a time limit may have ended some epochs early."""
        training = config.training
        steps_left = training.epochs * training.steps_per_epoch - self._last_end
        return self._num_ended + math.ceil(steps_left / training.steps_per_epoch)

    def ends_best_epoch(self) -> bool:
        """Return whether it was saved at the end of the best epoch so far."""
        return self._ends_epoch and best_row(self.history) == len(self.history) - 1

    def is_over(self, config: Config) -> bool:
        """Return whether training is finished by the configured steps, minutes or patience."""
        training = config.training
        if not self._ends_epoch:  # the epoch has not been validated yet
            return False
        if self.step >= training.epochs * training.steps_per_epoch:
            return True
        if training.max_minutes is not None and self.elapsed_s >= 60 * training.max_minutes:
            return True
        return out_of_patience(self.history, training.patience)

    @property
    def _num_ended(self) -> int:
        """Number of epochs up to the last validated one, including those that ended early."""
        return int(self.history[-1]["epoch"]) + 1 if self.history else 0

    @property
    def _last_end(self) -> int:
        """Step at the end of the last validated epoch."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def _ends_epoch(self) -> bool:
        return bool(self.history) and self._last_end == self.step


def clean_up(folder: Path, resume: Path | None) -> None:
    """Clean up after an interruption: remove partial files, and make last.ckpt the checkpoint to resume from.

    Otherwise a damaged last.ckpt would replace previous.ckpt at the next save.
    """
    for part in folder.glob(".*.ckpt*"):
        part.unlink()
    if resume is not None and resume.name != "last.ckpt":
        link(resume, folder / "last.ckpt")


def is_readable(path: Path) -> bool:
    """Return whether a checkpoint's archive is complete and its checksums are correct."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError, EOFError):
        return False


def link(source: Path, target: Path) -> None:
    """Hard-link a file to a second name, or copy it where links are not supported; replace the target atomically."""
    temporary = target.with_name(f".{target.name}.link")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)
    temporary.unlink(missing_ok=True)  # renaming keeps both names if they already are the same file


def find_resume_checkpoint(
    run: RunFolder, manifest: Manifest, plan: Plan, config: Config
) -> tuple[str, Path | None, CheckpointState | None]:
    """Return the fold's identity hash, and the checkpoint to resume from with its state, if there is one.

    Raises:
        InputError: the checkpoint belongs to another plan, case list, seed or kind of training, or the fold does not
            exist.
    """
    training, _ = manifest.split_fold(config.training.fold)
    cases = [case.id for case in training]
    keys = ("optimizer", "loss", "class_weights", "steps_per_epoch", "accumulate", "freeze_encoder")
    training_config = config.training.model_dump(include={*keys})
    averaged = config.training.ema_decay is not None
    identity = hash_value(
        [
            plan.hash_input,
            manifest.description.to_dict(),
            cases,
            config.training_seed,
            training_config,
            averaged,
        ]
    )
    folder = run.fold(config.training.fold, config.training.member)
    checkpoints = folder / "checkpoints"
    path = newest_readable(checkpoints)
    if path is None:
        return identity, None, None
    saved = CheckpointState.read(path)
    if saved.identity != identity:
        raise InputError(
            "the checkpoints were made with another plan, case list, seed, optimizer, loss or epoch length",
            where=str(checkpoints),
            hint=f"Choose another run folder, or remove {folder.relative_to(run.root)} to train it again.",
        )
    return identity, path, saved
