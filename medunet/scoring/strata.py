"""Groups of cases by the value of a column, such as their site: where the values come from, and their summaries."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from medunet.base.errors import InputError
from medunet.base.files import guess_delimiter
from medunet.base.words import list_some
from medunet.records.manifest import Case
from medunet.records.scores import CaseScore
from medunet.scoring.columns import is_metric
from medunet.scoring.summary import (
    LabelSummary,
    MeanDice,
    average_dice,
    dice_by_case,
    summarise,
    summarise_table,
    units_of,
)

UNKNOWN = "unknown"  # the stratum of cases without a value
MAX_STRATA = 20
_CASE_COLUMNS = ("case", "id", "caseid", "name")  # as in a table of cases
_NO_STRATA = ("label", "status", "surface", "reason", "notes", "lesion_rules", "case")
_MAX_NAMED = 5

Values = Mapping[str, str]  # by case


@dataclass(frozen=True)
class Stratum:
    """The cases with one value of a column, and their summaries by target."""

    by: str
    value: str
    num_cases: int
    num_patients: int
    dice: MeanDice
    summary: tuple[LabelSummary, ...]


def choose_strata(
    by: Sequence[str], known: Mapping[str, Values], cases: Sequence[str], joined: Path | None = None
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Return the value of each case in each column of `by`, and remarks on cases that have none.

    Columns are those of the joined table (see `read_columns`) or the `known` ones. A case without a value is in the
    stratum "unknown".

    Raises:
        InputError: a column does not exist, has no value for any case, or has more than `MAX_STRATA` values.
    """
    if joined is not None and not by:
        raise InputError("no column is named", where="--join", hint="Add --by COLUMN.")
    columns = {**known, **(read_columns(joined) if joined is not None else {})}
    chosen: dict[str, dict[str, str]] = {}
    remarks, faults = [], []
    for name in dict.fromkeys(by):
        values = {case: columns.get(name, {}).get(case, "").strip() for case in cases}
        if name == "patient":
            values = _name_patients(values)
        distinct = {value for value in values.values() if value}
        if is_metric(name) or name in _NO_STRATA:
            faults.append(f"{name} is a score")
        elif not distinct:
            faults.append(_why_none(name, columns.get(name), cases))
        elif len(distinct) > MAX_STRATA:
            faults.append(f"{name} has {len(distinct)} values, more than {MAX_STRATA}")
        elif without := [case for case, value in values.items() if not value]:
            named = list_some(without, _MAX_NAMED)
            remarks.append(f"{len(without)} case(s) without {name} are “{UNKNOWN}”: {named}")
        chosen[name] = {case: value or UNKNOWN for case, value in values.items()}
    if faults:
        usable = [
            name
            for name, values in columns.items()
            if not is_metric(name) and name not in _NO_STRATA and any(values.get(case) for case in cases)
        ]
        raise InputError(
            "; ".join(faults),
            where="--by",
            hint=f"Choose from {usable}, or add a table by case with --join TABLE.csv; "
            "group numbers such as ages into classes first.",
        )
    return chosen, remarks


