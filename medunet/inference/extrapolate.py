"""From the time and size of a few predicted cases to those of a cohort, with the range that so few allow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

_LEAST_RANGE = 0.1  # of a time, either way: what else the computer does is not measured


@dataclass(frozen=True)
class CaseSize:
    """How large a case is, by its files' headers."""

    windows: int
    voxels: int  # of all channels


@dataclass(frozen=True)
class MeasuredCase:
    """What predicting a case took."""

    size: CaseSize
    compute_s: float  # the network, and deciding on labels
    front_s: float  # reading and preparing before it
    back_s: float  # tidying and writing after it, beside the next case if a core is left
    mask_bytes: int


@dataclass(frozen=True)
class CohortTime:
    """Time of a cohort on one worker, and its masks' size."""

    seconds: float
    seconds_range: tuple[float, float] | None
    mask_bytes: float


def extrapolate(
    measured: Sequence[MeasuredCase], sizes: Sequence[CaseSize], num_cases: int, *, back_is_hidden: bool
) -> CohortTime:
    """Return what `num_cases` cases take whose sizes are distributed as `sizes`.

    The network's time is `a + b * windows`; reading, preparing, tidying, writing and the mask's bytes are
    `a + b * voxels`; see `fit_line`. The range is the jackknife's 95% interval over the measured cases, and at least
    10% either way; there is none from one case.

    Args:
        back_is_hidden: tidying and writing run beside the next case, and cost no time of their own.
    """
    windows, voxels = (
        np.array([getattr(each, name) for each in sizes], float) for name in ("windows", "voxels")
    )

    def total(cases: Sequence[MeasuredCase], value: Callable[[MeasuredCase], float], by: str) -> float:
        at = windows if by == "windows" else voxels
        intercept, slope = fit_line(
            np.array([getattr(each.size, by) for each in cases], float),
            np.array([value(each) for each in cases], float),
        )
        return num_cases * float(np.mean(intercept + slope * at))

    def seconds(cases: Sequence[MeasuredCase]) -> float:
        before = total(cases, lambda case: case.compute_s, "windows")
        before += total(cases, lambda case: case.front_s, "voxels")
        after = total(cases, lambda case: case.back_s, "voxels")
        return max(before, after) if back_is_hidden else before + after

    taken = seconds(measured)
    interval = None
    if len(measured) > 1:
        count = len(measured)
        without = np.array([seconds([*measured[:n], *measured[n + 1 :]]) for n in range(count)])
        error = float(np.sqrt((count - 1) / count * np.sum((without - without.mean()) ** 2)))
        half = max(float(stdtrit(count - 1, 0.975)) * error, _LEAST_RANGE * taken)
        interval = max(0.0, taken - half), taken + half
    return CohortTime(taken, interval, total(measured, lambda case: case.mask_bytes, "voxels"))


def fit_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Return intercept and slope of `y` over positive `x`, neither of them negative, by least squares.

    Rows are weighted by 1 / x, since larger cases scatter more: a line through 0 has the slope sum(y) / sum(x). If
    all `x` are equal, the line goes through 0.
    """
    through_zero = 0.0, float(y.sum() / x.sum())
    constant = float(np.average(y, weights=1 / x)), 0.0
    if np.ptp(x) == 0:
        return through_zero
    slope, intercept = np.polyfit(x, y, 1, w=np.sqrt(1 / x))
    if intercept < 0:
        return through_zero
    return constant if slope < 0 else (float(intercept), float(slope))


def choose_by_size(sizes: Sequence[CaseSize], count: int) -> list[int]:
    """Return the places of `count` cases to measure: at evenly spaced ranks of size, with smallest and largest."""
    order = sorted(range(len(sizes)), key=lambda n: (sizes[n].windows, sizes[n].voxels, n))
    if count >= len(order):
        return order
    ranks = np.linspace(0, len(order) - 1, count) if count > 1 else [(len(order) - 1) / 2]
    return [order[round(rank)] for rank in ranks]
