"""The trials of a network, the smallest first: a small convolution, then parts of its patch, then of its batch.

B batch, C channels, I J K voxels; a 2D network's patch has two axes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medunet.compute.devices import autocast
from medunet.compute.race import Trial, Way
from medunet.records.plan import Plan
from medunet.records.unpadded import unpadded_size

_Subject = TypeVar("_Subject", nn.Module, torch.Tensor)
Work = Callable[[nn.Module, torch.Tensor, Way], None]
_CHANNELS, _SIZE = 16, {2: 24, 3: 8}  # of the first trial: some 20 million operations
_SCALES = (0.25, 0.375, 0.5, 0.75)  # of the patch's sides
_CPU = torch.device("cpu")


def make_trials(
    plan: Plan, num_inputs: int, batch: int, build: Callable[[], nn.Module], work: Work, *, training: bool
) -> list[Trial]:
    """Return the trials of a plan's network on the CPU; the last one is the whole batch.

    `build` makes the network; `work` does a step with it on an image `(B, C, I, J[, K])` in a way.
    """
    what = "a step" if training else "a window"
    sizes = parts_of(plan)
    networks = {False: build().train(training)}  # by whether it is channels-last

    def prepare(size: Sequence[int], count: int) -> Callable[[Way], Callable[[], None]]:
        def of_way(way: Way) -> Callable[[], None]:
            if way.channels_last not in networks:
                networks[True] = in_layout(copy.deepcopy(networks[False]), plan.dimensions)
            image = torch.zeros((count, num_inputs, *size)).normal_(
                generator=torch.Generator().manual_seed(0)
            )
            image = in_layout(image, plan.dimensions) if way.channels_last else image
            return lambda: work(networks[way.channels_last], image, way)

        return of_way

    gflop = _count_gflop(networks[False], (1, num_inputs, *sizes[0])) * (3 if training else 1)
    each = gflop / math.prod(sizes[0])
    trials = [_convolutions(plan.dimensions, training=training)]
    counts = sorted({*(2**power for power in range(20) if 2**power < batch), batch})
    for size, count in [*((size, 1) for size in sizes[:-1]), *((sizes[-1], count) for count in counts)]:
        shape = "×".join(map(str, size))
        name = f"{what} on {f'{count} × ' if count > 1 else ''}{shape} voxels"
        trials.append(Trial(name, each * math.prod(size) * count, prepare(size, count)))
    return trials


def parts_of(plan: Plan) -> list[tuple[int, ...]]:
    """Return sizes that the plan's network can take, from about a quarter of the patch's sides to the patch."""
    divisors = [math.prod(steps) for steps in zip(*plan.strides, strict=True)]
    found: dict[tuple[int, ...], None] = {}
    for scale in _SCALES:
        wanted = [
            min(full, max(divisor, round(scale * full / divisor) * divisor))
            for full, divisor in zip(plan.patch_size, divisors, strict=True)
        ]
        if plan.padded:
            size = tuple(wanted)
        else:
            size = unpadded_size(
                wanted, plan.kernel_sizes, plan.strides, plan.convolutions_per_stage, up=True
            )
        coarsest = math.prod(n // divisor for n, divisor in zip(size, divisors, strict=True))
        smaller = all(n <= full for n, full in zip(size, plan.patch_size, strict=True))
        if coarsest > 1 and smaller and size != plan.patch_size:  # norms need more than one voxel
            found[size] = None
    return [*found, plan.patch_size]


def in_layout(subject: _Subject, dimensions: int) -> _Subject:
    """Return a network or an image in the channels-last layout of 2D or 3D."""
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    moved: Any = subject.to(memory_format=layout)  # type: ignore[call-overload]
    return moved


def _convolutions(dimensions: int, *, training: bool) -> Trial:
    """Return the trial that even reference code ends in a tenth of a second: the kinds of convolution of a U-Net."""
    plain, turned = (nn.Conv3d, nn.ConvTranspose3d) if dimensions == 3 else (nn.Conv2d, nn.ConvTranspose2d)
    size = _SIZE[dimensions]

    def make() -> nn.Sequential:
        return nn.Sequential(
            plain(_CHANNELS, _CHANNELS, 3, padding=1, stride=2),
            turned(_CHANNELS, _CHANNELS, 2, stride=2),
            plain(_CHANNELS, _CHANNELS, 3, padding=1),
        )

    def prepare(way: Way) -> Callable[[], None]:
        network, image = make(), torch.ones((1, _CHANNELS, *(size,) * dimensions))
        if way.channels_last:
            network, image = in_layout(network, dimensions), in_layout(image, dimensions)  # type: ignore[assignment]

        def call() -> None:
            with torch.set_grad_enabled(training), autocast(_CPU, way.precision):
                result = network(image).float().mean()
            if training:
                result.backward()

        return call

    gflop = _count_gflop(make(), (1, _CHANNELS, *(size,) * dimensions))
    return Trial("a small convolution", gflop * (3 if training else 1), prepare, of_network=False)


def _count_gflop(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the operations of a forward pass, in 10⁹, counted on shapes alone."""
    shapes = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 1e9
