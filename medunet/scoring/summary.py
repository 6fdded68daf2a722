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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from rich.markup import escape
from rich.table import Table

from medunet.records.scores import UNSCORED, CaseScore
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.statistics import bootstrap_intervals

# They count the background: they grow with the field of view, and say nothing beside those of another.
FIELD_OF_VIEW_COLUMNS = ("specificity", "accuracy", "balanced_accuracy", "mcc", "kappa")

_OVERLAPS = ("dice", "iou", "precision", "recall", "f1", "specificity", "accuracy")
_OTHERS = ("f2", "balanced_accuracy", "mcc", "kappa", "difference_ml", "relative_difference")
LESION_COLUMNS = {
    **{f"lesion_{name}": name for name in ("sensitivity", "precision", "f1", "dice", "hd95_mm")},
    **{name: name for name in ("rq", "sq", "pq")},
}  # column -> field of CaseLesions
OPTIONAL_COLUMNS = (*LESION_COLUMNS, "cldice")  # of the targets that the configuration names
_ZERO_WHERE_UNSCORED = (
    *("dice", "iou", "recall", "f1", "f2", "cldice"),
    *("lesion_sensitivity", "lesion_f1", "lesion_dice", "rq", "pq"),
)
_LESION_PENALTIES_MM: dict[str, float | None] = {name: rules.penalty_mm for name, rules in PRESETS.items()}
_NUM_WORST = 3


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


def summarise(scores: Sequence[CaseScore], names: Sequence[str] | None = None) -> list[LabelSummary]:
    """Summarise each label, in the order of first appearance: all its metrics, or those of the named columns."""
    columns = metric_columns(scores)
    columns = {name: columns[name] for name in (columns if names is None else names)}
    largest = max(
        (score.penalty_mm for score in scores if not math.isnan(score.penalty_mm)), default=math.nan
    )
    return [
        _summarise_label(label, [score for score in scores if score.label == label], columns, largest)
        for label in dict.fromkeys(score.label for score in scores)
    ]


def mean_dice(scores: Sequence[CaseScore]) -> float:
    """Return the mean over cases of the mean over classes; NaN where nothing is defined.

    Classes that both masks lack are left out; a missing or failed case counts as 0.
    """
    return _mean([dice for dice in dice_by_case(scores).values() if not math.isnan(dice)])


def dice_by_case(scores: Sequence[CaseScore]) -> dict[str, float]:
    """Return each case's mean Dice over its classes: 0 if missing or failed, NaN if all are both empty."""
    by_case: dict[str, list[float]] = {}
    for score in scores:
        dice = score.dice if _is_scored(score) else 0.0
        by_case.setdefault(score.case, []).extend([] if math.isnan(dice) else [dice])
    return {case: _mean(values) for case, values in by_case.items()}


def metric_columns(scores: Sequence[CaseScore]) -> dict[str, Callable[[CaseScore], float]]:
    """Return the metrics by their column in `scores.csv`, each with the way to its value, in that order.

    A column names the percentile, the way that both directions are joined unless it is their maximum, and the
    tolerances: `hd95_mm`, `hd95_pooled_mm`, `nsd_1mm`. Columns of lesions are there where any score has lesions.
    """
    kinds = {(score.percentile, score.hd95) for score in scores} or {(95.0, "max")}
    assert len(kinds) == 1, f"scores at several percentiles or modes {kinds} share no column"
    tolerances = sorted({tolerance for score in scores for tolerance in score.nsd})

    def nsd(tolerance: float) -> Callable[[CaseScore], float]:
        return lambda score: score.nsd.get(tolerance, math.nan)

    def lesion(field: str) -> Callable[[CaseScore], float]:
        return lambda score: math.nan if score.lesions is None else getattr(score.lesions, field)

    ((percentile, mode),) = kinds
    robust = f"hd{percentile:g}_mm" if mode == "max" else f"hd{percentile:g}_{mode}_mm"
    fields = {name: name for name in (*_OVERLAPS, "hd_mm")}
    fields |= {robust: "hd95_mm", "assd_mm": "assd_mm", "masd_mm": "masd_mm"}
    columns: dict[str, Callable[[CaseScore], float]] = {
        column: attrgetter(field) for column, field in fields.items()
    }
    columns |= {f"nsd_{tolerance:g}mm": nsd(tolerance) for tolerance in tolerances}
    columns |= {field: attrgetter(field) for field in ("reference_ml", "predicted_ml", *_OTHERS)}
    if not all(math.isnan(score.cldice) for score in scores):
        columns["cldice"] = attrgetter("cldice")
    if any(score.lesions is not None for score in scores):
        columns |= {column: lesion(field) for column, field in LESION_COLUMNS.items()}
    return columns


def is_zero_where_unscored(column: str) -> bool:
    """Return whether a missing or failed case counts as 0: the metric falls with what was not found."""
    return column in _ZERO_WHERE_UNSCORED or column.startswith("nsd_")


def is_distance(column: str) -> bool:
    """Return whether a column holds distances in mm, which a miss makes infinite: `hd95_mm`, not `nsd_1mm`."""
    return column.endswith("_mm")


