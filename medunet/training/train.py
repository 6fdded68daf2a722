"""Train one fold: prepare, fit, stop, and leave the best and the final weights where prediction finds them."""

import errno
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import save_file

from medunet import __version__
from medunet.case_scores import json_number
from medunet.compute.devices import keep_freed_memory
from medunet.config import Config, WeightsName
from medunet.errors import InputError
from medunet.files import RunFolder, hash_file, hash_value, whole_file
from medunet.plans import WEIGHTS_FILES, ModelCard, Plan
from medunet.records import Manifest
from medunet.training.cache import hold_in_memory, prepare_cases
from medunet.training.checkpoints import (
    KeepCheckpoints,
    Saved,
    StopWithoutGain,
    WholeCheckpointIO,
    is_readable,
    link,
    newest_readable,
    tidy,
)
from medunet.training.curves import Curves
from medunet.training.data import FoldData, choose_workers
from medunet.training.finetune import begin_weights
from medunet.training.memory import naming_out_of_memory, require_memory
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice
from medunet.training.processes import ALONE, Processes
from medunet.training.progress_line import ProgressLine
from medunet.training.tensorboard import TensorBoardLog
from medunet.training.validation_plan import ValidationPlan, begun_validation, settle_validation
from medunet.transforms.patches import PreparedCase

_LIGHTNING_PRECISION: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def train_fold(
    run: RunFolder,
    manifest: Manifest,
    plan: Plan,
    config: Config,
    data_root: Path,
    *,
    device: torch.device,
    compute: ComputeChoice,
    processes: Processes = ALONE,
    cache: Path | None = None,
    callbacks: Sequence[L.Callback] = (),
    validation: ValidationPlan | None = None,
) -> ModelCard:
    """Train `config.training.fold` of a run and export its best and final weights; a run begun before goes on.

    Writes checkpoints, TensorBoard log, training.csv and curves.png under the fold's folder, and at the end the
    folder `model`: weights.safetensors, weights_final.safetensors and model.json. Of several processes the first one
    writes; all return.
    `validation` is how a training that begins is validated; None: as fits its time.

    Raises:
        InputError: the checkpoints belong to another plan, the fold does not exist, the batch cannot be divided
            among the processes, or memory does not suffice.
    """
    if device.type == "cpu":
        keep_freed_memory()
    fold, description = config.training.fold, manifest.description
    folder = run.fold(fold)
    checkpoints = folder / "checkpoints"
    identity, resume, saved = find_resume(run, manifest, plan, config)
    if processes.is_first:
        tidy(checkpoints, resume)
        if saved is not None and saved.ends_best_epoch():  # a kill may have come between the two files
            link(checkpoints / "last.ckpt", checkpoints / "best.ckpt")
    processes.wait()
    if saved is None or not saved.is_over(config):
        # Lightning warns of worker counts and sizes that do not concern a user of ours.
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        L.seed_everything(config.seed, workers=True, verbose=False)
        _require_memory(manifest, plan, config, compute, device, processes)
        if processes.is_first:
            validation = settle_validation(
                folder, manifest, plan, config, data_root, compute,
                given=validation, is_resumed=saved is not None,
            )  # fmt: skip
        validation = processes.share(validation)
        assert validation is not None
        num_windows = validation.windows
        module = SegmentationModule(
            plan, description, config, compute, identity, processes, num_windows=num_windows
        )
        if saved is None:
            begin_weights(module, folder, manifest, config, speaks=processes.is_first)
        first_batch = saved.batch_in_epoch(config) if saved else 0
        data = _prepare_data(
            manifest, validation, plan, config, data_root, cache or run.cache, device, processes, first_batch
        )
        every_epochs = validation.every_epochs
        trainer = _make_trainer(folder, config, compute, device, processes, saved, callbacks, every_epochs)
        if saved is not None and processes.is_first:
            Console(stderr=True).print(f"Resuming fold {fold} at step {saved.step}.")
        try:
            with naming_out_of_memory(f"training fold {fold} on {device}"):
                trainer.fit(module, datamodule=data, ckpt_path=checkpoints / "last.ckpt" if saved else None)
        except SystemExit:  # Lightning's answer to Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    if processes.is_first:
        export_weights(run, manifest, plan, config)
    processes.wait()
    return ModelCard.read(run.model(fold) / "model.json")


def _require_memory(
    manifest: Manifest,
    plan: Plan,
    config: Config,
    compute: ComputeChoice,
    device: torch.device,
    processes: Processes,
) -> None:
    training, validation = manifest.split_fold(config.training.fold)
    require_memory(
        plan,
        manifest.description,
        config.training,
        num_cases=len({case.id for case in (*training, *validation)}),
        precision=compute.precision,
        device=device,
        processes=processes,
    )


