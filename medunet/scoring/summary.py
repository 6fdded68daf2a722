"""Summary of a cohort's scores: means and medians of every metric, with the counts of values behind them.

A missing or failed case counts as 0 in the means of overlap metrics (see `is_zero_where_unscored`) and has no value
in all others. Infinite distances are counted but not averaged. Next to the mean over the finite distances there is a
penalised mean, in which failures count as a penalty. For distances of masks the penalty is the diagonal of the field
of view, for each miss, false positive, missing and failed case. For distances of lesions it is set by their rules
(374 mm in BraTS 2023): a case's mean over lesions already includes it, so it is only added for missing and failed
cases. Rules without a penalty (LiTS, panoptic) have no penalised mean.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from medunet.records.scores import UNSCORED, CaseScore
from medunet.scoring.columns import (
    LESION_COLUMNS,
    bounds_of,
    is_distance,
    is_zero_where_unscored,
    metric_columns,
)
from medunet.scoring.intervals import bootstrap_intervals
from medunet.scoring.lesion_presets import PRESETS

_LESION_PENALTIES_MM: dict[str, float | None] = {name: rules.penalty_mm for name, rules in PRESETS.items()}


@dataclass(frozen=True, kw_only=True)
class MetricSummary:
    """Mean and median of one metric over `num_finite` values (NaN if there are none), and counts of other values.

    The finite values include the zeros of missing and failed cases. `..._low` and `..._high` are the 95% bootstrap
    interval over patients (see `bootstrap_intervals`), NaN where there is none, for the reason `no_interval`. Only
    distances have a penalised mean and median (NaN for other metrics), in which infinite distances and missing or
    failed cases count as a penalty. `penalty` describes it, "" if there is none: the diagonal of the case's field of
    view, or the largest diagonal of the cohort if it is unknown; for distances of lesions, that of their rules.
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
    num_patients: int = 0  # behind the finite values; 0 in files before 0.7
    no_interval: str = ""


@dataclass(frozen=True)
class MeanDice:
    """Mean over cases of the mean Dice over targets, with its 95% interval over patients as in `MetricSummary`."""

    mean: float
    low: float
    high: float
    num_cases: int  # with a defined Dice
    num_patients: int
    no_interval: str


@dataclass(frozen=True)
class LabelSummary:
    """Summary of one target over all cases: expected = scored + missing + failed; metrics by column name."""

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
    """The penalty of a failure for each case, and its description."""

    name: str
    costs_mm: list[float]


@dataclass(frozen=True)
class _Row:
    """One target of one case, from scores or from a table, with its metrics by column."""

    label: str
    status: str
    metrics: Mapping[str, float]
    unit: str  # its patient
    rules: str = ""  # of its lesions
    penalty_mm: float = math.nan


def summarise(scores: Sequence[CaseScore], names: Sequence[str] | None = None) -> list[LabelSummary]:
    """Summarise each label, in order of first appearance: all metrics, or only the named columns."""
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
            score.unit,
            score.lesions.rules if score.lesions else "",
            largest if math.isnan(score.penalty_mm) else score.penalty_mm,
        )
        for score in scores
    ]
    return _summarise_rows(rows, list(columns))


def summarise_table(table: pd.DataFrame, names: Sequence[str]) -> list[LabelSummary]:
    """Summarise the named columns of scores.csv; it has no field of view, so only lesion distances have a penalty."""
    rules = table["lesion_rules"] if "lesion_rules" in table else [""] * len(table)
    values = table[list(names)].to_dict("records")
    rows = [
        _Row(label, status, {str(name): float(value) for name, value in own.items()}, unit, rule)
        for label, status, own, unit, rule in zip(
            table["label"], table["status"], values, units_of(table), rules, strict=True
        )
    ]
    return _summarise_rows(rows, names)


def units_of(table: pd.DataFrame) -> list[str]:
    """Return the patient of each row of scores.csv: its case if the patient is unknown."""
    if "patient" not in table:
        return table["case"].tolist()
    return [patient or case for patient, case in zip(table["patient"], table["case"], strict=True)]


def mean_dice(scores: Sequence[CaseScore]) -> float:
    """Return the mean over cases of the mean Dice over targets; NaN if none is defined.

    Targets that are empty in both masks are left out; a missing or failed case counts as 0.
    """
    return average_dice(dice_by_case(scores), {score.case: score.unit for score in scores}).mean


