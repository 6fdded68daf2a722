"""A network is tried on parts that it can take, the smallest first, from a convolution that anything ends at once."""

import math

import pytest
import torch
from tiny_networks import describe, plan_network

from medunet.compute.benchmark import Variant
from medunet.compute.workloads import _convolution_workload, make_workloads, to_channels_last, workload_sizes
from medunet.networks.builder import build_network
from medunet.planning.architectures import ARCHITECTURES
from medunet.records.plan import Plan

CASES = [(name, axes) for name, known in ARCHITECTURES.items() for axes in known.dimensions]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_reference_code_ends_the_first_trial_in_a_tenth_of_a_second(dimensions: int, training: bool):
    workload = _convolution_workload(dimensions, training=training)
    assert 0.001 < workload.gflop < 0.04  # reference code does 0.3 to 0.8 GFLOP a second
    assert not workload.of_network
    for variant in (Variant("fp32"), Variant("bf16", channels_last=True)):
        workload.prepare(variant)()


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_every_network_takes_its_smallest_part_and_its_patch(name: str, dimensions: int):
    plan = plan_network(name, dimensions)
    seen: list[tuple[int, ...]] = []

    def run_step(network: torch.nn.Module, image: torch.Tensor, variant: Variant) -> None:
        assert network.training
        seen.append(tuple(image.shape))
        outputs = network(image)
        outputs[0].mean().backward()
        assert outputs[0].shape[2:] == tuple(
            n - 2 * margin for n, margin in zip(image.shape[2:], plan.valid_margin, strict=True)
        )

    workloads = make_workloads(
        plan, 1, plan.batch_size, lambda: build_network(plan, describe()), run_step, training=True
    )
    smallest, *_, whole = workloads[1:]
    assert 0 < smallest.gflop <= whole.gflop
    for workload in (smallest, whole):
        workload.prepare(Variant())()
    assert seen[-1] == (plan.batch_size, 1, *plan.patch_size)
    assert seen[0][1:] == (1, *workload_sizes(plan)[0])
    assert len({workload.name for workload in workloads}) == len(workloads)


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("plain", (64, 96, 32)),
        ("plain", (32, 24, 16)),
        ("unet_2015", (572, 572)),
    ],
)
def test_parts_grow_to_the_patch_in_sizes_that_the_network_takes(name: str, patch: tuple[int, ...]):
    plan = plan_network(name, len(patch), planning={"patch_size": patch})
    sizes = workload_sizes(plan)
    volumes = [math.prod(size) for size in sizes]
    assert volumes == sorted(volumes)
    assert len(sizes) > 1
    assert sizes[-1] == plan.patch_size
    for size in sizes:  # a plan of that size is consistent
        Plan.parse({**plan.to_dict(), "patch_size": list(size)}, "test")


def test_the_batch_grows_last():
    plan = plan_network("plain", 3, planning={"batch_size": 5})
    workloads = make_workloads(
        plan, 1, 5, lambda: build_network(plan, describe()), lambda *_: None, training=False
    )
    whole = [workload for workload in workloads if workload.name.endswith("32×24×16 voxels")]
    assert [workload.name for workload in whole] == [
        "a window on 32×24×16 voxels",
        "a window on 2 × 32×24×16 voxels",
        "a window on 4 × 32×24×16 voxels",
        "a window on 5 × 32×24×16 voxels",
    ]
    assert [workload.gflop / whole[0].gflop for workload in whole] == pytest.approx([1, 2, 4, 5])
    gflop = [workload.gflop for workload in workloads[1:]]
    assert gflop == sorted(gflop)


def test_operations_are_counted_as_by_hand():
    voxels, channels = 8**3, 16**2
    strided, turned, plain = 27 * voxels / 8, 8 * voxels / 8, 27 * voxels
    by_hand = 2 * channels * (strided + turned + plain) / 1e9
    assert _convolution_workload(3, training=False).gflop == pytest.approx(by_hand)
    assert _convolution_workload(3, training=True).gflop == pytest.approx(3 * by_hand)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_networks_and_images_are_brought_to_a_layout(dimensions: int):
    layout = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    image = torch.ones((2, 3, *(4,) * dimensions))
    assert to_channels_last(image, dimensions).is_contiguous(memory_format=layout)
    plan = plan_network("plain", dimensions)
    network = to_channels_last(build_network(plan, describe()), dimensions)
    weights = [
        weight for weight in network.parameters() if weight.ndim == dimensions + 2 and weight.shape[1] > 1
    ]
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)
