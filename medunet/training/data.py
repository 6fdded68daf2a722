"""Lightning data module of one fold: random training patches and validation cases.

A patch depends only on (seed, epoch, index). A run that is resumed, or distributed over several processes, therefore
sees the same patches as an uninterrupted run in one process.
"""

import signal
from collections.abc import Iterator
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from medunet.base.errors import InputError
from medunet.base.processor import usable_cores
from medunet.compute.processes import Processes
from medunet.records.config import TrainingConfig
from medunet.records.plan import Plan
from medunet.training.stop_request import SIGNALS
from medunet.transforms.augment import margin_size
from medunet.transforms.patches import PreparedCase, sample_patch


class PatchDataset(Dataset):
    """Dataset of random patches, indexed by (epoch, index)."""

    def __init__(self, cases: list[PreparedCase], plan: Plan, config: TrainingConfig, *, seed: int) -> None:
        self.cases, self.seed = cases, seed
        self.patch_size = plan.patch_size
        self.size = margin_size(plan.patch_size) if config.augment else plan.patch_size
        self.slice_axis = plan.slice_axis if plan.dimensions == 2 else None
        self.context_slices, self.valid_margin = plan.context_slices, plan.valid_margin
        self.batch_size, self.foreground_share = plan.batch_size, config.foreground_share

    def __getitem__(self, address: tuple[int, int]) -> dict[str, Any]:
        epoch, index = address
        rng = np.random.default_rng([self.seed, epoch, index])
        case = self.cases[rng.integers(len(self.cases))]
        # The last part of every batch is forced to contain foreground; a batch of one by chance.
        foreground = index % self.batch_size >= round(self.batch_size * (1 - self.foreground_share))
        if self.batch_size == 1:
            foreground = rng.random() < self.foreground_share
        image, label = sample_patch(
            case,
            self.size,
            rng,
            foreground=foreground,
            slice_axis=self.slice_axis,
            context_slices=self.context_slices,
            patch_size=self.patch_size,
            valid_margin=self.valid_margin,
        )
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "address": torch.tensor([epoch, index]),
        }


class EpochSampler(Sampler):
    """Sampler of the patches' (epoch, index); Lightning sets the epoch by `set_epoch`.

    Batch b of an epoch has the indices b·B .. b·B + B - 1, which are divided among the processes in order. When a run
    is resumed, its first epoch may start at a later batch. Loading workers fetch it before Lightning sets the epoch.
    """

    def __init__(
        self,
        num_batches: int,
        batch_size: int,
        processes: Processes,
        *,
        first_epoch: int = 0,
        first_batch: int = 0,
    ) -> None:
        self.num_batches, self.batch_size, self.processes = num_batches, batch_size, processes
        self.epoch = self._first_epoch = first_epoch
        self._first_batch = first_batch

    def set_epoch(self, epoch: int) -> None:
        """Start a given epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches * (self.batch_size // self.processes.count)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        share = self.batch_size // self.processes.count
        resumed = self.epoch == self._first_epoch
        for batch in range(self._first_batch if resumed else 0, self.num_batches):
            start = batch * self.batch_size + self.processes.rank * share
            yield from ((self.epoch, index) for index in range(start, start + share))


class FoldData(L.LightningDataModule):
    """Training patches and validation cases of one fold, for one of several processes.

    `validation` holds the cases of all processes. The validation loader yields the numbers of this process's cases,
    whose windows are cut from the cached arrays batch by batch (`medunet.training.validation`).
    """

    def __init__(
        self,
        training: list[PreparedCase],
        validation: list[PreparedCase],
        plan: Plan,
        config: TrainingConfig,
        *,
        seed: int,
        num_workers: int,
        processes: Processes,
        pin_memory: bool = False,
        first_epoch: int = 0,
        first_batch: int = 0,
    ) -> None:
        """`first_epoch` is the epoch that training starts or resumes with, `first_batch` its first batch.

        Raises:
            InputError: the batch cannot be divided among the processes.
        """
        super().__init__()
        if plan.batch_size % processes.count:
            raise InputError(
                f"a batch of {plan.batch_size} cannot be divided among {processes.count} processes",
                where="planning.batch_size",
                hint=f"Make it a multiple of {processes.count}: all processes together train on one batch.",
            )
        self.patches = PatchDataset(training, plan, config, seed=seed)
        numbers = list(range(len(validation)))[processes.rank :: processes.count]
        # A process without cases repeats the first one, which is counted only once.
        self.validation, self.numbers = validation, numbers or [0]
        self.sampler = EpochSampler(
            config.steps_per_epoch * config.accumulate,
            plan.batch_size,
            processes,
            first_epoch=first_epoch,
            first_batch=first_batch,
        )
        self.batch_size = plan.batch_size // processes.count
        self.num_workers, self.pin_memory = num_workers, pin_memory

    def train_dataloader(self) -> DataLoader:
        """Return the loader of training batches, in an order fixed by seed and epoch."""
        return DataLoader(
            self.patches,
            batch_size=self.batch_size,
            sampler=self.sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self.pin_memory,
            prefetch_factor=4 if self.num_workers else None,
            worker_init_fn=_leave_signals,
        )

    def val_dataloader(self) -> DataLoader:
        """Return the loader of case numbers, one at a time."""
        return DataLoader([{"number": number} for number in self.numbers], batch_size=None)  # type: ignore[arg-type]


def _leave_signals(worker: int) -> None:
    """Leave the signals that a whole process group gets to the training process, which still needs its loaders."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def choose_workers(config: TrainingConfig, device: torch.device, processes: Processes) -> int:
    """Return the number of data-loading workers: none on a CPU, otherwise by the number of cores."""
    if config.workers is not None:
        return config.workers
    return 0 if device.type == "cpu" else min(8, max(1, usable_cores() // processes.per_node - 1))