def average_dice(by_case: Mapping[str, float], unit_of: Mapping[str, str]) -> MeanDice:
    """Return the mean of the cases' Dice with its interval; `unit_of` is the patient of each case."""
    defined = {case: dice for case, dice in by_case.items() if not math.isnan(dice)}
    intervals = bootstrap_intervals(list(defined.values()), [unit_of[case] for case in defined], (0.0, 1.0))
    return MeanDice(
        _mean(list(defined.values())),
        *intervals.mean,
        len(defined),
        intervals.num_units,
        intervals.why_none,
    )


def dice_by_case(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Return each case's mean Dice over its targets: 0 if missing or failed, NaN if all are empty in both masks."""
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
    requested = {**dict.fromkeys(LESION_COLUMNS, with_lesions), "cldice": _any_defined(rows, ["cldice"])}
    metrics = {}
    for name in names:
        is_requested = requested.get(
            name, True
        )  # else not scored for this target: an unscored case is no failure
        counts_zero = is_requested and is_zero_where_unscored(name)
        measured = [
            (0.0 if row.status in UNSCORED else row.metrics[name], row.unit)
            for row in rows
            if counts_zero or row.status not in UNSCORED
        ]
        metrics[name] = _summarise_metric(measured, len(rows), bounds_of(name))
        penalty = of_lesions if name in LESION_COLUMNS else of_view
        if is_requested and is_distance(name) and penalty is not None:
            costs_mm = [math.inf if row.status in UNSCORED else row.metrics[name] for row in rows]
            metrics[name] = _penalise(metrics[name], costs_mm, [row.unit for row in rows], penalty)
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


def _summarise_metric(
    measured: Sequence[tuple[float, str]], num_expected: int, bounds: tuple[float, float]
) -> MetricSummary:
    """Summarise the values of a metric, each with its patient."""
    finite = [(value, unit) for value, unit in measured if math.isfinite(value)]
    averages, num_units, why_none = _averages(finite, bounds)
    return MetricSummary(
        **averages,
        num_expected=num_expected,
        num_finite=len(finite),
        num_undefined=sum(math.isnan(value) for value, _ in measured),
        num_infinite=sum(math.isinf(value) for value, _ in measured),
        num_patients=num_units,
        no_interval=why_none,
    )


def _penalise(
    metric: MetricSummary, costs_mm: list[float], units: list[str], penalty: _Penalty
) -> MetricSummary:
    """Return a metric with penalised mean and median; `costs_mm` has a value per case, infinite for a failure."""
    if any(math.isnan(price) for price in penalty.costs_mm):
        return metric  # the penalty is unknown
    penalised = [
        (price if math.isinf(cost) else cost, unit)
        for cost, price, unit in zip(costs_mm, penalty.costs_mm, units, strict=True)
        if not math.isnan(cost)
    ]
    averages, *_ = _averages(penalised, (0.0, math.inf), "_penalised")
    return replace(metric, **averages, penalty=penalty.name)


def _averages(
    measured: Sequence[tuple[float, str]], bounds: tuple[float, float], which: str = ""
) -> tuple[dict[str, Any], int, str]:
    """Return mean and median of finite values with their intervals, by field name of `MetricSummary`.

    The other values are the number of patients, and why there is no interval.
    """
    values = [value for value, _ in measured]
    intervals = bootstrap_intervals(values, [unit for _, unit in measured], bounds)
    centres = {"mean": _mean(values), "median": float(np.median(values)) if values else math.nan}
    averages: dict[str, Any] = {}
    for name, centre in centres.items():
        low, high = getattr(intervals, name)
        averages |= {f"{name}{which}": centre, f"{name}{which}_low": low, f"{name}{which}_high": high}
    return averages, intervals.num_units, intervals.why_none


def _lesion_penalty(rows: Sequence[_Row]) -> _Penalty | None:
    """Return the penalty of the lesion rules of a target; None if they have none."""
    rules = next((row.rules for row in rows if row.rules), "")
    penalty_mm = _LESION_PENALTIES_MM.get(rules)
    return None if penalty_mm is None else _Penalty(f"{penalty_mm:g} mm ({rules})", [penalty_mm] * len(rows))


def _any_defined(rows: Sequence[_Row], names: Iterable[str]) -> bool:
    return any(not math.isnan(row.metrics.get(name, math.nan)) for row in rows for name in names)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
