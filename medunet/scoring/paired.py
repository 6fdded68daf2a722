"""Paired differences and rankings of methods over the same cases, label by label.

Scores are joined by case and label, over all cases that any method has. Values that cannot be averaged are never
dropped silently:

- A case that a method does not have, or that is missing or failed, counts as in the summary: 0 in Dice, NSD and
  similar metrics, infinity in distances. All other metrics are undefined.
- An infinite distance loses against a finite one; two infinite ones tie. Both are counted but left out of the means;
  in the signed-rank test an infinite difference has the largest rank.
- The cases of a patient belong together: intervals and rankings resample patients, and the signed-rank test takes one
  difference for each patient, the mean of its cases.
- If the reference is empty and only one method correctly predicts nothing, its undefined score counts as perfect: 1,
  or a distance of 0. Otherwise the false positive of the other method would have no effect.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medunet.records.scores import UNSCORED
from medunet.scoring.columns import (
    OPTIONAL_COLUMNS,
    bounds_of,
    higher_is_better,
    is_distance,
    is_metric,
    is_zero_where_unscored,
)
from medunet.scoring.intervals import bootstrap_intervals
from medunet.scoring.statistics import (
    DECIMALS,
    RankStability,
    Scheme,
    adjust_holm,
    average_by_unit,
    rank_stability,
    signed_rank_p,
)

SCHEMES: tuple[Scheme, ...] = ("mean_then_rank", "rank_then_mean")
_SIGNED = ("difference_ml", "relative_difference")  # compared by their absolute values
_ABSOLUTE = "absolute_"

Rows = dict[str, pd.DataFrame]  # by method, with the same cases in the same order


@dataclass(frozen=True)
class PairDifference:
    """Difference of two methods (first minus second) in one metric of one label, over the cases defined for both."""

    label: str
    metric: str
    first: str
    second: str
    num_cases: int
    num_undefined: int  # cases left out
    num_infinite: int  # of num_cases; left out of the means
    mean_first: float
    mean_second: float
    mean_difference: float
    low: float  # 95% bootstrap interval of the mean difference, over patients
    high: float
    p: float  # Wilcoxon's signed-rank test of the patients' mean differences, two-sided
    p_holm: float  # corrected for all labels and pairs of this metric
    wins: int  # cases in which the first is better
    ties: int
    losses: int
    num_patients: int  # behind the mean difference
    no_interval: str  # why there is no interval
    differences: dict[str, float]  # by case, infinite ones with their sign


@dataclass(frozen=True)
class Ranking:
    """The methods' ranks in one metric of one label; `stability` is in the order of the methods."""

    label: str
    metric: str
    scheme: Scheme
    num_cases: int
    stability: RankStability


def compare_cases(
    common: Mapping[str, tuple[Rows, list[str]]],
    metrics: Sequence[str],
    main: Sequence[str],
    patients: Mapping[str, str],
) -> tuple[list[PairDifference], list[Ranking]]:
    """Compare all pairs of methods in all labels and metrics, p uncorrected; rank them by the `main` ones.

    `common` has for each label the rows and cases that `align` returns, `patients` the patient of each case.
    """
    pairs: list[PairDifference] = []
    rankings: list[Ranking] = []
    for label, (rows, cases) in common.items():
        methods = list(rows)
        units = [patients[case] for case in cases]
        empty = np.stack([(table["status"] == "both_empty").to_numpy() for table in rows.values()], axis=1)
        for metric in metrics:
            values = _values(list(rows.values()), metric)
            if values is None:
                continue
            for first, second in itertools.combinations(range(len(methods)), 2):
                columns_of = [first, second]
                both = _score_correct_empties(values[:, columns_of], empty[:, columns_of], metric)
                pairs.append(_difference(label, metric, methods[first], methods[second], both, cases, units))
            if metric in main:
                rankings += _rankings(label, metric, _score_correct_empties(values, empty, metric), units)
    return pairs, rankings


def metric_of(column: str) -> str:
    """Return the metric that a column is compared as; "" where neither higher nor lower values are better."""
    if column in _SIGNED:
        return _ABSOLUTE + column
    compared = is_metric(column) and (higher_is_better(column) or is_distance(column))
    return column if compared else ""


def align(tables: Mapping[str, pd.DataFrame], label: str) -> tuple[Rows, list[str]]:
    """Return each method's rows of a label over all methods' cases, and these cases; missing rows are "absent"."""
    own = {method: table[table["label"] == label].set_index("case") for method, table in tables.items()}
    cases = list(dict.fromkeys(case for rows in own.values() for case in rows.index))
    rows = {method: table.reindex(cases) for method, table in own.items()}
    for table in rows.values():
        table["status"] = table["status"].fillna("absent")
    return rows, cases


