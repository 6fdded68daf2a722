"""What a cohort's scores come to, with nothing hidden: counts stand beside every mean.

A missing or failed case counts as 0 in the means of overlaps that measure what was found (see
`is_zero_where_unscored`), and has no other value. An infinite distance is counted, never averaged; beside the mean
over the finite ones stands that with failures at a penalty. That of a mask's distances is the field of view's
diagonal, for each miss and each missing or failed case. Lesions have their rules' own, 374 mm in BraTS 2023, which is
in every case's mean over lesions already and so is added for missing and failed cases only; rules without a penalty
(LiTS, panoptic) have no penalised mean.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from medunet.records.scores import UNSCORED, CaseScore
from medunet.scoring.columns import LESION_COLUMNS, is_distance, is_zero_where_unscored, metric_columns
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.statistics import bootstrap_intervals

_LESION_PENALTIES_MM: dict[str, float | None] = {name: rules.penalty_mm for name, rules in PRESETS.items()}


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """Mean and median of one metric over `num_finite` values (NaN where none), and what is not among them.

    The zeros that stand for missing and failed cases are among the finite values. `..._low` and `..._high` are the
    95% bootstrap interval (see `bootstrap_intervals`), NaN for fewer than two values. The penalised mean and median
    are of distances only, NaN for other metrics: there an infinite one and a missing or failed case count as
    `penalty` says, "" where there is none. That is the diagonal of the case's field of view, or the largest of the
    cohort where it is not known; of lesions' distances what their rules set.
    """

    mean: float
    mean_low: float
    mean_high: float
    median: float
    median_low: float
    median_high: float
    mean_penalised: float = math.nan
    mean_penalised_low: float = math.nan
    mean_penalised_high: float = math.nan
    median_penalised: float = math.nan
    median_penalised_low: float = math.nan
    median_penalised_high: float = math.nan
    penalty: str = ""
    num_expected: int
    num_finite: int
    num_undefined: int
    num_infinite: int


@dataclass(frozen=True)
class LabelSummary:
    """One target over all cases: expected = scored + missing + failed; metrics by their column's name."""

    label: str
    num_expected: int
    num_scored: int
    num_both_empty: int
    num_missed: int
    num_false_positive: int
    num_missing: int
    num_failed: int
    metrics: dict[str, MetricSummary]


@dataclass(frozen=True)
class _Penalty:
    """What a failure costs in a metric, case by case, and where that is from."""

    name: str
    costs_mm: list[float]


@dataclass(frozen=True)
class _Row:
    """One target of one case, from wherever; its metrics by column."""

    label: str
    status: str
    metrics: Mapping[str, float]
    rules: str = ""  # of its lesions
    penalty_mm: float = math.nan


def summarise(scores: Sequence[CaseScore], names: Sequence[str] | None = None) -> list[LabelSummary]:
    """Summarise each label, in the order of first appearance: all its metrics, or those of the named columns."""
    columns = metric_columns(scores)
    columns = {name: columns[name] for name in (columns if names is None else names)}
    largest = max(
        (score.penalty_mm for score in scores if not math.isnan(score.penalty_mm)), default=math.nan
    )
    rows = [
        _Row(
            score.label,
            score.status,
            {name: get(score) for name, get in columns.items()},
            score.lesions.rules if score.lesions else "",
            largest if math.isnan(score.penalty_mm) else score.penalty_mm,
        )
        for score in scores
    ]
    return _summarise_rows(rows, list(columns))


def summarise_table(table: pd.DataFrame, names: Sequence[str]) -> list[LabelSummary]:
    """Summarise the named columns of a scores.csv; it does not hold the field of view, so misses have no penalty."""
    rules = table["lesion_rules"] if "lesion_rules" in table else [""] * len(table)
    values = table[list(names)].to_dict("records")
    rows = [
        _Row(label, status, {str(name): float(value) for name, value in own.items()}, rule)
        for label, status, own, rule in zip(table["label"], table["status"], values, rules, strict=True)
    ]
    return _summarise_rows(rows, names)


def mean_dice(scores: Sequence[CaseScore]) -> float:
    """Return the mean over cases of the mean over classes; NaN where nothing is defined.

    Classes that both masks lack are left out; a missing or failed case counts as 0.
    """
    return _mean([dice for dice in dice_by_case(scores).values() if not math.isnan(dice)])


