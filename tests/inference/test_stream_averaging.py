"""Predictions averaged over shifts and mirror images in one stream: each window's probabilities are averaged."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from whole_volumes import Counting, as_2d, convolve, logits_of, monais

from medunet.records.plan import Plan


def monais_probabilities(network: nn.Module, image: torch.Tensor, plan: Plan) -> torch.Tensor:
    """Return probabilities `(K, I, J, K)`, blended by MONAI, of labels that exclude each other."""
    return monais(nn.Sequential(network, nn.Softmax(1)), image, plan)


# ---- shifts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16, 6), (21, 30, 11)])
@pytest.mark.parametrize("dimensions", [3, 2])
def test_probabilities_are_averaged_over_the_positions_below_the_strides(
    tiny_plan: Plan, dimensions: int, shape
):
    """A network that pools by 2 treats even and odd places differently: the mean of both does not."""
    plan = as_2d(tiny_plan) if dimensions == 2 else tiny_plan
    plan = plan.model_copy(update={"strides": ((1,) * dimensions, (2,) * dimensions)})
    pooled = nn.AvgPool3d(2) if dimensions == 3 else nn.AvgPool2d(2)
    torch.manual_seed(0)
    kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
    network = nn.Sequential(kind(1, 2, 1), pooled, nn.Upsample(scale_factor=2))
    image = torch.randn(1, *shape)

    pads = (1, 0, 1, 0, 1, 0) if dimensions == 3 else (0, 0, 1, 0, 1, 0)  # the last axis is the slices'
    moved = F.pad(image[None], pads, mode="replicate")[0]
    cut = monais_probabilities(network, moved, plan)[:, 1:, 1:, pads[0] :]
    both = logits_of(network, image, plan, shifts=2).softmax(0)
    plain = monais_probabilities(network, image, plan)
    torch.testing.assert_close(both, (plain + cut) / 2, atol=1e-5, rtol=0)
    assert not torch.allclose(both, plain, atol=1e-3)


# ---- mirror images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16, 8), (25, 19, 9), (13, 40, 8)])
@pytest.mark.parametrize("dimensions", [3, 2])
def test_probabilities_are_averaged_over_the_mirror_images_of_the_volume(
    tiny_plan: Plan, dimensions: int, shape
):
    """Each mirror image has windows of its own, laid from its own first voxel, as if it were another volume."""
    plan = tiny_plan if dimensions == 3 else as_2d(tiny_plan)
    network = convolve(dimensions)
    image = torch.randn(1, *shape)
    found = logits_of(network, image, plan, mirror=["posterior_anterior", "left_right"]).softmax(0)
    flips = ((), (1,), (2,), (1, 2))
    each = [monais_probabilities(network, image.flip(axes), plan).flip(axes) for axes in flips]
    torch.testing.assert_close(found, torch.stack(each).mean(0), atol=1e-5, rtol=0)
    assert not torch.allclose(found, each[0], atol=1e-3)


def test_each_region_has_probabilities_of_its_own_to_average(tiny_plan: Plan):
    network = convolve(3)
    image = torch.randn(1, 16, 16, 8)
    found = logits_of(network, image, tiny_plan, mirror=["left_right"], regions=True).sigmoid()
    each = [logits_of(network, image.flip(axes), tiny_plan).sigmoid().flip(axes) for axes in ((), (1,))]
    torch.testing.assert_close(found, (each[0] + each[1]) / 2, atol=1e-5, rtol=0)


@pytest.mark.parametrize("regions", [False, True])
def test_averaged_probabilities_of_0_and_1_have_finite_logits(tiny_plan: Plan, regions: bool):
    class Sure(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image, -image], 1) * 1e6

    image = torch.randn(1, 20, 20, 12)
    found = logits_of(Sure(), image, tiny_plan, shifts=2, regions=regions)
    assert found.isfinite().all()
    assert torch.equal(found[:1] > 0 if regions else found[:1] > found[1:], image > 0)


def test_an_axis_that_is_named_twice_is_mirrored_once(tiny_plan: Plan):
    image = torch.randn((1, 20, 18, 9), generator=torch.Generator().manual_seed(0))
    once, twice = (
        logits_of(convolve(3), image, tiny_plan, mirror=["left_right"] * count) for count in (1, 2)
    )
    assert torch.equal(once, twice)


def test_mirror_images_are_shifted_from_their_own_first_voxel(tiny_plan: Plan):
    network = convolve(3)
    image = torch.randn(1, 25, 19, 9)
    found = logits_of(network, image, tiny_plan, mirror=["inferior_superior"], shifts=3).softmax(0)
    each = [
        logits_of(network, image.flip(axes), tiny_plan, shifts=3).softmax(0).flip(axes) for axes in ((), (3,))
    ]
    torch.testing.assert_close(found, (each[0] + each[1]) / 2, atol=1e-5, rtol=0)


def test_mirrored_across_the_slices_neighbours_change_places(tiny_plan: Plan):
    plan = as_2d(tiny_plan, slice_axis=2, context_slices=3)
    network = convolve(2, 6)
    image = torch.randn(2, 16, 13, 7)
    found = logits_of(network, image, plan, mirror=["inferior_superior"]).softmax(0)
    flipped = logits_of(network, image.flip(3), plan).softmax(0).flip(3)
    expected = (logits_of(network, image, plan).softmax(0) + flipped) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(found, flipped, atol=1e-3)


def test_a_slice_alone_is_not_computed_twice_for_its_mirror_image(tiny_plan: Plan):
    counting = Counting()
    image = torch.randn(1, 16, 16, 4)
    found = logits_of(counting, image, as_2d(tiny_plan, slice_axis=2), mirror=["inferior_superior"])
    assert sum(batch for batch, *_ in counting.shapes) == 4
    assert torch.equal(found, torch.cat([image, -image]))