def _values(rows: list[pd.DataFrame], metric: str) -> NDArray[np.float64] | None:
    """Return a metric's values `(cases, methods)`; None for an optional metric that no method has for this label."""
    columns = [table[metric.removeprefix(_ABSOLUTE)].to_numpy(np.float64, copy=True) for table in rows]
    if metric in OPTIONAL_COLUMNS and all(np.isnan(column).all() for column in columns):
        return None
    for table, column in zip(rows, columns, strict=True):
        failed = table["status"].isin((*UNSCORED, "absent")).to_numpy()
        if is_distance(metric):
            column[failed] = math.inf
        elif is_zero_where_unscored(metric):
            column[failed] = 0.0
    values = np.stack(columns, axis=1)
    return np.abs(values) if metric.startswith(_ABSOLUTE) else values


def _score_correct_empties(
    values: NDArray[np.float64], empty: NDArray[np.bool_], metric: str
) -> NDArray[np.float64]:
    """Return values `(cases, methods)` in which correctly empty predictions have a perfect score.

    Cases in which all methods are undefined stay undefined. `empty` has the same shape: whether reference and
    prediction are both empty.
    """
    undefined = np.isnan(values)
    is_correct = undefined & empty & ~undefined.all(axis=1, keepdims=True)
    return np.where(is_correct, 1.0 if higher_is_better(metric) else 0.0, values)


def _difference(
    label: str,
    metric: str,
    first: str,
    second: str,
    values: NDArray[np.float64],
    cases: list[str],
    units: list[str],
) -> PairDifference:
    """Compare two methods' values `(cases, 2)`; `units` is the patient of each case."""
    defined = ~np.isnan(values).any(axis=1)
    known = values[defined]
    tied = np.isinf(known).all(axis=1)
    with np.errstate(invalid="ignore"):
        differences = np.where(tied, 0.0, np.round(known[:, 0] - known[:, 1], DECIMALS))
    known_units = np.array(units, dtype=object)[defined]
    is_finite = np.isfinite(known).all(axis=1)
    finite = known[is_finite]
    smallest, largest = bounds_of(metric.removeprefix(_ABSOLUTE))
    bounds = (-math.inf, math.inf) if math.isinf(largest) else (smallest - largest, largest - smallest)
    intervals = bootstrap_intervals(finite[:, 0] - finite[:, 1], known_units[is_finite].tolist(), bounds)
    gains = differences if higher_is_better(metric) else -differences
    means = finite.mean(axis=0) if len(finite) else np.full(2, np.nan)
    return PairDifference(
        label=label,
        metric=metric,
        first=first,
        second=second,
        num_cases=len(known),
        num_undefined=len(values) - len(known),
        num_infinite=len(known) - len(finite),
        mean_first=float(means[0]),
        mean_second=float(means[1]),
        mean_difference=float(means[0] - means[1]),
        low=intervals.mean[0],
        high=intervals.mean[1],
        p=signed_rank_p(average_by_unit(differences, known_units.tolist())),
        p_holm=math.nan,
        wins=int(np.count_nonzero(gains > 0)),
        ties=int(np.count_nonzero(gains == 0)),
        losses=int(np.count_nonzero(gains < 0)),
        num_patients=intervals.num_units,
        no_interval=intervals.why_none,
        differences=dict(zip(np.array(cases)[defined].tolist(), differences.tolist(), strict=True)),
    )


def correct_p(pairs: list[PairDifference]) -> tuple[PairDifference, ...]:
    """Return the differences with p values that are corrected for all labels and pairs of a metric."""
    corrected: dict[int, float] = {}
    for metric in dict.fromkeys(pair.metric for pair in pairs):
        indices = [index for index, pair in enumerate(pairs) if pair.metric == metric]
        corrected |= dict(zip(indices, adjust_holm([pairs[index].p for index in indices]), strict=True))
    return tuple(replace(pair, p_holm=corrected[index]) for index, pair in enumerate(pairs))


def _rankings(label: str, metric: str, values: NDArray[np.float64], units: list[str]) -> list[Ranking]:
    defined = ~np.isnan(values).any(axis=1)
    known, known_units = values[defined], np.array(units, dtype=object)[defined].tolist()
    if not len(known):
        return []
    higher = higher_is_better(metric)
    return [
        Ranking(
            label,
            metric,
            scheme,
            len(known),
            rank_stability(known, scheme, higher_is_better=higher, units=known_units),
        )
        for scheme in SCHEMES
    ]
