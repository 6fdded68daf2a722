"""Tests and rankings over cases, with all cases of a patient together; resampling is seeded."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, wilcoxon

from medunet.scoring.intervals import MIN_UNITS, number_units

Scheme = Literal["mean_then_rank", "rank_then_mean"]

MIN_PAIRS = 6  # with fewer, the smallest two-sided p of the signed-rank test is 2 / 2**5 = 0.06
DECIMALS = 9  # smaller differences are rounding errors
_MAX_EXACT = 50  # pairs up to which the signed-rank test is exact, as in SciPy
_SEED = 0
_NUM_RANKINGS = 1000  # as in challengeR


def signed_rank_p(
    differences: Sequence[float] | NDArray[np.float64],
    alternative: Literal["two-sided", "greater"] = "two-sided",
) -> float:
    """Return the p of Wilcoxon's signed-rank test that paired differences are symmetric around 0.

    By default it is two-sided; with the alternative "greater" it is one-sided, small if they lie above 0.

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
        return _exact_signed_rank_p(finite, alternative)
    return np.asarray(wilcoxon(finite, method="asymptotic", alternative=alternative).pvalue).item()


def average_by_unit(
    differences: Sequence[float] | NDArray[np.float64], units: Sequence[Hashable]
) -> NDArray[np.float64]:
    """Return one difference for each unit, such as a patient: the mean of its cases' differences.

    Infinite differences outweigh finite ones: as many of both signs cancel each other, else the more frequent sign is
    infinite. With one case a unit, the differences are returned as they are. The signed-rank test assumes independent
    differences; on means over patients it is exact, as on patients with one case each. (Alternative: the clustered
    signed-rank test of Rosner, Glynn and Lee 2006, which holds for many patients only.)
    """
    values = np.asarray(differences, dtype=np.float64)
    names, unit_of = number_units(units)
    averages = []
    for number in range(len(names)):
        own = values[unit_of == number]
        infinite = np.isinf(own)
        balance = float(np.sign(own[infinite]).sum())
        finite = own[~infinite]
        averages.append(balance * math.inf if balance else float(finite.mean()) if finite.size else 0.0)
    return np.array(averages)


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
    no tau, and a cohort of fewer than `MIN_UNITS` patients has no `tau_low`.
    """

    scores: tuple[float, ...]  # mean over the cases with a finite value, or mean rank within a case
    ranks: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]  # shares of resamples in which the method has rank 1, 2, ...
    tau_mean: float
    tau_low: float


def rank_stability(
    values: NDArray[np.float64],
    scheme: Scheme,
    *,
    higher_is_better: bool,
    units: Sequence[Hashable] | None = None,
) -> RankStability:
    """Rank methods by `values` `(cases, methods)`, also in bootstrap resamples (Wiesenfarth et al. 2021).

    `units` names the patient of each case: whole patients are resampled. Without it every case is drawn by itself.

    "mean_then_rank" ranks the means over cases; "rank_then_mean" ranks the mean of the ranks within each case, where
    ties share their mean rank (in challengeR the better one). Values must not be NaN. Infinite values are worse than
    finite ones: a method with more infinite values has the worse rank, regardless of its other values.
    """
    num_cases, num_methods = values.shape
    costs = -values if higher_is_better else values
    within = rankdata(np.round(costs, DECIMALS), axis=1)
    names, unit_of = number_units(range(num_cases) if units is None else units)
    drawn = np.random.default_rng(_SEED).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=_NUM_RANKINGS
    )
    weights = drawn[:, unit_of]
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
        tau_low=float(np.percentile(taus, 2.5)) if taus.size and len(names) >= MIN_UNITS else math.nan,
    )


def _exact_signed_rank_p(differences: NDArray[np.float64], alternative: str) -> float:
    """Return the share of all 2ⁿ sign combinations whose rank sum is as extreme as that of n nonzero differences.

    With "greater", sums of negative ranks that are as small count alone.
    Ties share their mean rank. SciPy enumerates all sign combinations if there are ties: 0.6 s for 13 differences.
    """
    # Doubled, since a mean rank may end in .5.
    ranks = np.rint(2 * rankdata(np.abs(differences))).astype(np.int64)
    num_subsets = np.zeros(ranks.sum() + 1)  # number of subsets of the ranks, by their sum
    num_subsets[0] = 1
    for rank in ranks.tolist():
        num_subsets[rank:] += num_subsets[:-rank].copy()
    positive, negative = ranks[differences > 0].sum(), ranks[differences < 0].sum()
    if alternative == "greater":
        return float(num_subsets[: negative + 1].sum()) / 2.0**differences.size
    smaller = min(positive, negative)
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
