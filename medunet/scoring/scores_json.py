"""Read scores.json, and check that it holds the same scores as scores.csv, which may have been edited by hand."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medunet.base.files import read_json_object
from medunet.records.scores import UNSCORED
from medunet.scoring.summary import LabelSummary, MetricSummary

_TOLERANCE = 1e-9  # relative: a spreadsheet saves 15 digits
_TEXTS = ("penalty", "no_interval")


@dataclass(frozen=True)
class StoredScores:
    """Content of scores.json; without summaries if another version wrote them in another format."""

    about: dict[str, Any]
    mean_dice: float
    summaries: tuple[LabelSummary, ...]
    rows: tuple[dict[str, Any], ...]  # as in scores.csv; undefined and infinite numbers are None


def read_scores_json(path: Path) -> StoredScores:
    """Read scores.json.

    Raises:
        InputError: the file is missing or is not a JSON object.
    """
    content = read_json_object(path)
    try:
        summaries = tuple(_label_summary(entry) for entry in content["summary"])
        mean_dice = _number(content["mean_dice"])
    except (AttributeError, KeyError, TypeError):
        summaries, mean_dice = (), math.nan
    rows = tuple(row for row in content.get("scores", ()) if isinstance(row, dict))
    return StoredScores(content.get("about", {}), mean_dice, summaries, rows)


def find_difference(stored: StoredScores, table: pd.DataFrame, names: Sequence[str]) -> str:
    """Describe how scores.json differs from a score table in the named columns; "" if it does not."""
    cases = list(zip(table["case"], table["label"], strict=True))
    rows = {(row.get("case"), row.get("label")): row for row in stored.rows}
    if Counter(cases) != Counter((row.get("case"), row.get("label")) for row in stored.rows):
        return "scores.json and scores.csv have different cases or labels"
    known = [rows[case] for case in cases]
    if [row.get("status") for row in known] != table["status"].tolist():
        return "the status of a case differs between scores.json and scores.csv"
    has_patients = "patient" in table and all("patient" in row for row in known)
    if has_patients and [row["patient"] for row in known] != table["patient"].tolist():
        return "the patient of a case differs between scores.json and scores.csv"
    for name in names:
        if not all(name in row for row in known):
            return f"scores.json has no {name}"
        if not all(_is_same(row[name], value) for row, value in zip(known, table[name], strict=True)):
            return f"the {name} of a case differs between scores.json and scores.csv"
    summaries = {summary.label: summary for summary in stored.summaries}
    for label in table["label"].drop_duplicates():
        own = table[table["label"] == label]
        for name in names:
            metric = summaries[label].metrics.get(name) if label in summaries else None
            if metric is None:
                return "scores.json was written by another version"
            scored = own.loc[~own["status"].isin(UNSCORED), name]
            counts = len(own), int(scored.isna().sum()), int(scored.map(math.isinf).sum())
            if counts != (metric.num_expected, metric.num_undefined, metric.num_infinite):
                return f"the number of undefined or infinite {name} values differs between scores.json and scores.csv"
    return ""


def _label_summary(entry: dict[str, Any]) -> LabelSummary:
    metrics = {name: _metric_summary(metric) for name, metric in entry["metrics"].items()}
    return LabelSummary(**{**entry, "metrics": metrics})


def _metric_summary(entry: dict[str, Any]) -> MetricSummary:
    numbers: dict[str, Any] = {name: _number(value) for name, value in entry.items() if name not in _TEXTS}
    return MetricSummary(**numbers, **{name: entry.get(name, "") for name in _TEXTS})


def _number(value: Any) -> float:
    if not isinstance(value, int | float | None):
        raise TypeError(f"{value!r} is not a number")
    return math.nan if value is None else value


def _is_same(stored: Any, value: float) -> bool:
    if stored is None:
        return not math.isfinite(value)
    return isinstance(stored, int | float) and math.isclose(stored, value, rel_tol=_TOLERANCE)
