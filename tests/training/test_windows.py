"""Windows cover a case, each voxel once; where not all fit, the choice is balanced and repeatable."""

from collections import Counter

import numpy as np
import pytest
from tiny_networks import plan_network

from medunet.inference.windows import cut_window, cut_window_label
from medunet.records.plan import Plan
from medunet.training.windows import choose_windows, count_windows
from medunet.transforms.patches import PreparedCase, find_locations

TARGETS = {"liver": (1,), "tumour": (2,)}
PLANS = {
    "3D": plan_network("plain", planning={"patch_size": (16, 16, 8)}),
    "2D": plan_network("plain", 2, planning={"patch_size": (16, 8)}, spacing_mm=(1.0, 1.0, 3.0)),
    "2D across the first axis": plan_network(
        "plain", 2, planning={"patch_size": (16, 8)}, spacing_mm=(3.0, 1.0, 1.0)
    ),
    "2.5D": plan_network(
        "plain", 2, planning={"patch_size": (16, 8), "context_slices": 3}, spacing_mm=(1.0, 1.0, 3.0)
    ),
    "unpadded": plan_network("unet_2015", 2),
}
SHAPES = [(40, 33, 21), (16, 16, 8), (5, 40, 3), (17, 31, 9)]


def case_of(shape: tuple[int, int, int], label: np.ndarray | None = None) -> PreparedCase:
    label = np.zeros(shape, np.uint8) if label is None else label
    image = np.arange(label.size, dtype=np.float32).reshape(1, *shape)
    return PreparedCase("a", image, label, find_locations(label, TARGETS, (0,)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PLANS)
def test_every_voxel_belongs_to_one_window(name: str, shape: tuple[int, int, int]):
    plan = PLANS[name]
    seen = np.zeros(shape, int)
    windows = choose_windows(case_of(shape), plan, None, seed=0)
    for window in windows:
        seen[window.box] += 1
    assert (seen == 1).all()
    assert len(windows) == count_windows(shape, plan)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PLANS)
def test_a_windows_own_voxels_are_those_of_its_output(name: str, shape: tuple[int, int, int]):
    """Cut as the network sees it and cropped as it is counted, a window is the volume's own voxels."""
    plan, case = PLANS[name], case_of(shape)
    middle = plan.context_slices // 2
    for window in choose_windows(case, plan, 5, seed=1):
        axis = plan.slice_axis if plan.dimensions == 2 else None
        image = cut_window(case.image, window, plan)
        assert image.shape == (plan.context_slices, *plan.patch_size)
        assert cut_window_label(case.label, window, plan).shape == (1, *plan.output_size)
        inside = tuple(slice(m, n - m) for m, n in zip(plan.valid_margin, plan.patch_size, strict=True))
        output = image[middle][inside]
        output = output if axis is None else np.expand_dims(output, axis)
        np.testing.assert_array_equal(output[window.inner], case.image[0][window.box])


def test_overlapping_windows_answer_for_their_own_half():
    windows = choose_windows(case_of((28, 8, 8)), PLANS["3D"], None, seed=0)  # 0..16 and 12..28
    assert [(one.starts[0], one.box[0].start, one.box[0].stop) for one in windows] == [
        (0, 0, 14),
        (12, 14, 28),
    ]


def labelled(plan: Plan) -> PreparedCase:
    """Return a case of 5×5×4 windows: liver in six, of which one holds the tumour, too."""
    label = np.zeros((80, 80, 32), np.uint8)
    label[:48, :32, :8] = 1
    label[2, 2, 2] = 2
    case = case_of(label.shape, label)
    assert count_windows(label.shape, plan) == 100
    return case


def test_half_of_the_chosen_windows_hold_foreground_of_every_target():
    plan = PLANS["3D"]
    case = labelled(plan)
    for seed in range(20):
        chosen = choose_windows(case, plan, 6, seed)
        held = [np.unique(case.label[window.box]) for window in chosen]
        assert len({window.starts for window in chosen}) == 6
        assert sum(1 in values or 2 in values for values in held) == 3
        assert sum(2 in values for values in held) == 1


def test_where_foreground_is_short_the_rest_is_filled_up():
    plan = PLANS["3D"]
    case = labelled(plan)
    of_40 = choose_windows(case, plan, 40, seed=0)
    assert sum(case.label[window.box].any() for window in of_40) == 6
    assert len(of_40) == 40
    of_98 = choose_windows(case, plan, 98, seed=0)
    assert len({window.starts for window in of_98}) == 98
    full = case_of((80, 80, 32), np.ones((80, 80, 32), np.uint8))
    assert len({window.starts for window in choose_windows(full, plan, 7, seed=0)}) == 7


def test_the_choice_is_the_seeds_alone():
    plan = PLANS["3D"]
    case = labelled(plan)
    drawn = [tuple(choose_windows(case, plan, 5, seed)) for seed in (3, 3, 4, 5, 6)]
    assert drawn[0] == drawn[1]
    assert len(Counter(drawn)) > 2
