"""How to compute predictions: found by a race of the very network, and kept for this computer."""

import time

import torch
from torch import nn

from medunet.compute.choosing import asked_for, choice_key, choose_on_cpu
from medunet.compute.devices import autocast, card_precision
from medunet.compute.kept import Choice
from medunet.compute.parts import make_trials
from medunet.compute.race import Way
from medunet.networks.builder import build_network
from medunet.records.description import Description
from medunet.records.plan import Plan, count_inputs, count_outputs

_CARD_ROUNDS = 4


def choose_prediction(
    plan: Plan,
    description: Description,
    device: torch.device,
    precision: str = "auto",
    *,
    timed: bool = False,
) -> Choice:
    """Return how to predict with a plan's network; `seconds` are those of one window of the plan's patch.

    On a card nothing is to be found out: there they are 0 unless it is `timed`.

    Raises:
        InputError: fp16 on a CPU.
    """
    asked, asked_by = asked_for("inference", precision)
    if device.type == "cpu":
        key = choice_key("inference", asked, network_key(plan, description), plan.patch_size, 1)
        num_inputs = count_inputs(description, plan.context_slices)
        return choose_on_cpu(
            key,
            asked_by,
            lambda: make_trials(
                plan, num_inputs, 1, lambda: build_network(plan, description), _predict, training=False
            ),
        )
    way = Way(card_precision(device) if asked[0] == "auto" else asked[0], asked[1] == "on")  # type: ignore[arg-type]
    why = f"this card computes in {way.precision}" if asked[0] == "auto" else asked_by[0]
    seconds = _card_seconds(plan, description, device, way) if timed else 0.0
    return Choice(way.precision, way.channels_last, seconds, why)


def network_key(plan: Plan, description: Description) -> dict[str, object]:
    """Return what of a plan makes its network, for the key of a choice."""
    made = {"network", "dimensions", "features", "kernel_sizes", "strides", "convolutions_per_stage",
            "encoder_blocks", "deep_supervision", "context_slices"}  # fmt: skip
    kept = {key: value for key, value in plan.model_dump(mode="json").items() if key in made}
    return kept | {"inputs": len(description.channels), "outputs": count_outputs(description)}


@torch.inference_mode()
def _predict(network: nn.Module, image: torch.Tensor, way: Way) -> None:
    with autocast(image.device, way.precision):
        network(image)


def _card_seconds(plan: Plan, description: Description, device: torch.device, way: Way) -> float:
    network = build_network(plan, description).to(device).eval()
    channels = count_inputs(description, plan.context_slices)
    image = torch.zeros((1, channels, *plan.patch_size), device=device)
    best_s = float("inf")
    for _ in range(_CARD_ROUNDS):
        start = time.perf_counter()
        _predict(network, image, way)
        torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - start)
    return best_s
