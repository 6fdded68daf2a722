"""How to compute, found out by timing the network itself where the training is long enough to repay it.

What is found is kept in the run's provenance: a resumed run computes as it began.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from medunet.config import TrainingConfig
from medunet.networks.builder import build_network
from medunet.networks.devices import Precision, autocast, choose_precision
from medunet.plans import Plan
from medunet.records import Description
from medunet.training.losses import SegmentationLoss

_MIN_GAIN = 1.05  # a way must be this much faster to be chosen
_LAYOUT_FROM_S = 600.0  # trainings shorter than this are not worth the seconds of a probe
_COMPILE_FROM_S = 3600.0
_STEPS = 3
_LEAST_STEPS = 1000  # configured; and of these
_LEAST_IN_TIME = 200  # within the limit of minutes: the probe takes a dozen


@dataclass(frozen=True)
class ComputeChoice:
    """Precision, memory layout and compilation, each with its reason in one sentence."""

    precision: Precision
    channels_last: bool = False
    compile: bool = False
    why: str = ""
    channels_last_why: str = ""
    compile_why: str = ""
    step_s: float = 0.0  # of a training step of the plan's batch; 0: not known
    window_s: float = 0.0  # of the prediction of one window; 0: not known

    def plain(self) -> dict[str, Any]:
        """Return plain values for provenance."""
        return asdict(self)


def choose_compute(
    config: TrainingConfig, plan: Plan, description: Description, device: torch.device
) -> ComputeChoice:
    """Return how to train: what was asked for, and where that is "auto" what a probe finds to pay.

    Channels-last is probed where training will take over ten minutes, `torch.compile` where it will take over an
    hour, and neither in trainings of few steps; compiling is chosen only if the time that it saves is more than the
    time that it took.

    Raises:
        InputError: fp16 on a CPU.
    """
    precision = choose_precision(config.precision, device)
    chosen = {"precision": precision.precision, "why": precision.why}
    probe = _Probe(plan, description, device, precision.precision)
    auto = "auto" in (config.channels_last, config.compile)
    layout, layout_why = config.channels_last == "on", "asked for"
    longest_s = 60 * config.max_minutes if config.max_minutes else float("inf")
    num_steps = config.epochs * config.steps_per_epoch
    eager_s, length_s = 0.0, 0.0  # how long training takes is not known before a step is timed
    if auto and longest_s >= _LAYOUT_FROM_S and num_steps >= _LEAST_STEPS:
        eager_s = probe.step_s(channels_last=layout)
        if longest_s >= _LEAST_IN_TIME * eager_s:
            length_s = min(longest_s, num_steps * config.accumulate * eager_s)
    if config.channels_last == "auto":
        layout_why = "not probed: the training is short"
        if length_s >= _LAYOUT_FROM_S:
            other_s = probe.step_s(channels_last=True)
            layout = eager_s > _MIN_GAIN * other_s
            layout_why = f"a step took {other_s * 1e3:.0f} ms with it, {eager_s * 1e3:.0f} ms without"
            eager_s = min(eager_s, other_s) if layout else eager_s
    compiled, compile_why = config.compile == "on", "asked for"
    if config.compile == "auto":
        compile_why = "not probed: the training is short"
        if length_s >= _COMPILE_FROM_S:
            compiled, compile_why = _worth_compiling(probe, layout, eager_s, length_s)
    return ComputeChoice(
        **chosen,  # type: ignore[arg-type]
        channels_last=layout,
        compile=compiled,
        channels_last_why=layout_why,
        compile_why=compile_why,
    )


def _worth_compiling(
    probe: "_Probe", channels_last: bool, eager_s: float, length_s: float
) -> tuple[bool, str]:
    start = time.perf_counter()
    try:
        compiled_s = probe.step_s(channels_last=channels_last, compiled=True)
    except Exception as error:  # whatever a compiler's backend may raise, training goes on without it
        return False, f"it failed here ({type(error).__name__})"
    spent_s = time.perf_counter() - start
    saved_s = length_s * (1 - compiled_s / eager_s)
    pays = saved_s > spent_s and eager_s > _MIN_GAIN * compiled_s
    took = f"{compiled_s * 1e3:.0f} ms compiled, {eager_s * 1e3:.0f} ms eager"
    return pays, f"a step took {took}, compiling {spent_s:.0f} s"


class _Probe:
    """Training steps of the very network on a batch of noise."""

    def __init__(
        self, plan: Plan, description: Description, device: torch.device, precision: Precision
    ) -> None:
        self.plan, self.description, self.device, self.precision = plan, description, device, precision

    def step_s(self, *, channels_last: bool, compiled: bool = False) -> float:
        """Return the best of a few steps' seconds, after one that warms up."""
        plan = self.plan
        torch.backends.cudnn.benchmark = self.device.type == "cuda"  # as in training
        network = build_network(plan, self.description).to(self.device).train()
        channels = len(self.description.channels) * plan.context_slices
        image = torch.zeros((plan.batch_size, channels, *plan.patch_size), device=self.device).normal_()
        label = torch.zeros((plan.batch_size, 1, *plan.output_size), dtype=torch.uint8, device=self.device)
        if channels_last:
            layout = torch.channels_last if plan.dimensions == 2 else torch.channels_last_3d
            network, image = network.to(memory_format=layout), image.contiguous(memory_format=layout)  # type: ignore[call-overload]
        loss = SegmentationLoss(self.description).to(self.device)
        forward: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]
        best = float("inf")
        for step in range(_STEPS + 1):
            start = time.perf_counter()
            with autocast(self.device, self.precision):
                outputs = forward(image)
            loss(outputs, label).backward()
            network.zero_grad()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            if step:
                best = min(best, time.perf_counter() - start)
        return best
