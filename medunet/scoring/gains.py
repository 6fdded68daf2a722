"""Gains in Dice over patients that are not by chance: what a selection on held-out cases keeps.

The score of a case is the mean Dice over its targets, that of a patient the mean over the patient's cases, so that a
patient counts once. A case without a mask scores 0. The Dice of an empty mask and an empty reference is undefined: it
counts as 1 if anything that is compared has a mask there, and otherwise the target is left out of the case.

A gain counts if both hold, at a level for all that are tried together:

- Wilcoxon's signed-rank test over patients, one-sided and corrected by Holm, is at or below the level. It is exact,
  but sees mainly how many patients gain.
- The lower bound of the mean gain lies above 0: the bootstrap-t over patients, with the quantile of the largest of
  all ratios in a resample (max-statistic). It sees that a few patients lose much.

With fewer than `MIN_UNITS` patients there is no bound, and nothing counts. Harm that is so rare that no patient shows
it cannot be seen by any test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medunet.scoring.intervals import (
    MIN_UNITS,
    SMALLEST_ERROR,
    number_units,
    resample_counts,
)
from medunet.scoring.statistics import DECIMALS, adjust_holm, signed_rank_p

LEVEL = 0.05  # of all decisions of a selection together
_ENDS = (0.025, 0.975)  # of an interval

_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """What something gains over what it is compared with, over the patients that have a score."""

    mean_before: float
    mean: float
    gain: float
    low: float  # 95% interval of this gain by itself; NaN without one
    high: float
    bound: float  # lower one, for all that were tried together, at the level of the decision
    p: float  # one-sided
    p_holm: float  # corrected for all that were tried together
    num_patients: int
    num_better: int
    num_worse: int
    no_interval: str = ""

    def counts(self, level: float) -> bool:
        """Return whether it is a gain by the two rules of this module, at the level that its bound was made for."""
        return self.bound > 0 and self.p_holm <= level


def round_level(number: int) -> float:
    """Return the level of a decision, numbered from 1: each has half of the level that the ones before left.

    However many decisions follow one another, the chance that any of them is wrong where nothing gains stays at
    `LEVEL`.
    """
    return float(LEVEL / 2**number)


def score_patients(dice: _Floats, patients: Sequence[str]) -> _Floats:
    """Return the scores `(variants, patients)` of variants, such as configurations; patients in sorted order.

    Args:
        dice: `(variants, cases, targets)`; NaN where mask and reference are both empty, 0 for a missing mask.
        patients: the patient of each case.

    Patients without a defined target are left out, so that there may be fewer of them.
    """
    undefined = np.isnan(dice)
    filled = np.where(undefined & ~undefined.all(axis=0, keepdims=True), 1.0, dice)
    counts = (~np.isnan(filled)).sum(axis=2)
    of_case = np.nansum(filled, axis=2) / np.where(counts == 0, np.nan, counts)
    order = np.argsort(np.array(patients, dtype=object), kind="stable")
    kept = order[~np.isnan(of_case[0][order])]
    names, unit_of = number_units([patients[index] for index in kept])
    members = np.zeros((kept.size, len(names)))
    members[np.arange(kept.size), unit_of] = 1 / np.bincount(unit_of, minlength=len(names))[unit_of]
    return np.asarray(of_case[:, kept] @ members, dtype=np.float64)


def measure_gains(before: Sequence[_Floats], after: Sequence[_Floats], level: float) -> list[Gain]:
    """Return the gain of each pair of scores `(patients,)`, of the same patients in all pairs.

    Their p are corrected for the number of pairs, and their bounds hold for all pairs together at the level. The
    intervals are those of `bootstrap_intervals`.
    """
    if len(before) == 0:
        return []
    first, second = np.stack(before), np.stack(after)
    differences = np.round(second - first, DECIMALS)
    num_patients = differences.shape[1]
    corrected = adjust_holm(p_values := [signed_rank_p(row, "greater") for row in differences])
    lows, highs, bounds = _resample_means(differences, level)
    few = f"{num_patients} patient{'s' * (num_patients != 1)}, fewer than {MIN_UNITS}"
    same = f"the {num_patients} patients do not differ"
    means = [each.mean(axis=1) if num_patients else np.full(len(each), np.nan) for each in (first, second)]
    return [
        Gain(
            mean_before=float(means[0][index]),
            mean=float(means[1][index]),
            gain=float(row.mean()) if num_patients else math.nan,
            low=lows[index],
            high=highs[index],
            bound=bounds[index],
            p=p_values[index],
            p_holm=corrected[index],
            num_patients=num_patients,
            num_better=int(np.count_nonzero(row > 0)),
            num_worse=int(np.count_nonzero(row < 0)),
            no_interval=(few if num_patients < MIN_UNITS else same) if math.isnan(lows[index]) else "",
        )
        for index, row in enumerate(differences)
    ]


def _resample_means(differences: _Floats, level: float) -> tuple[list[float], list[float], list[float]]:
    """Return for each row of `(pairs, patients)` both ends of the mean's 95% interval, and its lower bound.

    By the bootstrap-t; the bounds hold for all rows together. NaN for few patients, and where they do not differ.
    """
    num_pairs, num_patients = differences.shape
    ends = np.full((3, num_pairs), np.nan)
    if num_patients >= MIN_UNITS:
        means = differences.mean(axis=1)
        residuals = differences - means[:, None]
        known = np.flatnonzero(np.abs(residuals).max(axis=1) > 10.0**-DECIMALS)
        residuals, scale = residuals[known], math.sqrt(num_patients - 1)
        errors = np.sqrt((residuals**2).mean(axis=1)) / scale
        counts = resample_counts(num_patients) / num_patients
        shifts = counts @ residuals.T
        spreads = np.sqrt(np.maximum(counts @ (residuals**2).T - shifts**2, 0)) / scale
        ratios = shifts / np.maximum(spreads, SMALLEST_ERROR * errors)
        if known.size:
            high, low = np.quantile(ratios, _ENDS, axis=0)
            bound = np.quantile(ratios.max(axis=1), 1 - level)
            ends[:, known] = means[known] - np.stack([low, high, np.full(known.size, bound)]) * errors
    return ends[0].tolist(), ends[1].tolist(), ends[2].tolist()


def choose_in_order(
    names: Sequence[str], scores: _Floats, level: float
) -> tuple[int, list[tuple[int, int, Gain]]]:
    """Choose one of several in the order given: a later one replaces an earlier one only if it gains on it.

    Args:
        names: from the simplest to the most costly.
        scores: `(names, patients)`.

    Returns:
        The index of the chosen one, and the pairs that were compared with their gains: (earlier, later, gain).
    """
    pairs = [(first, second) for second in range(len(names)) for first in range(second)]
    gains = measure_gains(
        [scores[first] for first, _ in pairs], [scores[second] for _, second in pairs], level
    )
    of_pair = dict(zip(pairs, gains, strict=True))
    chosen = 0
    for later in range(1, len(names)):
        if of_pair[chosen, later].counts(level):
            chosen = later
    return chosen, [(*pair, gain) for pair, gain in of_pair.items()]


def choose_each(groups: Sequence[str], gains: Sequence[Gain], level: float) -> dict[str, int]:
    """Return for each group, such as a target, the index of its largest gain that counts; the first of equal ones."""
    best: dict[str, int] = {}
    for index, (group, gain) in enumerate(zip(groups, gains, strict=True)):
        if gain.counts(level) and (group not in best or gain.gain > gains[best[group]].gain):
            best[group] = index
    return best
