"""The table of all cases on a report's index: its columns, and its rows as data that cohort.js sorts and filters."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medunet.records.scores import UNSCORED
from medunet.reporting.case_parts import CaseSummary
from medunet.reporting.scores import Measure, Unit, measures

PAGE_ROWS = 30  # of the table, before a reader asks for more
_MAX_TARGETS = 6  # with columns of their own; of more, those with the lowest mean Dice
_THUMBNAIL_BYTES = 6_000_000  # of all thumbnails together, from the worst case on
_DIGITS = 9


@dataclass(frozen=True)
class NumberColumn:
    """A measure of one target, by which the table can be sorted and filtered."""

    target: str
    measure: Measure


@dataclass(frozen=True)
class CaseTable:
    """The table's columns and one row for each case, worst first."""

    columns: tuple[NumberColumn, ...]
    filters: tuple[str, ...]  # text columns
    rows: tuple[dict[str, Any], ...]
    num_without_thumbnail: int

    @property
    def targets(self) -> dict[str, list[Measure]]:
        """The measures shown of each target."""
        found: dict[str, list[Measure]] = {}
        for column in self.columns:
            found.setdefault(column.target, []).append(column.measure)
        return found

    @property
    def data(self) -> dict[str, Any]:
        """The table as JSON: infinite numbers are the text `inf`, undefined ones null."""
        return {
            "decimals": [column.measure.decimals for column in self.columns],
            "targets": [len(shown) for shown in self.targets.values()],
            "pageRows": PAGE_ROWS,
            "rows": [
                [
                    *(row["case"], row["page"], row["severity"], row["verdict"], row["thumbnail"]),
                    *(row["texts"], [_plain(value) for value in row["numbers"]]),
                ]
                for row in self.rows
            ],
        }

    def texts_of(self, index: int) -> list[str]:
        """Return the values of a filter's column, sorted."""
        return sorted({row["texts"][index] for row in self.rows})


def choose_targets(scores: pd.DataFrame) -> list[str]:
    """Return the targets with columns of their own: all, or the six of the lowest mean Dice."""
    labels = list(scores["label"].drop_duplicates())
    if len(labels) <= _MAX_TARGETS:
        return labels
    dice = scores["dice"].where(~scores["status"].isin(UNSCORED), 0.0)
    worst = set(dice.groupby(scores["label"]).mean().sort_values(kind="stable").index[:_MAX_TARGETS])
    return [label for label in labels if label in worst]


def make_case_table(
    scores: pd.DataFrame, summaries: Mapping[str, CaseSummary], filters: Sequence[str], unit: Unit
) -> CaseTable:
    """Return the table of the cases in `summaries`, in their order; `filters` are text columns of `scores`."""
    shown = measures(scores, unit)
    dice = next((each for each in shown if each.column == "dice"), None)
    distances = [each for each in shown if each.column.startswith("hd")]
    kept = [each for each in (dice, distances[-1] if distances else None) if each]
    targets = choose_targets(scores)
    columns = tuple(NumberColumn(target, each) for target in targets for each in kept)
    values = {
        (case, label): numbers
        for case, label, *numbers in scores[["case", "label", *(each.column for each in kept)]].itertuples(
            index=False, name=None
        )
    }
    texts = {
        case: list(known)
        for case, *known in scores.drop_duplicates("case")[["case", *filters]].itertuples(
            index=False, name=None
        )
    }
    none = [math.nan] * len(kept)
    rows, spent = [], 0
    for case, summary in summaries.items():
        thumbnail = summary.thumbnail
        spent += len(thumbnail or "")
        rows.append(
            {
                "case": case,
                "page": f"cases/{summary.page}",
                "severity": summary.severity,
                "verdict": short_verdict(summary),
                "thumbnail": thumbnail if spent <= _THUMBNAIL_BYTES else None,
                "texts": texts[case],
                "numbers": [value for target in targets for value in values.get((case, target), none)],
            }
        )
    hidden = sum(
        1
        for row, summary in zip(rows, summaries.values(), strict=True)
        if summary.thumbnail and not row["thumbnail"]
    )
    return CaseTable(columns, tuple(filters), tuple(rows), hidden)


def short_verdict(summary: CaseSummary) -> str:
    """Return the sentence of a verdict without the word that its mark beside it says."""
    said = f"{summary.severity.capitalize()}: "
    rest = summary.verdict.removeprefix(said)
    return rest[:1].upper() + rest[1:] if summary.verdict.startswith(said) else rest


def _plain(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return round(float(value), _DIGITS)
