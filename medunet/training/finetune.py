"""Fine-tuning: initialise training from another model's weights, also with other classes or channels."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from medunet.base.errors import InputError
from medunet.base.files import hash_file, write_json
from medunet.base.words import list_some
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.training.module import SegmentationModule

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedWeights:
    """Report of which weights of the new network were loaded, by name."""

    whole: tuple[str, ...]  # loaded unchanged
    adapted: dict[str, str]  # name -> how
    left: dict[str, str]  # name -> why it keeps its random initialisation
    weights_sha256: str
    dataset: str
    trained_on: tuple[str, ...]  # ids of the cases that the model was trained on

    def summary(self) -> str:
        """Return a few sentences on what was loaded and what was not."""
        parts = [f"{len(self.whole)} weights loaded unchanged"]
        for title, entries in (("adapted", self.adapted), ("not loaded", self.left)):
            if entries:
                shown = list_some([f"{name} ({how})" for name, how in entries.items()], 6, "; ")
                parts.append(f"{len(entries)} {title}: {shown}")
        return ". ".join(parts) + "."


def init_weights(
    module: SegmentationModule, folder: Path, manifest: Manifest, config: Config, *, is_first: bool
) -> None:
    """Initialise the network from `training.init_from`, if it is set; the first process records what was loaded.

    Raises:
        InputError: the encoder would be frozen at random weights, or the fold was started from a model that is not
            given now.
    """
    training, record = config.training, folder / "initial_weights.json"
    if training.init_from is None:
        if record.exists():
            raise InputError(
                "this fold was started from another model's weights and stopped before its first checkpoint",
                where=str(folder),
                hint="Give that model with --from again, or remove this fold's folder.",
            )
        if training.freeze_encoder:
            raise InputError(
                "the encoder would be frozen at its random weights",
                where="training.freeze_encoder",
                hint="Give a model to start from: training.init_from, or --from.",
            )
        return
    loaded = load_pretrained(module.network, module.plan, module.description, Path(training.init_from))
    if module.average is not None:
        module.average.module.load_state_dict(module.network.state_dict())
    if is_first:
        _log.info(loaded.summary())
        held_out = {case.id for case in manifest.split_fold(training.fold)[1]}
        if loaded.dataset == manifest.description.name and (known := held_out & {*loaded.trained_on}):
            _log.warning(
                "That model was trained on %d of this fold's held-out cases: the validation scores will not be valid "
                "for new scans.",
                len(known),
            )
        write_json(record, asdict(loaded))


@torch.no_grad()
def load_pretrained(network: nn.Module, plan: Plan, description: Description, folder: Path) -> LoadedWeights:
    """Load the weights of a model folder into a network, as far as they fit; return what was loaded.

    Weights are matched by name, a head's outputs by class name, and a first convolution's inputs by channel name (in
    2.5D also by slice, relative to the middle one). New classes keep their random initialisation; new channels are
    initialised by the mean of the known ones.

    Raises:
        InputError: the folder holds no model, its weights do not match its card or cannot be read, or none of them
            fits.
    """
    if not (folder / "model.json").is_file() or not (folder / "weights.safetensors").is_file():
        raise InputError(
            "holds no model.json with weights.safetensors",
            where=f"training.init_from ({folder.name})",
            hint="Give a trained run's folds/<k>/model folder.",
        )
    card = ModelCard.read(folder / "model.json")
    weights_sha256 = hash_file(folder / "weights.safetensors")
    if weights_sha256 != card.weights_sha256:
        raise InputError(
            "weights.safetensors is not the file that model.json was written with",
            where=f"training.init_from ({folder.name})",
            hint="Copy both files again, or export the model again with `medunet train`.",
        )
    try:
        pretrained = load_file(folder / "weights.safetensors")
    except SafetensorError as error:
        raise InputError(
            f"weights.safetensors cannot be read ({error})",
            where=f"training.init_from ({folder.name})",
            hint="Copy the model folder again, or export it again with `medunet train`.",
        ) from error
    outputs = output_names(card.description), output_names(description)
    inputs = (
        _input_names(card.description, card.plan.context_slices),
        _input_names(description, plan.context_slices),
    )
    named_heads = any(name.startswith("heads.") for name in pretrained)
    whole, adapted, left = [], {}, {}
    state = network.state_dict()
    for name, weight in state.items():
        source = pretrained.get(name)
        is_head = name.startswith("heads.") if named_heads else _looks_like_head(source, len(outputs[0]))
        if source is None:
            left[name] = "the model has no weight of this name"
        elif _has_other_channels(source, weight, inputs, plan.features):
            for number, channel in enumerate(inputs[1]):
                known_channel = channel in inputs[0]
                weight[:, number] = source[:, inputs[0].index(channel)] if known_channel else source.mean(1)
            adapted[name] = f"channels {', '.join(inputs[1])} from {', '.join(inputs[0])}"
        elif source.shape == weight.shape and (outputs[0] == outputs[1] or not is_head):
            weight.copy_(source)
            whole.append(name)
        elif is_head and weight.shape[0] == len(outputs[1]) and source.shape[1:] == weight.shape[1:]:
            known = [output for output in outputs[1] if output in outputs[0]]
            for output in known:
                weight[outputs[1].index(output)] = source[outputs[0].index(output)]
            adapted[name] = f"classes {', '.join(known) or 'none'} matched by name"
        else:
            left[name] = f"its shape is {tuple(weight.shape)}, the model's is {tuple(source.shape)}"
    if not whole:
        raise InputError(
            "no weight of that model fits this network",
            where=f"training.init_from ({folder.name})",
            hint="Plan the same network: planning.network, base_features and stages as in the model's model.json.",
        )
    network.load_state_dict(state)
    return LoadedWeights(
        tuple(whole), adapted, left, weights_sha256, card.description.name, card.training_cases
    )


def output_names(description: Description) -> list[str]:
    """Return the names of the network's output channels, in order."""
    return [*([] if description.regions else ["background"]), *description.targets]


def _input_names(description: Description, context_slices: int) -> list[str]:
    """Return the names of the network's input channels, in order: `CT-1`, `CT`, `CT+1` with 3 context slices."""
    offsets = range(-(context_slices // 2), context_slices // 2 + 1)
    return [f"{name}{offset:+d}" if offset else name for name in description.channels for offset in offsets]


def _looks_like_head(source: torch.Tensor | None, num_outputs: int) -> bool:
    """Return whether a weight of a MONAI network has the shape of a 1×1 head's kernel or bias."""
    if source is None or source.ndim == 0 or source.shape[0] != num_outputs:
        return False
    return source.ndim == 1 or all(size == 1 for size in source.shape[2:])


def _has_other_channels(
    source: torch.Tensor,
    weight: torch.Tensor,
    inputs: tuple[Sequence[str], Sequence[str]],
    features: Sequence[int],
) -> bool:
    """Return whether a weight has the shape of a kernel over image channels that differ from the model's."""
    if inputs[0] == inputs[1] or not source.ndim == weight.ndim > 2:
        return False
    numbers = len(inputs[0]), len(inputs[1])
    # With equal numbers: one channel needs no matching, and a kernel over as many features is not the first one.
    if numbers[0] == numbers[1] and (numbers[1] == 1 or numbers[1] in features):
        return False
    return (source.shape[1], weight.shape[1]) == numbers and (
        (source.shape[0], *source.shape[2:]) == (weight.shape[0], *weight.shape[2:])
    )