def read_columns(path: Path) -> dict[str, dict[str, str]]:
    """Read a CSV with a column `case` and return its other columns by name, each with the value of every case.

    Raises:
        InputError: the file is missing, is not such a table, or has two different rows for a case.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "cannot be read as text in UTF-8", where=str(path), hint="Check the path, or save it in UTF-8."
        ) from error
    head = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.DictReader(io.StringIO(text), delimiter=guess_delimiter(head))
    names = [name for name in reader.fieldnames or () if name]
    case_column = next((name for name in names if name.casefold() in _CASE_COLUMNS), None)
    if case_column is None:
        raise InputError(
            f"has no column case; its columns are {names}",
            where=str(path),
            hint="Add a column `case` with the case ids of scores.csv.",
        )
    columns: dict[str, dict[str, str]] = {name: {} for name in names if name != case_column}
    faults = []
    for row in reader:
        case = (row[case_column] or "").strip()
        values = {name: (row[name] or "").strip() for name in columns}
        if case and any(columns[name].get(case, value) != value for name, value in values.items()):
            faults.append(f"row {reader.line_num}: {case} differs from an earlier row")
        for name, value in values.items():
            columns[name].setdefault(case, value)
    if faults:
        raise InputError("; ".join(faults), where=str(path), hint="Keep one row for each case.")
    return columns


def columns_of_cases(cases: Sequence[Case]) -> dict[str, dict[str, str]]:
    """Return the columns of a manifest's cases that scores can be grouped by: patient, site, fold and split.

    A patient that is not a part of the case's id may be free text, such as a name in a table: it is replaced with the
    id of the patient's first case.
    """
    return {
        "patient": _name_patients({case.id: case.patient for case in cases}),
        "site": {case.id: case.site or "" for case in cases},
        "fold": {case.id: "" if case.fold is None else str(case.fold) for case in cases},
        "split": {case.id: case.split for case in cases},
    }


def _name_patients(patients: Values) -> dict[str, str]:
    """Return patients by case without free text (see `columns_of_cases`); a case without one is its own patient."""
    first: dict[str, str] = {}
    for case in sorted(patients):
        first.setdefault(patients[case], case)
    return {
        case: (patient if patient in case else first[patient]) if patient else case
        for case, patient in patients.items()
    }


def _why_none(name: str, values: Values | None, cases: Sequence[str]) -> str:
    """Say why no case has a value in a column; `values` is None if the column does not exist."""
    if values is None:
        return f"there is no column {name}"
    others = [case for case, value in values.items() if value and case not in cases]
    if not others:
        return f"{name}: no case has a value"
    shown, expected = list_some(others, _MAX_NAMED), list_some(cases, _MAX_NAMED)
    return f"{name}: no case has a value, since it is given for {shown}, while the cases are {expected}"


def name_columns(scores: Sequence[CaseScore], columns: Mapping[str, Values]) -> list[CaseScore]:
    """Return the scores with the values of these columns, of which `patient` and `site` have fields of their own."""
    others = [name for name in columns if name not in ("patient", "site")]
    return [
        replace(
            score,
            patient=columns.get("patient", {}).get(score.case, ""),
            site=columns.get("site", {}).get(score.case, ""),
            strata={name: columns[name].get(score.case, "") for name in others},
        )
        for score in scores
    ]


def columns_of_tables(tables: Sequence[pd.DataFrame], by: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the text columns of score tables with the value of every case.

    Raises:
        InputError: a case has two values in a column of `by`.
    """
    columns: dict[str, dict[str, str]] = {}
    faults: dict[str, None] = {}
    for table in tables:
        for name in map(str, table.columns):
            if is_metric(name) or name in _NO_STRATA:
                continue
            known = columns.setdefault(name, {})
            for case, value in zip(table["case"], table[name], strict=True):
                if name in by and value and known.get(case, value) not in ("", value):
                    faults[f"{name} of {case} is {known[case]} and {value}"] = None
                known[case] = known.get(case) or value
    if faults:
        raise InputError(
            "; ".join(list(faults)[:MAX_STRATA]),
            where="--by",
            hint="Correct the column in the scores.csv files.",
        )
    return columns


def summarise_strata(
    scores: Sequence[CaseScore], by: Sequence[str], names: Sequence[str] | None = None
) -> list[Stratum]:
    """Summarise the cases of each value of each column in `by`, values in alphabetical order.

    All metrics are summarised, or only the named columns.
    """
    strata = []
    for name in by:
        values = {score.case: _value_of(score, name) for score in scores}
        for value in sorted(set(values.values())):
            own = [score for score in scores if values[score.case] == value]
            units = {score.case: score.unit for score in own}
            strata.append(_stratum(name, value, units, dice_by_case(own), summarise(own, names)))
    return strata


def summarise_table_strata(
    table: pd.DataFrame, by: Sequence[str], names: Sequence[str], dice: Mapping[str, float]
) -> list[Stratum]:
    """Summarise the named metrics of scores.csv as `summarise_strata` does; `dice` is the mean Dice of each case.

    Columns that the table does not have are left out.
    """
    strata = []
    for name in [name for name in by if name in table]:
        column = table[name].replace("", UNKNOWN)
        for value in sorted(set(column)):
            own = table[column == value]
            units = dict(zip(own["case"], units_of(own), strict=True))
            by_case = {case: dice[case] for case in units if case in dice}
            strata.append(_stratum(name, value, units, by_case, summarise_table(own, names)))
    return strata


def _stratum(
    name: str, value: str, units: Values, by_case: Mapping[str, float], summaries: Sequence[LabelSummary]
) -> Stratum:
    dice = average_dice(by_case, units)
    return Stratum(name, value, len(units), len(set(units.values())), dice, tuple(summaries))


def _value_of(score: CaseScore, name: str) -> str:
    known = {"patient": score.unit, "site": score.site, **score.strata}
    return known.get(name) or UNKNOWN
