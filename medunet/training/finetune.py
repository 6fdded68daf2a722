"""Training begun from another model's weights, whatever classes or channels it was trained on."""

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
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.training.module import SegmentationModule

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """What became of each weight of the new network, by name."""

    whole: tuple[str, ...]
    adapted: dict[str, str]  # name -> how
    left: dict[str, str]  # name -> why it keeps its random start
    weights_sha256: str
    dataset: str
    trained_on: tuple[str, ...]  # ids of the cases that the model was trained on

    def summary(self) -> str:
        """Say in a few sentences what was loaded and what was not."""
        parts = [f"{len(self.whole)} weights loaded as they are"]
        for title, entries in (("adapted", self.adapted), ("not loaded", self.left)):
            if entries:
                shown = "; ".join(f"{name} ({how})" for name, how in list(entries.items())[:6])
                more = f" and {len(entries) - 6} more" if len(entries) > 6 else ""
                parts.append(f"{len(entries)} {title}: {shown}{more}")
        return ". ".join(parts) + "."


def begin_weights(
    module: SegmentationModule, folder: Path, manifest: Manifest, config: Config, *, speaks: bool
) -> None:
    """Fill the network from `training.init_from`, where it is given, and write down what was loaded.

    Raises:
        InputError: an encoder is to be frozen at random weights, or the training was begun from a model before, which
            is not given now.
    """
    training, record = config.training, folder / "initial_weights.json"
    if training.init_from is None:
        if record.exists():
            raise InputError(
                "this fold was begun from another model's weights, and was stopped before its first checkpoint",
                where=str(folder),
                hint="Give that model with --from again, or remove this fold's folder.",
            )
        if training.freeze_encoder:
            raise InputError(
                "the encoder would stay at its random weights",
                where="training.freeze_encoder",
                hint="Give a model to begin from: training.init_from, or --from.",
            )
        return
    loaded = load_pretrained(module.network, module.plan, module.description, Path(training.init_from))
    if module.average is not None:
        module.average.module.load_state_dict(module.network.state_dict())
    if speaks:
        _log.info(loaded.summary())
        held_out = {case.id for case in manifest.split_fold(training.fold)[1]}
        if loaded.dataset == manifest.description.name and (known := held_out & {*loaded.trained_on}):
            _log.warning(
                "That model was trained on %d of the cases that this fold holds out: its scores will say nothing of "
                "new scans.",
                len(known),
            )
        write_json(record, asdict(loaded))


@torch.no_grad()
def load_pretrained(network: nn.Module, plan: Plan, description: Description, folder: Path) -> Loaded:
    """Fill a network with the weights of a model folder, as far as they fit.

    Weights are joined by name. A head's outputs are joined by class name, and a first convolution's inputs by channel
    name (of 2.5D: and slice, counted from the middle one): new classes keep their random start, new channels begin
    as the mean of the known ones.

    Raises:
        InputError: the folder holds no model, its weights are not those of its card or cannot be read, or nothing of
            them fits.
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
            hint="Copy both files again, or export the model anew with `medunet train`.",
        )
    try:
        given = load_file(folder / "weights.safetensors")
    except SafetensorError as error:
        raise InputError(
            f"weights.safetensors cannot be read ({error})",
            where=f"training.init_from ({folder.name})",
            hint="Copy the model folder again, or export it anew with `medunet train`.",
        ) from error
    outputs = outputs_of(card.description), outputs_of(description)
    inputs = (
        _inputs_of(card.description, card.plan.context_slices),
        _inputs_of(description, plan.context_slices),
    )
    named_heads = any(name.startswith("heads.") for name in given)
    whole, adapted, left = [], {}, {}
    own = network.state_dict()
    for name, weight in own.items():
        source = given.get(name)
        is_head = name.startswith("heads.") if named_heads else _looks_like_head(source, len(outputs[0]))
        if source is None:
            left[name] = "the model has none of this name"
        elif _takes_other_channels(source, weight, inputs, plan.features):
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
            adapted[name] = f"classes {', '.join(known) or 'none'} joined by name"
        else:
            left[name] = f"its shape is {tuple(weight.shape)}, the model's {tuple(source.shape)}"
    if not whole:
        raise InputError(
            "no weight of that model fits this network",
            where=f"training.init_from ({folder.name})",
            hint="Plan the same network: planning.network, base_features and stages as in the model's model.json.",
        )
    network.load_state_dict(own)
    return Loaded(tuple(whole), adapted, left, weights_sha256, card.description.name, card.training_cases)


def outputs_of(description: Description) -> list[str]:
    """Return the network's output channels by name, in order."""
    return [*([] if description.regions else ["background"]), *description.targets]


def _inputs_of(description: Description, context_slices: int) -> list[str]:
    """Return the network's input channels by name, in order: `CT-1`, `CT`, `CT+1` with two neighbouring slices."""
    offsets = range(-(context_slices // 2), context_slices // 2 + 1)
    return [f"{name}{offset:+d}" if offset else name for name in description.channels for offset in offsets]


def _looks_like_head(source: torch.Tensor | None, num_outputs: int) -> bool:
    """Say by its size whether a weight of a foreign network is a 1×1 head's kernel or bias."""
    if source is None or source.ndim == 0 or source.shape[0] != num_outputs:
        return False
    return source.ndim == 1 or all(size == 1 for size in source.shape[2:])


def _takes_other_channels(
    source: torch.Tensor,
    weight: torch.Tensor,
    inputs: tuple[Sequence[str], Sequence[str]],
    features: Sequence[int],
) -> bool:
    """Say by its size whether a weight is a kernel over the image's channels, which are others than the model's."""
    if inputs[0] == inputs[1] or not source.ndim == weight.ndim > 2:
        return False
    numbers = len(inputs[0]), len(inputs[1])
    # As many others: one channel needs no joining, and a kernel over as many features takes no image.
    if numbers[0] == numbers[1] and (numbers[1] == 1 or numbers[1] in features):
        return False
    return (source.shape[1], weight.shape[1]) == numbers and (
        (source.shape[0], *source.shape[2:]) == (weight.shape[0], *weight.shape[2:])
    )
