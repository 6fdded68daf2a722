"""The score table as the pages need it: summarised by target, its cases ranked, each with a verdict.

As in the scores' own summary, a missing or failed case counts as 0 in the means of Dice and NSD, and an
infinite distance is counted, never averaged.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from medunet.records.scores import UNSCORED, Note, NoteKind
from medunet.scoring.statistics import bootstrap_interval
from medunet.scoring.summary import is_zero_where_unscored

Unit = Literal["mm", "px"]
SIZE = {
    "mm": ("ml", 1.0),
    "px": ("px", 1000.0),
}  # unit of the ml columns as pages show them, and their factor
Penalised = Mapping[tuple[str, str], tuple[float, float]]  # see `penalised_means`


@dataclass(frozen=True)
class Measure:
    """A column of the score table that pages show, with its heading and the decimals that it deserves."""

    column: str
    heading: str
    decimals: int


@dataclass(frozen=True)
class Average:
    """A mean over cases with its 95% bootstrap interval, which fewer than two values do not have: NaN."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """One measure of one target over the cases: expected = finite + undefined + infinite + missing + failed."""

    label: str
    measure: Measure
    expected: int
    finite: int
    undefined: int
    infinite: int
    missing: int
    failed: int
    average: Average
    median: float
    mean_penalised: float | None  # of distances, with failures at their penalty; None where it is not known


def measures(scores: pd.DataFrame, unit: Unit = "mm") -> tuple[Measure, ...]:
    """Return the measures that pages show, in their order: Dice, HD, its percentiles, ASSD, NSD."""
    shown = []
    for column in scores.columns:
        if column == "dice":
            shown.append((0, Measure(column, "Dice", 3)))
        elif match := re.fullmatch(r"hd([\d.]*)(_pooled)?_mm", column):
            pooled = " pooled" if match.group(2) else ""
            shown.append((1, Measure(column, f"HD{match.group(1)}{pooled} {unit}", 2)))
        elif column == "assd_mm":
            shown.append((2, Measure(column, f"ASSD {unit}", 2)))
        elif match := re.fullmatch(r"nsd_([\d.]+)mm", column):
            shown.append((3, Measure(column, f"NSD {match.group(1)} {unit}", 3)))
    return tuple(measure for _, measure in sorted(shown, key=lambda entry: entry[0]))


def summarise_targets(
    scores: pd.DataFrame, unit: Unit = "mm", penalised: Penalised | None = None
) -> list[Summary]:
    """Return every measure's summary for every target, in the order in which the table names them.

    A penalised mean is taken only where the mean beside it is that of this table: else it is of other scores.
    """
    rows = []
    for label in scores["label"].drop_duplicates():
        cases = scores[scores["label"] == label]
        for measure in measures(scores, unit):
            scored = cases.loc[~cases["status"].isin(UNSCORED), measure.column]
            averaged = averaged_values(cases, measure.column)
            average = average_of(averaged)
            mean, mean_penalised = (penalised or {}).get((label, measure.column), (math.nan, None))
            rows.append(
                Summary(
                    label=label,
                    measure=measure,
                    expected=len(cases),
                    finite=int(scored.map(math.isfinite).sum()),
                    undefined=int(scored.isna().sum()),
                    infinite=int(scored.map(math.isinf).sum()),
                    missing=int((cases["status"] == "missing").sum()),
                    failed=int((cases["status"] == "failed").sum()),
                    average=average,
                    median=float(np.median(averaged)) if averaged else math.nan,
                    mean_penalised=mean_penalised if np.isclose(mean, average.mean, equal_nan=True) else None,
                )
            )
    return rows


def averaged_values(cases: pd.DataFrame, column: str) -> list[float]:
    """Return what the mean of a target's rows is taken over: the finite values, and each 0 of an unscored case."""
    scored = cases.loc[~cases["status"].isin(UNSCORED), column]
    zeros = [0.0] * (len(cases) - len(scored)) if is_zero_where_unscored(column) else []
    return [float(value) for value in scored if math.isfinite(value)] + zeros


