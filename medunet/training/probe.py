"""How to train: found by a race of the very network's steps on a CPU, by its steps on a card.

What is found is kept in the run's provenance: a resumed run computes as it began.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from medunet.compute.choosing import asked_for, choice_key, choose_on_cpu
from medunet.compute.devices import Precision, autocast, card_precision
from medunet.compute.parts import in_layout, make_trials
from medunet.compute.race import Way, told
from medunet.inference.probe import choose_prediction, network_key
from medunet.networks.builder import build_network
from medunet.records.config import TrainingConfig
from medunet.records.description import Description
from medunet.records.plan import Plan, count_inputs
from medunet.training.losses import SegmentationLoss

_MIN_GAIN = 1.05  # a way must be this much faster to be chosen
_LAYOUT_FROM_S = 600.0  # trainings on a card shorter than this are not worth the seconds of a probe
_COMPILE_FROM_S = 3600.0
_STEPS = 3
_LEAST_STEPS = 1000  # configured; and of these
_LEAST_IN_TIME = 200  # within the limit of minutes: the probe takes a dozen
_NO_COMPILE = "not tried on a CPU: measured, it gains nothing there and costs half a minute"


@dataclass(frozen=True)
class ComputeChoice:
    """Precision, memory layout and compilation, each with its reason in one sentence.

    `step_s` are the seconds that a forward and a backward pass of the plan's batch should take, as chosen, `window_s`
    those of a prediction of one window of the plan's patch, as chosen for prediction; 0 in runs of 0.4.0.
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
    """Return how to train: what was asked for or set for this computer, else what trials find to pay.

    On a CPU precision and layout are found within seconds and kept in the user's cache folder; nothing is compiled
    unless it is asked for. On a card channels-last is probed where training will take over ten minutes,
    `torch.compile` where it will take over an hour, and neither in trainings of few steps; compiling is chosen only
    if the time that it saves is more than the time that it took.

    Raises:
        InputError: fp16 on a CPU.
    """
    asked, asked_by = asked_for("training", config.precision, config.channels_last)
    if device.type == "cuda":
        return _choose_on_card(config, asked, asked_by, plan, description, device)
    loss = {"loss": config.loss, "class_weights": config.class_weights}
    key = choice_key(
        "training", asked, network_key(plan, description) | loss, plan.patch_size, plan.batch_size
    )
    criterion = SegmentationLoss(description, config.loss, config.class_weights)
    num_inputs = count_inputs(description, plan.context_slices)

    def step(network: nn.Module, image: torch.Tensor, way: Way) -> None:
        _step(network, image, criterion, plan, way.precision)

    found = choose_on_cpu(
        key,
        asked_by,
        lambda: make_trials(
            plan,
            num_inputs,
            plan.batch_size,
            lambda: build_network(plan, description),
            step,
            training=True,
        ),
    )
    window = choose_prediction(plan, description, device, config.precision, timed=True)
    return ComputeChoice(
        found.precision,
        found.channels_last,
        config.compile == "on",
        why=found.why,
        channels_last_why=found.channels_last_why,
        compile_why=_NO_COMPILE if config.compile == "auto" else "asked for",
        step_s=found.seconds,
        window_s=window.seconds,
    )


def _step(
    network: nn.Module, image: torch.Tensor, criterion: nn.Module, plan: Plan, precision: Precision
) -> None:
    """Do a training step on noise, without the optimiser, which takes next to nothing."""
    sizes = [n - 2 * margin for n, margin in zip(image.shape[2:], plan.valid_margin, strict=True)]
    label = torch.zeros((len(image), 1, *sizes), dtype=torch.uint8, device=image.device)
    with autocast(image.device, precision):
        outputs = network(image)
    criterion(outputs, label).backward()
    network.zero_grad()


# ---- cards ------------------------------------------------------------------------------------------------------


def _choose_on_card(
    config: TrainingConfig,
    asked: tuple[str, str],
    asked_by: tuple[str, str],
    plan: Plan,
    description: Description,
    device: torch.device,
) -> ComputeChoice:
    precision: Any = card_precision(device) if asked[0] == "auto" else asked[0]
    why = f"this card computes in {precision}" if asked[0] == "auto" else asked_by[0]
    probe = CardProbe(config, plan, description, device, precision)
    layout, layout_why = asked[1] == "on", asked_by[1]
    step_s = probe.step_s(channels_last=layout)
    longest_s = 60 * config.max_minutes if config.max_minutes else float("inf")
    num_steps = config.epochs * config.steps_per_epoch
    length_s = 0.0
    if num_steps >= _LEAST_STEPS and longest_s >= _LEAST_IN_TIME * step_s:
        length_s = min(longest_s, num_steps * config.accumulate * step_s)
    if asked[1] == "auto":
        layout_why = "not probed: the training is short"
        if length_s >= _LAYOUT_FROM_S:
            other_s = probe.step_s(channels_last=True)
            layout = step_s > _MIN_GAIN * other_s
            layout_why = f"a step took {told(other_s)} with it, {told(step_s)} without"
            step_s = other_s if layout else step_s
    compiled, compile_why = config.compile == "on", "asked for"
    if config.compile == "auto":
        compile_why = "not probed: the training is short"
        if length_s >= _COMPILE_FROM_S:
            compiled, compile_why, step_s = _worth_compiling(probe, layout, step_s, length_s)
    window_s = choose_prediction(plan, description, device, config.precision, timed=True).seconds
    return ComputeChoice(precision, layout, compiled, why, layout_why, compile_why, step_s, window_s)


def _worth_compiling(
    probe: "CardProbe", channels_last: bool, eager_s: float, length_s: float
) -> tuple[bool, str, float]:
    start = time.perf_counter()
    try:
        compiled_s = probe.step_s(channels_last=channels_last, compiled=True)
    except Exception as error:  # whatever a compiler's backend may raise, training goes on without it
        return False, f"it failed here ({type(error).__name__})", eager_s
    spent_s = time.perf_counter() - start
    saved_s = length_s * (1 - compiled_s / eager_s)
    pays = saved_s > spent_s and eager_s > _MIN_GAIN * compiled_s
    took = f"{told(compiled_s)} compiled, {told(eager_s)} eager"
    return pays, f"a step took {took}, compiling {told(spent_s)}", compiled_s if pays else eager_s


class CardProbe:
    """Training steps of the very network on a batch of noise."""

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
        """Return the best of a few steps' seconds, after one that warms up."""
        plan, on_card = self.plan, self.device.type == "cuda"
        torch.backends.cudnn.benchmark = on_card  # as in training
        network: Any = build_network(plan, self.description).to(self.device).train()
        channels = count_inputs(self.description, plan.context_slices)
        image: Any = torch.zeros((plan.batch_size, channels, *plan.patch_size), device=self.device).normal_()
        if channels_last:
            network, image = in_layout(network, plan.dimensions), in_layout(image, plan.dimensions)
        criterion = SegmentationLoss(self.description, self.config.loss, self.config.class_weights)
        criterion = criterion.to(self.device)
        forward: Any = torch.compile(network) if compiled else network
        best_s = float("inf")
        for number in range(_STEPS + 1):
            start = time.perf_counter()
            _step(forward, image, criterion, plan, self.precision)
            if on_card:
                torch.cuda.synchronize(self.device)
            if number:
                best_s = min(best_s, time.perf_counter() - start)
        return best_s
