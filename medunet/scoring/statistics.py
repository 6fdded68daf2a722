"""Confidence intervals, tests and rankings over cases. All resampling is seeded, so results are reproducible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata, wilcoxon

Scheme = Literal["mean_then_rank", "rank_then_mean"]

MIN_PAIRS = 6  # with fewer, the smallest two-sided p of the signed-rank test is 2 / 2**5 = 0.06
DECIMALS = 9  # smaller differences are rounding errors
_MAX_EXACT = 50  # pairs up to which the signed-rank test is exact, as in SciPy
_SEED = 0
_ENDS = (0.025, 0.975)
_NUM_RESAMPLES = 2000
_NUM_RANKINGS = 1000  # as in challengeR
_BATCH = 4_000_000  # values drawn at once
_CONSTANT = 1e-12  # relative: a sample with a smaller range is constant


@dataclass(frozen=True)
class Intervals:
    """The 95% bootstrap intervals of a sample's mean and median; (NaN, NaN) if undefined."""

    mean: tuple[float, float]
    median: tuple[float, float]


def bootstrap_interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the mean of finite values (see `bootstrap_intervals`)."""
    return bootstrap_intervals(values).mean


def bootstrap_intervals(values: Sequence[float] | NDArray[np.float64]) -> Intervals:
    """Return the 95% bootstrap intervals of mean and median of finite values, both from the same resamples.

    Values, one for each case, are resampled with replacement. The interval of the mean is bias-corrected and
    accelerated (BCa, Efron 1987), which suits skewed samples such as Dice. The interval of the median is the
    percentile interval: BCa's acceleration is a jackknife estimate, and leaving out one value gives only two or three
    different medians. Fewer than two values have no intervals; a constant sample has intervals of zero width.
    """
    sample = np.asarray(values, dtype=np.float64)
    size = sample.size
    if size < 2:
        return Intervals((math.nan, math.nan), (math.nan, math.nan))
    if np.ptp(sample) <= _CONSTANT * np.abs(sample).max():
        value = float(sample.mean())
        return Intervals((value, value), (value, value))
    generator = np.random.default_rng(_SEED)
    means, medians = np.empty(_NUM_RESAMPLES), np.empty(_NUM_RESAMPLES)
    step = max(1, _BATCH // size)
    for start in range(0, _NUM_RESAMPLES, step):
        rows = slice(start, min(start + step, _NUM_RESAMPLES))
        resamples = sample[generator.integers(0, size, (rows.stop - start, size))]
        means[rows] = resamples.mean(axis=1)
        resamples.sort(axis=1)  # faster than NumPy's median
        medians[rows] = (resamples[:, (size - 1) // 2] + resamples[:, size // 2]) / 2
    low, high = np.quantile(medians, _ENDS).tolist()
    return Intervals(_bca_interval(sample, means), (low, high))


def signed_rank_p(differences: Sequence[float] | NDArray[np.float64]) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test that paired differences are symmetric around 0.

    The test is exact for up to 50 differences, with or without ties, and uses the normal approximation for more (as
    SciPy). Zeros are dropped, as by Wilcoxon; if all differences are zero, p is 1. Infinite differences have the
    largest rank. NaN for fewer than `MIN_PAIRS` differences including zeros, which cannot reach p < 0.05.
    """
    rounded = np.round(np.asarray(differences, dtype=np.float64), DECIMALS)
    if rounded.size < MIN_PAIRS:
        return math.nan
    nonzero = rounded[rounded != 0]
    if not nonzero.size:
        return 1.0
    infinite = np.isinf(nonzero)
    largest = float(np.abs(nonzero[~infinite]).max(initial=0.0)) + 1
    finite = np.where(infinite, np.sign(nonzero) * largest, nonzero)
    if finite.size <= _MAX_EXACT:
        return _exact_signed_rank_p(finite)
    return np.asarray(wilcoxon(finite, method="asymptotic").pvalue).item()


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for multiple testing (Holm 1979), in their order; NaN stays and is not counted."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(known.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


@dataclass(frozen=True)
class RankStability:
    """Ranks of methods over all cases, and how often they occur in bootstrap resamples; each tuple is by method.

    Tied methods share the better rank. `tau_mean` and `tau_low` are mean and 2.5% percentile of Kendall's tau-b
    between the ranking of a resample and that of all cases: 1 if they agree. Resamples in which all methods tie have
    no tau.
    """

    scores: tuple[float, ...]  # mean over the cases with a finite value, or mean rank within a case
    ranks: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]  # shares of resamples in which the method has rank 1, 2, ...
    tau_mean: float
    tau_low: float


