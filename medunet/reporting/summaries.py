"""Summary of a cohort's scores for its report, read from scores.json if that matches scores.csv."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medunet.reporting.scores import Measure, Unit, dice_by_case, measures
from medunet.scoring.columns import LESION_COLUMNS
from medunet.scoring.scores_json import find_difference, read_scores_json
from medunet.scoring.statistics import bootstrap_interval
from medunet.scoring.summary import LabelSummary, MetricSummary, summarise_table


@dataclass(frozen=True)
class CohortSummary:
    """The summaries by target, in the order of the table, and the mean Dice over cases with its 95% interval."""

    targets: dict[str, LabelSummary]
    mean_dice: float
    low: float
    high: float
    num_averaged: int  # cases with a defined Dice
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
    low, high = bootstrap_interval(by_case)
    stored = read_scores_json(stored_file) if stored_file.exists() else None
    why = "there is no scores.json" if stored is None else find_difference(stored, scores, shown)
    if stored is None or why:
        summaries = summarise_table(scores, shown)
        mean = float(np.mean(by_case)) if by_case else math.nan
        remark = f"Means and intervals are computed from scores.csv, without penalties: {why}."
    else:
        by_label = {summary.label: summary for summary in stored.summaries}
        summaries = [by_label[label] for label in scores["label"].drop_duplicates()]
        mean, remark = stored.mean_dice, ""
    about = {} if stored is None else stored.about
    targets = {summary.label: summary for summary in summaries}
    return CohortSummary(targets, mean, low, high, len(by_case), about, remark)


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
