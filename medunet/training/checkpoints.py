"""Checkpoints written whole, the newest readable one found, the best weights kept."""

import errno
import math
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint

from medunet.errors import InputError
from medunet.files import whole_file
from medunet.training.module import SegmentationModule


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoints, flushed to disk and renamed into place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write the checkpoint whole or not at all."""
        with whole_file(Path(path), suffix=".ckpt") as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # torch's way of saying that the disk is full
                raise OSError(errno.ENOSPC, "no space left, or the folder's limit is reached") from error


class KeepCheckpoints(Checkpoint):
    """After every epoch: last.ckpt, the one before as previous.ckpt, and the best by validation Dice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save; the file before stays until the new one is whole."""
        assert isinstance(pl_module, SegmentationModule)
        last = self.folder / "last.ckpt"
        if last.exists():
            link(last, self.folder / "previous.ckpt")
        trainer.save_checkpoint(last)
        if best_row(pl_module.history) == len(pl_module.history) - 1:
            link(last, self.folder / "best.ckpt")


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
            mend="Remove the checkpoints folder to train this fold anew.",
        )
    return None


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
