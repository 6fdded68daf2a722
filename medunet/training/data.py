"""Cases prepared once, kept on disk and mapped into memory; patches and volumes served to Lightning.

Mapped files are read through the system's page cache: small datasets stay in memory, large ones need not fit.
A patch is a function of (seed, epoch, index) alone, so that a resumed run sees what an undisturbed one sees.
"""

import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from medunet.config import TrainingConfig
from medunet.dataset.manifest import case_paths
from medunet.errors import DataError
from medunet.files import hash_value, whole_file
from medunet.plans import Plan
from medunet.progress import track
from medunet.records import Case, Description
from medunet.transforms.augment import margin_size
from medunet.transforms.chain import preprocess_chain, run_chain
from medunet.transforms.patches import PreparedCase, find_locations, sample_patch


def prepare_cases(
    cases: Sequence[Case], description: Description, plan: Plan, data_root: Path, cache: Path, *, seed: int
) -> list[PreparedCase]:
    """Preprocess labelled cases into `cache`, once for a plan and a file's size and time; in the given order."""
    _allow_open_files()
    chain = preprocess_chain(plan, with_label=True)
    plan_hash = hash_value(plan.plain())
    prepared = []
    for case in track(cases, "Preprocess"):
        images, label = case_paths(case, description, data_root)
        assert label is not None, f"{case.id} has no label to train on"
        states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (*images, label)]
        key = hash_value([plan_hash, case.plain(), states])[:32]
        files = {name: cache / f"{key}_{name}.npy" for name in ("image", "label")}
        if not all(path.exists() for path in files.values()):
            try:
                result = run_chain(chain, images, label)
            except DataError as error:
                raise DataError(
                    error.what, where=f"case {case.id}: {error.where}", mend=error.mend
                ) from error
            _save(files["image"], result["image"].as_tensor().numpy())
            _save(files["label"], result["label"].as_tensor()[0].numpy().astype(np.uint8))
        image, labels = (np.load(path, mmap_mode="r") for path in files.values())
        locations = find_locations(labels, description.targets, (seed, *case.id.encode()))
        prepared.append(PreparedCase(case.id, image, labels, locations))
    return prepared


def _allow_open_files() -> None:
    """Raise this process's limit of open files to what the system allows: each mapped file keeps one open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _save(path: Path, array: NDArray[Any]) -> None:
    with whole_file(path, suffix=".npy") as temporary:
        np.save(temporary, array)


class PatchDataset(Dataset):
    """Random patches, addressed by (epoch, index)."""

    def __init__(self, cases: list[PreparedCase], plan: Plan, config: TrainingConfig, *, seed: int) -> None:
        self.cases, self.seed = cases, seed
        self.size = margin_size(plan.patch_size) if config.augment else plan.patch_size
        self.slice_axis = plan.slice_axis if plan.dimensions == 2 else None
        self.batch_size, self.foreground_share = plan.batch_size, config.foreground_share

    def __getitem__(self, address: tuple[int, int]) -> dict[str, Any]:
        epoch, index = address
        rng = np.random.default_rng([self.seed, epoch, index])
        case = self.cases[rng.integers(len(self.cases))]
        # The last share of every batch is forced to hold foreground.
        foreground = index % self.batch_size >= round(self.batch_size * (1 - self.foreground_share))
        image, label = sample_patch(case, self.size, rng, foreground=foreground, slice_axis=self.slice_axis)
        return {
            "image": torch.from_numpy(image),
            "label": torch.from_numpy(label),
            "address": torch.tensor([epoch, index]),
        }


class EpochSampler(Sampler):
    """Addresses of one epoch's patches; Lightning tells it the epoch through `set_epoch`."""

    def __init__(self, num_patches: int) -> None:
        self.num_patches, self.epoch = num_patches, 0

    def set_epoch(self, epoch: int) -> None:
        """Begin a given epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_patches

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.num_patches))


class VolumeDataset(Dataset):
    """Whole preprocessed cases, for validation."""

    def __init__(self, cases: list[PreparedCase]) -> None:
        self.cases = cases

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = self.cases[index]
        image, label = np.array(case.image), np.array(case.label)  # out of the mapped file
        return {"id": case.id, "image": torch.from_numpy(image), "label": torch.from_numpy(label)}


class FoldData(L.LightningDataModule):
    """Training patches and validation volumes of one fold."""

    def __init__(
        self,
        training: list[PreparedCase],
        validation: list[PreparedCase],
        plan: Plan,
        config: TrainingConfig,
        *,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        self.patches = PatchDataset(training, plan, config, seed=seed)
        self.volumes = VolumeDataset(validation[: config.validation_cases])
        self.num_patches = config.steps_per_epoch * plan.batch_size
        self.batch_size, self.num_workers = plan.batch_size, num_workers

    def train_dataloader(self) -> DataLoader:
        """Patches in batches, in an order fixed by seed and epoch."""
        return DataLoader(
            self.patches,
            batch_size=self.batch_size,
            sampler=EpochSampler(self.num_patches),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader:
        """Whole volumes, one at a time."""
        return DataLoader(self.volumes, batch_size=None)
