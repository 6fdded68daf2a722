"""Intervals: none of a few patients, by patient, within natural bounds, and with the coverage they claim."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, t

from medunet.scoring import intervals
from medunet.scoring.columns import bounds_of
from medunet.scoring.intervals import bootstrap_intervals


@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_fewer_than_ten_have_no_interval_but_a_reason(size: int) -> None:
    found = bootstrap_intervals(np.linspace(0.1, 0.9, size))
    assert all(math.isnan(bound) for bound in (*found.mean, *found.median))
    assert found.num_units == size
    assert found.why_none == f"{size} case{'' if size == 1 else 's'}, fewer than 10"


def test_patients_count_and_not_their_cases() -> None:
    values = np.random.default_rng(0).beta(9, 1, 40)
    found = bootstrap_intervals(values, [f"p{number % 8}" for number in range(40)])
    assert math.isnan(found.mean[0])
    assert (found.num_units, found.why_none) == (8, "8 patients, fewer than 10")
    found = bootstrap_intervals(values, [f"p{number % 10}" for number in range(40)])
    assert found.mean[0] < values.mean() < found.mean[1]
    assert (found.num_units, found.why_none) == (10, "")


@pytest.mark.parametrize("values", [[0.5] * 12, [0.0] * 12, [0.1 + 0.2, 0.3] * 6])
def test_values_that_do_not_differ_have_no_interval(values: list[float]) -> None:
    found = bootstrap_intervals(values)
    assert math.isnan(found.mean[0])
    assert found.why_none == "the 12 cases do not differ"


def test_the_mean_of_a_normal_sample_has_the_interval_of_theory() -> None:
    values = np.random.default_rng(1).normal(10.0, 2.0, 200)
    half = 1.96 * values.std(ddof=1) / math.sqrt(200)
    low, high = bootstrap_intervals(values).mean
    assert low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.15 * half)


def test_the_interval_is_seeded_bounded_and_follows_a_skewed_sample() -> None:
    values = [1.0] * 19 + [0.0]  # mean 0.95: far below is likelier than far above
    low, high = bootstrap_intervals(values, bounds=(0.0, 1.0)).mean
    assert (low, high) == bootstrap_intervals(values, bounds=(0.0, 1.0)).mean
    assert low < 0.95 < high <= 1
    assert 0.95 - low > high - 0.95
    assert bounds_of("dice") == bounds_of("nsd_1mm") == (0.0, 1.0)
    assert bounds_of("hd95_mm") == bounds_of("reference_ml") == (0.0, math.inf)
    assert bounds_of("mcc") == (-1.0, 1.0)
    assert bounds_of("difference_ml") == (-math.inf, math.inf)


@pytest.mark.parametrize("size", [10, 40, 301])
def test_the_median_is_scipys_and_the_mean_the_bootstrap_t_of_the_book(size: int) -> None:
    values = np.random.default_rng(size).lognormal(0.0, 0.5, size)
    found = bootstrap_intervals(values)
    tail = norm.cdf(math.sqrt(size / (size - 1)) * t.ppf(0.025, size - 1))
    theirs = bootstrap(
        *((values,), np.median),
        **{"n_resamples": 2000, "vectorized": True, "method": "percentile"},
        confidence_level=1 - 2 * tail,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert found.median == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    drawn = values[np.random.default_rng(0).integers(0, size, (2000, size))]
    error = values.std(ddof=1) / math.sqrt(size)
    errors = np.maximum(drawn.std(axis=1, ddof=1) / math.sqrt(size), 0.3 * error)
    low, high = np.quantile((drawn.mean(axis=1) - values.mean()) / errors, (0.025, 0.975))
    assert found.mean == pytest.approx((values.mean() - high * error, values.mean() - low * error))


def test_a_large_sample_has_the_interval_of_scipys_bca() -> None:
    values = np.random.default_rng(4).beta(9, 1, 2000)
    theirs = bootstrap((values,), np.mean, n_resamples=2000, rng=np.random.default_rng(0)).confidence_interval
    width = theirs.high - theirs.low
    assert bootstrap_intervals(values).mean == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_units_of_one_value_are_the_values_and_of_equal_values_one_value() -> None:
    values = np.random.default_rng(5).beta(9, 1, 15)
    alone = bootstrap_intervals(values)
    assert bootstrap_intervals(values, [f"p{number}" for number in range(15)]) == alone
    twice = bootstrap_intervals(np.repeat(values, 2), np.repeat(np.arange(15), 2).tolist())
    assert twice.mean == pytest.approx(alone.mean)  # a second scan that is the first one tells nothing
    assert twice.median == pytest.approx(alone.median)
    apart = bootstrap_intervals(np.repeat(values, 2)).mean
    assert apart[1] - apart[0] < 0.8 * (alone.mean[1] - alone.mean[0])


def test_resamples_drawn_in_batches_are_as_many(monkeypatch) -> None:
    values = np.random.default_rng(2).normal(10.0, 2.0, 90)
    whole = bootstrap_intervals(values)
    monkeypatch.setattr(intervals, "_BATCH", 90 * 300)  # the last batch is of 200
    batched = bootstrap_intervals(values)
    assert batched.mean == pytest.approx(whole.mean, abs=0.05)
    assert batched.median == pytest.approx(whole.median, abs=0.1)


def test_the_interval_of_a_median_ignores_a_tail() -> None:
    values = [*np.linspace(1.0, 2.0, 30), 1000.0]
    found = bootstrap_intervals(values)
    assert 1 < found.median[0] < 1.5 < found.median[1] < 2
    assert found.mean[1] > 50


def skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return Dice around 0.9 with a tail below."""
    return generator.beta(9, 1, shape)


@pytest.mark.parametrize("size", [10, 20, 29])
def test_means_of_skewed_dice_are_covered_as_claimed(size: int) -> None:
    samples = skewed(np.random.default_rng(size), (500, size))
    found = np.array([bootstrap_intervals(sample, bounds=(0.0, 1.0)).mean for sample in samples])
    coverage = np.mean((found[:, 0] <= 0.9) & (found[:, 1] >= 0.9))
    assert 0.93 <= coverage <= 0.97


def test_two_scans_a_patient_are_covered_as_claimed() -> None:
    generator = np.random.default_rng(0)
    samples = skewed(generator, (400, 20, 1)) + generator.normal(0.0, 0.01, (400, 20, 2))
    patients = np.repeat(np.arange(20), 2).tolist()
    coverage = {}
    for name, units in (("cases", None), ("patients", patients)):
        found = np.array([bootstrap_intervals(sample.ravel(), units).mean for sample in samples])
        coverage[name] = np.mean((found[:, 0] <= 0.9) & (found[:, 1] >= 0.9))
    assert 0.93 <= coverage["patients"] <= 0.97
    assert coverage["cases"] < 0.88
