"""Train one fold: prepare, fit, stop, and leave the best weights where prediction finds them."""

import errno
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save_file

from medunet import __version__
from medunet.config import Config
from medunet.errors import InputError
from medunet.files import RunFolder, hash_file, hash_value, whole_file
from medunet.networks.devices import PrecisionChoice
from medunet.plans import ModelCard, Plan
from medunet.records import Manifest, json_number
from medunet.training.callbacks import Curves, ProgressLine
from medunet.training.checkpoints import (
    KeepCheckpoints,
    WholeCheckpointIO,
    best_row,
    is_readable,
    link,
    newest_readable,
)
from medunet.training.data import FoldData, prepare_cases
from medunet.training.module import SegmentationModule

_LIGHTNING_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train_fold(
    run: RunFolder,
    manifest: Manifest,
    plan: Plan,
    config: Config,
    data_root: Path,
    *,
    device: torch.device,
    precision: PrecisionChoice,
) -> ModelCard:
    """Train `config.training.fold` of a run and export its best weights; a run begun before goes on.

    Writes checkpoints, TensorBoard log, training.csv and curves.png under the fold's folder, and at the end
    `model/weights.safetensors` and `model/model.json`.

    Raises:
        InputError: the checkpoints belong to another plan, or the fold does not exist.
    """
    fold = config.training.fold
    folder, description = run.fold(fold), manifest.description
    training, validation = manifest.split_fold(fold)
    checkpoints = folder / "checkpoints"
    identity, resume, saved = find_resume(run, manifest, plan, config)
    if saved is not None and resume is not None and best_row(saved.history) == len(saved.history) - 1:
        link(resume, checkpoints / "best.ckpt")  # a kill may have come between the two files
    if saved is not None and saved.is_over(config):
        return export_best(run, manifest, plan, config)
    # Lightning warns of worker counts and sizes that do not concern a user of ours.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    L.seed_everything(config.seed, workers=True, verbose=False)
    shown = validation[: config.training.validation_cases]
    data = FoldData(
        prepare_cases(training, description, plan, data_root, run.cache, seed=config.seed),
        prepare_cases(shown, description, plan, data_root, run.cache, seed=config.seed),
        plan,
        config.training,
        seed=config.seed,
        num_workers=0 if device.type == "cpu" else 4,
    )
    module = SegmentationModule(plan, description, config, precision.precision, identity)
    callbacks: list[L.Callback] = [ProgressLine(), Curves(folder), KeepCheckpoints(checkpoints)]
    if config.training.patience is not None:
        callbacks.append(EarlyStopping("val_dice", mode="max", patience=config.training.patience))
    trainer = L.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=_LIGHTNING_PRECISION[precision.precision],
        max_epochs=config.training.epochs,
        gradient_clip_val=config.training.gradient_clip,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(folder, name="tensorboard", version="", purge_step=saved and saved.step),
        callbacks=callbacks,
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=device.type == "cuda",
        default_root_dir=folder,
    )
    if saved is not None:
        Console(stderr=True).print(f"Resuming fold {fold} at step {saved.step}.")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume)
    except SystemExit:  # Lightning's answer to Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    return export_best(run, manifest, plan, config)


def find_resume(
    run: RunFolder, manifest: Manifest, plan: Plan, config: Config
) -> tuple[str, Path | None, "_Saved | None"]:
    """Return the fold's identity, and the checkpoint to go on from with what it says, if there is one.

    Raises:
        InputError: the checkpoint belongs to another plan, case list or seed, or the fold does not exist.
    """
    training, _ = manifest.split_fold(config.training.fold)
    cases = [case.id for case in training]
    identity = hash_value([plan.plain(), manifest.description.plain(), cases, config.seed])
    checkpoints = run.fold(config.training.fold) / "checkpoints"
    path = newest_readable(checkpoints)
    if path is None:
        return identity, None, None
    saved = _Saved.of(path)
    if saved.identity != identity:
        raise InputError(
            "the checkpoints were made with another plan, case list or seed",
            where=str(checkpoints),
            mend="Choose another run folder, or remove this fold's folder to train it anew.",
        )
    return identity, path, saved


@dataclass(frozen=True)
class _Saved:
    """What a checkpoint says of itself."""

    identity: str
    step: int
    elapsed_s: float
    history: list[dict[str, float]]

    @classmethod
    def of(cls, path: Path) -> "_Saved":
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        own = checkpoint["medunet"]
        return cls(own["identity"], checkpoint["global_step"], own["elapsed_s"], own["history"])

    def is_over(self, config: Config) -> bool:
        """Say whether a limit of the configuration has been reached: steps, minutes or patience."""
        training = config.training
        if self.step >= training.epochs * training.steps_per_epoch:
            return True
        if training.max_minutes is not None and self.elapsed_s >= 60 * training.max_minutes:
            return True
        since_best = len(self.history) - 1 - best_row(self.history)
        return training.patience is not None and since_best >= training.patience


def export_best(run: RunFolder, manifest: Manifest, plan: Plan, config: Config) -> ModelCard:
    """Write the best checkpoint's weights as safetensors, with the model card beside them."""
    fold = config.training.fold
    folder = run.fold(fold) / "checkpoints"
    best = folder / "best.ckpt"
    source = best if is_readable(best) else newest_readable(folder)
    if source is None:
        raise InputError("nothing was saved", where=str(folder), mend="Train at least one epoch.")
    checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    weights = {
        name.removeprefix("network."): value.contiguous().cpu()
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("network.")
    }
    path = run.model(fold) / "weights.safetensors"
    with whole_file(path) as temporary:
        try:
            save_file(weights, temporary)
        except SafetensorError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
    history = checkpoint["medunet"]["history"]
    row = history[best_row(history)]
    training, validation = manifest.split_fold(fold)
    card = ModelCard(
        medunet_version=__version__,
        description=manifest.description,
        plan=plan,
        fold=fold,
        inference=config.inference,
        training_cases=tuple(case.id for case in training),
        train_is_validation=training == validation,
        validation_dice={key: json_number(value) for key, value in row.items() if key.startswith("dice")},
        weights_sha256=hash_file(path),
    )
    card.write(run.model(fold) / "model.json")
    return card
