"""The check of a manifest: all faults of all cases, in one table, one JSON and one CSV file."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from medunet.dataset.case_checks import check_case
from medunet.dataset.fault_codes import FAULT_KINDS
from medunet.dataset.set_checks import check_set, read_unmatched
from medunet.errors import InputError
from medunet.files import read_json, write_json, write_text
from medunet.progress import track
from medunet.records import Fault, Manifest

_ORDER = {"error": 0, "warning": 1, "note": 2}
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_COLUMNS = tuple(column.name for column in fields(Fault))
_SCHEMA = "medunet.checks/1"


def check_manifest(manifest: Manifest, data_root: Path, *, loss: str = "auto") -> list[Fault]:
    """Read every file of every case once and return all faults, errors first.

    Excluded cases are checked by themselves but not against the others. `loss` is the training loss that the
    labels must fit: auto, dice_ce or dice_bce.
    """
    used = {case.id for case in manifest.used}
    faults: list[Fault] = []
    facts, strays = [], []
    for case in track(manifest.cases, "Check"):
        found, case_facts = check_case(case, manifest.description, data_root)
        faults += found
        facts += [case_facts] if case.id in used else []
    for file in track(manifest.unmatched, "Check unmatched files"):
        strays.append(read_unmatched(file, data_root))
    faults += check_set(manifest.description, facts, strays, loss)
    return sorted(faults, key=_rank)


def errors_left(faults: Sequence[Fault], manifest: Manifest) -> list[Fault]:
    """Return the errors of cases that are not excluded and that are not accepted: training refuses these."""
    excluded = {entry.id for entry in manifest.excluded}
    accepted = {(entry.code, entry.case) for entry in manifest.accepted}
    return [
        fault
        for fault in faults
        if fault.severity == "error"
        and fault.case not in excluded
        and (fault.code, fault.case) not in accepted
    ]


def write_faults(faults: Sequence[Fault], folder: Path) -> None:
    """Write checks.json and checks.csv, each whole or not at all; cells that a spreadsheet would run are quoted."""
    rows = [asdict(fault) for fault in faults]
    write_json(folder / "checks.json", {"schema": _SCHEMA, "faults": rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _inert(value) for key, value in row.items()} for row in rows)
    write_text(folder / "checks.csv", text.getvalue())


def read_faults(path: Path) -> list[Fault]:
    """Read the faults of a checks.json.

    Raises:
        InputError: the file is missing or is not what `write_faults` writes.
    """
    plain = read_json(path)
    try:
        if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA:
            raise InputError(
                f"its schema is not {_SCHEMA}", where=str(path), mend="Run `medunet check` again."
            )
        return TypeAdapter(list[Fault]).validate_python(plain.get("faults"))
    except ValidationError as error:
        raise InputError(
            "does not hold faults as they are written", where=str(path), mend="Run `medunet check` again."
        ) from error


def fault_table(faults: Sequence[Fault], *, most_rows: int = 12) -> Table:
    """Return the faults as a table for the terminal: errors first, grouped by code, the mend said once a code.

    Of a code with more than `most_rows` faults the rest is counted; checks.csv holds them all.
    """
    table = Table(title=_count_text(faults), title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("case", "subject", "measured", "expected"):
        table.add_column(column, overflow="fold")
    groups: dict[str, list[Fault]] = {}
    for fault in sorted(faults, key=_rank):
        groups.setdefault(f"{fault.severity} {fault.code}", []).append(fault)
    for head, group in groups.items():
        style = _STYLES[group[0].severity]
        table.add_row(
            Text(head), "", Text(FAULT_KINDS[group[0].code].title), Text(group[0].mend), style=style
        )
        for fault in group[:most_rows]:
            cells = (fault.case or "–", fault.subject, fault.measured, fault.expected)
            table.add_row(*(Text(cell) for cell in cells))
        if len(group) > most_rows:
            table.add_row(f"… and {len(group) - most_rows} more", "", "", "see checks.csv")
        table.add_section()
    return table


def _rank(fault: Fault) -> tuple[int, str, str, str]:
    return _ORDER[fault.severity], fault.code, fault.case, fault.subject


def _count_text(faults: Sequence[Fault]) -> str:
    counts = {severity: sum(fault.severity == severity for fault in faults) for severity in _ORDER}
    return ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items())


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
