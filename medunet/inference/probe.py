"""Choose precision and memory layout for prediction, on a CPU by a benchmark of the network that is cached."""

import time

import torch
from torch import nn

from medunet.compute.benchmark import Variant
from medunet.compute.choice_cache import Choice
from medunet.compute.choosing import choice_key, choose_on_cpu, requested_options
from medunet.compute.devices import autocast, gpu_precision
from medunet.compute.workloads import make_workloads
from medunet.networks.builder import build_network
from medunet.records.description import Description
from medunet.records.plan import Plan, count_inputs, count_outputs

_GPU_ROUNDS = 4


def choose_prediction(
    plan: Plan,
    description: Description,
    device: torch.device,
    precision: str = "auto",
    *,
    timed: bool = False,
) -> Choice:
    """Return precision and layout for predicting with a plan's network; `seconds` is the time of one window.

    On a GPU no benchmark is needed: `seconds` is 0 there unless `timed`.

    Raises:
        InputError: fp16 on a CPU.
    """
    requested, sources = requested_options("inference", precision)
    if device.type == "cpu":
        key = choice_key("inference", requested, network_key(plan, description), plan.patch_size, 1)
        num_inputs = count_inputs(description, plan.context_slices)
        return choose_on_cpu(
            key,
            sources,
            lambda: make_workloads(
                plan, num_inputs, 1, lambda: build_network(plan, description), _predict, training=False
            ),
        )
    variant = Variant(gpu_precision(device) if requested[0] == "auto" else requested[0], requested[1] == "on")  # type: ignore[arg-type]
    why = f"this GPU computes in {variant.precision}" if requested[0] == "auto" else sources[0]
    seconds = _gpu_seconds(plan, description, device, variant) if timed else 0.0
    return Choice(variant.precision, variant.channels_last, seconds, why)


def network_key(plan: Plan, description: Description) -> dict[str, object]:
    """Return the part of a plan that defines its network, for the cache key of a choice."""
    keys = {"network", "dimensions", "features", "kernel_sizes", "strides", "convolutions_per_stage",
            "encoder_blocks", "deep_supervision", "context_slices"}  # fmt: skip
    defining = {key: value for key, value in plan.model_dump(mode="json").items() if key in keys}
    return defining | {"inputs": len(description.channels), "outputs": count_outputs(description)}


@torch.inference_mode()
def _predict(network: nn.Module, image: torch.Tensor, variant: Variant) -> None:
    with autocast(image.device, variant.precision):
        network(image)


def _gpu_seconds(plan: Plan, description: Description, device: torch.device, variant: Variant) -> float:
    network = build_network(plan, description).to(device).eval()
    channels = count_inputs(description, plan.context_slices)
    image = torch.zeros((1, channels, *plan.patch_size), device=device)
    best_s = float("inf")
    for _ in range(_GPU_ROUNDS):
        start = time.perf_counter()
        _predict(network, image, variant)
        torch.cuda.synchronize(device)
        best_s = min(best_s, time.perf_counter() - start)
    return best_s
