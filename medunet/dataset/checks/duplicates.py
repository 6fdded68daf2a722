"""Find files with identical voxels by a hash of their values: copies, leakage, exchanged modalities."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.dataset.checks.fault_codes import make_fault
from medunet.records.fault import Fault, Severity
from medunet.records.manifest import Case


def part_of(case: Case) -> str:
    """Return the part of the split that a case is in: 'fold 0', 'train', 'test' or 'unlabelled'."""
    return case.split if case.fold is None else f"fold {case.fold}"


def would_leak(one: Case, other: Case) -> bool:
    """Return whether data shared by two cases would leak between folds, or between training and test.

    Unlabelled cases are neither trained on nor scored.
    """
    parts = {part_of(one), part_of(other)}
    return len(parts) > 1 and "unlabelled" not in parts


def check_duplicates(facts: Sequence[CaseFacts], strays: Iterable[VolumeFacts]) -> Iterator[Fault]:
    """Yield a fault for every file with the same voxels as an earlier one, of the same case, another or none."""
    by_content: dict[str, list[tuple[Case, VolumeFacts]]] = defaultdict(list)
    for each in facts:
        for volume in (*each.images, *([each.label] if each.label else [])):
            if volume.content:  # constant volumes, such as empty labels, have no hash
                by_content[volume.content].append((each.case, volume))
    for group in by_content.values():
        for copy in group[1:]:
            yield _compare(copy, group[0])
    for stray in strays:
        if group := by_content.get(stray.content, []):
            case, volume = group[0]
            code = "S002" if volume.subject == "label" else "S001"
            measured = f"the same voxels as {_name(case, volume)}"
            yield make_fault(code, case.id, stray.path, measured, severity="warning")


def _compare(copy: tuple[Case, VolumeFacts], first: tuple[Case, VolumeFacts]) -> Fault:
    (case, volume), (first_case, first_volume) = copy, first
    subjects = {volume.subject, first_volume.subject}
    if case.id == first_case.id:
        same = f"the same voxels as {first_volume.subject}"
        return make_fault("P007", case.id, volume.subject, same, expected="different voxels")
    measured = f"the same voxels as {_name(first_case, first_volume)}; this one is in {part_of(case)}"
    if "label" in subjects:
        return make_fault("S002", case.id, volume.subject, measured)
    if len(subjects) > 1:
        return make_fault("P009", case.id, volume.subject, measured)
    severity: Severity = "error" if would_leak(case, first_case) else "warning"
    return make_fault("S001", case.id, volume.subject, measured, severity=severity)


def _name(case: Case, volume: VolumeFacts) -> str:
    return f"{volume.subject} of case {case.id}, in {part_of(case)}"