def dice_by_case(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Return each case's mean Dice over its classes: 0 if missing or failed, NaN if all are both empty."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        dice = 0.0 if score.status in UNSCORED else score.dice
        by_case.setdefault(score.case, []).extend([] if math.isnan(dice) else [dice])
    return {case: _mean(values) for case, values in by_case.items()}


def _summarise_rows(rows: Sequence[_Row], names: Sequence[str]) -> list[LabelSummary]:
    return [
        _summarise_label(label, [row for row in rows if row.label == label], names)
        for label in dict.fromkeys(row.label for row in rows)
    ]


def _summarise_label(label: str, rows: Sequence[_Row], names: Sequence[str]) -> LabelSummary:
    status = Counter(row.status for row in rows)
    of_view = _Penalty("diagonal of the field of view", [row.penalty_mm for row in rows])
    of_lesions = _lesion_penalty(rows)
    with_lesions = any(row.rules for row in rows) or _any_defined(rows, LESION_COLUMNS)
    asked = {**dict.fromkeys(LESION_COLUMNS, with_lesions), "cldice": _any_defined(rows, ["cldice"])}
    metrics = {}
    for name in names:
        values = [row.metrics[name] for row in rows if row.status not in UNSCORED]
        penalty = None
        if not asked.get(name, True):
            pass  # nobody asked for it of this target: an unscored case has no failure in it
        elif is_distance(name):
            penalty = of_lesions if name in LESION_COLUMNS else of_view
        elif is_zero_where_unscored(name):
            values += [0.0] * (len(rows) - len(values))
        metrics[name] = _summarise_metric(values, len(rows))
        if penalty is not None:
            costs_mm = [math.inf if row.status in UNSCORED else row.metrics[name] for row in rows]
            metrics[name] = _penalise(metrics[name], costs_mm, penalty)
    num_unscored = sum(status[name] for name in UNSCORED)
    return LabelSummary(
        label=label,
        num_expected=len(rows),
        num_scored=len(rows) - num_unscored,
        num_both_empty=status["both_empty"],
        num_missed=status["missed"],
        num_false_positive=status["false_positive"],
        num_missing=status["missing"],
        num_failed=status["failed"],
        metrics=metrics,
    )


def _summarise_metric(values: list[float], num_expected: int) -> MetricSummary:
    finite = [value for value in values if math.isfinite(value)]
    return MetricSummary(
        **_averages(finite),
        num_expected=num_expected,
        num_finite=len(finite),
        num_undefined=sum(math.isnan(value) for value in values),
        num_infinite=sum(math.isinf(value) for value in values),
    )


def _penalise(metric: MetricSummary, costs_mm: list[float], penalty: _Penalty) -> MetricSummary:
    """Return a metric with its penalised mean and median; of `costs_mm`, by case, those of failures are infinite."""
    if any(math.isnan(price) for price in penalty.costs_mm):
        return metric  # nobody knows what a failure costs
    penalised = [
        price if math.isinf(cost) else cost
        for cost, price in zip(costs_mm, penalty.costs_mm, strict=True)
        if not math.isnan(cost)
    ]
    return replace(metric, **_averages(penalised, "_penalised"), penalty=penalty.name)


def _averages(values: list[float], which: str = "") -> dict[str, Any]:
    """Return mean and median of finite values with their intervals, by the names of `MetricSummary`."""
    intervals = bootstrap_intervals(values)
    middles = {"mean": _mean(values), "median": float(np.median(values)) if values else math.nan}
    averages: dict[str, Any] = {}
    for name, middle in middles.items():
        low, high = getattr(intervals, name)
        averages |= {f"{name}{which}": middle, f"{name}{which}_low": low, f"{name}{which}_high": high}
    return averages


def _lesion_penalty(rows: Sequence[_Row]) -> _Penalty | None:
    """Return what the rules of a target's lesions set for a failure; None where they set nothing."""
    rules = next((row.rules for row in rows if row.rules), "")
    penalty_mm = _LESION_PENALTIES_MM.get(rules)
    return None if penalty_mm is None else _Penalty(f"{penalty_mm:g} mm ({rules})", [penalty_mm] * len(rows))


def _any_defined(rows: Sequence[_Row], names: Iterable[str]) -> bool:
    return any(not math.isnan(row.metrics.get(name, math.nan)) for row in rows for name in names)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
