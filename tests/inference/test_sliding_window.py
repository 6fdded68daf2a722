"""Whole volumes through a network: slices with their neighbours, one window or many, shifts and mirror images."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from torch import nn

from medunet.compute.workloads import to_channels_last
from medunet.inference.backend import TorchBackend
from medunet.inference.sliding_window import predict_probabilities, to_label_map, with_neighbours
from medunet.records.description import Description, load_description
from medunet.records.plan import Plan
from medunet.transforms.patches import PreparedCase, sample_patch

CPU = torch.device("cpu")
REGIONS = load_description("phantoms")
CELLS = Description(
    name="cells",
    layout="png",
    channels={"grey": {"modality": "other"}},
    labels={"background": 0, "cell": 255},
)


def predict(network: nn.Module, image: torch.Tensor, plan: Plan, overlap: float = 0.5) -> torch.Tensor:
    return predict_probabilities(TorchBackend(network, CPU, "fp32"), image, plan, REGIONS, overlap=overlap)


class Layouts(nn.Module):
    """A convolution that notes whether what it is given is channels-last."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
        self.layer, self.seen = convolution(2, 2, 3, padding=1), set[bool]()
        self.layout = torch.channels_last_3d if dimensions == 3 else torch.channels_last

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.add(image.is_contiguous(memory_format=self.layout) and not image.is_contiguous())
        return self.layer(image)


@pytest.mark.parametrize("size", [(16, 16, 8), (24, 20, 10)])
def test_a_layout_changes_no_prediction(tiny_plan: Plan, size: tuple[int, int, int]):
    image = torch.randn((2, *size), generator=torch.Generator().manual_seed(0))
    network = Layouts(3)
    plain = predict_probabilities(TorchBackend(network, CPU, "fp32"), image, tiny_plan, REGIONS)
    assert network.seen == {False}
    network.seen.clear()
    turned = predict_probabilities(
        TorchBackend(to_channels_last(network, 3), CPU, "fp32", channels_last=True), image, tiny_plan, REGIONS
    )
    assert network.seen == {True}
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=1e-5)


class Counting(nn.Module):
    """Gives two logits for each voxel from its own values, and notes what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(image.shape))
        return torch.cat([image.mean(1, keepdim=True), -image[:, :1]], 1)


# ---- one window -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 16, 8), (11, 14, 3), (1, 5, 8)])
def test_a_volume_within_one_window_is_one_forward_and_equals_monais(tiny_plan: Plan, shape):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.Conv3d(4, 2, 5, padding=2)
    )
    image = torch.randn(1, *shape)
    found = predict(network, image, tiny_plan)
    with torch.inference_mode():
        blended = sliding_window_inference(
            image[None], (16, 16, 8), 4, network, mode="gaussian", padding_mode="replicate"
        )
    assert isinstance(blended, torch.Tensor)
    assert torch.allclose(found, blended[0].sigmoid(), atol=1e-5)
    counting = Counting()
    predict(counting, image, tiny_plan)
    assert counting.shapes == [(1, 1, 16, 16, 8)]


@pytest.mark.parametrize(
    ("shape", "num_windows"), [((16, 16, 9), 2), ((17, 16, 8), 2), ((24, 16, 9), 4), ((25, 8, 8), 3)]
)
def test_no_more_windows_than_the_overlap_needs(tiny_plan: Plan, shape, num_windows):
    """By hand: steps of half a window, the last one moved inwards; never more than four windows together."""
    counting = Counting()
    image = torch.randn(1, *shape)
    found = predict(counting, image, tiny_plan)
    assert sum(batch for batch, *_ in counting.shapes) == num_windows
    assert max(batch for batch, *_ in counting.shapes) <= 4
    assert torch.allclose(found, torch.cat([image, -image]).sigmoid(), atol=1e-5)


# ---- slices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("patch_size", [(16, 16), (8, 8)])
def test_slices_are_stacked_across_their_axis(tiny_plan: Plan, axis, patch_size):
    plan = tiny_plan.model_copy(update={"dimensions": 2, "patch_size": patch_size, "slice_axis": axis})
    image = torch.randn(1, 13, 9, 11)
    counting = Counting()
    found = predict(counting, image, plan)
    assert torch.allclose(found, torch.cat([image, -image]).sigmoid(), atol=1e-5)
    assert max(batch for batch, *_ in counting.shapes) <= 4
    if patch_size == (16, 16):
        assert sum(batch for batch, *_ in counting.shapes) == image.shape[1 + axis]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbouring_slices_come_as_channels_and_borders_are_repeated(tiny_plan: Plan, axis):
    """Each slice's own logit is the mean over channels and neighbours of this one."""
    plan = tiny_plan.model_copy(
        update={"dimensions": 2, "patch_size": (16, 16), "slice_axis": axis, "context_slices": 3}
    )
    image = torch.randn(2, 13, 7, 10)
    counting = Counting()
    found = predict(counting, image, plan)
    assert {channels for _, channels, *_ in counting.shapes} == {6}
    stack = image.movedim(1 + axis, 1).numpy()
    padded = np.pad(stack, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
    mean = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]).mean(0) / 3
    assert np.allclose(found[0].movedim(axis, 0), 1 / (1 + np.exp(-mean)), atol=1e-5)
    below = padded[0, :-2]  # the first channel is channel 0 of the slice below
    assert np.allclose(found[1].movedim(axis, 0), 1 / (1 + np.exp(below)), atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("context_slices", [1, 3, 5])
def test_training_and_prediction_order_the_channels_alike(axis, context_slices):
    image = np.random.default_rng(0).normal(size=(2, 9, 8, 7)).astype(np.float32)
    label = np.broadcast_to(np.arange(9 * 8 * 7).reshape(9, 8, 7) % 251, (9, 8, 7)).astype(np.uint8)
    case = PreparedCase("c", image, label, {})
    size = tuple(n for i, n in enumerate((9, 8, 7)) if i != axis)
    slices = torch.from_numpy(image).movedim(1 + axis, 0)
    every = with_neighbours(slices, torch.arange(len(slices)), context_slices)
    seen = set()
    rng = np.random.default_rng(1)
    for _ in range(40):
        patch, patch_label = sample_patch(
            case, size, rng, foreground=False, slice_axis=axis, context_slices=context_slices
        )
        labels = np.moveaxis(label, axis, 0)
        (number,) = np.flatnonzero((labels == patch_label[0]).all((1, 2)))
        seen.add(int(number))
        assert np.array_equal(patch, every[number])
    assert seen == set(range(image.shape[1 + axis]))


# ---- label maps -------------------------------------------------------------------------------------------------


def test_a_label_declared_as_255_is_written_as_255():
    probabilities = torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.8, 0.5]])[:, :, None, None]
    labels = to_label_map(probabilities, CELLS)
    assert labels.dtype == torch.uint8
    assert labels.flatten().tolist() == [0, 255, 0]


