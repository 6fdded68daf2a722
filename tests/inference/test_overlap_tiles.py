"""Networks of unpadded convolutions: overlap-tiles equal one pass over the whole mirrored image."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn
from whole_volumes import logits_of

from medunet.records.plan import Plan
from medunet.transforms.patches import mirrored_index


class Unpadded(nn.Module):
    """A U-Net of unpadded convolutions, one a stage, with centre crops; 2D or 3D, any number of stages."""

    def __init__(self, dimensions: int, num_stages: int) -> None:
        super().__init__()
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        self.pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[dimensions](2)
        self.down = nn.ModuleList(convolution(1 if i == 0 else 3, 3, 3) for i in range(num_stages))
        self.up = nn.ModuleList(convolution(6, 3, 3) for _ in range(num_stages - 1))
        self.head = convolution(3, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x, skips = image, []
        for i, convolution in enumerate(self.down):
            x = convolution(self.pool(x) if i else x).tanh()
            skips.append(x)
        for convolution, skip in zip(self.up, skips[-2::-1], strict=True):
            x = nn.functional.interpolate(x, scale_factor=2)
            crops = [(n - m) // 2 for n, m in zip(skip.shape[2:], x.shape[2:], strict=True)]
            middle = tuple(slice(crop, crop + m) for crop, m in zip(crops, x.shape[2:], strict=True))
            x = convolution(torch.cat([x, skip[(..., *middle)]], 1)).tanh()
        return self.head(x)


def unpadded_plan(plan: Plan, dimensions: int, num_stages: int, patch_size: Sequence[int]) -> Plan:
    network = plan.network.model_copy(update={"name": "unet_2015"})
    axes = range(dimensions)
    changes = {
        "network": network,
        "dimensions": dimensions,
        "convolutions_per_stage": 1,
        "kernel_sizes": (tuple(3 for _ in axes),) * num_stages,
        "strides": (tuple(1 for _ in axes), *(tuple(2 for _ in axes),) * (num_stages - 1)),
        "patch_size": tuple(patch_size),
        "slice_axis": 1,
    }
    return plan.model_copy(update=changes)


def direct_pass(network: nn.Module, image: torch.Tensor, plan: Plan) -> torch.Tensor:
    """The network over each whole image, mirrored by NumPy, in one pass."""
    batch = image[None] if plan.dimensions == 3 else image.movedim(1 + plan.slice_axis, 0)
    widths = [(0, 0), (0, 0), *((margin, margin) for margin in plan.valid_margin)]
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.pad(batch.numpy(), widths, mode="reflect")))
    return logits[0] if plan.dimensions == 3 else logits.movedim(0, 1 + plan.slice_axis)


@pytest.mark.parametrize(
    ("dimensions", "num_stages", "patch_size", "shape"),
    [
        (2, 3, (38, 42), (34, 3, 50)),  # output tiles of 18 and 22 voxels, strides' product 4
        (2, 3, (38, 38), (18, 1, 26)),
        (2, 2, (18, 24), (10, 5, 6)),
        (3, 2, (18, 20, 14), (22, 14, 10)),
    ],
)
def test_tiles_equal_one_pass_over_the_mirrored_image(
    tiny_plan: Plan, dimensions, num_stages, patch_size, shape
):
    torch.manual_seed(0)
    plan = unpadded_plan(tiny_plan, dimensions, num_stages, patch_size)
    network = Unpadded(dimensions, num_stages).eval()
    assert network(torch.zeros(1, 1, *patch_size)).shape[2:] == plan.output_size
    image = torch.randn(1, *shape)
    found = logits_of(network, image, plan)
    assert found.shape == (2, *shape)
    assert torch.allclose(found, direct_pass(network, image, plan), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 2, 1), (7, 1, 4), (1, 2, 31)])
def test_images_smaller_than_the_margin_are_mirrored_again(tiny_plan: Plan, shape):
    """A network without pooling accepts any size, so that the direct pass exists for images of a few voxels."""
    plan = unpadded_plan(tiny_plan, 2, 3, (38, 42))
    torch.manual_seed(0)
    network = nn.Conv2d(1, 2, 21)
    image = torch.randn(1, *shape)
    assert torch.allclose(logits_of(network, image, plan), direct_pass(network, image, plan), atol=1e-5)


@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_mirrored_index_is_numpys_reflection(length):
    wanted = np.pad(np.arange(length), 20, mode="reflect")
    assert np.array_equal(mirrored_index(-20, length + 40, length), wanted)