def rank_stability(values: NDArray[np.float64], scheme: Scheme, *, higher_is_better: bool) -> RankStability:
    """Rank methods by `values` `(cases, methods)`, also in bootstrap resamples (Wiesenfarth et al. 2021).

    "mean_then_rank" ranks the means over cases; "rank_then_mean" ranks the mean of the ranks within each case, where
    ties share their mean rank (in challengeR the better one). Values must not be NaN. Infinite values are worse than
    finite ones: a method with more infinite values has the worse rank, regardless of its other values.
    """
    num_cases, num_methods = values.shape
    costs = -values if higher_is_better else values
    within = rankdata(np.round(costs, DECIMALS), axis=1)
    weights = np.random.default_rng(_SEED).multinomial(
        num_cases, np.full(num_cases, 1 / num_cases), size=_NUM_RANKINGS
    )
    once = np.ones((1, num_cases), dtype=np.int64)
    if scheme == "rank_then_mean":
        full, resampled = _rank(once @ within), _rank(weights @ within)
        scores = within.mean(axis=0)
    else:
        full, resampled = _rank(_mean_cost(once, costs)), _rank(_mean_cost(weights, costs))
        finite = np.isfinite(values)
        totals, counts = np.where(finite, values, 0.0).sum(axis=0), finite.sum(axis=0)
        scores = np.divide(totals, counts, out=np.full(num_methods, np.nan), where=counts > 0)
    taus = _kendall_tau(resampled, full)
    taus = taus[~np.isnan(taus)]
    return RankStability(
        scores=tuple(scores.tolist()),
        ranks=tuple(full[0].tolist()),
        shares=tuple(
            tuple(float(np.mean(column == rank)) for rank in range(1, num_methods + 1))
            for column in resampled.T
        ),
        tau_mean=float(taus.mean()) if taus.size else math.nan,
        tau_low=float(np.percentile(taus, 2.5)) if taus.size else math.nan,
    )


def _bca_interval(sample: NDArray[np.float64], means: NDArray[np.float64]) -> tuple[float, float]:
    """Return the BCa interval of a sample's mean from the means of its resamples (Efron, Tibshirani 1993, 14.3)."""
    mean = sample.mean()
    share_below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * means.size)
    bias = ndtri(share_below)
    deviations = sample - mean  # proportional to the jackknife differences
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    ends = bias + ndtri(np.array(_ENDS))
    low, high = np.quantile(means, ndtr(bias + ends / (1 - acceleration * ends))).tolist()
    return low, high


def _exact_signed_rank_p(differences: NDArray[np.float64]) -> float:
    """Return the share of all 2ⁿ sign combinations whose rank sum is as extreme as that of n nonzero differences.

    Ties share their mean rank. SciPy enumerates all sign combinations if there are ties: 0.6 s for 13 differences.
    """
    # Doubled, since a mean rank may end in .5.
    ranks = np.rint(2 * rankdata(np.abs(differences))).astype(np.int64)
    num_subsets = np.zeros(ranks.sum() + 1)  # number of subsets of the ranks, by their sum
    num_subsets[0] = 1
    for rank in ranks.tolist():
        num_subsets[rank:] += num_subsets[:-rank].copy()
    smaller = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    return min(1.0, 2 * float(num_subsets[: smaller + 1].sum()) / 2.0**differences.size)


def _mean_cost(weights: NDArray[np.int64], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return costs `(resamples, methods)` that order by the number of infinite values, then by the mean."""
    infinite = np.isinf(costs)
    finite = np.where(infinite, 0.0, costs)
    counts = weights @ (~infinite).astype(np.int64)
    means = np.divide(weights @ finite, counts, out=np.zeros(counts.shape), where=counts > 0)
    penalty = 2 * float(np.abs(finite).max()) + 1  # larger than the difference of any two means
    return np.asarray(penalty * (weights @ infinite.astype(np.int64)) + means, dtype=np.float64)


def _rank(costs: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return ranks 1, 2, ... within each row, by ascending cost; equal costs share the better rank."""
    rounded = np.round(costs, DECIMALS)
    return 1 + np.count_nonzero(rounded[:, None, :] < rounded[:, :, None], axis=2)


def _kendall_tau(ranks: NDArray[np.int64], full: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return tau-b of each row of ranks `(R, methods)` with `full` `(1, methods)`; NaN if all methods tie."""
    first, second = np.triu_indices(full.shape[1], 1)
    order, full_order = (np.sign(each[:, first] - each[:, second]) for each in (ranks, full))
    norm = np.sqrt((order**2).sum(axis=1) * (full_order**2).sum())
    return np.divide((order * full_order).sum(axis=1), norm, out=np.full(len(ranks), np.nan), where=norm > 0)
