"""Check all files of a manifest, and write the faults as checks.json, checks.csv and a table for the terminal."""

import csv
import io
import math
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from medunet.base.errors import InputError
from medunet.base.files import read_json, write_json, write_text
from medunet.base.pool import Lost, Workers, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.dataset.checks.acceptance import mark_accepted
from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.checks.case_facts import CaseFacts
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.set_checks import UnmatchedFacts, check_set, read_unmatched
from medunet.imaging.geometry import max_volume_bytes
from medunet.imaging.volumes import read_header
from medunet.records.data_root import file_path
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Case, Manifest, Unmatched

_ORDER = {"error": 0, "warning": 1, "note": 2}
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_COLUMNS = ("code", "severity", "case", "subject", "measured", "expected", "mend", "accepted")
_SCHEMA = "medunet.checks/1"
_FAULTS = TypeAdapter(list[Fault])

_Examined = tuple[list[Fault], CaseFacts] | UnmatchedFacts


def check_manifest(
    manifest: Manifest, data_root: Path, *, loss: str = "auto", workers: int | None = None
) -> list[Fault]:
    """Read every file of every case once and return all faults, errors first; show a progress bar on stderr.

    Excluded cases are checked individually but not against the others. The number of workers does not affect the
    result. If a worker process is killed by the system, its case gets a fault.

    Args:
        loss: training loss that the labels must fit: auto, dice_ce or dice_bce.
        workers: number of processes; None for as many as cores and memory allow.

    Raises:
        InputError: `MEDUNET_MAX_VOLUME_GB` is not a positive number, or processes cannot be started.
    """
    max_volume_bytes()
    items: list[Case | Unmatched] = [*manifest.cases, *manifest.unmatched]
    examine = partial(_examine, description=manifest.description, data_root=data_root)
    num_workers = workers or choose_workers_for(items, data_root)
    examined: dict[int, _Examined] = {}
    with closing(run_parallel(examine, items, num_workers)) as results:
        for _, (index, result) in zip(track(items, "Check"), results, strict=True):
            examined[index] = _killed(items[index], result.why) if isinstance(result, Lost) else result
    used = {case.id for case in manifest.used}
    faults: list[Fault] = []
    facts, strays = [], []
    for index in range(len(items)):
        result = examined[index]
        if isinstance(result, UnmatchedFacts):
            strays.append(result)
            continue
        found, case_facts = result
        faults += found
        facts += [case_facts] if case_facts.case.id in used else []
    faults += check_set(manifest.description, facts, strays, loss)
    return sorted(mark_accepted(faults, manifest.accepted), key=_rank)


def choose_workers_for(items: Sequence[Case | Unmatched], data_root: Path) -> Workers:
    """Return the number of processes for the files, with the work measured in cases of the largest size."""
    sizes = [_count_voxels(item, data_root) for item in items]
    largest = max(sizes, default=0)
    return choose_workers(math.ceil(sum(sizes) / largest) if largest else 0, largest)


def errors_left(faults: Sequence[Fault], manifest: Manifest) -> list[Fault]:
    """Return the errors that are not accepted and whose cases are not excluded; they prevent training."""
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
    """Write checks.json and checks.csv atomically; cells that a spreadsheet would run as formulas are quoted."""
    rows = _FAULTS.dump_python(list(faults), by_alias=True)
    write_json(folder / "checks.json", {"schema": _SCHEMA, "faults": rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _quote_formula(value) for key, value in row.items()} for row in rows)
    write_text(folder / "checks.csv", text.getvalue())


def read_faults(path: Path) -> list[Fault]:
    """Read the faults of a checks.json.

    Raises:
        InputError: the file is missing or does not have the format of `write_faults`.
    """
    plain = read_json(path)
    try:
        if not isinstance(plain, dict) or plain.get("schema") != _SCHEMA:
            raise InputError(
                f"its schema is not {_SCHEMA}", where=str(path), hint="Run `medunet check` again."
            )
        return _FAULTS.validate_python(plain.get("faults"))
    except ValidationError as error:
        raise InputError(
            "does not contain faults in the expected format",
            where=str(path),
            hint="Run `medunet check` again.",
        ) from error


def fault_table(faults: Sequence[Fault], *, most_rows: int = 12) -> Table:
    """Return the faults as a table for the terminal: errors first, grouped by code with one hint per code.

    At most `most_rows` faults of a code are shown, with the number of the others; checks.csv has all of them.
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
            Text(head), "", Text(FAULT_KINDS[group[0].code].title), Text(group[0].hint), style=style
        )
        for fault in group[:most_rows]:
            reason = f" (accepted: {fault.accepted})" if fault.accepted else ""
            cells = (fault.case or "–", fault.subject, fault.measured + reason, fault.expected)
            table.add_row(*(Text(cell) for cell in cells), style="dim" if reason else None)
        if len(group) > most_rows:
            table.add_row(f"… and {len(group) - most_rows} more", "", "", "see checks.csv")
        table.add_section()
    return table


def _examine(item: Case | Unmatched, *, description: Description, data_root: Path) -> _Examined:
    if isinstance(item, Unmatched):
        return read_unmatched(item, data_root)
    return check_case(item, description, data_root)


def _killed(item: Case | Unmatched, why: str) -> _Examined:
    """Return the result for an item whose process was killed."""
    if isinstance(item, Unmatched):
        return UnmatchedFacts(item, None, why)
    return [make_fault("N099", item.id, "", why)], CaseFacts(item)


def _count_voxels(item: Case | Unmatched, data_root: Path) -> int:
    """Return the number of voxels in an item's largest file, from its header; 0 if it will not be read."""
    names = (
        [item.path] if isinstance(item, Unmatched) else [*item.images.values(), *filter(None, [item.label])]
    )
    try:
        paths = [file_path(name, data_root, name) for name in dict.fromkeys(names)]
        header = read_header(max(paths, key=lambda path: path.stat().st_size))
        return (
            math.prod(header.shape) if header.num_bytes <= max_volume_bytes() else 0
        )  # too large to be read
    except Exception:  # the check reports the reason
        return 0


def _rank(fault: Fault) -> tuple[int, str, str, str]:
    return _ORDER[fault.severity], fault.code, fault.case, fault.subject


def _count_text(faults: Sequence[Fault]) -> str:
    counts = {severity: sum(fault.severity == severity for fault in faults) for severity in _ORDER}
    text = ", ".join(f"{count} {severity}{'s' * (count != 1)}" for severity, count in counts.items())
    num_accepted = sum(bool(fault.accepted) for fault in faults)
    return f"{text}; {num_accepted} of them accepted" if num_accepted else text


def _quote_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
