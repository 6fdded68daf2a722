"""Comparison of methods on the same cases: paired differences by label, and stability of the ranking.

Scores are joined by case and label, over all cases that any method has. Values that cannot be averaged are never
dropped silently:

- A case that a method does not have, or that is missing or failed, counts as in the summary: 0 in Dice, NSD and
  similar metrics, infinity in distances. All other metrics are undefined.
- An infinite distance loses against a finite one; two infinite ones tie. Both are counted but left out of the means;
  in the signed-rank test an infinite difference has the largest rank.
- If the reference is empty and only one method correctly predicts nothing, its undefined score counts as perfect: 1,
  or a distance of 0. Otherwise the false positive of the other method would have no effect.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.records.scores import UNSCORED
from medunet.scoring.columns import (
    OPTIONAL_COLUMNS,
    higher_is_better,
    is_distance,
    is_zero_where_unscored,
    percentile_of,
)
from medunet.scoring.comparable import check_comparable
from medunet.scoring.statistics import (
    DECIMALS,
    RankStability,
    Scheme,
    adjust_holm,
    bootstrap_interval,
    rank_stability,
    signed_rank_p,
)

SCHEMES: tuple[Scheme, ...] = ("mean_then_rank", "rank_then_mean")
_SIGNED = ("difference_ml", "relative_difference")  # compared by their absolute values
_ABSOLUTE = "absolute_"


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
    low: float  # 95% bootstrap interval of the mean difference
    high: float
    p: float  # Wilcoxon's signed-rank test, two-sided
    p_holm: float  # corrected for all labels and pairs of this metric
    wins: int  # cases in which the first is better
    ties: int
    losses: int
    differences: dict[str, float]  # by case, infinite ones with their sign


@dataclass(frozen=True)
class Ranking:
    """The methods' ranks in one metric of one label; `stability` is in the order of the methods."""

    label: str
    metric: str
    scheme: Scheme
    num_cases: int
    stability: RankStability


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two or more methods on the same cases."""

    methods: tuple[str, ...]
    labels: tuple[str, ...]  # that all methods have in common
    surface: str
    main_metrics: tuple[str, ...]  # Dice, the robust Hausdorff distance, NSD
    absent: dict[str, tuple[str, ...]]  # by method, the cases that only other methods have
    unscored: dict[str, tuple[str, ...]]  # by method, its missing and failed cases
    left_out: dict[str, tuple[str, ...]]  # labels that are not compared, with the methods that have them
    pairs: tuple[PairDifference, ...]
    rankings: tuple[Ranking, ...]

    @property
    def letters(self) -> dict[str, str]:
        """A short name for each method: A, B, ..."""
        return {
            method: chr(ord("A") + number) if number < 26 else str(number + 1)
            for number, method in enumerate(self.methods)
        }


def compare(tables: Mapping[str, pd.DataFrame]) -> Comparison:
    """Compare two or more methods by their score tables (see `medunet.scoring.tables.read_scores`).

    Raises:
        InputError: the tables were made with different settings, or have no label or no metric in common.
    """
    check_comparable(tables)
    methods = tuple(tables)
    labels_of = {method: list(dict.fromkeys(table["label"])) for method, table in tables.items()}
    all_labels = list(dict.fromkeys(label for labels in labels_of.values() for label in labels))
    labels = tuple(label for label in all_labels if all(label in known for known in labels_of.values()))
    columns = [name for name in tables[methods[0]] if all(name in table for table in tables.values())]
    metrics = [name for name in map(_metric_of, map(str, columns)) if name]
    main = tuple(name for name in metrics if name == "dice" or percentile_of(name) or name.startswith("nsd_"))

    pairs: list[PairDifference] = []
    rankings: list[Ranking] = []
    absent: dict[str, dict[str, None]] = {method: {} for method in methods}
    unscored: dict[str, dict[str, None]] = {method: {} for method in methods}
    for label in labels:
        rows, cases = _align(tables, label)
        for method, table in rows.items():
            absent[method] |= dict.fromkeys(table.index[table["status"] == "absent"])
            unscored[method] |= dict.fromkeys(table.index[table["status"].isin(UNSCORED)])
        empty = np.stack([(table["status"] == "both_empty").to_numpy() for table in rows.values()], axis=1)
        for metric in metrics:
            values = _values(list(rows.values()), metric)
            if values is None:
                continue
            for first, second in itertools.combinations(range(len(methods)), 2):
                columns_of = [first, second]
                both = _score_correct_empties(values[:, columns_of], empty[:, columns_of], metric)
                pairs.append(_difference(label, metric, methods[first], methods[second], both, cases))
            if metric in main:
                rankings += _rankings(label, metric, _score_correct_empties(values, empty, metric))
    if not pairs:
        have_metrics = [
            f"{', '.join(_metrics_of(table)) or 'none'} in {name}" for name, table in tables.items()
        ]
        raise InputError(
            f"no metric is common to all ({'; '.join(have_metrics)})",
            where="medunet compare",
            hint="Score all methods with the same metrics.",
        )
    return Comparison(
        methods=methods,
        labels=labels,
        surface=str(next(iter(tables[methods[0]]["surface"]))),
        main_metrics=main,
        absent={method: tuple(found) for method, found in absent.items()},
        unscored={method: tuple(found) for method, found in unscored.items()},
        left_out={
            label: tuple(method for method in methods if label in labels_of[method])
            for label in all_labels
            if label not in labels
        },
        pairs=_correct(pairs),
        rankings=tuple(rankings),
    )


def _metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the metrics of a table; optional ones only if any row has a value."""
    names = {column: _metric_of(column) for column in map(str, table)}
    return [
        name
        for column, name in names.items()
        if name and not (column in OPTIONAL_COLUMNS and table[column].isna().all())
    ]


