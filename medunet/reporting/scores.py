"""Score tables for report pages: the measures shown, and the ranking of cases."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from medunet.records.scores import UNSCORED, Note, NoteKind
from medunet.reporting.case_parts import Severity
from medunet.scoring.columns import percentile_of

Unit = Literal["mm", "px"]
SIZE_UNITS = {
    "mm": ("ml", 1.0),
    "px": ("px", 1000.0),
}  # unit of the ml columns as pages show them, and their factor

SEVERITY_ORDER: dict[Severity, int] = {"failed": 0, "review": 1, "good": 2, "none": 2}


@dataclass(frozen=True)
class Measure:
    """A column of the score table that pages show, with its heading and number of decimals."""

    column: str
    heading: str
    decimals: int


def name_lesions(*, instances: bool) -> str:
    """Return what pages call the lesions of a dataset: objects, where label files number them."""
    return "object" if instances else "lesion"


def measures(scores: pd.DataFrame, unit: Unit = "mm") -> tuple[Measure, ...]:
    """Return the measures of a table that pages show, in order: Dice, HD, its percentiles, ASSD, NSD."""
    shown = []
    for column in scores.columns:
        if column == "dice":
            shown.append((0, Measure(column, "Dice", 3)))
        elif column == "hd_mm":
            shown.append((1, Measure(column, f"HD {unit}", 2)))
        elif robust := percentile_of(column):
            percentile, is_pooled = robust
            pooled = " pooled" if is_pooled else ""
            shown.append((1, Measure(column, f"HD{percentile}{pooled} {unit}", 2)))
        elif column == "assd_mm":
            shown.append((2, Measure(column, f"ASSD {unit}", 2)))
        elif match := re.fullmatch(r"nsd_([\d.]+)mm", column):
            shown.append((3, Measure(column, f"NSD {match.group(1)} {unit}", 3)))
    return tuple(measure for _, measure in sorted(shown, key=lambda entry: entry[0]))


def dice_by_case(scores: pd.DataFrame) -> dict[str, float]:
    """Return the mean Dice over targets of each case with a defined Dice, by case.

    Targets that are empty in both masks are left out; a missing or failed case counts as 0.
    """
    dice = scores["dice"].where(~scores["status"].isin(UNSCORED), 0.0)
    means = dice.groupby(scores["case"]).mean().dropna()
    return {str(case): float(mean) for case, mean in means.items()}


def rank_cases(scores: pd.DataFrame, severities: Mapping[str, Severity] | None = None) -> list[str]:
    """Return the case ids from worst to best.

    Failed cases come first, then missing ones, then those whose verdict asks for a review, if verdicts are given.
    Equal ones are sorted by the lowest Dice of any target, then by the largest distance, then by name. Cases without
    a defined Dice (empty in both masks) come last among them.
    """
    by_case = scores.groupby("case", sort=False)
    statuses, dice = by_case["status"].agg(set), by_case["dice"].min()
    distances = by_case["hd_mm"].max() if "hd_mm" in scores else dice * math.nan

    def sort_key(case: str) -> tuple[float, float, float, float, str]:
        state = 0 if "failed" in statuses[case] else 1 if "missing" in statuses[case] else 2
        return (
            state,
            0 if severities is None else SEVERITY_ORDER[severities[case]],
            math.inf if math.isnan(dice[case]) else dice[case],
            0.0 if math.isnan(distances[case]) else -distances[case],
            case,
        )

    return sorted(scores["case"].drop_duplicates(), key=sort_key)


def is_resampled(rows: pd.DataFrame) -> bool:
    """Return whether a case's prediction was resampled to the reference's grid for scoring."""
    return any(has_note(notes, "resampled") for notes in rows["notes"])


def has_note(notes: Iterable[Note], kind: NoteKind) -> bool:
    """Return whether any of a target's notes is of a kind."""
    return any(note.kind == kind for note in notes)
