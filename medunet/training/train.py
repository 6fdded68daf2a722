"""Train one fold of a run and export its best and final weights."""

import logging
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from medunet.base.errors import InputError
from medunet.compute.devices import keep_freed_memory
from medunet.compute.processes import ALONE, Processes, cluster_environment, explain_lost_process
from medunet.records.config import Config
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.training.absent_classes import describe_absent
from medunet.training.cache import load_into_memory, prepare_cases
from medunet.training.checkpoints import (
    AtomicCheckpointIO,
    CheckpointState,
    SaveCheckpoints,
    StopWithoutImprovement,
    clean_up,
    find_resume_checkpoint,
    link,
)
from medunet.training.curves import Curves
from medunet.training.data import FoldData, choose_workers
from medunet.training.export import export_weights
from medunet.training.finetune import init_weights
from medunet.training.memory import explain_out_of_memory, require_memory
from medunet.training.module import SegmentationModule
from medunet.training.probe import ComputeChoice
from medunet.training.progress_line import ProgressLine
from medunet.training.stop_request import StopRequest, keep_from_signals
from medunet.training.tensorboard import TensorBoardLog
from medunet.training.validation_plan import ValidationPlan, resolve_validation_plan
from medunet.transforms.patches import PreparedCase

_log = logging.getLogger(__name__)
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
    stop: StopRequest | None = None,
) -> ModelCard:
    """Train or resume `config.training.fold` of a run, and export its best and final weights.

    Of a fold with several seeds this trains the network `config.training.member`. All networks share the preprocessed
    cases, and their validation cases are drawn with the run's seed.

    Writes checkpoints, TensorBoard log, training.csv and curves.png in the fold's folder, and at the end the folder
    `model` with weights.safetensors, weights_final.safetensors and model.json. With several processes only the first
    one writes. `validation` sets the validation plan of a new training; None: it is planned by the available time.
    `stop` listens for the system's request to end; None: nothing listens.

    Raises:
        InputError: the checkpoints belong to another plan, the fold does not exist, the batch cannot be divided
            among the processes, or there is not enough memory.
        LostProcessError: another process has ended.
        PreemptedError: the system asked to end; the same call goes on.
    """
    stop = stop or StopRequest()
    stop.answer()  # it may have come at the end of the training before this one
    if device.type == "cpu":
        keep_freed_memory()
    description = manifest.description
    folder = run.fold(config.training.fold, config.training.member)
    checkpoints = folder / "checkpoints"
    identity, resume, saved = find_resume_checkpoint(run, manifest, plan, config)
    _require_same_folder(folder, saved, processes)
    if processes.is_first:
        clean_up(checkpoints, resume)
        if (
            saved is not None and saved.ends_best_epoch()
        ):  # training may have been killed between the two files
            link(checkpoints / "last.ckpt", checkpoints / "best.ckpt")
    processes.wait()
    if saved is None or not saved.is_over(config):
        # Hide Lightning's warnings about worker counts and sizes, which users cannot act on.
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        L.seed_everything(config.training_seed, workers=True, verbose=False)
        if processes.is_first:
            validation = resolve_validation_plan(
                folder, manifest, plan, config, data_root, compute,
                given=validation, is_resumed=saved is not None,
            )  # fmt: skip
        validation = processes.broadcast(validation)
        assert validation is not None
        num_windows = validation.windows
        _require_memory(manifest, validation, plan, config, compute, device, processes)
        module = SegmentationModule(
            plan, description, config, compute, identity, processes, num_windows=num_windows, stop=stop
        )
        if processes.count > 1 and device.type == "cuda":  # torch has it for GPUs only
            nn.SyncBatchNorm.convert_sync_batchnorm(module.network)
        if saved is None:
            init_weights(module, folder, manifest, config, is_first=processes.is_first)
        data = _prepare_data(
            manifest, validation, plan, config, data_root, cache or run.cache, device, processes, saved
        )
        every_epochs = validation.every_epochs
        save = SaveCheckpoints(checkpoints, config.training.checkpoint_minutes, processes, stop)
        trainer = _make_trainer(
            folder, config, compute, device, processes, saved, [*callbacks, save], every_epochs
        )
        if saved is not None and processes.is_first:
            _log.info("Resuming %s at step %d.", config.training.describe(), saved.step)
        try:
            where = f"training {config.training.describe()} on {device}"
            lost = explain_lost_process() if processes.count > 1 else nullcontext()
            with lost, explain_out_of_memory(where), stop.deferred():
                trainer.fit(module, datamodule=data, ckpt_path=checkpoints / "last.ckpt" if saved else None)
        except SystemExit:  # raised by Lightning on Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from None
            raise
    if processes.is_first:
        export_weights(run, manifest, plan, config)
    processes.wait()
    return ModelCard.read(folder / "model" / "model.json")