def _metric_of(column: str) -> str:
    """Return the metric that a column is compared as; "" where neither higher nor lower values are better."""
    if column in _SIGNED:
        return _ABSOLUTE + column
    return column if higher_is_better(column) or is_distance(column) else ""


def _align(tables: Mapping[str, pd.DataFrame], label: str) -> tuple[dict[str, pd.DataFrame], list[str]]:
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
    label: str, metric: str, first: str, second: str, values: NDArray[np.float64], cases: list[str]
) -> PairDifference:
    """Compare two methods' values `(cases, 2)`."""
    defined = ~np.isnan(values).any(axis=1)
    known = values[defined]
    tied = np.isinf(known).all(axis=1)
    with np.errstate(invalid="ignore"):
        differences = np.where(tied, 0.0, np.round(known[:, 0] - known[:, 1], DECIMALS))
    finite = known[np.isfinite(known).all(axis=1)]
    low, high = bootstrap_interval(finite[:, 0] - finite[:, 1])
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
        low=low,
        high=high,
        p=signed_rank_p(differences),
        p_holm=math.nan,
        wins=int(np.count_nonzero(gains > 0)),
        ties=int(np.count_nonzero(gains == 0)),
        losses=int(np.count_nonzero(gains < 0)),
        differences=dict(zip(np.array(cases)[defined].tolist(), differences.tolist(), strict=True)),
    )


def _correct(pairs: list[PairDifference]) -> tuple[PairDifference, ...]:
    """Return the differences with p values that are corrected for all labels and pairs of a metric."""
    corrected: dict[int, float] = {}
    for metric in dict.fromkeys(pair.metric for pair in pairs):
        indices = [index for index, pair in enumerate(pairs) if pair.metric == metric]
        corrected |= dict(zip(indices, adjust_holm([pairs[index].p for index in indices]), strict=True))
    return tuple(replace(pair, p_holm=corrected[index]) for index, pair in enumerate(pairs))


def _rankings(label: str, metric: str, values: NDArray[np.float64]) -> list[Ranking]:
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        return []
    higher = higher_is_better(metric)
    return [
        Ranking(label, metric, scheme, len(known), rank_stability(known, scheme, higher_is_better=higher))
        for scheme in SCHEMES
    ]
