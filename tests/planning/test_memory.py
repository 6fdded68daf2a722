"""Counted weights are those of the networks, counted features those that nnU-Net counts."""

import pytest
import torch
from tiny_networks import describe, plan_network

from medunet.networks.builder import build_network
from medunet.planning.architectures import ARCHITECTURES
from medunet.planning.memory import NetworkShape, num_features, num_weights, training_gb
from medunet.planning.topology import Topology, plan_topology, uniform_topology
from medunet.records.config import NetworkConfig


def shape_by_hand(
    name: str, topology: Topology, features: tuple[int, ...], **network: object
) -> NetworkShape:
    """Return the shape of a network of one input and two outputs."""
    options = {"norm": "instance", "upsampling": "transposed", **network}
    return NetworkShape(
        network=NetworkConfig(name=name, **options),  # type: ignore[arg-type]
        topology=topology,
        features=features,
        convolutions=ARCHITECTURES[name].convolutions,  # type: ignore[index]
        num_inputs=1,
        num_outputs=2,
        deep_supervision=1,
        padded=name != "unet_2015",
    )


OWN = [
    (name, dimensions, options)
    for name, known in ARCHITECTURES.items()
    for dimensions in known.dimensions
    for options in (
        {},
        {"multi_scale_input": True},
        {"norm": "none"},
        {"upsampling": known.upsamplings[-1]},
        {"deep_supervision": False},
    )
    if known.own
]


@pytest.mark.parametrize(("name", "dimensions", "options"), OWN)
def test_weights_of_our_networks_are_counted_exactly(name, dimensions, options):
    description = describe(2)
    spacing = (1.0, 1.0, 3.0)  # flat kernels and uneven strides in 3D
    plan = plan_network(name, dimensions, description=description, spacing_mm=spacing, **options)
    with torch.device("meta"):
        network = build_network(plan, description)
    assert num_weights(NetworkShape.of_plan(plan, description)) == sum(
        weight.numel() for weight in network.parameters()
    )


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", [name for name, known in ARCHITECTURES.items() if not known.own])
def test_weights_of_monais_networks_are_nearly_those_counted(name, dimensions):
    description = describe(2)
    plan = plan_network(name, dimensions, description=description, planning={"base_features": 24})
    network = build_network(plan, description)
    counted = sum(weight.numel() for weight in network.parameters())
    assert num_weights(NetworkShape.of_plan(plan, description)) == pytest.approx(counted, rel=0.1)


def test_features_of_a_plain_network_by_hand():
    topology = plan_topology((16, 8), (1.0, 1.0), num_stages=2)
    # 2 convolutions at 16×8, 2 of 8 at 8×4; up again: an upsampling, 2 convolutions and a head of 2.
    by_hand = 128 * 2 * 4 + 32 * 2 * 8 + 128 * (4 + 2 * 4 + 2)
    assert num_features(shape_by_hand("plain", topology, (4, 8))) == by_hand
    wider = num_features(shape_by_hand("plain", topology, (4, 8), upsampling="interpolate"))
    assert wider == by_hand + 128 * 8  # the coarse features, interpolated before they are convolved


def test_features_of_a_residual_network_by_hand():
    topology = plan_topology((16, 8), (1.0, 1.0), num_stages=2)
    # Stem and a block of two; 3 blocks of two with one shortcut; up: an upsampling, a convolution, a head.
    by_hand = 128 * 4 * (1 + 2) + 32 * 8 * (3 * 2 + 1) + 128 * (4 + 4 + 2)
    assert num_features(shape_by_hand("residual_m", topology, (4, 8))) == by_hand


def test_features_of_the_2015_network_by_hand():
    topology = uniform_topology((572, 572), 2, unpadded_convolutions=2)
    assert topology.patch_size == (572, 572)
    # 572 to 568, pooled to 284 and on to 280, up to 560 and on to 556; each stage is counted at its entry.
    by_hand = 572**2 * 2 * 4 + 284**2 * (4 + 2 * 8) + 560**2 * (4 + 2 * 4 + 2)
    assert num_features(shape_by_hand("unet_2015", topology, (4, 8))) == by_hand


def test_estimate_grows_with_batch_and_patch():
    shapes = [
        shape_by_hand("plain", plan_topology(patch, (1, 1, 1)), (8, 16, 32, 64))
        for patch in ((32, 32, 32), (64, 32, 32))
    ]
    gb = training_gb(shapes[0], 2)
    assert training_gb(shapes[0], 4) > 1.8 * gb
    assert training_gb(shapes[1], 2) > 1.8 * gb
