"""The same voxels in two places, found by a hash of their content: copies, leaks, exchanged modalities."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.dataset.checks.fault_codes import make_fault
from medunet.records.fault import Fault, Severity
from medunet.records.manifest import Case


def place_of(case: Case) -> str:
    """Return where a case serves: 'fold 0', 'train', 'test' or 'unlabelled'."""
    return case.split if case.fold is None else f"fold {case.fold}"


def leaks(one: Case, other: Case) -> bool:
    """Say whether what two cases share would leak: between folds, or between training and test.

    Nothing is learnt from an unlabelled case nor scored on it.
    """
    places = {place_of(one), place_of(other)}
    return len(places) > 1 and "unlabelled" not in places


def check_twins(facts: Sequence[CaseFacts], strays: Iterable[VolumeFacts]) -> Iterator[Fault]:
    """Name every file with the same voxels as one before it, in its case, in another case, or in no case."""
    by_content: dict[str, list[tuple[Case, VolumeFacts]]] = defaultdict(list)
    for each in facts:
        for volume in (*each.images, *([each.label] if each.label else [])):
            if volume.content:  # empty labels are alike and no twins
                by_content[volume.content].append((each.case, volume))
    for group in by_content.values():
        for twin in group[1:]:
            yield _compare(twin, group[0])
    for stray in strays:
        if group := by_content.get(stray.content, []):
            case, volume = group[0]
            code = "S002" if volume.subject == "label" else "S001"
            measured = f"the same voxels as {_name(case, volume)}"
            yield make_fault(code, case.id, stray.path, measured, severity="warning")


def _compare(twin: tuple[Case, VolumeFacts], first: tuple[Case, VolumeFacts]) -> Fault:
    (case, volume), (first_case, first_volume) = twin, first
    subjects = {volume.subject, first_volume.subject}
    if case.id == first_case.id:
        same = f"the same voxels as {first_volume.subject}"
        return make_fault("P007", case.id, volume.subject, same, expected="voxels of its own")
    measured = f"the same voxels as {_name(first_case, first_volume)}; this one is in {place_of(case)}"
    if "label" in subjects:
        return make_fault("S002", case.id, volume.subject, measured)
    if len(subjects) > 1:
        return make_fault("P009", case.id, volume.subject, measured)
    severity: Severity = "error" if leaks(case, first_case) else "warning"
    return make_fault("S001", case.id, volume.subject, measured, severity=severity)


def _name(case: Case, volume: VolumeFacts) -> str:
    return f"{volume.subject} of case {case.id}, in {place_of(case)}"
