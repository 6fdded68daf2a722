"""From a few measured cases to a cohort: exact on a line, never negative, with a range that holds."""

import numpy as np
import pytest
from scipy.optimize import nnls

from medunet.inference.extrapolate import CaseSize, MeasuredCase, choose_by_size, extrapolate, fit_line


def case(windows: int, voxels: int, noise: float = 1.0) -> MeasuredCase:
    """A case of 0.5 s and 0.1 s a window to compute, 2 µs a voxel before and 1 µs after."""
    return MeasuredCase(
        CaseSize(windows, voxels), noise * (0.5 + 0.1 * windows), voxels * 2e-6, voxels * 1e-6, voxels // 100
    )


@pytest.mark.parametrize("is_hidden", [True, False])
def test_a_cohort_on_a_line_is_exact(is_hidden: bool) -> None:
    measured = [case(4, 10_000), case(20, 70_000), case(60, 500_000)]
    sizes = [CaseSize(10, 20_000), CaseSize(100, 900_000)]
    taken = extrapolate(measured, sizes, 30, back_is_hidden=is_hidden)
    front = 30 * ((0.5 + 1 + 0.5 + 10) / 2 + (0.04 + 1.8) / 2)
    back = 30 * (0.02 + 0.9) / 2
    assert taken.seconds == pytest.approx(front if is_hidden else front + back)
    assert taken.mask_bytes == pytest.approx(30 * (200 + 9000) / 2)


def test_back_that_takes_longer_than_the_rest_is_what_counts() -> None:
    slow = [MeasuredCase(CaseSize(n, 1000 * n), 0.1, 0.1, 3.0, 10) for n in (1, 2, 3)]
    taken = extrapolate(slow, [CaseSize(2, 2000)], 10, back_is_hidden=True)
    assert taken.seconds == pytest.approx(30)


def test_range_is_never_narrower_than_a_tenth_and_absent_for_one_case() -> None:
    sizes = [CaseSize(20, 70_000)]
    taken = extrapolate([case(4, 10_000), case(20, 70_000), case(60, 500_000)], sizes, 5, back_is_hidden=True)
    assert taken.seconds_range == pytest.approx((0.9 * taken.seconds, 1.1 * taken.seconds))
    assert extrapolate([case(20, 70_000)], sizes, 5, back_is_hidden=True).seconds_range is None


def test_range_holds_the_truth_nine_times_of_ten() -> None:
    rng = np.random.default_rng(0)
    sizes = [CaseSize(int(n), 1000 * int(n)) for n in rng.integers(5, 80, 300)]
    held = 0
    for _ in range(200):
        noise = rng.lognormal(0, 0.25, len(sizes))
        truth = sum(
            case(size.windows, size.voxels, own).compute_s for size, own in zip(sizes, noise, strict=True)
        )
        measured = [case(sizes[n].windows, sizes[n].voxels, noise[n]) for n in choose_by_size(sizes, 5)]
        only_network = [MeasuredCase(each.size, each.compute_s, 0, 0, 0) for each in measured]
        low, high = extrapolate(only_network, sizes, len(sizes), back_is_hidden=True).seconds_range or (0, 0)
        held += low <= truth <= high
    assert held >= 180  # of 200; the cases are few


@pytest.mark.parametrize("seed", range(5))
def test_line_is_that_of_weighted_nonnegative_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 50, 6)
    y = (rng.uniform(-5, 5) + rng.uniform(-0.2, 1) * x + rng.normal(0, 1, 6)).clip(0.1)
    root = np.sqrt(1 / x)
    expected, _ = nnls(np.stack([root, x * root], axis=1), y * root)
    assert fit_line(x, y) == pytest.approx(tuple(expected), abs=1e-9)


def test_equal_sizes_give_a_line_through_zero() -> None:
    assert fit_line(np.array([4.0, 4.0]), np.array([1.0, 3.0])) == (0.0, 0.5)


def test_cases_are_chosen_from_small_to_large() -> None:
    sizes = [CaseSize(n, 100) for n in (9, 1, 5, 3, 7)]
    assert [sizes[n].windows for n in choose_by_size(sizes, 3)] == [1, 5, 9]
    assert [sizes[n].windows for n in choose_by_size(sizes, 1)] == [5]
    assert [sizes[n].windows for n in choose_by_size(sizes, 9)] == [1, 3, 5, 7, 9]
