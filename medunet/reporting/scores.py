"""The score table as the pages need it: summarised by target, its cases ranked, each with a verdict.

As in the scores' own summary, a missing or failed case counts as 0 in the means of Dice and NSD, and an
infinite distance is counted, never averaged.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

UNSCORED = ("missing", "failed")
Unit = Literal["mm", "px"]
SIZE = {
    "mm": ("ml", 1.0),
    "px": ("px", 1000.0),
}  # unit of the ml columns as pages show them, and their factor
_ZERO_WHERE_UNSCORED = ("dice", "nsd")


@dataclass(frozen=True)
class Measure:
    """A column of the score table that pages show, with its heading and the decimals that it deserves."""

    column: str
    heading: str
    decimals: int


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
    mean: float
    median: float


def measures(scores: pd.DataFrame, unit: Unit = "mm") -> tuple[Measure, ...]:
    """Return the measures that pages show, in their order: Dice, HD, its percentiles, ASSD, NSD."""
    shown = []
    for column in scores.columns:
        if column == "dice":
            shown.append((0, Measure(column, "Dice", 3)))
        elif match := re.fullmatch(r"hd([\d.]*)_mm", column):
            shown.append((1, Measure(column, f"HD{match.group(1)} {unit}", 2)))
        elif column == "assd_mm":
            shown.append((2, Measure(column, f"ASSD {unit}", 2)))
        elif match := re.fullmatch(r"nsd_([\d.]+)mm", column):
            shown.append((3, Measure(column, f"NSD {match.group(1)} {unit}", 3)))
    return tuple(measure for _, measure in sorted(shown, key=lambda entry: entry[0]))


def summarise_targets(scores: pd.DataFrame, unit: Unit = "mm") -> list[Summary]:
    """Return every measure's summary for every target, in the order in which the table names them."""
    rows = []
    for label in scores["label"].drop_duplicates():
        cases = scores[scores["label"] == label]
        scored = cases[~cases["status"].isin(UNSCORED)]
        for measure in measures(scores, unit):
            values = scored[measure.column]
            finite = values[values.map(math.isfinite)]
            averaged = list(finite)
            if measure.column.startswith(_ZERO_WHERE_UNSCORED):
                averaged += [0.0] * (len(cases) - len(scored))
            rows.append(
                Summary(
                    label=label,
                    measure=measure,
                    expected=len(cases),
                    finite=len(finite),
                    undefined=int(values.isna().sum()),
                    infinite=int(values.map(math.isinf).sum()),
                    missing=int((cases["status"] == "missing").sum()),
                    failed=int((cases["status"] == "failed").sum()),
                    mean=float(np.mean(averaged)) if averaged else math.nan,
                    median=float(np.median(averaged)) if averaged else math.nan,
                )
            )
    return rows


def mean_dice(scores: pd.DataFrame) -> tuple[float, int]:
    """Return the mean over cases of the mean over targets, and the number of cases it is taken over.

    Targets that both masks lack are left out; a missing or failed case counts as 0.
    """
    dice = scores["dice"].where(~scores["status"].isin(UNSCORED), 0.0)
    by_case = dice.groupby(scores["case"]).mean().dropna()
    return float(by_case.mean()), len(by_case)


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


def verdict(rows: pd.DataFrame) -> tuple[str, str]:
    """Return what a reader must know first of a case's rows: its gravity (bad, fair, none) and a sentence."""
    by_status = {status: list(group["label"]) for status, group in rows.groupby("status", sort=False)}
    if "failed" in by_status or "missing" in by_status:
        status = "failed" if "failed" in by_status else "missing"
        reasons = [reason for reason in rows.loc[rows["status"] == status, "reason"].unique() if reason]
        default = "the case could not be scored" if status == "failed" else "there is no prediction"
        return "bad", f"{status.capitalize()}: {'; '.join(reasons) or default}"
    parts = []
    if "missed" in by_status:
        parts.append(f"Missed: {', '.join(by_status['missed'])}")
    if "false_positive" in by_status:
        parts.append(f"False positive: {', '.join(by_status['false_positive'])}")
    defined = rows[(rows["status"] == "ok") & rows["dice"].notna()]
    if not defined.empty:
        lowest = defined.sort_values("dice", kind="stable").iloc[0]
        which = "Lowest other Dice" if parts else "Lowest Dice"
        parts.append(f"{which} {lowest['dice']:.3f} ({lowest['label']})")
    if not parts:
        return "none", "Nothing to find, and nothing was predicted"
    return ("bad" if "missed" in by_status or "false_positive" in by_status else "fair"), ". ".join(parts)