# ---- shifts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [3, 2])
def test_predictions_are_averaged_over_the_positions_below_the_strides(tiny_plan: Plan, dimensions: int):
    """A network that pools by 2 treats even and odd places differently: the mean of both does not."""
    torch.manual_seed(0)
    changes = {"strides": ((1,) * dimensions, (2,) * dimensions)}
    if dimensions == 2:
        changes |= {"dimensions": 2, "patch_size": (16, 16), "kernel_sizes": ((3, 3),) * 2}
    plan = tiny_plan.model_copy(update=changes)
    pooled = nn.AvgPool3d(2) if dimensions == 3 else nn.AvgPool2d(2)
    kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
    network = nn.Sequential(kind(1, 2, 1), pooled, nn.Upsample(scale_factor=2))
    image = torch.randn(1, 16, 16, 6)

    def whole(volume: torch.Tensor, shifts: int = 1) -> torch.Tensor:
        return predict_probabilities(TorchBackend(network, CPU, "fp32"), volume, plan, REGIONS, shifts=shifts)

    pads = (1, 0, 1, 0, 1, 0) if dimensions == 3 else (0, 0, 1, 0, 1, 0)  # the last axis is the slices'
    moved = torch.nn.functional.pad(image[None], pads, mode="replicate")[0]
    cut = whole(moved)[:, 1:, 1:, pads[0] :]
    both = whole(image, shifts=2)
    assert both.shape == (2, 16, 16, 6)
    assert torch.allclose(both, (whole(image) + cut) / 2, atol=1e-6)
    assert not torch.allclose(both, whole(image), atol=1e-3)


# ---- mirror images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [3, 2])
def test_mirror_images_are_turned_back_and_averaged(tiny_plan: Plan, dimensions: int):
    """A network that sees a gradient along the first axis: its mean with the mirror image is even along that axis."""
    torch.manual_seed(0)
    changes = {
        "dimensions": 2,
        "patch_size": (16, 16),
        "kernel_sizes": ((3, 3),) * 2,
        "strides": ((1, 1), (2, 2)),
    }
    plan = tiny_plan if dimensions == 3 else tiny_plan.model_copy(update=changes)
    kind = nn.Conv3d if dimensions == 3 else nn.Conv2d
    network = kind(1, 2, 3, padding=1)
    image = torch.randn(1, 20, 13, 6)

    def whole(volume: torch.Tensor, mirror: Sequence[str] = ()) -> torch.Tensor:
        return predict_probabilities(TorchBackend(network, CPU, "fp32"), volume, plan, REGIONS, mirror=mirror)

    both = whole(image, ("left_right", "posterior_anterior"))
    flips = ((), (1,), (2,), (1, 2))
    expected = torch.stack([whole(image.flip(axes)).flip(axes) for axes in flips]).mean(0)
    assert torch.allclose(both, expected, atol=1e-6)
    assert not torch.allclose(both, whole(image), atol=1e-3)
