"""Windows lie where MONAI lays them, weigh what MONAI's weigh, and are computed once if they hold a value alone."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import _get_scan_interval
from tiny_networks import plan_network

from medunet.inference.blending import RunningSums, WindowShares, gaussian_weights
from medunet.inference.windows import (
    Window,
    cut_window,
    lay_windows,
    make_offsets,
    overlapping_spans,
    run_windows,
)
from medunet.records.plan import Plan
from medunet.transforms.patches import PreparedCase, sample_patch

SIDES = st.integers(1, 70)


@given(SIDES, SIDES, st.sampled_from([0.0, 0.25, 0.5, 0.625, 0.9, 0.99]))
@settings(deadline=None)
def test_windows_lie_where_monai_lays_them(length: int, size: int, overlap: float):
    padded = max(length, size)
    step = _get_scan_interval((padded,), (size,), 1, (overlap,))
    before = max(size - length, 0) // 2
    expected = [window[0].start - before for window in dense_patch_slices((padded,), (size,), step)]
    spans = overlapping_spans(length, size, overlap)
    assert [span.start for span in spans] == expected
    assert all(
        (span.low, span.high) == (max(span.start, 0), min(span.start + size, length)) for span in spans
    )


@given(st.lists(st.integers(1, 40), min_size=2, max_size=3))
@settings(deadline=None)
def test_weights_are_monais(size: list[int]):
    expected = compute_importance_map(tuple(size), mode="gaussian", sigma_scale=0.125)
    torch.testing.assert_close(gaussian_weights(size), expected)


PLANS = {
    "3D": plan_network("plain", planning={"patch_size": (16, 16, 8)}),
    "2D": plan_network("plain", 2, planning={"patch_size": (16, 8)}, spacing_mm=(1.0, 3.0, 1.0)),
    "unpadded": plan_network("unet_2015", 2),
}


@pytest.mark.parametrize("shifts", [1, 3])
@pytest.mark.parametrize("name", PLANS)
@given(shape=st.tuples(st.integers(1, 25), st.integers(1, 30), st.integers(1, 12)))
@settings(deadline=None, max_examples=15)
def test_the_shares_of_each_grids_windows_add_up_alike_in_every_voxel(name: str, shifts: int, shape):
    plan = PLANS[name]
    grids = [lay_windows(shape, offset, plan, 0.5) for offset in make_offsets(plan, shifts)]
    axis = plan.slice_axis if plan.dimensions == 2 else 1
    shares = WindowShares(plan, grids, shape, axis, torch.device("cpu"))
    for number, grid in enumerate(grids):
        total = torch.zeros(shape)
        for spans in product(*grid):
            window = Window(spans, number)
            total[window.box] += shares.of(window)
        torch.testing.assert_close(total, torch.full(shape, 1 / shifts))


def test_offsets_are_spread_over_the_strides():
    plan = PLANS["3D"].model_copy(update={"strides": ((1, 1, 1), (2, 2, 1), (4, 2, 1))})
    assert make_offsets(plan, 1) == [(0, 0, 0)]
    assert make_offsets(plan, 4) == [(0, 0, 0), (2, 1, 0), (4, 2, 0), (6, 3, 0)]
    slices = PLANS["2D"].model_copy(update={"strides": ((1, 1), (2, 4))})
    assert make_offsets(slices, 2) == [(0, 0, 0), (1, 0, 2)]


def test_windows_of_a_shifted_grid_lie_lower_by_the_offset():
    plan = PLANS["3D"]
    plain, moved = (lay_windows((40, 20, 8), offset, plan, 0.5) for offset in ((0, 0, 0), (3, 0, 1)))
    assert [span.start for span in plain[0]] == [0, 8, 16, 24]
    assert [(span.start, span.low, span.high) for span in moved[0]] == [
        (-3, 0, 13),
        (5, 5, 21),
        (13, 13, 29),
        (21, 21, 37),
        (24, 24, 40),
    ]
    assert moved[1] == plain[1]
    assert [(span.start, span.low, span.high) for span in moved[2]] == [(-1, 0, 7), (0, 0, 8)]


# ---- cutting ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("context_slices", [1, 3, 5])
def test_training_and_prediction_order_the_channels_alike(tiny_plan: Plan, axis: int, context_slices: int):
    image = np.random.default_rng(0).normal(size=(2, 9, 8, 7)).astype(np.float32)
    label = np.broadcast_to(np.arange(9 * 8 * 7).reshape(9, 8, 7) % 251, (9, 8, 7)).astype(np.uint8)
    case = PreparedCase("c", image, label, {})
    size = tuple(n for i, n in enumerate((9, 8, 7)) if i != axis)
    plan = tiny_plan.model_copy(
        update={
            "dimensions": 2,
            "patch_size": size,
            "slice_axis": axis,
            "context_slices": context_slices,
            "strides": ((1, 1), (2, 2)),
        }
    )
    windows = [Window(spans) for spans in product(*lay_windows(label.shape, (0, 0, 0), plan, 0.5))]
    every = [cut_window(image, window, plan) for window in windows]
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


# ---- running ----------------------------------------------------------------------------------------------------


class Noting:
    """Gives the mean over channels as the logit, and notes how many windows it was given together."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        return images.mean(1, keepdim=True) + 1


