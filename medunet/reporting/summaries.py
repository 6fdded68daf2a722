"""Summary of a cohort's scores for its report, read from scores.json if that matches scores.csv."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from medunet.reporting.scores import Measure, Unit, dice_by_case, measures
from medunet.scoring.columns import LESION_COLUMNS, percentile_of
from medunet.scoring.scores_json import find_difference, read_scores_json
from medunet.scoring.strata import Stratum, summarise_table_strata
from medunet.scoring.summary import (
    LabelSummary,
    MeanDice,
    MetricSummary,
    average_dice,
    summarise_table,
    units_of,
)


@dataclass(frozen=True)
class CohortSummary:
    """The summaries by target, in the order of the table, the mean Dice over cases, and those of the strata."""

    targets: dict[str, LabelSummary]
    dice: MeanDice
    num_patients: int
    strata: tuple[Stratum, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)  # how the scores were made, from scores.json
    remark: str = ""  # why the summaries are not those of scores.json


@dataclass(frozen=True)
class SummaryRow:
    """One measure of one target over the cases: expected = finite + undefined + infinite + missing + failed."""

    measure: Measure
    metric: MetricSummary
    expected: int
    finite: int
    missing: int
    failed: int

    @property
    def is_penalised(self) -> bool:
        """Whether there is a penalised mean."""
        return not math.isnan(self.metric.mean_penalised)


def summarise_cohort(scores: pd.DataFrame, stored_file: Path) -> CohortSummary:
    """Return the summaries of scores.json, or compute them from the score table if the two do not match.

    Computed summaries of mask distances have no penalised means, since the table does not contain the penalties.

    Raises:
        InputError: scores.json is not a JSON object.
    """
    shown = [measure.column for measure in measures(scores)]
    shown += [name for name in LESION_COLUMNS if name in scores]
    by_case = dice_by_case(scores)
    units = dict(zip(scores["case"], units_of(scores), strict=True))
    dice = average_dice(by_case, units)
    stored = read_scores_json(stored_file) if stored_file.exists() else None
    why = "there is no scores.json" if stored is None else find_difference(stored, scores, shown)
    if stored is None or why:
        summaries = summarise_table(scores, shown)
        remark = f"Means and intervals are computed from scores.csv, without penalties: {why}."
    else:
        by_label = {summary.label: summary for summary in stored.summaries}
        summaries = [by_label[label] for label in scores["label"].drop_duplicates()]
        if any(metric.num_finite and not metric.num_patients for metric in summaries[0].metrics.values()):
            summaries = _with_intervals(summaries, summarise_table(scores, shown))
        dice, remark = replace(dice, mean=stored.mean_dice), ""
    about = {} if stored is None else stored.about
    targets = {summary.label: summary for summary in summaries}
    strata = summarise_table_strata(scores, about.get("by", ()), shown, by_case)
    return CohortSummary(targets, dice, len(set(units.values())), tuple(strata), about, remark)


def summarise_groups(scores: pd.DataFrame, by: Sequence[str]) -> tuple[Stratum, ...]:
    """Return the summaries of Dice and the robust distance for each value of the columns `by`."""
    distances = [name for name in scores.columns if percentile_of(str(name))]
    return tuple(summarise_table_strata(scores, by, ["dice", *distances], dice_by_case(scores)))


def _with_intervals(stored: list[LabelSummary], computed: list[LabelSummary]) -> list[LabelSummary]:
    """Return the summaries of a scores.json before 0.7 with today's intervals: it has some of fewer than 10 cases."""
    return [
        replace(
            old,
            metrics={
                name: replace(
                    old.metrics[name],
                    mean_low=metric.mean_low,
                    mean_high=metric.mean_high,
                    median_low=metric.median_low,
                    median_high=metric.median_high,
                    num_patients=metric.num_patients,
                    no_interval=metric.no_interval,
                )
                for name, metric in new.metrics.items()
            },
        )
        for old, new in zip(stored, computed, strict=True)
    ]


def summary_rows(summary: LabelSummary, scores: pd.DataFrame, unit: Unit = "mm") -> list[SummaryRow]:
    """Return a row for each measure of a target that pages show."""
    rows = []
    for measure in measures(scores, unit):
        metric = summary.metrics[measure.column]
        finite = summary.num_scored - metric.num_undefined - metric.num_infinite
        rows.append(
            SummaryRow(measure, metric, summary.num_expected, finite, summary.num_missing, summary.num_failed)
        )
    return rows
