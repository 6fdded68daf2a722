"""Model folders: their cards and weights, and one network or several of the same plan as a backend."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medunet.base.errors import InputError, is_out_of_memory
from medunet.base.files import hash_file, hash_value
from medunet.compute.choice_cache import BackendName
from medunet.compute.devices import Precision
from medunet.compute.workloads import to_channels_last
from medunet.inference.backend import Backend, TorchBackend
from medunet.inference.joint import JointTorchBackend, load_openvino, load_quantised
from medunet.inference.openvino_backend import find_converted, find_quantised
from medunet.networks.builder import build_network
from medunet.records.config import WeightsName
from medunet.records.model_card import WEIGHTS_FILES, ModelCard
from medunet.records.plan import Plan, plan_inputs


def read_card(folder: Path) -> ModelCard:
    """Read the model card of a model folder.

    Raises:
        InputError: the folder has no model card, or it cannot be read.
    """
    if not (folder / "model.json").is_file():
        raise InputError(
            "holds no model.json",
            where=str(folder),
            hint="Give a trained run's folds/<k>/model folder, or train first.",
        )
    return ModelCard.read(folder / "model.json")


@dataclass(frozen=True)
class Member:
    """One network of a model: its card, and which of its weights compute."""

    card: ModelCard
    weights: WeightsName = "best"
    quantised_sha256: str = ""  # of an int8 network

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights in use."""
        return self.card.sha256_of(self.weights)


def find_members(folders: Sequence[Path], weights: WeightsName | None) -> list[Member]:
    """Return the networks of model folders with the weights that are asked for, or were configured in training.

    Raises:
        InputError: weights are missing, or are not those of the card.
    """
    members = []
    for folder in folders:
        card = read_card(folder)
        chosen = weights or card.inference.weights or "best"
        _check_weights(folder, card, chosen)
        members.append(Member(card, chosen))
    return members


def load_backend(
    folders: Sequence[Path],
    members: Sequence[Member],
    device: torch.device,
    precision: Precision,
    channels_last: bool,
    backend: BackendName,
    *,
    apart: bool,
) -> tuple[Backend, list[Member]]:
    """Return the networks of model folders of the same plan as one backend; for the arguments, see `Model.load`.

    In int8, the members that are returned have the hashes of their quantised networks.

    Raises:
        InputError: as of `Model.load`.
    """
    plan, description = members[0].card.plan, members[0].card.description
    how = {
        "regions": bool(description.regions),
        "apart": apart,
        "of_logits": members[0].card.nnunet is not None,
    }
    builds = [
        partial(load_network, member.card, folder / WEIGHTS_FILES[member.weights])
        for folder, member in zip(folders, members, strict=True)
    ]
    if backend == "openvino" and precision == "int8":
        found = [find_quantised(folder) for folder in folders]
        quantised = load_quantised([path for path, _ in found], **how)
        return quantised, [
            replace(member, quantised_sha256=sha256)
            for member, (_, sha256) in zip(members, found, strict=True)
        ]
    if backend == "openvino":
        shape = (plan_inputs(plan, description), *plan.patch_size)
        content = [
            {"weights": member.weights_sha256, "plan": hash_value(member.card.plan.hash_input)}
            for member in members
        ]
        networks = [
            find_converted(build, own, shape, precision) for build, own in zip(builds, content, strict=True)
        ]
        return load_openvino(networks, precision, **how), list(members)
    in_torch = [
        TorchBackend(_move(build(), device, plan, channels_last), device, precision, channels_last)
        for build in builds
    ]
    if len(in_torch) == 1:
        return in_torch[0], list(members)
    return JointTorchBackend(in_torch, **how), list(members)


def load_network(card: ModelCard, path: Path) -> nn.Module:
    """Return the network of a model card with the weights of a file.

    Raises:
        InputError: they do not fit.
    """
    network = build_network(card.plan, card.description).eval()
    try:
        network.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"the weights do not fit the plan ({error})", where=str(path.parent)) from error
    return network


def _check_weights(folder: Path, card: ModelCard, chosen: WeightsName) -> None:
    """Check that the file with the chosen weights is the one of the card.

    Raises:
        InputError: it is missing, or not the file of the card.
    """
    path = folder / WEIGHTS_FILES[chosen]
    if chosen == "final" and not card.final_weights_sha256:
        what = "it is a package, or was trained with medunet 0.4 or earlier"
        hint = "Predict with --weights best, or export both again with `medunet train RUN`."
        if card.nnunet is not None:
            what = "its imported checkpoint has the name of the best ones"
            hint = "Leave out --weights; `medunet import-model --checkpoint` chooses the checkpoint."
        raise InputError(f"the model has no final weights: {what}", where=str(folder), hint=hint)
    if not path.is_file() or hash_file(path) != card.sha256_of(chosen):
        what = "is not the file that model.json was written with" if path.is_file() else "is missing"
        raise InputError(
            f"{path.name} {what}",
            where=str(folder),
            hint="Copy the model folder again, or export the model again with `medunet train`.",
        )


def _move(network: nn.Module, device: torch.device, plan: Plan, channels_last: bool) -> nn.Module:
    """Return a network on a device, ready to compute there.

    Raises:
        InputError: it does not fit.
    """
    try:
        network.to(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            "the model's weights do not fit into the free memory",
            where=str(device),
            hint="Free memory there, or use --device cpu.",
        ) from error
    return to_channels_last(network, plan.dimensions) if channels_last else network