def average_of(values: list[float]) -> Average:
    """Return the mean of finite values with its interval; NaN where there are none."""
    return Average(float(np.mean(values)) if values else math.nan, *bootstrap_interval(values))


def penalised_means(told: Mapping[str, Any]) -> Penalised:
    """Return what scores.json tells of distances, by target and column.

    The first number is the mean over the finite ones (NaN where there are none), the second that in which each
    failure counts as the diagonal of the field of view.
    """
    return {
        (entry["label"], column): (
            math.nan if metric["mean"] is None else metric["mean"],
            metric["mean_penalised"],
        )
        for entry in told.get("summary", [])
        for column, metric in entry["metrics"].items()
        if metric.get("mean_penalised") is not None
    }


def dice_by_case(scores: pd.DataFrame) -> list[float]:
    """Return each case's mean Dice over its targets, without the cases that have none.

    Targets that both masks lack are left out; a missing or failed case counts as 0.
    """
    dice = scores["dice"].where(~scores["status"].isin(UNSCORED), 0.0)
    return [float(value) for value in dice.groupby(scores["case"]).mean().dropna()]


def rank_cases(scores: pd.DataFrame) -> list[str]:
    """Return the case ids, worst first.

    Failed cases lead, then missing ones; then by the lowest Dice of any target, the largest distance
    breaking ties, then by name. Cases with no defined Dice (nothing to find, nothing found) come last.
    """

    def badness(case: str) -> tuple[float, float, float, str]:
        rows = scores[scores["case"] == case]
        statuses = set(rows["status"])
        state = 0 if "failed" in statuses else 1 if "missing" in statuses else 2
        dice = rows["dice"].min()
        distance = rows["hd_mm"].max() if "hd_mm" in rows else math.nan
        return (
            state,
            math.inf if math.isnan(dice) else dice,
            0.0 if math.isnan(distance) else -distance,
            case,
        )

    return sorted(scores["case"].drop_duplicates(), key=badness)


def is_resampled(rows: pd.DataFrame) -> bool:
    """Say whether a case's prediction was brought to the reference's grid to be scored."""
    return any(has_note(notes, "resampled") for notes in rows["notes"])


def has_note(notes: Iterable[Note], kind: NoteKind) -> bool:
    """Say whether any of a target's notes is of a kind."""
    return any(note.kind == kind for note in notes)


def verdict(rows: pd.DataFrame) -> tuple[str, str]:
    """Return what a reader must know first of a case's rows: its gravity (bad, fair, none) and a sentence."""
    by_status = {status: list(group["label"]) for status, group in rows.groupby("status", sort=False)}
    if "failed" in by_status or "missing" in by_status:
        status = "failed" if "failed" in by_status else "missing"
        reasons = [reason for reason in rows.loc[rows["status"] == status, "reason"].unique() if reason]
        default = "the case could not be scored" if status == "failed" else "there is no prediction"
        return "bad", f"{status.capitalize()}: {'; '.join(reasons) or default}"
    faults = {
        "Labels look swapped": [
            label
            for label, notes in zip(rows["label"], rows["notes"], strict=True)
            if has_note(notes, "swapped")
        ],
        "Missed": by_status.get("missed", []),
        "False positive": by_status.get("false_positive", []),
    }
    parts = [f"{fault}: {', '.join(labels)}" for fault, labels in faults.items() if labels]
    is_bad = bool(parts)
    defined = rows[(rows["status"] == "ok") & rows["dice"].notna()]
    if not defined.empty:
        lowest = defined.sort_values("dice", kind="stable").iloc[0]
        others = "missed" in by_status or "false_positive" in by_status
        parts.append(f"Lowest {'other ' if others else ''}Dice {lowest['dice']:.3f} ({lowest['label']})")
    if not parts:
        return "none", "Nothing to find, and nothing was predicted"
    return ("bad" if is_bad else "fair"), ". ".join(parts)