def _prepare_data(
    manifest: Manifest,
    validation_plan: ValidationPlan,
    plan: Plan,
    config: Config,
    data_root: Path,
    cache: Path,
    device: torch.device,
    processes: Processes,
    first_batch: int,
) -> FoldData:
    """Preprocess what the fold needs, in the first process alone, and hold it in memory if it fits."""
    training, validation = manifest.split_fold(config.training.fold)
    shown = [case for case in validation if case.id in validation_plan.cases]
    num_workers = choose_workers(config.training, device, processes)
    held: list[PreparedCase] | None = None
    if processes.is_first:
        wanted = {case.id: case for case in (*training, *shown)}  # those that also validate are held once
        prepared = prepare_cases(
            list(wanted.values()), manifest.description, plan, data_root, cache, seed=config.seed
        )
        shared = num_workers > 0 or processes.count > 1
        held = hold_in_memory(prepared, config.training.ram_gb, shared=shared)
    by_id = {case.id: case for case in processes.share(held)}
    return FoldData(
        [by_id[case.id] for case in training],
        [by_id[case.id] for case in shown],
        plan,
        config.training,
        seed=config.seed,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        processes=processes,
        first_batch=first_batch,
    )


def _make_trainer(
    folder: Path,
    config: Config,
    compute: ComputeChoice,
    device: torch.device,
    processes: Processes,
    saved: Saved | None,
    callbacks: Sequence[L.Callback],
    every_epochs: int,
) -> L.Trainer:
    training = config.training
    together: list[L.Callback] = [KeepCheckpoints(folder / "checkpoints", training.checkpoint_minutes)]
    if processes.is_first:
        together += [ProgressLine(), Curves(folder), TensorBoardLog()]
    if training.patience is not None:
        together.append(StopWithoutGain(training.patience))
    on_card = device.type == "cuda"
    alone: Any = [device.index or 0] if on_card else 1
    unsaved = saved.step + 1 if saved else 0  # what was logged from this step on happens again
    log = TensorBoardLogger(folder, name="tensorboard", version="", purge_step=unsaved)
    return L.Trainer(
        accelerator="gpu" if on_card else "cpu",
        devices=alone if processes.count == 1 else processes.per_node,
        num_nodes=processes.count // processes.per_node,
        strategy="auto" if processes.count == 1 else "ddp",
        use_distributed_sampler=False,  # ours knows the processes
        precision=_LIGHTNING_PRECISION[compute.precision],
        max_epochs=saved.epochs_in_all(config) if saved else training.epochs,
        gradient_clip_val=training.gradient_clip,
        accumulate_grad_batches=training.accumulate,
        check_val_every_n_epoch=every_epochs,  # and behind the last step, by the module
        num_sanity_val_steps=0,
        logger=log if processes.is_first else False,
        callbacks=[*callbacks, *together],
        plugins=[WholeCheckpointIO()],
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=on_card,
        default_root_dir=folder,
    )


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
        [plan.settled, manifest.description.plain(), cases, config.seed, training_config, averaged]
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
            mend="Choose another run folder, or remove this fold's folder to train it anew.",
        )
    return identity, path, saved


def export_weights(run: RunFolder, manifest: Manifest, plan: Plan, config: Config) -> ModelCard:
    """Write the best checkpoint's weights and the newest one's as safetensors, with the model card beside them.

    Raises:
        InputError: no checkpoint can be read, or there is none.
    """
    fold = config.training.fold
    checkpoints, model = run.fold(fold) / "checkpoints", run.model(fold)
    best, newest = checkpoints / "best.ckpt", newest_readable(checkpoints)
    if newest is None:
        raise InputError("nothing was saved", where=str(checkpoints), mend="Train at least one epoch.")
    if not is_readable(best):
        text = f"[yellow]best.ckpt of fold {fold} is lost: the newest weights take the place of the best.[/]"
        Console(stderr=True).print(text, soft_wrap=True)
        best = newest
    averaged = config.training.ema_decay is not None
    row = _export(best, model / WEIGHTS_FILES["best"], averaged=averaged)
    _export(newest, model / WEIGHTS_FILES["final"], averaged=averaged)
    training, held_out = manifest.split_fold(fold)
    used: WeightsName = config.inference.weights or ("final" if config.training.patience is None else "best")
    card = ModelCard(
        medunet_version=__version__,
        description=manifest.description,
        plan=plan,
        fold=fold,
        inference=config.inference.model_copy(update={"weights": used}),
        training_cases=tuple(case.id for case in training),
        train_is_validation=training == held_out,
        validation_dice={key: json_number(value) for key, value in row.items() if key.startswith("dice")},
        validation_cases=begun_validation(run.fold(fold), manifest, config.training).cases,
        weights_sha256=hash_file(model / WEIGHTS_FILES["best"]),
        final_weights_sha256=hash_file(model / WEIGHTS_FILES["final"]),
    )
    card.write(model / "model.json")
    return card


def _export(checkpoint: Path, path: Path, *, averaged: bool) -> dict[str, float]:
    """Write a checkpoint's weights, or their running average; return the newest row of its history."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    prefix = "average.module." if averaged else "network."
    weights = {
        name.removeprefix(prefix): value.contiguous().clone()  # DynUNet names some twice; a file holds each
        for name, value in content["state_dict"].items()
        if name.startswith(prefix)
    }
    with whole_file(path) as temporary:
        try:
            save_file(weights, temporary)
        except SafetensorError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
    row: dict[str, float] = content["medunet"]["history"][-1]
    return row
