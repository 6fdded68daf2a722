"""Export of a trained fold for prediction: the best and the final weights, and the model card."""

import errno
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import atomic_write, hash_file
from medunet.base.lock import wait_for
from medunet.dataset.layouts.channel_names import learn_endings
from medunet.records.config import Config, WeightsName
from medunet.records.costs import Cost, FasterWay
from medunet.records.manifest import Manifest
from medunet.records.model_card import WEIGHTS_FILES, ModelCard
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder
from medunet.records.scores import json_number
from medunet.training.checkpoints import is_readable, newest_readable
from medunet.training.validation_plan import read_validation_plan

_log = logging.getLogger(__name__)


def export_weights(run: RunFolder, manifest: Manifest, plan: Plan, config: Config) -> ModelCard:
    """Write the weights of the best and of the newest checkpoint as safetensors, and the model card.

    Raises:
        InputError: there is no checkpoint that can be read.
    """
    fold = config.training.fold
    folder = run.fold(fold, config.training.member)
    checkpoints, model = folder / "checkpoints", folder / "model"
    best, newest = checkpoints / "best.ckpt", newest_readable(checkpoints)
    if newest is None:
        raise InputError("there is no checkpoint", where=str(checkpoints), hint="Train at least one epoch.")
    if not is_readable(best):
        _log.warning(
            "best.ckpt of %s is missing or damaged: the newest weights are exported as the best.",
            config.training.describe(),
        )
        best = newest
    averaged = config.training.ema_decay is not None
    row = _export(best, model / WEIGHTS_FILES["best"], averaged=averaged)
    _export(newest, model / WEIGHTS_FILES["final"], averaged=averaged)
    training, held_out = manifest.split_fold(fold)
    dice = {key: json_number(value) for key, value in row.items() if key.startswith("dice")}
    is_chosen = config.training.patience is not None and dice["dice"] is not None
    used: WeightsName = config.inference.weights or ("best" if is_chosen else "final")
    card = ModelCard(
        medunet_version=__version__,
        description=manifest.description,
        plan=plan,
        fold=fold,
        seed=config.training_seed,
        inference=config.inference.model_copy(update={"weights": used}),
        training_cases=tuple(case.id for case in training),
        train_is_validation=training == held_out,
        validation_dice=dice,
        validation_cases=read_validation_plan(folder, manifest, config.training).cases,
        weights_sha256=hash_file(model / WEIGHTS_FILES["best"]),
        final_weights_sha256=hash_file(model / WEIGHTS_FILES["final"]),
        endings=learn_endings(training, manifest.description),
    )
    with wait_for(model, "card"):
        card = card.model_copy(update={"costs": _costs_of_same_weights(model, card)})
        card.write(model / "model.json")
    return card


def _costs_of_same_weights(folder: Path, card: ModelCard) -> dict[FasterWay, Cost]:
    """Return what `medunet calibrate` measured with weights that the model still has."""
    if not (folder / "model.json").is_file():
        return {}
    same = {card.weights_sha256, card.final_weights_sha256}
    try:
        before = ModelCard.read(folder / "model.json")
    except InputError:  # damaged: it is written again
        return {}
    return {way: cost for way, cost in before.costs.items() if cost.weights_sha256 in same}


def _export(checkpoint: Path, path: Path, *, averaged: bool) -> dict[str, float]:
    """Write a checkpoint's weights, or their moving average; return the last row of its history."""
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    prefix = "average.module." if averaged else "network."
    weights = {
        name.removeprefix(
            prefix
        ): value.contiguous().clone()  # DynUNet names some twice; the file needs copies
        for name, value in content["state_dict"].items()
        if name.startswith(prefix)
    }
    with atomic_write(path) as temporary:
        try:
            save_file(weights, temporary)
        except SafetensorError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
    row: dict[str, float] = content["medunet"]["history"][-1]
    return row
