"""The residual-encoder U-Net: parameters by hand, shortcuts, and its start as a chain of shortcuts."""

import pytest
import torch
from tiny_networks import describe, plan_network

from medunet.networks.blocks import ResidualBlock, Style
from medunet.networks.builder import build_network
from medunet.networks.unet import UNet

ANISOTROPIC = {
    "features": (4, 6, 6),
    "kernel_sizes": ((3, 3, 1), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)),
}


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def conv_norm(taps: int, num_inputs: int, width: int) -> int:
    """Count a convolution with its bias, and its norm's weight and bias."""
    return taps * num_inputs * width + 3 * width


def test_parameters_are_those_of_the_hand_formula():
    network = UNet(
        3, 2, 3, **ANISOTROPIC, convolutions_per_stage=1, deep_supervision=2, encoder_blocks=(1, 3, 2)
    )
    stem = conv_norm(9, 2, 4)
    first = 2 * conv_norm(9, 4, 4)  # no projection: neither stride nor width change
    second = conv_norm(27, 4, 6) + conv_norm(27, 6, 6) + (4 * 6 + 2 * 6) + 2 * 2 * conv_norm(27, 6, 6)
    third = 2 * 2 * conv_norm(27, 6, 6)  # pooled, but of the same width: no projection
    assert [count(stage) for stage in network.encoder] == [stem + first, second, third]
    up = [8 * 6 * 6 + 6, 4 * 6 * 4 + 4]
    assert [count(part) for part in network.upsamplers] == up
    assert [count(part) for part in network.decoder] == [conv_norm(27, 12, 6), conv_norm(9, 8, 4)]
    assert [count(part) for part in network.heads] == [6 * 3 + 3, 4 * 3 + 3]


def test_outputs_have_their_stages_sizes():
    network = UNet(
        3, 2, 3, **ANISOTROPIC, convolutions_per_stage=1, deep_supervision=2, encoder_blocks=(1, 3, 2)
    )
    outputs = network.train()(torch.randn(1, 2, 16, 12, 6))
    assert [tuple(output.shape) for output in outputs] == [(1, 3, 16, 12, 6), (1, 3, 8, 6, 6)]


@torch.no_grad()
@pytest.mark.parametrize(("stride", "width"), [((2, 1), 3), ((2, 2), 5), ((1, 1), 3)])
def test_a_block_begins_as_its_shortcut(stride, width):
    style = Style(2)
    block = ResidualBlock(style, 3, width, (3, 3), stride)
    torch.nn.init.zeros_(block.conv2[1].weight)
    x = torch.randn(2, 3, 8, 6)
    expected = x if stride == (1, 1) else torch.nn.functional.avg_pool2d(x, stride)
    if width != 3:
        expected = torch.nn.functional.instance_norm(
            torch.nn.functional.conv2d(expected, block.shortcut[1].weight)
        )
    torch.testing.assert_close(block(x), torch.nn.functional.leaky_relu(expected, 0.01))


def test_a_new_network_begins_with_shortcuts_alone():
    plan = plan_network("residual_m", 3)
    blocks = [
        module for module in build_network(plan, describe()).modules() if isinstance(module, ResidualBlock)
    ]
    assert len(blocks) == sum(plan.encoder_blocks)
    assert all(not block.conv2[1].weight.any() for block in blocks)


@pytest.mark.parametrize("name", ["residual_m", "residual_l", "residual_xl"])
def test_presets_have_nnunets_blocks(name):
    plan = plan_network(name, 3, planning={"patch_size": (128, 64, 32), "base_features": None})
    assert plan.encoder_blocks == (1, 3, 4, 6, 6, 6)[: len(plan.features)]
    assert plan.convolutions_per_stage == 1
    assert plan.features == (32, 64, 128, 256, 320, 320)[: len(plan.features)]