def _require_same_folder(folder: Path, saved: CheckpointState | None, processes: Processes) -> None:
    """Check that the processes of all hosts see the same checkpoints.

    Raises:
        InputError: they do not, most likely because the run's folder is not shared.
    """
    steps = processes.gather(None if saved is None else saved.step)
    if len({*steps}) > 1:
        raise InputError(
            f"the processes see different checkpoints (steps {', '.join(map(str, steps))})",
            where=str(folder),
            hint="Put the run on a folder that all hosts share.",
        )


def _require_memory(
    manifest: Manifest,
    validation_plan: ValidationPlan,
    plan: Plan,
    config: Config,
    compute: ComputeChoice,
    device: torch.device,
    processes: Processes,
) -> None:
    training, _ = manifest.split_fold(config.training.fold)
    require_memory(
        plan,
        manifest.description,
        config.training,
        num_cases=len({*(case.id for case in training), *validation_plan.cases}),
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
    saved: CheckpointState | None,
) -> FoldData:
    """Preprocess the fold's cases in the first process, and load them into memory if they fit."""
    training, validation = manifest.split_fold(config.training.fold)
    validated = [case for case in validation if case.id in validation_plan.cases]
    num_workers = choose_workers(config.training, device, processes)
    loaded: list[PreparedCase] | None = None
    if processes.is_first:
        wanted = {case.id: case for case in (*training, *validated)}  # each case once
        prepared = prepare_cases(
            list(wanted.values()), manifest.description, plan, data_root, cache, seed=config.seed
        )
        trained = {case.id for case in training}
        if text := describe_absent(
            [case for case in prepared if case.id in trained],
            manifest.description.targets,
            config.training.fold,
        ):
            _log.warning(text)
        shared = num_workers > 0 or processes.count > 1
        loaded = load_into_memory(prepared, config.training.ram_gb, shared=shared)
    by_id = {case.id: case for case in processes.broadcast(loaded)}
    return FoldData(
        [by_id[case.id] for case in training],
        [by_id[case.id] for case in validated],
        plan,
        config.training,
        seed=config.training_seed,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        processes=processes,
        first_epoch=saved.epoch(config) if saved else 0,
        first_batch=saved.batch_in_epoch(config) if saved else 0,
    )


def _make_trainer(
    folder: Path,
    config: Config,
    compute: ComputeChoice,
    device: torch.device,
    processes: Processes,
    saved: CheckpointState | None,
    callbacks: Sequence[L.Callback],
    every_epochs: int,
) -> L.Trainer:
    training = config.training
    own_callbacks: list[L.Callback] = []
    if processes.is_first:
        own_callbacks += [ProgressLine(), Curves(folder), TensorBoardLog()]
    if training.patience is not None:
        own_callbacks.append(StopWithoutImprovement(training.patience))
    on_gpu = device.type == "cuda"
    device_ids: Any = [device.index or 0] if on_gpu else 1
    first_step = saved.step + 1 if saved else 0  # log entries from this step on are written again
    log = TensorBoardLogger(folder, name="tensorboard", version="", purge_step=first_step)
    trainer = L.Trainer(
        accelerator="gpu" if on_gpu else "cpu",
        devices=device_ids if processes.count == 1 else processes.per_node,
        num_nodes=processes.count // processes.per_node,
        strategy="auto" if processes.count == 1 else "ddp",
        use_distributed_sampler=False,  # `EpochSampler` divides batches among processes
        precision=_LIGHTNING_PRECISION[compute.precision],
        max_epochs=saved.total_epochs(config) if saved else training.epochs,
        gradient_clip_val=training.gradient_clip,
        accumulate_grad_batches=training.accumulate,
        check_val_every_n_epoch=every_epochs,  # and after the last step, set by the module
        num_sanity_val_steps=0,
        logger=log if processes.is_first else False,
        callbacks=[*callbacks, *own_callbacks],
        plugins=[AtomicCheckpointIO(), cluster_environment()],
        enable_progress_bar=False,
        enable_model_summary=False,
        benchmark=on_gpu,
        default_root_dir=folder,
    )
    keep_from_signals(trainer)
    return trainer
