"""Import of a tree of DICOM files as NIfTI volumes with a manifest, under pseudonyms.

    out/images/<case>.nii.gz   series.csv   series.json   checks.json   checks.csv   manifest.json   originals.csv

Only originals.csv, which only the user can read, maps the cases to patients and series. A stopped import is resumed:
volumes whose files have not changed are kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medunet.base.errors import InputError
from medunet.base.files import remove_unfinished
from medunet.base.pool import Lost, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.manifest_checks import read_faults, write_faults
from medunet.dataset.dicom.conversion import Job, Outcome, convert, fail_unexpectedly, keep
from medunet.dataset.dicom.joining import join_single_slices
from medunet.dataset.dicom.pseudonyms import ORIGINALS, Pseudonyms
from medunet.dataset.dicom.series import Tree, fingerprint_files, read_tree, sort_series
from medunet.dataset.dicom.series_checks import check_series
from medunet.dataset.dicom.tables import (
    TABLES,
    Journal,
    SeriesRow,
    find_written,
    make_manifests,
    write_manifests,
    write_rows,
)
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Manifest

_VERSION = 2  # of the imported volumes; increment it when they change, so that all are imported again
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Imported:
    """Content of an output folder after an import, including earlier imports."""

    rows: tuple[SeriesRow, ...]
    faults: tuple[Fault, ...]
    manifests: dict[str, Manifest]  # by file name
    num_others: int  # files of this tree that are not DICOM images
    num_again: int = 0  # further links to files of this tree


def import_tree(
    tree: Path,
    out: Path,
    *,
    description: Description | None = None,
    repair: bool = False,
    workers: int | None = None,
) -> Imported:
    """Import every series below `tree` into `out`, with progress bars on stderr.

    A series that cannot be imported gets a fault and does not stop the others. `description` declares channel and
    labels of the manifest; None means a channel named after the modality, and one label. With `repair`, stacks with
    gaps or tilt are resampled. `workers` is the number of processes (None: by cores and memory).

    Raises:
        InputError: The tree does not exist, the output folder is not writable or contains other files, or the
            description has several channels.
    """
    if not tree.is_dir():
        what = "it is not a folder" if tree.exists() else "no such folder"
        raise InputError(what, where=str(tree), hint="Check the path.")
    if tree.resolve() == out.resolve():
        raise InputError("the tree cannot be its own output", where=str(out), hint="Choose another folder.")
    if description is not None and len(description.channels) != 1:
        raise InputError(
            f"{description.name} has {len(description.channels)} channels, but a series has only one",
            where="--dataset",
            hint="Leave it out; name the imported series of each case in a CSV (layout csv).",
        )
    names = _read_names(out)
    journal = Journal(out)
    earlier = read_faults(out / "checks.json") if (out / "checks.json").exists() else []
    found = read_tree(tree, leave_out=out, workers=workers)
    found = replace(found, series=tuple(sort_series(join_single_slices(found.series))))
    if not found.series and not found.unreadable:
        raise InputError(
            f"no DICOM image among its {found.num_others} files"
            + (f", without {len(found.left_out)} folders that are not read" if found.left_out else ""),
            where=str(tree),
            hint="Check the path. Hidden folders are read only if they are given as the path themselves.",
        )
    _remove_leftovers(out)
    jobs, changed = _name_jobs(found, names, tree, out, repair)
    faults = [*_unreadable_faults(found, names, tree), *_alike_faults(jobs, names)]
    for case in changed:  # before names.write, so that a kill leaves no stale volume
        _image(out, case).unlink(missing_ok=True)
        journal.drop(case)  # its row in series.json, too, if this import is killed
    names.write(out)
    rows = {
        case: row
        for case, row in journal.rows.items()
        if row.status != "imported" or _image(out, case).exists()
    }
    current = {job.case for job in jobs}
    faults += [fault for fault in earlier if fault.case in rows and fault.case not in current]
    for outcome in _run_jobs(jobs, rows, journal, out, workers):
        rows[outcome.row.case] = outcome.row
        faults += outcome.faults
    imported = Imported(
        rows=tuple(rows[case] for case in sorted(rows)),
        faults=tuple(sorted(faults, key=_sort_key)),
        manifests=make_manifests((rows[case] for case in sorted(rows)), description),
        num_others=found.num_others,
        num_again=found.num_again,
    )
    write_manifests(imported.manifests, out)
    write_faults(imported.faults, out)
    write_rows(imported.rows, out)
    journal.remove()
    _remove_leftovers(out)  # of workers that were killed
    return imported


def _read_names(out: Path) -> Pseudonyms:
    """Read the pseudonyms of `out`; without them, existing images could be assigned to another patient."""
    if out.exists() and not out.is_dir():
        raise InputError("it is not a folder", where=str(out), hint="Choose another path.")
    names = Pseudonyms.read(out)
    if not names.entries and (written := find_written(out)):
        raise InputError(
            f"it contains {', '.join(written)}, but no {ORIGINALS} that maps them to patients",
            where=str(out),
            hint=f"Choose a new folder, or restore {ORIGINALS}.",
        )
    return names


def _name_jobs(
    found: Tree, names: Pseudonyms, tree: Path, out: Path, repair: bool
) -> tuple[list[Job], list[str]]:
    """Return a job for each volume, and the cases whose volume in `out` was made from other files."""
    jobs: list[Job] = []
    changed: list[str] = []
    for series in found.series:
        parts = check_series(series, repair=repair)
        for part in parts:
            given = names.find(series.key, part.number)
            entry = names.name_volume(series.patient_key, series.key, part.number)
            files = series.files
            if part.stack is not None:
                files = tuple({one.file.path: one.file for one in part.stack.slices}.values())
            digest = fingerprint_files(files, [_VERSION, repair])
            if given is not None and (given.case != entry.case or given.digest != digest):
                changed.append(given.case)
            first = files[0]
            entry = replace(
                entry,
                patient_name=first.patient_name,
                study_date=first.study_date,
                folder=first.path.parent.relative_to(tree).as_posix(),
                digest=digest,
            )
            names.put(entry)
            jobs.append(Job(entry.case, entry.patient, part, _image(out, entry.case), repair))
        changed += [entry.case for entry in names.removed_volumes(series.key, len(parts))]
    return jobs, changed


def _unreadable_faults(found: Tree, names: Pseudonyms, tree: Path) -> list[Fault]:
    """Give pseudonyms to the files and folders that are not read, and return a fault for each."""
    faults = []
    not_read = [("D009", "file", file) for file in found.unreadable]
    not_read += [("D024", "folder", folder) for folder in found.left_out]
    for code, subject, file in not_read:
        entry = names.name_file(file.path.relative_to(tree).as_posix())
        faults.append(make_fault(code, entry.case, subject, f"{file.why} (named in originals.csv)"))
    return faults


def _alike_faults(jobs: Sequence[Job], names: Pseudonyms) -> list[Fault]:
    """Return a fault for each patient of the jobs whose ID differs from another one's only in letter case."""
    first_of: dict[str, Job] = {}
    for job in jobs:
        first_of.setdefault(job.patient, job)
    faults = []
    for group in names.alike_patients():
        for patient in group[1:]:
            if (first := first_of.get(patient)) is not None:
                text = f"the PatientIDs of {' and '.join(group)} differ only in letter case"
                faults.append(make_fault("D023", first.case, first.part.modality, text))
    return faults


