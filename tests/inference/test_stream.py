"""Whole volumes through a network, slab by slab: windows, slices, constants, and numbers that are none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_networks import plan_network
from torch import nn
from whole_volumes import CPU, Counting, as_2d, convolve, logits_of, monais, stream_of, whole_logits

from medunet.base.errors import DataError
from medunet.compute.workloads import to_channels_last
from medunet.inference import stream
from medunet.inference.backend import TorchBackend
from medunet.inference.stream import open_stream
from medunet.records.config import InferenceConfig
from medunet.records.plan import Plan


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
    plain = logits_of(network, image, tiny_plan)
    assert network.seen == {False}
    network.seen.clear()
    backend = TorchBackend(to_channels_last(network, 3), CPU, "fp32", channels_last=True)
    turned = whole_logits(open_stream(backend, image, tiny_plan, InferenceConfig()))
    assert network.seen == {True}
    torch.testing.assert_close(turned, plain, atol=1e-5, rtol=1e-5)


# ---- windows ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    dimensions=st.sampled_from([2, 3]),
    shape=st.tuples(st.integers(1, 22), st.integers(1, 26), st.integers(1, 18)),
    patch_size=st.tuples(*[st.integers(4, 7).map(lambda n: 2 * n)] * 3),
    slice_axis=st.integers(0, 2),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    batch=st.integers(1, 5),
    num_channels=st.integers(1, 2),
)
def test_logits_are_monais(dimensions, shape, patch_size, slice_axis, overlap, batch, num_channels):
    plan = plan_network("plain", dimensions, planning={"patch_size": (16, 16, 16)[:dimensions]}).model_copy(
        update={"patch_size": patch_size[:dimensions], "slice_axis": slice_axis}
    )
    network = convolve(dimensions, num_channels, 3)
    image = torch.randn((num_channels, *shape), generator=torch.Generator().manual_seed(1))
    found = logits_of(network, image, plan, batch, overlap=overlap)
    torch.testing.assert_close(found, monais(network, image, plan, overlap), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", [(16, 16, 8), (11, 14, 3), (1, 5, 8)])
def test_a_volume_within_one_window_is_one_forward(tiny_plan: Plan, shape):
    counting = Counting()
    image = torch.randn(1, *shape)
    found = logits_of(counting, image, tiny_plan)
    assert counting.shapes == [(1, 1, 16, 16, 8)]
    assert torch.equal(found, torch.cat([image, -image]))


@pytest.mark.parametrize(
    ("shape", "num_windows"), [((16, 16, 9), 2), ((17, 16, 8), 2), ((24, 16, 9), 4), ((25, 8, 8), 3)]
)
def test_no_more_windows_than_the_overlap_needs(tiny_plan: Plan, shape, num_windows):
    """By hand: steps of half a window, the last one moved inwards; never more together than asked for."""
    for batch in (1, 3, 4):
        counting = Counting()
        image = torch.randn(1, *shape)
        stream = stream_of(counting, image, tiny_plan, batch)
        assert stream.num_windows == num_windows
        assert torch.allclose(whole_logits(stream), torch.cat([image, -image]), atol=1e-5)
        assert [each[0] for each in counting.shapes[:-1]] == [batch] * (len(counting.shapes) - 1)
        assert sum(each[0] for each in counting.shapes) == num_windows


@pytest.mark.parametrize("shape", [(40, 9, 11), (9, 40, 11), (9, 11, 40)])
def test_slabs_come_along_the_longest_axis_as_soon_as_they_are_finished(tiny_plan: Plan, shape):
    plan = tiny_plan.model_copy(update={"patch_size": (8, 8, 8)})
    counting = Counting()
    stream = stream_of(counting, torch.randn(1, *shape), plan, 1)
    assert stream.axis == shape.index(40)
    slabs = stream.slabs()
    first = next(slabs)
    assert (first.start, first.logits.shape) == (0, (2, 4, 9, 11))
    assert len(counting.shapes) == 5  # four windows beside one another, and the first of the next four
    assert stream.num_windows == 9 * 4
    assert sum(slab.logits.shape[1] for slab in slabs) == 36


@pytest.mark.parametrize(("name", "between"), [("openvino", 1), ("torch", 3)])
def test_torch_leaves_the_cores_to_openvino_between_windows(
    tiny_plan: Plan, monkeypatch: pytest.MonkeyPatch, name, between
):
    """The slabs themselves are restored with all threads, also after an error."""
    seen: list[int] = []
    add = stream.RunningSums.add

    def count_threads(self, *given):
        seen.append(torch.get_num_threads())
        add(self, *given)

    monkeypatch.setattr(stream.RunningSums, "add", count_threads)
    image = torch.zeros((2, 40, 30, 20))
    backend = replace(TorchBackend(nn.Conv3d(2, 2, 1), CPU, "fp32"), name=name)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for _ in open_stream(backend, image, tiny_plan, InferenceConfig()).slabs():
            assert torch.get_num_threads() == 3
        assert set(seen) == {between}
        broken = replace(backend, network=nn.Conv3d(5, 2, 1))
        with pytest.raises(RuntimeError):
            list(open_stream(broken, image, tiny_plan, InferenceConfig()).slabs())
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_stream_can_be_drawn_twice(tiny_plan: Plan):
    stream = stream_of(convolve(3), torch.randn(1, 20, 18, 9), tiny_plan)
    assert torch.equal(whole_logits(stream), whole_logits(stream))


# ---- slices -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("patch_size", [(16, 16), (8, 8)])
def test_slices_are_stacked_across_their_axis(tiny_plan: Plan, axis, patch_size):
    plan = as_2d(tiny_plan, patch_size=patch_size, slice_axis=axis)
    image = torch.randn(1, 13, 9, 11)
    counting = Counting()
    stream = stream_of(counting, image, plan)
    assert stream.axis == axis
    assert torch.allclose(whole_logits(stream), torch.cat([image, -image]), atol=1e-5)
    assert {batch for batch, *_ in counting.shapes[:-1]} == {4}
    if patch_size == (16, 16):
        assert sum(batch for batch, *_ in counting.shapes) == image.shape[1 + axis]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbouring_slices_come_as_channels_and_borders_are_repeated(tiny_plan: Plan, axis):
    """Each slice's own logit is the mean over channels and neighbours of this one."""
    plan = as_2d(tiny_plan, slice_axis=axis, context_slices=3)
    image = torch.randn(2, 13, 7, 10)
    counting = Counting()
    found = logits_of(counting, image, plan)
    assert {channels for _, channels, *_ in counting.shapes} == {6}
    stack = image.movedim(1 + axis, 1).numpy()
    padded = np.pad(stack, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
    mean = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]).mean(0) / 3
    assert np.allclose(found[0].movedim(axis, 0), mean, atol=1e-5)
    below = padded[0, :-2]  # the first channel is channel 0 of the slice below
    assert np.allclose(found[1].movedim(axis, 0), -below, atol=1e-5)


