"""Choose precision, memory layout and compilation for training, by timing steps of the network.

The choice is stored in the run's provenance, so that a resumed run computes in the same way.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from medunet.compute.benchmark import Variant, format_seconds
from medunet.compute.choosing import choice_key, choose_on_cpu, requested_options
from medunet.compute.devices import Precision, autocast, gpu_precision
from medunet.compute.workloads import make_workloads, to_channels_last
from medunet.inference.probe import choose_prediction, network_key
from medunet.networks.builder import build_network
from medunet.records.config import TrainingConfig
from medunet.records.description import Description
from medunet.records.plan import Plan, count_inputs
from medunet.training.losses import SegmentationLoss

_MIN_GAIN = 1.05  # a variant must be this much faster to be chosen
_LAYOUT_FROM_S = 600.0  # minimum training time on a GPU for which the probe is worth its seconds
_COMPILE_FROM_S = 3600.0
_STEPS = 3
_MIN_STEPS = 1000  # configured steps from which the probe, of about 12 steps, is worth its time
_MIN_STEPS_IN_TIME = 200  # the same, of steps within the time limit
_NO_COMPILE = "not tried on a CPU: in measurements it saved no time there and took half a minute"


@dataclass(frozen=True)
class ComputeChoice:
    """Precision, memory layout and compilation, each with its reason.

    `step_s` is the expected time in seconds of a forward and backward pass of the plan's batch, `window_s` that of
    the prediction of one window with the options chosen for prediction; both are 0 in runs of 0.4.0.
    """

    precision: Precision
    channels_last: bool = False
    compile: bool = False
    why: str = ""
    channels_last_why: str = ""
    compile_why: str = ""
    step_s: float = 0.0
    window_s: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Return plain values for provenance."""
        return asdict(self)


def choose_compute(
    config: TrainingConfig, plan: Plan, description: Description, device: torch.device
) -> ComputeChoice:
    """Return precision, layout and compilation for training: as configured, as set by the user, or as timed.

    On a CPU precision and layout are benchmarked within seconds and cached in the user's cache folder; nothing is
    compiled unless configured. On a GPU channels-last is probed if training will take over ten minutes, and
    `torch.compile` if it will take over an hour; neither is probed for few steps. Compilation is chosen only if it
    saves more time than it takes.

    Raises:
        InputError: fp16 is configured on a CPU.
    """
    requested, sources = requested_options("training", config.precision, config.channels_last)
    if device.type == "cuda":
        return _choose_on_gpu(config, requested, sources, plan, description, device)
    loss = {"loss": config.loss, "class_weights": config.class_weights}
    key = choice_key(
        "training", requested, network_key(plan, description) | loss, plan.patch_size, plan.batch_size
    )
    criterion = SegmentationLoss(description, config.loss, config.class_weights)
    num_inputs = count_inputs(description, plan.context_slices)

    def run_step(network: nn.Module, image: torch.Tensor, variant: Variant) -> None:
        _run_step(network, image, criterion, plan, variant.precision)

    choice = choose_on_cpu(
        key,
        sources,
        lambda: make_workloads(
            plan,
            num_inputs,
            plan.batch_size,
            lambda: build_network(plan, description),
            run_step,
            training=True,
        ),
    )
    window = choose_prediction(plan, description, device, config.precision, timed=True)
    return ComputeChoice(
        choice.precision,
        choice.channels_last,
        config.compile == "on",
        why=choice.why,
        channels_last_why=choice.channels_last_why,
        compile_why=_NO_COMPILE if config.compile == "auto" else "asked for",
        step_s=choice.seconds,
        window_s=window.seconds,
    )


def _run_step(
    network: nn.Module, image: torch.Tensor, criterion: nn.Module, plan: Plan, precision: Precision
) -> None:
    """Run a forward and backward pass on a zero label; the optimiser is left out, since its time is negligible."""
    sizes = [n - 2 * margin for n, margin in zip(image.shape[2:], plan.valid_margin, strict=True)]
    label = torch.zeros((len(image), 1, *sizes), dtype=torch.uint8, device=image.device)
    with autocast(image.device, precision):
        outputs = network(image)
    criterion(outputs, label).backward()
    network.zero_grad()