def _run_jobs(
    jobs: Sequence[Job], rows: dict[str, SeriesRow], journal: Journal, out: Path, workers: int | None
) -> Iterator[Outcome]:
    """Yield the outcome of each job; volumes that already have a row are kept."""
    waiting: list[Job] = []
    for job in jobs:
        row = rows.get(job.case)
        if job.part.stack is None or job.part.is_refused:
            yield convert(job)
        elif row is not None and row.status == "imported":
            yield keep(job, row)
        else:
            waiting.append(job)
    largest = max((int(np.prod(job.part.stack.shape)) for job in waiting if job.part.stack), default=0)
    num_workers = workers or choose_workers(len(waiting), largest)
    with closing(run_parallel(_convert_safely, waiting, num_workers)) as results:
        for _, (place, outcome) in zip(track(waiting, "Import"), results, strict=True):
            if isinstance(outcome, Lost):
                outcome = fail_unexpectedly(waiting[place], outcome.why)
            if outcome.unwritable:
                raise InputError(
                    outcome.unwritable,
                    where=str(out),
                    hint="Free disk space or choose a folder that you may write to.",
                )
            if outcome.row.status == "imported":
                journal.add(outcome.row)
            yield outcome


def _convert_safely(job: Job) -> Outcome:
    """Convert a job; an unexpected exception becomes a fault and does not stop the other series."""
    try:
        return convert(job)
    except Exception as error:  # only the type, since the error's text may name the patient
        return fail_unexpectedly(job, type(error).__name__)


def _image(out: Path, case: str) -> Path:
    return out / "images" / f"{case}.nii.gz"


def _remove_leftovers(out: Path) -> None:
    """Remove temporary files that a killed import, or a killed worker of it, left."""
    for path in (*(out / "images").glob(".*.nii.gz"), *out.glob(".originals.csv.*")):
        path.unlink(missing_ok=True)
    if out.exists():
        remove_unfinished(out / name for name in TABLES)


def _sort_key(fault: Fault) -> tuple[int, str, str]:
    return _ORDER[fault.severity], fault.code, fault.case
