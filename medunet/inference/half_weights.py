"""Store a model's weights in half precision where its labels stay the same, and the model folder of a package."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

from medunet.base.files import atomic_write, hash_file
from medunet.inference.backend import TorchBackend
from medunet.inference.model import Model
from medunet.inference.restore import to_label_map
from medunet.inference.stream import open_stream
from medunet.networks.builder import to_probabilities
from medunet.records.config import WeightsName
from medunet.records.model_card import WEIGHTS_FILES
from medunet.records.released_card import release_card

TOLERANCE = 1e-3  # labels may differ where the two best probabilities are this close


@dataclass(frozen=True)
class Stored:
    """How the weights of a packaged model are stored, and how labels in half precision differ from those in fp32."""

    weights: WeightsName  # which of the training's weights these are
    precision: Literal["fp32", "fp16"]
    num_voxels: int  # of all examples, on the network's grid
    num_close: int  # whose two best probabilities are within TOLERANCE: their labels are not compared
    num_different: int  # labels of the others that differ


def store_model(folder: Path, target: Path, examples: Sequence[Sequence[Path]]) -> Stored:
    """Write the model card and the weights in use of a model folder into the folder `target`, for others to use.

    Weights are stored in half precision if the labels of all examples are the same with them, otherwise as they are.
    The card lists no case, see `release_card`.

    Args:
        examples: scans, an image per channel of each, or one with all channels.

    Raises:
        InputError: the model cannot be loaded.
        DataError: an example cannot be predicted.
    """
    model = Model.load(folder, device=torch.device("cpu"), precision="fp32")
    source = folder / WEIGHTS_FILES[model.weights]
    weights = load_file(source)
    halved = halve(weights)
    num_channels = len(model.card.description.channels)
    counts = [0, 0, 0]
    for images in examples:
        paths = [*images] * num_channels if len(images) == 1 else [*images]
        for index, number in enumerate(_compare(model, halved, paths)):
            counts[index] += number
    stored = Stored(model.weights, "fp32" if counts[2] else "fp16", *counts)
    path = target / WEIGHTS_FILES["best"]
    with atomic_write(path) as temporary:
        save_file(halved if stored.precision == "fp16" else weights, temporary)
    card = release_card(model.card, used_sha256=model.weights_sha256, released_sha256=hash_file(path))
    card.write(target / "model.json")
    return stored


def halve(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights with those in float32 rounded to float16."""
    return {name: value.half() if value.dtype == torch.float32 else value for name, value in weights.items()}


def _compare(model: Model, halved: dict[str, torch.Tensor], images: list[Path]) -> tuple[int, int, int]:
    """Return the number of voxels of a scan, of those that are not compared, and of others with another label."""
    if not all(bool(value.isfinite().all()) for value in halved.values() if value.is_floating_point()):
        return 0, 0, 1  # beyond half precision
    backend = model.backend
    assert isinstance(backend, TorchBackend)
    network = copy.deepcopy(backend.network)
    network.load_state_dict(halved)  # in fp32 again, as on loading
    prepared = model.prepare(images)
    description = model.card.description
    found = []
    for each in (model, replace(model, backend=replace(backend, network=network))):
        stream = open_stream(
            each.backend,
            prepared.image.as_tensor(),
            model.card.plan,
            model.card.inference,
            regions=bool(description.regions),
            batch=1,
        )
        logits = torch.cat([slab.logits.clone() for slab in stream.slabs()], 1).movedim(1, 1 + stream.axis)
        found.append(to_probabilities(logits, description, channel_axis=0))
    probabilities = found[0]
    if description.regions:
        close = ((2 * probabilities - 1).abs() <= TOLERANCE).any(0)
    else:
        best = probabilities.topk(2, dim=0).values
        close = best[0] - best[1] <= TOLERANCE
    labels, others = (to_label_map(each, description) for each in found)
    different = (labels != others) & ~close
    return close.numel(), int(close.sum()), int(different.sum())
