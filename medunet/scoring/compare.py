"""Comparison of methods on the same cases: all of them, and those of each stratum, such as a site.

How failures, infinite distances, empty masks and several cases of a patient count is in `medunet.scoring.paired`.
Cases that any table gives to one patient are of one patient.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from medunet.base.errors import InputError
from medunet.records.scores import UNSCORED
from medunet.scoring.columns import OPTIONAL_COLUMNS, percentile_of
from medunet.scoring.comparable import check_comparable
from medunet.scoring.paired import PairDifference, Ranking, Rows, align, compare_cases, correct_p, metric_of
from medunet.scoring.summary import units_of

_Common = Mapping[str, tuple[Rows, list[str]]]  # by label, as `align` returns them


@dataclass(frozen=True)
class StratumComparison:
    """The comparison over the cases with one value of a column, such as one site."""

    by: str
    value: str
    num_cases: int
    num_patients: int
    pairs: tuple[PairDifference, ...]  # p is corrected for all strata of the column
    rankings: tuple[Ranking, ...]


@dataclass(frozen=True)
class Comparison:
    """Result of comparing two or more methods on the same cases."""

    methods: tuple[str, ...]
    labels: tuple[str, ...]  # that all methods have in common
    surface: str
    main_metrics: tuple[str, ...]  # Dice, the robust Hausdorff distance, NSD
    absent: dict[str, tuple[str, ...]]  # by method, the cases that only other methods have
    unscored: dict[str, tuple[str, ...]]  # by method, its missing and failed cases
    left_out: dict[str, tuple[str, ...]]  # labels that are not compared, with the methods that have them
    pairs: tuple[PairDifference, ...]
    rankings: tuple[Ranking, ...]
    num_cases: int
    num_patients: int
    strata: tuple[StratumComparison, ...] = ()

    @property
    def letters(self) -> dict[str, str]:
        """A short name for each method: A, B, ..."""
        return {
            method: chr(ord("A") + number) if number < 26 else str(number + 1)
            for number, method in enumerate(self.methods)
        }


def compare(
    tables: Mapping[str, pd.DataFrame], strata: Mapping[str, Mapping[str, str]] | None = None
) -> Comparison:
    """Compare two or more methods by their score tables (see `medunet.scoring.tables.read_scores`).

    `strata` has columns by name with the value of every case (see `medunet.scoring.strata.choose_strata`); the
    methods are also compared over the cases of each value.

    Raises:
        InputError: the tables were made with different settings, or have no label or no metric in common.
    """
    check_comparable(tables)
    methods = tuple(tables)
    labels_of = {method: list(dict.fromkeys(table["label"])) for method, table in tables.items()}
    all_labels = list(dict.fromkeys(label for labels in labels_of.values() for label in labels))
    labels = tuple(label for label in all_labels if all(label in known for known in labels_of.values()))
    columns = [name for name in tables[methods[0]] if all(name in table for table in tables.values())]
    metrics = [name for name in map(metric_of, map(str, columns)) if name]
    main = tuple(name for name in metrics if name == "dice" or percentile_of(name) or name.startswith("nsd_"))
    patients = _join_patients(tables.values())
    common = {label: align(tables, label) for label in labels}
    absent: dict[str, dict[str, None]] = {method: {} for method in methods}
    unscored: dict[str, dict[str, None]] = {method: {} for method in methods}
    for rows, _ in common.values():
        for method, table in rows.items():
            absent[method] |= dict.fromkeys(table.index[table["status"] == "absent"])
            unscored[method] |= dict.fromkeys(table.index[table["status"].isin(UNSCORED)])
    pairs, rankings = compare_cases(common, metrics, main, patients)
    if not pairs:
        have_metrics = [
            f"{', '.join(_metrics_of(table)) or 'none'} in {name}" for name, table in tables.items()
        ]
        raise InputError(
            f"no metric is common to all ({'; '.join(have_metrics)})",
            where="medunet compare",
            hint="Score all methods with the same metrics.",
        )
    cases = {case for _, known in common.values() for case in known}
    return Comparison(
        methods=methods,
        labels=labels,
        surface=str(next(iter(tables[methods[0]]["surface"]))),
        main_metrics=main,
        absent={method: tuple(found) for method, found in absent.items()},
        unscored={method: tuple(found) for method, found in unscored.items()},
        left_out={
            label: tuple(method for method in methods if label in labels_of[method])
            for label in all_labels
            if label not in labels
        },
        pairs=correct_p(pairs),
        rankings=tuple(rankings),
        num_cases=len(cases),
        num_patients=len({patients[case] for case in cases}),
        strata=tuple(
            stratum
            for by, values in (strata or {}).items()
            for stratum in _compare_strata(by, values, common, metrics, main, patients)
        ),
    )


def _compare_strata(
    by: str,
    values: Mapping[str, str],
    common: _Common,
    metrics: Sequence[str],
    main: Sequence[str],
    patients: Mapping[str, str],
) -> list[StratumComparison]:
    """Compare the methods over the cases of each value of a column, in alphabetical order."""
    found = []
    for value in sorted({values[case] for _, cases in common.values() for case in cases}):
        own = {}
        for label, (rows, cases) in common.items():
            kept = [case for case in cases if values[case] == value]
            if kept:
                own[label] = ({method: table.loc[kept] for method, table in rows.items()}, kept)
        pairs, rankings = compare_cases(own, metrics, main, patients)
        cases_of = {case for _, cases in own.values() for case in cases}
        num_patients = len({patients[case] for case in cases_of})
        found.append(StratumComparison(by, value, len(cases_of), num_patients, tuple(pairs), tuple(rankings)))
    corrected = iter(correct_p([pair for stratum in found for pair in stratum.pairs]))
    return [
        replace(stratum, pairs=tuple(itertools.islice(corrected, len(stratum.pairs)))) for stratum in found
    ]


def _join_patients(tables: Iterable[pd.DataFrame]) -> dict[str, str]:
    """Return the patient of each case: cases that any table gives to one patient are of one patient."""
    first: dict[str, str] = {}  # a case's representative: an earlier case of its patient, or itself

    def find(case: str) -> str:
        while first.setdefault(case, case) != case:
            case = first[case]
        return case

    for table in tables:
        seen: dict[str, str] = {}  # this table's patients
        for case, patient in zip(table["case"], units_of(table), strict=True):
            first[find(case)] = find(seen.setdefault(patient, case))
    return {case: find(case) for case in first}


def _metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the metrics of a table; optional ones only if any row has a value."""
    names = {column: metric_of(column) for column in map(str, table)}
    return [
        name
        for column, name in names.items()
        if name and not (column in OPTIONAL_COLUMNS and table[column].isna().all())
    ]