def test_a_slice_alone_decides_its_logits(tiny_plan: Plan):
    plan = as_2d(tiny_plan, patch_size=(16, 8), slice_axis=1)
    image = torch.randn(1, 20, 7, 9)
    changed = image.clone()
    changed[:, :, 3] += 1
    first, second = (logits_of(convolve(2), each, plan) for each in (image, changed))
    moved = (first - second).abs().amax((0, 1, 3))
    assert moved[3] > 0
    assert moved[[0, 1, 2, 4, 5, 6]].max() == 0


# ---- constant windows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"shifts": 2}, {"mirror": ["left_right"]}])
@pytest.mark.parametrize("dimensions", [3, 2])
def test_air_is_computed_once_and_its_logits_are_those_of_every_window_computed(
    tiny_plan: Plan, dimensions: int, config
):
    plan = tiny_plan if dimensions == 3 else as_2d(tiny_plan)
    image = torch.full((2, 20, 18, 60), -3.0)
    image[:, 5:15, 4:12, 25:31] = torch.randn(2, 10, 8, 6)
    image[1] += 1
    network = convolve(dimensions, 2)
    stream = stream_of(network, image, plan, 1, **config)
    found = whole_logits(stream)
    assert stream.num_reused > stream.num_windows / 3

    class Different(nn.Module):
        """Undoes the differences that keep windows from being constant."""

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            return network(window[:, :2])

    marked = torch.cat([image, torch.randn(1, *image.shape[1:])])
    every = stream_of(Different(), marked, plan, 1, **config)
    assert torch.equal(whole_logits(every), found)
    assert every.num_reused == 0


# ---- numbers that are none --------------------------------------------------------------------------------------


class Overflowing(nn.Module):
    """Gives a logit that is no number where the image is large."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.where(image > 50, self.value, image), -image], 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("precision", "hint"), [("fp16", "use --precision fp32"), ("fp32", "far too large")])
@pytest.mark.parametrize("config", [{}, {"mirror": ("left_right",)}])
def test_a_logit_that_is_no_number_is_an_error_with_its_place(
    tiny_plan: Plan, value, precision, hint, config
):
    image = torch.randn(1, 9, 9, 40)
    image[0, 3, 4, 22] = 99

    class Backend(TorchBackend):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.network(images)

    backend = Backend(Overflowing(value), CPU, precision)
    stream = open_stream(backend, image, tiny_plan, InferenceConfig(**config))
    with pytest.raises(DataError, match=rf"NaN or infinite in slices 20 to 23 across axis 2\..*{hint}"):
        list(stream.slabs())


# ---- a card -----------------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("accumulate_on", [None, CPU])
def test_logits_of_a_card_are_those_of_a_cpu_and_stay_where_they_are_added_up(tiny_plan: Plan, accumulate_on):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA card here")
    card, config = torch.device("cuda"), InferenceConfig(shifts=2, mirror=("left_right",))
    image = torch.randn(1, 40, 18, 11)
    image[:, 20:] = 0
    expected = logits_of(convolve(3), image, tiny_plan, shifts=2, mirror=["left_right"])
    backend = TorchBackend(convolve(3).to(card), card, "fp32")
    stream = open_stream(backend, image, tiny_plan, config, accumulate_on=accumulate_on)
    found = whole_logits(stream)
    assert found.device.type == ("cuda" if accumulate_on is None else "cpu")
    torch.testing.assert_close(found.cpu(), expected, atol=0.02, rtol=0)  # a card multiplies in TF32
