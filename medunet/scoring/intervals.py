"""95% bootstrap intervals of means and medians over patients; with fewer than 10 patients there is none, and why."""

import math
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

MIN_UNITS = 10  # with 2 to 9 the intervals of skewed scores cover 50% to 90%
UNBOUNDED = (-math.inf, math.inf)
_ENDS = (0.025, 0.975)
SMALLEST_ERROR = 0.3  # of a resample, as a share of the sample's standard error
_SEED = 0
_NUM_RESAMPLES = 2000
_BATCH = 4_000_000  # counts in memory at once
_EQUAL = 1e-12  # relative: a smaller spread is rounding

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Intervals:
    """The 95% intervals of a sample's mean and median, (NaN, NaN) where there is none, for the reason `why_none`."""

    mean: tuple[float, float]
    median: tuple[float, float]
    num_units: int  # patients, or whatever is independent of one another
    why_none: str = ""


def bootstrap_intervals(
    values: Sequence[float] | _Floats,
    units: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Intervals:
    """Return the 95% bootstrap intervals of mean and median of finite values, both from the same resamples.

    Whole units are resampled with replacement: `units` names the patient of each value, since the scans of a patient
    are alike. Without it every value is a unit. Fewer than `MIN_UNITS` units, or units that do not differ, have no
    intervals.

    The interval of the mean is the bootstrap-t (Efron and Tibshirani 1993, 12.5), with the standard error of a ratio
    of sums over units (Cochran 1977, 6.3): with one value a unit, that of a mean. A resample without the few units
    that differ has a standard error near 0; it counts as 0.3 of the sample's, which keeps the coverage and narrows
    the interval. The ends are cut at `bounds`, such as (0, 1) for Dice. The interval of the median is the percentile
    interval, its percentiles widened for small samples (Hesterberg 2015, 5.2). `benchmarks/interval_coverage.py`
    measures the coverage of both.
    """
    sample = np.asarray(values, dtype=np.float64)
    names, unit_of = number_units(range(sample.size) if units is None else units)
    num_units, none = len(names), (math.nan, math.nan)
    if num_units < MIN_UNITS:
        return Intervals(
            none, none, num_units, f"{count_units(num_units, sample.size)}, fewer than {MIN_UNITS}"
        )
    sizes = np.bincount(unit_of).astype(np.float64)
    mean = float(sample.mean())
    residuals = np.bincount(unit_of, sample - mean)  # of each unit's sum
    error = math.sqrt(num_units / (num_units - 1) * float(residuals @ residuals)) / sample.size
    if error <= _EQUAL * max(abs(mean), float(np.abs(sample).max())):
        why = f"the {count_units(num_units, sample.size)} do not differ"
        return Intervals(none, none, num_units, why)
    order = np.argsort(sample, kind="stable")
    ordered, ordered_unit = sample[order], unit_of[order]
    moments = np.stack([sizes, residuals, residuals**2, residuals * sizes, sizes**2], axis=1)
    ratios, medians = [], []
    for counts in _resample(num_units, sample.size):
        total, shift, squares, products, squared_sizes = (counts @ moments).T
        shift = shift / total
        # The residuals of a resample are around its own mean: r - shift * size.
        variance = squares - 2 * shift * products + shift**2 * squared_sizes
        errors = np.sqrt(num_units / (num_units - 1) * np.maximum(variance, 0)) / total
        ratios.append(shift / np.maximum(errors, SMALLEST_ERROR * error))
        medians.append(_weighted_medians(ordered, counts[:, ordered_unit]))
    low, high = np.quantile(np.concatenate(ratios), _ENDS)
    tail = float(ndtr(math.sqrt(num_units / (num_units - 1)) * stdtrit(num_units - 1, _ENDS[0])))
    of_median = np.quantile(np.concatenate(medians), (tail, 1 - tail)).tolist()
    return Intervals(
        (max(float(mean - high * error), bounds[0]), min(float(mean - low * error), bounds[1])),
        (of_median[0], of_median[1]),
        num_units,
    )


def count_units(num_units: int, num_values: int) -> str:
    """Return the number of units as text: cases, or patients if any has several values."""
    name = "case" if num_units == num_values else "patient"
    return f"{num_units} {name}{'' if num_units == 1 else 's'}"


def number_units(units: Iterable[Hashable]) -> tuple[list[Hashable], NDArray[np.int64]]:
    """Return the distinct units in order of appearance, and the index of each value's unit."""
    given = list(units)
    index = {name: number for number, name in enumerate(dict.fromkeys(given))}
    return list(index), np.array([index[name] for name in given], dtype=np.int64)


def describe_intervals() -> str:
    """Describe for scores.json and comparison.json how the intervals were made."""
    return (
        "95%, bootstrap over patients (mean: bootstrap-t; median: expanded percentile), "
        f"null with fewer than {MIN_UNITS} patients"
    )


def _resample(num_units: int, num_values: int) -> Iterator[_Floats]:
    """Yield counts `(resamples, units)`: how often each unit is in each of the resamples."""
    step = max(1, _BATCH // max(num_units, num_values))
    if step >= _NUM_RESAMPLES:
        yield resample_counts(num_units)
        return
    generator = np.random.default_rng(_SEED)
    for start in range(0, _NUM_RESAMPLES, step):
        yield _draw(generator, num_units, min(step, _NUM_RESAMPLES - start))


@lru_cache(maxsize=4)
def resample_counts(num_units: int) -> _Floats:
    """Return counts `(resamples, units)`: how often each unit is in each resample, the same for all metrics."""
    return _draw(np.random.default_rng(_SEED), num_units, _NUM_RESAMPLES)


def _draw(generator: np.random.Generator, num_units: int, num_resamples: int) -> _Floats:
    drawn = generator.integers(0, num_units, (num_resamples, num_units))
    drawn += num_units * np.arange(num_resamples)[:, None]
    flat = np.bincount(drawn.ravel(), minlength=num_units * num_resamples)
    return flat.reshape(num_resamples, num_units).astype(np.float64)


def _weighted_medians(ordered: _Floats, counts: _Floats) -> _Floats:
    """Return the medians of resamples; `counts` `(resamples, values)` are those of the ordered values."""
    below = np.cumsum(counts, axis=1)
    half = below[:, -1:] / 2
    lower, upper = (below < half).sum(axis=1), (below <= half).sum(axis=1)
    return np.asarray((ordered[lower] + ordered[upper]) / 2, dtype=np.float64)