def score_table(scores: Sequence[CaseScore], unit: str = "mm") -> Table:
    """Return the terminal's table: a row per label, and below it the mean Dice and the worst cases.

    Dice has its 95% interval. Of the counts beside "scored", those that are zero for every label are left out.
    `unit` is that of the lengths: mm, or px for pictures.
    """
    columns = metric_columns(scores)
    robust = next(name for name in columns if name.startswith("hd") and name != "hd_mm")
    shown = ["dice", robust, *(name for name in columns if name.startswith("nsd_"))]
    summaries = summarise(scores, shown)
    statuses = ("both_empty", "missed", "false_positive", *UNSCORED)
    present = [name for name in statuses if any(getattr(summary, f"num_{name}") for summary in summaries)]
    title = "Scores: mean over cases (95% interval)"
    table = Table(title=title, caption=_caption(scores), caption_justify="left")
    table.add_column("label", no_wrap=True)
    for name in (*shown, "scored", *present):
        table.add_column(name.replace("_", " ").replace("mm", unit), justify="right")
    for summary in summaries:
        table.add_row(
            escape(summary.label),
            *(_cell(summary.metrics[name], with_interval=name == "dice") for name in shown),
            f"{summary.num_scored}/{summary.num_expected}",
            *(str(getattr(summary, f"num_{name}")) for name in present),
        )
    return table


def _summarise_label(
    label: str,
    scores: list[CaseScore],
    columns: dict[str, Callable[[CaseScore], float]],
    largest_penalty_mm: float,
) -> LabelSummary:
    status = Counter(score.status for score in scores)
    diagonals = [largest_penalty_mm if math.isnan(score.penalty_mm) else score.penalty_mm for score in scores]
    of_view = _Penalty("diagonal of the field of view", diagonals)
    of_lesions = _lesion_penalty(scores)
    asked = dict.fromkeys(LESION_COLUMNS, any(score.lesions is not None for score in scores))
    asked["cldice"] = not all(math.isnan(score.cldice) for score in scores)
    metrics = {}
    for name, get in columns.items():
        values = [get(score) for score in scores if _is_scored(score)]
        penalty = None
        if not asked.get(name, True):
            pass  # nobody asked for it of this target: an unscored case has no failure in it
        elif is_distance(name):
            penalty = of_lesions if name in LESION_COLUMNS else of_view
        elif is_zero_where_unscored(name):
            values += [0.0] * (len(scores) - len(values))
        metrics[name] = _summarise_metric(values, len(scores))
        if penalty is not None:
            costs_mm = [get(score) if _is_scored(score) else math.inf for score in scores]
            metrics[name] = _penalise(metrics[name], costs_mm, penalty)
    return LabelSummary(
        label=label,
        num_expected=len(scores),
        num_scored=len(scores) - sum(status[name] for name in UNSCORED),
        num_both_empty=status["both_empty"],
        num_missed=status["missed"],
        num_false_positive=status["false_positive"],
        num_missing=status["missing"],
        num_failed=status["failed"],
        metrics=metrics,
    )


def _summarise_metric(values: list[float], num_expected: int) -> MetricSummary:
    finite = [value for value in values if math.isfinite(value)]
    intervals = bootstrap_intervals(finite)
    return MetricSummary(
        mean=_mean(finite),
        mean_low=intervals.mean[0],
        mean_high=intervals.mean[1],
        median=_median(finite),
        median_low=intervals.median[0],
        median_high=intervals.median[1],
        num_expected=num_expected,
        num_finite=len(finite),
        num_undefined=sum(math.isnan(value) for value in values),
        num_infinite=sum(math.isinf(value) for value in values),
    )


def _penalise(metric: MetricSummary, costs_mm: list[float], penalty: _Penalty) -> MetricSummary:
    """Return a metric with its penalised mean and median; of `costs_mm`, by case, those of failures are infinite."""
    penalised = [
        price if math.isinf(cost) else cost
        for cost, price in zip(costs_mm, penalty.costs_mm, strict=True)
        if not math.isnan(cost)
    ]
    if any(math.isnan(cost) for cost in penalised):
        return metric  # nobody knows what a failure costs
    intervals = bootstrap_intervals(penalised)
    return replace(
        metric,
        mean_penalised=_mean(penalised),
        mean_penalised_low=intervals.mean[0],
        mean_penalised_high=intervals.mean[1],
        median_penalised=_median(penalised),
        median_penalised_low=intervals.median[0],
        median_penalised_high=intervals.median[1],
        penalty=penalty.name,
    )


def _lesion_penalty(scores: Sequence[CaseScore]) -> _Penalty | None:
    """Return what the rules of a target's lesions set for a failure; None where they set nothing."""
    rules = next((score.lesions.rules for score in scores if score.lesions is not None), "")
    penalty_mm = _LESION_PENALTIES_MM.get(rules)
    return (
        None if penalty_mm is None else _Penalty(f"{penalty_mm:g} mm ({rules})", [penalty_mm] * len(scores))
    )


def _is_scored(score: CaseScore) -> bool:
    return score.status not in UNSCORED


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else math.nan


def _cell(metric: MetricSummary, *, with_interval: bool) -> str:
    mean = "–" if math.isnan(metric.mean) else f"{metric.mean:.3f}"
    if with_interval and not math.isnan(metric.mean_low):
        mean += f" ({metric.mean_low:.3f}–{metric.mean_high:.3f})"
    return f"{mean} ({metric.num_infinite} infinite)" if metric.num_infinite else mean


def _caption(scores: Sequence[CaseScore]) -> str:
    by_case = {case: dice for case, dice in dice_by_case(scores).items() if not math.isnan(dice)}
    worst = sorted(by_case.items(), key=lambda item: item[1])[:_NUM_WORST]
    listed = ", ".join(f"{escape(case)} {dice:.3f}" for case, dice in worst)
    return f"mean Dice {mean_dice(scores):.3f} over {len(by_case)} cases; worst: {listed or '–'}"
