"""What a cohort's scores come to, with nothing hidden: counts stand beside every mean.

A missing or failed case counts as 0 in the means of Dice, IoU, recall, F1 and NSD, and has no other value. An
infinite distance is counted, never averaged.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from rich.markup import escape
from rich.table import Table

from medunet.records import CaseScore

_OVERLAPS = ("dice", "iou", "precision", "recall", "f1", "specificity", "accuracy")
_ZERO_WHERE_UNSCORED = ("dice", "iou", "recall", "f1")
_NUM_WORST = 3


@dataclass(frozen=True)
class MetricSummary:
    """Mean and median of one metric over `num_finite` values (NaN where none), and what is not among them.

    The zeros that stand for missing and failed cases are among the finite values.
    """

    mean: float
    median: float
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


def summarise(scores: Sequence[CaseScore]) -> list[LabelSummary]:
    """Summarise each label, in the order of first appearance."""
    return [
        _summarise_label(label, [score for score in scores if score.label == label])
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

    A column names the percentile and the tolerances that were used: `hd95_mm`, `nsd_1mm`.
    """
    percentiles = {score.percentile for score in scores} or {95.0}
    assert len(percentiles) == 1, f"scores at several percentiles {percentiles} share no column"
    tolerances = sorted({tolerance for score in scores for tolerance in score.nsd})

    def nsd(tolerance: float) -> Callable[[CaseScore], float]:
        return lambda score: score.nsd.get(tolerance, math.nan)

    (percentile,) = percentiles
    fields = {name: name for name in (*_OVERLAPS, "hd_mm")}
    fields |= {f"hd{percentile:g}_mm": "hd95_mm", "assd_mm": "assd_mm", "masd_mm": "masd_mm"}
    columns: dict[str, Callable[[CaseScore], float]] = {
        column: attrgetter(field) for column, field in fields.items()
    }
    columns |= {f"nsd_{tolerance:g}mm": nsd(tolerance) for tolerance in tolerances}
    return columns | {field: attrgetter(field) for field in ("reference_ml", "predicted_ml")}


def score_table(scores: Sequence[CaseScore], unit: str = "mm") -> Table:
    """Return the terminal's table: a row per label, and below it the mean Dice and the worst cases.

    Of the counts beside "scored", those that are zero for every label are left out. `unit` is that of the lengths:
    mm, or px for pictures.
    """
    columns = metric_columns(scores)
    hd95 = next(name for name, get in columns.items() if name.startswith("hd") and name != "hd_mm")
    shown = ["dice", hd95, *(name for name in columns if name.startswith("nsd_"))]
    summaries = summarise(scores)
    statuses = ("both_empty", "missed", "false_positive", "missing", "failed")
    present = [name for name in statuses if any(getattr(summary, f"num_{name}") for summary in summaries)]
    table = Table(title="Scores: mean over cases", caption=_caption(scores), caption_justify="left")
    table.add_column("label", no_wrap=True)
    for name in (*shown, "scored", *present):
        table.add_column(name.replace("_", " ").replace("mm", unit), justify="right")
    for summary in summaries:
        table.add_row(
            escape(summary.label),
            *(_cell(summary.metrics[name]) for name in shown),
            f"{summary.num_scored}/{summary.num_expected}",
            *(str(getattr(summary, f"num_{name}")) for name in present),
        )
    return table


def _summarise_label(label: str, scores: list[CaseScore]) -> LabelSummary:
    status = Counter(score.status for score in scores)
    metrics = {}
    for name, get in metric_columns(scores).items():
        values = [get(score) for score in scores if _is_scored(score)]
        if name in _ZERO_WHERE_UNSCORED or name.startswith("nsd_"):
            values += [0.0] * (len(scores) - len(values))
        metrics[name] = _summarise_metric(values)
    return LabelSummary(
        label=label,
        num_expected=len(scores),
        num_scored=len(scores) - status["missing"] - status["failed"],
        num_both_empty=status["both_empty"],
        num_missed=status["missed"],
        num_false_positive=status["false_positive"],
        num_missing=status["missing"],
        num_failed=status["failed"],
        metrics=metrics,
    )


def _summarise_metric(values: list[float]) -> MetricSummary:
    finite = [value for value in values if math.isfinite(value)]
    return MetricSummary(
        mean=_mean(finite),
        median=float(np.median(finite)) if finite else math.nan,
        num_finite=len(finite),
        num_undefined=sum(math.isnan(value) for value in values),
        num_infinite=sum(math.isinf(value) for value in values),
    )


def _is_scored(score: CaseScore) -> bool:
    return score.status not in ("missing", "failed")


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _cell(metric: MetricSummary) -> str:
    mean = "–" if math.isnan(metric.mean) else f"{metric.mean:.3f}"
    return f"{mean} ({metric.num_infinite} infinite)" if metric.num_infinite else mean


def _caption(scores: Sequence[CaseScore]) -> str:
    by_case = {case: dice for case, dice in dice_by_case(scores).items() if not math.isnan(dice)}
    worst = sorted(by_case.items(), key=lambda item: item[1])[:_NUM_WORST]
    listed = ", ".join(f"{escape(case)} {dice:.3f}" for case, dice in worst)
    return f"mean Dice {mean_dice(scores):.3f} over {len(by_case)} cases; worst: {listed or '–'}"
