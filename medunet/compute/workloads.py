"""Benchmark workloads of a network in growing size: a small convolution, smaller patches, then larger batches.

B batch, C channels, I J K voxels; a 2D network's patch has two axes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from medunet.compute.benchmark import Variant, Workload
from medunet.compute.devices import autocast
from medunet.records.plan import Plan
from medunet.records.unpadded import unpadded_size

_Subject = TypeVar("_Subject", nn.Module, torch.Tensor)
RunStep = Callable[[nn.Module, torch.Tensor, Variant], None]
_CHANNELS, _SIZE = 16, {2: 24, 3: 8}  # of the first workload: about 20 million operations
_SCALES = (0.25, 0.375, 0.5, 0.75)  # of the patch's sides
_CPU = torch.device("cpu")


def make_workloads(
    plan: Plan,
    num_inputs: int,
    batch: int,
    build: Callable[[], nn.Module],
    run_step: RunStep,
    *,
    training: bool,
) -> list[Workload]:
    """Return the workloads of a plan's network on the CPU; the last one is the whole batch.

    `build` makes the network; `run_step` runs one step on an image `(B, C, I, J[, K])` in a given variant.
    """
    what = "a step" if training else "a window"
    sizes = workload_sizes(plan)
    networks = {False: build().train(training)}  # key: channels-last or not

    def prepare(size: Sequence[int], count: int) -> Callable[[Variant], Callable[[], None]]:
        def for_variant(variant: Variant) -> Callable[[], None]:
            if variant.channels_last not in networks:
                networks[True] = to_channels_last(copy.deepcopy(networks[False]), plan.dimensions)
            image = torch.zeros((count, num_inputs, *size)).normal_(
                generator=torch.Generator().manual_seed(0)
            )
            image = to_channels_last(image, plan.dimensions) if variant.channels_last else image
            return lambda: run_step(networks[variant.channels_last], image, variant)

        return for_variant

    gflop = _count_gflop(networks[False], (1, num_inputs, *sizes[0])) * (3 if training else 1)
    per_voxel = gflop / math.prod(sizes[0])
    workloads = [_convolution_workload(plan.dimensions, training=training)]
    counts = sorted({*(2**power for power in range(20) if 2**power < batch), batch})
    for size, count in [*((size, 1) for size in sizes[:-1]), *((sizes[-1], count) for count in counts)]:
        shape = "×".join(map(str, size))
        name = f"{what} on {f'{count} × ' if count > 1 else ''}{shape} voxels"
        workloads.append(Workload(name, per_voxel * math.prod(size) * count, prepare(size, count)))
    return workloads


def workload_sizes(plan: Plan) -> list[tuple[int, ...]]:
    """Return input sizes that fit the plan's network, from about a quarter of its patch's sides to the patch."""
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


def to_channels_last(subject: _Subject, dimensions: int) -> _Subject:
    """Return a network or an image in the channels-last memory format of 2D or 3D."""
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    converted: Any = subject.to(memory_format=layout)  # type: ignore[call-overload]
    return converted


def _convolution_workload(dimensions: int, *, training: bool) -> Workload:
    """Return a workload of a U-Net's kinds of convolution, so small that reference code needs at most 0.1 s."""
    plain, transposed = (
        (nn.Conv3d, nn.ConvTranspose3d) if dimensions == 3 else (nn.Conv2d, nn.ConvTranspose2d)
    )
    size = _SIZE[dimensions]

    def make() -> nn.Sequential:
        return nn.Sequential(
            plain(_CHANNELS, _CHANNELS, 3, padding=1, stride=2),
            transposed(_CHANNELS, _CHANNELS, 2, stride=2),
            plain(_CHANNELS, _CHANNELS, 3, padding=1),
        )

    def prepare(variant: Variant) -> Callable[[], None]:
        network: nn.Module = make()
        image = torch.ones((1, _CHANNELS, *(size,) * dimensions))
        if variant.channels_last:
            network = to_channels_last(network, dimensions)
            image = to_channels_last(image, dimensions)

        def call() -> None:
            with torch.set_grad_enabled(training), autocast(_CPU, variant.precision):
                result = network(image).float().mean()
            if training:
                result.backward()

        return call

    gflop = _count_gflop(make(), (1, _CHANNELS, *(size,) * dimensions))
    return Workload("a small convolution", gflop * (3 if training else 1), prepare, of_network=False)


def _count_gflop(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the operations of a forward pass in 10⁹, counted on the meta device without computing."""
    shapes = copy.deepcopy(network).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shapes(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 1e9
