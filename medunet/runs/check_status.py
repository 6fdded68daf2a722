"""Whether the data of a run passed the check and have not changed since."""

from medunet.base.errors import FaultsError
from medunet.base.files import hash_value
from medunet.dataset.checks.absent_classes import TRAINED_WITHOUT_CLASS, fold_subject
from medunet.dataset.checks.manifest_checks import errors_left, read_faults
from medunet.imaging.formats import files_of
from medunet.records.data_root import case_paths
from medunet.records.fault import Fault
from medunet.runs.provenance import read_provenance
from medunet.runs.run import Run, each_fold


def data_state(run: Run) -> str:
    """Return a hash of the manifest and of the size and modification time of every file that it names.

    A check is valid as long as this hash does not change.
    """
    manifest = run.read_manifest()
    states = []
    for case in manifest.used:
        images, label = case_paths(case, manifest.description, run.data_root)
        for path in (*images, *([label] if label else [])):
            for file in files_of(path):
                state = file.stat() if file.exists() else None
                states.append([state.st_size, state.st_mtime_ns] if state else None)
    return hash_value([manifest.to_dict(), states])


def require_passed_check(run: Run, *, trains: bool = True) -> None:
    """Check that the data passed `medunet check` and have not changed since.

    A class that is absent from the training cases of a fold (S015) only stops the training of that fold, and nothing
    if not `trains`.

    Raises:
        FaultsError: The data have errors or were changed; the message names the cases and what to do.
    """
    manifest = run.read_manifest()
    checked = read_provenance(run).get("check", {}).get("data_state_sha256")
    if checked != data_state(run) or not run.folder.checks.exists():
        raise FaultsError(
            "the data have not been checked, or have changed since the check",
            where=str(run.folder.root),
            hint="Run `medunet check` first.",
        )
    folds = {fold_subject(one.config.training.fold) for one in each_fold(run)} if trains else set()
    left = [
        fault
        for fault in errors_left(read_faults(run.folder.checks), manifest)
        if not _is_of_other_fold(fault, folds)
    ]
    if left:
        rows = sorted({_name(fault) for fault in left})
        only_absent = all(fault.code == TRAINED_WITHOUT_CLASS for fault in left)
        raise FaultsError(
            f"the check found {len(left)} error(s): {', '.join(rows[:10])}{' ...' * (len(rows) > 10)}",
            where=str(run.folder.checks),
            hint=left[0].hint
            if only_absent
            else "Correct the files, or exclude cases with `medunet check --exclude CASE=REASON`.",
        )


def _is_of_other_fold(fault: Fault, folds: set[str]) -> bool:
    is_of_fold = fault.code == TRAINED_WITHOUT_CLASS and fault.subject.startswith("fold ")
    return is_of_fold and fault.subject not in folds


def _name(fault: Fault) -> str:
    if fault.code == TRAINED_WITHOUT_CLASS:
        return f"{fault.subject} ({fault.code}: {fault.measured})"
    return f"{fault.case or 'dataset'} ({fault.code})"