# ---- GPUs -------------------------------------------------------------------------------------------------------


def _choose_on_gpu(
    config: TrainingConfig,
    requested: tuple[str, str],
    sources: tuple[str, str],
    plan: Plan,
    description: Description,
    device: torch.device,
) -> ComputeChoice:
    precision: Any = gpu_precision(device) if requested[0] == "auto" else requested[0]
    why = f"this GPU computes in {precision}" if requested[0] == "auto" else sources[0]
    probe = GpuProbe(config, plan, description, device, precision)
    layout, layout_why = requested[1] == "on", sources[1]
    step_s = probe.step_s(channels_last=layout)
    longest_s = 60 * config.max_minutes if config.max_minutes else float("inf")
    num_steps = config.epochs * config.steps_per_epoch
    length_s = 0.0
    if num_steps >= _MIN_STEPS and longest_s >= _MIN_STEPS_IN_TIME * step_s:
        length_s = min(longest_s, num_steps * config.accumulate * step_s)
    if requested[1] == "auto":
        layout_why = "not probed: the training is short"
        if length_s >= _LAYOUT_FROM_S:
            other_s = probe.step_s(channels_last=True)
            layout = step_s > _MIN_GAIN * other_s
            layout_why = f"a step took {format_seconds(other_s)} with it, {format_seconds(step_s)} without"
            step_s = other_s if layout else step_s
    compiled, compile_why = config.compile == "on", "asked for"
    if config.compile == "auto":
        compile_why = "not probed: the training is short"
        if length_s >= _COMPILE_FROM_S:
            compiled, compile_why, step_s = _worth_compiling(probe, layout, step_s, length_s)
    window_s = choose_prediction(plan, description, device, config.precision, timed=True).seconds
    return ComputeChoice(precision, layout, compiled, why, layout_why, compile_why, step_s, window_s)


def _worth_compiling(
    probe: "GpuProbe", channels_last: bool, eager_s: float, length_s: float
) -> tuple[bool, str, float]:
    start = time.perf_counter()
    try:
        compiled_s = probe.step_s(channels_last=channels_last, compiled=True)
    except Exception as error:  # compiler backends raise many kinds of errors: train without
        return False, f"it failed here ({type(error).__name__})", eager_s
    spent_s = time.perf_counter() - start
    saved_s = length_s * (1 - compiled_s / eager_s)
    pays = saved_s > spent_s and eager_s > _MIN_GAIN * compiled_s
    took = f"{format_seconds(compiled_s)} compiled, {format_seconds(eager_s)} eager"
    return pays, f"a step took {took}, compiling {format_seconds(spent_s)}", compiled_s if pays else eager_s


class GpuProbe:
    """Timing of training steps of the network on a batch of noise."""

    def __init__(
        self,
        config: TrainingConfig,
        plan: Plan,
        description: Description,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.config, self.plan, self.description = config, plan, description
        self.device, self.precision = device, precision

    def step_s(self, *, channels_last: bool, compiled: bool = False) -> float:
        """Return the shortest time of a few steps in seconds, after a warm-up step."""
        plan, on_gpu = self.plan, self.device.type == "cuda"
        torch.backends.cudnn.benchmark = on_gpu  # as in training
        network: Any = build_network(plan, self.description).to(self.device).train()
        channels = count_inputs(self.description, plan.context_slices)
        image: Any = torch.zeros((plan.batch_size, channels, *plan.patch_size), device=self.device).normal_()
        if channels_last:
            network, image = (
                to_channels_last(network, plan.dimensions),
                to_channels_last(image, plan.dimensions),
            )
        criterion = SegmentationLoss(self.description, self.config.loss, self.config.class_weights)
        criterion = criterion.to(self.device)
        forward: Any = torch.compile(network) if compiled else network
        best_s = float("inf")
        for number in range(_STEPS + 1):
            start = time.perf_counter()
            _run_step(forward, image, criterion, plan, self.precision)
            if on_gpu:
                torch.cuda.synchronize(self.device)
            if number:
                best_s = min(best_s, time.perf_counter() - start)
        return best_s
