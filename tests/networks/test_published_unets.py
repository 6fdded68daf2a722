"""The 2015 U-Net and the classroom's: sizes and parameters by hand, the function that of plain torch code."""

import pytest
import torch
import torch.nn.functional as F
from tiny_networks import describe, plan_network
from torch import nn

from medunet.networks.builder import build_network, to_probabilities
from medunet.networks.summary import summarise_network


class TextbookUNet(nn.Module):
    """A U-Net as tutorials write it: two 3×3 convolutions with ReLU, 2×2 max-pooling, 2×2 up-convolution, crop."""

    def __init__(self, num_inputs: int, num_outputs: int, widths: tuple[int, ...], *, padded: bool) -> None:
        super().__init__()
        self.down, self.up, self.up_conv = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for width in widths:
            self.down.append(self.double(num_inputs, width, padded))
            num_inputs = width
        for width in reversed(widths[:-1]):
            self.up_conv.append(nn.ConvTranspose2d(2 * width, width, 2, stride=2))
            self.up.append(self.double(2 * width, width, padded))
        self.out = nn.Conv2d(widths[0], num_outputs, 1)

    @staticmethod
    def double(num_inputs: int, width: int, padded: bool) -> nn.Sequential:
        first = nn.Conv2d(num_inputs, width, 3, padding=int(padded))
        return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 3, padding=int(padded)), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for up_conv, block, skip in zip(self.up_conv, self.up, skips[-2::-1], strict=True):
            x = up_conv(x)
            i, j = ((skip.shape[axis] - x.shape[axis]) // 2 for axis in (2, 3))
            skip = skip[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            x = block(torch.cat((x, skip), 1))
        return self.out(x)


def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy the weights of the textbook's layers into ours, part by part in order."""
    parts = [("down.", "encoder."), ("up_conv.", "upsamplers."), ("up.", "decoder."), ("out.", "heads.")]
    for their_part, our_part in parts:
        given = [weight for name, weight in theirs.named_parameters() if name.startswith(their_part)]
        wanted = [weight for name, weight in ours.named_parameters() if name.startswith(our_part)]
        for weight, source in zip(wanted, given, strict=True):
            weight.data.copy_(source)


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def count_by_hand(num_inputs: int, num_outputs: int, widths: tuple[int, ...]) -> int:
    """Count weights and biases: 9ab + b a convolution, 4·2b·b + b an up-convolution, ab + b the head."""
    total, before = 0, num_inputs
    for width in widths:
        total += (9 * before * width + width) + (9 * width * width + width)
        before = width
    for width in widths[:-1]:
        total += 4 * 2 * width * width + width
        total += (9 * 2 * width * width + width) + (9 * width * width + width)
    return total + widths[0] * num_outputs + num_outputs


def test_2015_has_the_papers_sizes():
    plan = plan_network("unet_2015", 2, planning={"patch_size": None, "base_features": None})
    assert plan.patch_size == (572, 572)
    assert plan.valid_margin == (92, 92)
    assert plan.output_size == (388, 388)
    assert not plan.padded
    rows = {row.name: row for row in summarise_network(plan, describe())}
    down = [rows[f"encoder {stage}"].output for stage in range(5)]
    assert down == [(64, 568, 568), (128, 280, 280), (256, 136, 136), (512, 64, 64), (1024, 28, 28)]
    up = [rows[f"decoder {stage}"].output for stage in range(4)]
    assert up == [(512, 52, 52), (256, 100, 100), (128, 196, 196), (64, 388, 388)]


def test_2015_has_the_papers_parameters():
    description = describe()  # background and two labels
    plan = plan_network("unet_2015", 2, planning={"patch_size": None, "base_features": None})
    assert plan.features == (64, 128, 256, 512, 1024)
    with torch.device("meta"):
        network = build_network(plan, description)
    assert count(network) == count_by_hand(1, 3, plan.features) == 31_030_723


@torch.no_grad()
@pytest.mark.parametrize(("name", "size"), [("unet_2015", (204, 188)), ("classroom", (32, 48))])
def test_computes_what_the_textbook_computes(name, size):
    plan = plan_network(name, 2, planning={"patch_size": size}, norm="none")
    network = build_network(plan, describe()).eval()
    textbook = TextbookUNet(1, 3, plan.features, padded=plan.padded)
    copy_weights(textbook, network)
    image = torch.randn(1, 1, *size)
    assert network(image).shape[2:] == plan.output_size
    torch.testing.assert_close(network(image), textbook(image), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_unpadded_output_is_that_of_the_middle_of_a_larger_input():
    """What the 2015 network says of a pixel does not depend on the tile's border: overlap tiles join seamlessly."""
    plan = plan_network("unet_2015", 2)
    network = build_network(plan, describe()).eval()
    image = torch.randn(1, 1, 220, 204)
    whole = network(image)
    tile = network(image[..., 16:, 16:])
    torch.testing.assert_close(whole[..., 16:, 16:], tile, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "size", "num_stages", "features"),
    [
        (1, 256, None, (64, 128, 256, 512)),
        (3, 256, None, (64, 128, 256, 512)),
        (1, 256, 5, (64, 128, 256, 512, 1024)),
        (1, 128, 2, (64, 128)),
    ],
)
def test_classroom_nets_have_the_tutorials_sizes_and_parameters(channels, size, num_stages, features):
    description = describe(channels, regions=True)
    planning = {"resize_to": (size, size), "patch_size": None, "base_features": None}
    plan = plan_network(
        "classroom", 2, description=description, planning=planning, norm="none", num_stages=num_stages
    )
    assert plan.patch_size == plan.output_size == (size, size)
    assert plan.features == features
    rows = summarise_network(plan, description)
    for stage, width in enumerate(features):
        shape = (width, size // 2**stage, size // 2**stage)
        assert [row.output for row in rows if row.name == f"encoder {stage}"] == [shape]
    assert rows[-1].output == (2, size, size)
    assert sum(row.parameters for row in rows) == count_by_hand(channels, 2, features)
    with_norm = plan_network(
        "classroom", 2, description=description, planning=planning, num_stages=num_stages
    )
    assert with_norm.network.norm == "batch"
    num_norms = 2 * sum(features) + 2 * sum(features[:-1])  # of a weight and a bias each
    total = count_by_hand(channels, 2, features) + 2 * num_norms
    assert sum(row.parameters for row in summarise_network(with_norm, description)) == total


def test_a_single_label_declared_as_a_region_has_a_sigmoid_head_of_one_channel():
    plain = describe()
    description = plain.model_copy(
        update={"labels": {"background": 0, "nucleus": 1}, "regions": {"nucleus": ("nucleus",)},
                "region_order": ("nucleus",)}
    )  # fmt: skip
    plan = plan_network("classroom", 2, description=description)
    logits = build_network(plan, description).eval()(torch.randn(1, 1, *plan.patch_size))
    assert logits.shape == (1, 1, *plan.patch_size)
    assert torch.equal(to_probabilities(logits, description), logits.sigmoid())
