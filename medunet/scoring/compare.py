"""Methods against each other on the same cases: paired differences by class, and how stable their ranking is.

Cases are joined by name and label, over the cases that any method has. What cannot be averaged is never dropped
silently:

- A case that a method lacks, or that is missing or failed there, counts as in the summary: 0 in Dice, NSD and the
  like, an infinite distance. Metrics without such a value are undefined.
- An infinite distance against a finite one is lost, two infinite ones are a tie. Both are left out of the means and
  counted; in the test they have the largest rank.
- Where there is nothing to find, and one method finds nothing (undefined) but the other something, the first counts
  as perfect: 1, or a distance of 0. Else the worse of the two would get away with it.
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
_SIGNED = ("difference_ml", "relative_difference")  # compared by how far from 0 they lie
_ABSOLUTE = "absolute_"


@dataclass(frozen=True)
class PairDifference:
    """One metric of one label, first method less second, over the cases in which it is defined for both."""

    label: str
    metric: str
    first: str
    second: str
    num_cases: int
    num_undefined: int  # cases left out
    num_infinite: int  # of num_cases: left out of the means
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
    """The methods' ranks in one metric of one label; `stability` is by method, in their order."""

    label: str
    metric: str
    scheme: Scheme
    num_cases: int
    stability: RankStability


@dataclass(frozen=True)
class Comparison:
    """All that two or more methods' scores on the same cases say of each other."""

    methods: tuple[str, ...]
    labels: tuple[str, ...]  # that all methods have
    surface: str
    main_metrics: tuple[str, ...]  # Dice, the robust Hausdorff distance, NSD
    absent: dict[str, tuple[str, ...]]  # by method, the cases that only others have
    unscored: dict[str, tuple[str, ...]]  # by method, its missing and failed cases
    left_out: dict[str, tuple[str, ...]]  # by label that is not compared, the methods that have it
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
    """Compare the score tables (see `medunet.scoring.tables.read_scores`) of two or more methods, by their name.

    Raises:
        InputError: the tables were not made alike, or have no label or no metric in common.
    """
    check_comparable(tables)
    methods = tuple(tables)
    have = {method: list(dict.fromkeys(table["label"])) for method, table in tables.items()}
    every = list(dict.fromkeys(label for labels in have.values() for label in labels))
    labels = tuple(label for label in every if all(label in known for known in have.values()))
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
                chosen = [first, second]
                both = _count_right_empties(values[:, chosen], empty[:, chosen], metric)
                pairs.append(_difference(label, metric, methods[first], methods[second], both, cases))
            if metric in main:
                rankings += _rankings(label, metric, _count_right_empties(values, empty, metric))
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
            label: tuple(method for method in methods if label in have[method])
            for label in every
            if label not in labels
        },
        pairs=_correct(pairs),
        rankings=tuple(rankings),
    )


def _metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the metrics that a table holds; those that few ask for only where any row has one."""
    names = {column: _metric_of(column) for column in map(str, table)}
    return [
        name
        for column, name in names.items()
        if name and not (column in OPTIONAL_COLUMNS and table[column].isna().all())
    ]


def _metric_of(column: str) -> str:
    """Return the metric that a column is compared as; nothing for what is neither good nor bad."""
    if column in _SIGNED:
        return _ABSOLUTE + column
    return column if higher_is_better(column) or is_distance(column) else ""


def _align(tables: Mapping[str, pd.DataFrame], label: str) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return each method's rows of a label, over the cases that any has, and those cases; what lacks is "absent"."""
    own = {method: table[table["label"] == label].set_index("case") for method, table in tables.items()}
    cases = list(dict.fromkeys(case for rows in own.values() for case in rows.index))
    rows = {method: table.reindex(cases) for method, table in own.items()}
    for table in rows.values():
        table["status"] = table["status"].fillna("absent")
    return rows, cases


def _values(rows: list[pd.DataFrame], metric: str) -> NDArray[np.float64] | None:
    """Return a metric's values `(cases, methods)`; None where nobody asked for it of this label."""
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


def _count_right_empties(
    values: NDArray[np.float64], empty: NDArray[np.bool_], metric: str
) -> NDArray[np.float64]:
    """Return values `(cases, methods)` with the undefined ones of empty masks as perfect, unless all of a case are.

    `empty` says, in the same shape, where reference and prediction are both empty.
    """
    undefined = np.isnan(values)
    right = undefined & empty & ~undefined.all(axis=1, keepdims=True)
    return np.where(right, 1.0 if higher_is_better(metric) else 0.0, values)


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
    """Return the differences with each metric's p values corrected for its labels and pairs."""
    corrected: dict[int, float] = {}
    for metric in dict.fromkeys(pair.metric for pair in pairs):
        places = [place for place, pair in enumerate(pairs) if pair.metric == metric]
        corrected |= dict(zip(places, adjust_holm([pairs[place].p for place in places]), strict=True))
    return tuple(replace(pair, p_holm=corrected[place]) for place, pair in enumerate(pairs))


def _rankings(label: str, metric: str, values: NDArray[np.float64]) -> list[Ranking]:
    known = values[~np.isnan(values).any(axis=1)]
    if not len(known):
        return []
    higher = higher_is_better(metric)
    return [
        Ranking(label, metric, scheme, len(known), rank_stability(known, scheme, higher_is_better=higher))
        for scheme in SCHEMES
    ]
