"""The score table as the pages need it: read back from CSV, summarised by target, its cases ranked."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medunet.errors import InputError

UNSCORED = ("missing", "failed")
_TEXT = ("case", "label", "status", "surface", "reason")
_NEEDED = ("case", "label", "status")


@dataclass(frozen=True)
class Measure:
    """A column of the score table that pages show, with its heading and the decimals that it deserves."""

    column: str
    heading: str
    decimals: int


@dataclass(frozen=True)
class Summary:
    """One measure of one target over the cases; the six counts add up, `mean` is over the finite values."""

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


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores.csv: blank numbers are undefined (NaN), and a case called 001 or NA keeps its name.

    Raises:
        InputError: the file is missing, is not a table, or lacks the columns that name a score.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise InputError(
            "no such file", where=path.name, mend="Make it with `medunet score`."
        ) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"not a CSV table ({error})", where=path.name) from error
    return tidy_scores(table, path.name)


def tidy_scores(scores: pd.DataFrame, where: str = "scores") -> pd.DataFrame:
    """Return the table with text columns as text, all others as floats, and a `reason` for every row.

    Raises:
        InputError: a column that names a score is missing, or another holds something else than numbers.
    """
    missing = [column for column in _NEEDED if column not in scores.columns]
    if missing:
        raise InputError(f"columns {missing} are missing", where=where, mend="Score the cases again.")
    tidy = pd.DataFrame(index=range(len(scores)))
    for column in (*_TEXT, *(name for name in scores.columns if name not in _TEXT)):
        if column in _TEXT:
            text = scores[column] if column in scores.columns else pd.Series("", index=scores.index)
            tidy[column] = text.astype(object).where(text.notna(), "").astype(str).to_numpy()
        else:
            try:
                tidy[column] = pd.to_numeric(scores[column].replace("", math.nan)).astype(float).to_numpy()
            except (ValueError, TypeError) as error:
                raise InputError(f"column {column}: {error}", where=where) from error
    return tidy


def measures(scores: pd.DataFrame) -> tuple[Measure, ...]:
    """Return the measures that pages show, in their order: Dice, HD, its percentiles, ASSD, NSD."""
    shown = []
    for column in scores.columns:
        if column == "dice":
            shown.append((0, Measure(column, "Dice", 3)))
        elif match := re.fullmatch(r"hd([\d.]*)_mm", column):
            shown.append((1, Measure(column, f"HD{match.group(1)} mm", 2)))
        elif column == "assd_mm":
            shown.append((2, Measure(column, "ASSD mm", 2)))
        elif match := re.fullmatch(r"nsd_([\d.]+)mm", column):
            shown.append((3, Measure(column, f"NSD {match.group(1)} mm", 3)))
    return tuple(measure for _, measure in sorted(shown, key=lambda entry: entry[0]))


def summarise_targets(scores: pd.DataFrame) -> list[Summary]:
    """Return every measure's summary for every target, in the order in which the table names them."""
    rows = []
    for label in scores["label"].drop_duplicates():
        cases = scores[scores["label"] == label]
        scored = cases[~cases["status"].isin(UNSCORED)]
        for measure in measures(scores):
            values = scored[measure.column]
            finite = values[values.map(math.isfinite)]
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
                    mean=float(finite.mean()),
                    median=float(finite.median()),
                )
            )
    return rows


def mean_dice(scores: pd.DataFrame) -> tuple[float, int]:
    """Return the mean over cases of the mean over targets, and the number of cases it is taken over."""
    by_case = scores[~scores["status"].isin(UNSCORED)].groupby("case")["dice"].mean().dropna()
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
        dice = rows["dice"].min() if "dice" in rows else math.nan
        distance = rows["hd95_mm"].max() if "hd95_mm" in rows else math.nan
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
        lowest = defined.loc[defined["dice"].idxmin()]
        parts.append(f"Lowest Dice {lowest['dice']:.3f} ({lowest['label']})")
    if not parts:
        return "none", "Nothing to find, and nothing was predicted"
    return ("bad" if "missed" in by_status or "false_positive" in by_status else "fair"), ". ".join(parts)