def in_rows(values: list[float], plan: Plan) -> tuple[np.ndarray, list[Window]]:
    """Return an image of two channels whose windows along the first axis hold a value each; NaN stands for noise."""
    image = np.zeros((2, 16 * len(values), 16, 8), np.float32)
    for number, value in enumerate(values):
        noise = np.random.default_rng(number).normal(size=(2, 16, 16, 8))
        image[:, 16 * number : 16 * number + 16] = noise if np.isnan(value) else value
    image[1] += 5
    grid = lay_windows(image.shape[1:], (0, 0, 0), plan, 0.0)
    return image, [Window(spans) for spans in product(*grid)]


NOISE = float("nan")


@pytest.mark.parametrize(
    ("values", "batch", "batches", "num_reused"),
    [
        ([NOISE] * 5, 2, [2, 2, 1], 0),
        ([0, 0, 0, 0], 3, [1], 3),
        ([0, NOISE, 0, NOISE, 0, NOISE], 2, [2, 2], 2),  # a batch holds only what has to be computed
        ([NOISE, 0, 0, NOISE, 1, 0, 1], 4, [4], 3),
        ([0, 1, 0, 1, 1], 1, [1, 1], 3),
        ([0, 1, 2, 2, 1, 0], 1, [1, 1, 1, 1], 2),  # the logits of the latest two values are kept
    ],
)
def test_a_window_of_one_value_is_computed_once(values, batch, batches, num_reused):
    plan = PLANS["3D"]
    image, windows = in_rows(values, plan)
    network = Noting()
    found = list(run_windows(network, image, windows, plan, batch))
    assert network.batches == batches
    assert [each.window for each in found] == windows
    assert sum(each.is_reused for each in found) == num_reused
    for each in found:
        expected = image[:, *each.window.box].mean(0, keepdims=True) + 1
        assert np.array_equal(each.logits.numpy(), expected)


def test_a_window_whose_channels_hold_a_value_each_is_told_from_its_like():
    plan = PLANS["3D"]
    image, windows = in_rows([0, 0, 0], plan)
    image[1, 16:32] = 6
    found = list(run_windows(Noting(), image, windows, plan, 4))
    assert [each.is_reused for each in found] == [False, False, True]
    assert [float(each.logits.mean()) for each in found] == [3.5, 4.0, 3.5]
    image[0, 40, 3, 3] = 1  # one voxel
    assert not any(each.is_reused for each in run_windows(Noting(), image, windows, plan, 4))


def test_a_constant_window_at_the_border_is_reused_too():
    plan = PLANS["3D"]
    image = np.full((1, 17, 4, 3), 2, np.float32)  # longer and shorter than the window
    windows = [Window(spans) for spans in product(*lay_windows((17, 4, 3), (0, 0, 0), plan, 0.5))]
    assert [each.is_reused for each in run_windows(Noting(), image, windows, plan, 4)] == [False, True]


# ---- sums -------------------------------------------------------------------------------------------------------


def test_slices_that_are_not_finished_are_held_in_a_ring_no_longer_than_a_window():
    plan, shape = PLANS["3D"], (16, 16, 30)
    grid = lay_windows(shape, (0, 0, 0), plan, 0.5)
    sums = RunningSums(plan, [grid], shape, 2, torch.device("cpu"))
    seen = []
    for spans in product(*grid):
        window = Window(spans)
        if not sums.has_room(window):
            seen += [(start, tuple(logits.shape)) for start, logits in sums.finish(window.box[2].start)]
        sums.add(window, torch.ones(3, 16, 16, 8))
        assert sums.has_room(window)
    for start, logits in sums.finish(30):
        seen.append((start, tuple(logits.shape)))
        torch.testing.assert_close(logits, torch.ones_like(logits))
    assert [start for start, _ in seen] == [0, 4, 8, 12, 16, 20, 22, 24]
    assert {shape[0::2] for _, shape in seen} == {(3, 16)}
