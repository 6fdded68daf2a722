"""Check the whole dataset (S…): patients and labels in folds, unmatched files, loss, duplicates and outliers."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medunet.base.errors import DataError, InputError
from medunet.base.words import list_some
from medunet.dataset.checks.absent_classes import check_absent_classes
from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts, hash_content, shape_text
from medunet.dataset.checks.duplicates import check_duplicates, part_of, would_leak
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.outliers import check_intensities, check_volumes
from medunet.dataset.likely_patients import find_likely_patients
from medunet.imaging.volumes import read_header, read_stored
from medunet.records.data_root import file_path
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.loss_checks import find_head_mismatch
from medunet.records.manifest import Case, Unmatched

_FOREIGN_FACTOR = 2.0  # an unmatched file exceeds the cases' sizes by this factor along any axis
_LACKS_CHANNEL = "its case lacks channel"  # start of the layouts' reason for such files
_MAX_NAMES = 8


@dataclass(frozen=True)
class UnmatchedFacts:
    """A file that belongs to no case, with the data read from it or the reason why it cannot be read."""

    file: Unmatched
    facts: VolumeFacts | None
    trouble: str = ""


def read_unmatched(file: Unmatched, data_root: Path) -> UnmatchedFacts:
    """Read a file that belongs to no case, for comparison with the files of cases."""
    try:
        path = file_path(file.path, data_root, file.path)
        header = read_header(path)
        stored = read_stored(header)
        content = hash_content(stored.values() if stored.is_scaled else stored.array)
        shape = header.shape[:3] if header.is_picture else header.shape  # without the axis of colours
        return UnmatchedFacts(file, VolumeFacts("", file.path, shape, header.affine, content))
    except (DataError, InputError) as error:
        return UnmatchedFacts(file, None, error.what)
    except Exception as error:  # an unmatched file must not stop the check
        return UnmatchedFacts(file, None, f"it cannot be read ({type(error).__name__})")


def check_set(
    description: Description,
    facts: Sequence[CaseFacts],
    unmatched: Sequence[UnmatchedFacts],
    loss: str,
) -> list[Fault]:
    """Check the used cases against each other, unmatched files against the cases, and the loss against the labels."""
    return [
        *_check_patients([each.case for each in facts], description),
        *check_duplicates(facts, [stray.facts for stray in unmatched if stray.facts]),
        *check_intensities(description, facts),
        *check_volumes(description, facts),
        *_check_labels(description, facts),
        *_check_folds(description, facts),
        *check_absent_classes(description, facts),
        *_check_unmatched(facts, unmatched),
        *_check_loss(description, loss),
        *_check_unit(description),
    ]


def _check_patients(cases: Sequence[Case], description: Description) -> Iterator[Fault]:
    """Yield an error for each patient in two folds, and a warning for cases that are likely of one by their names."""
    by_patient: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.split != "unlabelled":
            by_patient[case.patient].append(case)
    for group in by_patient.values():
        other = next((case for case in group if would_leak(case, group[0])), None)
        if other:
            first = f"case {group[0].id} of the same patient is in {part_of(group[0])}"
            measured = f"in {part_of(other)}, while {first}"
            yield make_fault("S003", other.id, "patient", measured)
    likely = find_likely_patients(cases, description)
    for ours in likely.groups if likely else ():
        if other := next((case for case in ours if would_leak(case, ours[0])), None):
            first = f"case {ours[0].id} is in {part_of(ours[0])}: by their names likely one patient"
            measured = f"in {part_of(other)}, while {first}"
            expected = f"each patient in one fold; the pattern for it may be {likely.text}" if likely else ""
            yield make_fault("S003", other.id, "patient", measured, expected=expected, severity="warning")


def _check_labels(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    trained = [each.label for each in facts if each.case.split == "train" and each.label]
    seen = {value for label in trained for value in label.values}
    absent = [name for name in description.foreground if description.labels[name] not in seen]
    is_known = all(label.values for label in trained)  # otherwise a fault of these labels
    is_empty = not seen - {0, description.ignore_value}  # S016
    if trained and absent and is_known and not is_empty:
        measured = f"in none of {len(trained)} labels: {list_some(absent, _MAX_NAMES)}"
        yield make_fault("S006", "", "label", measured)
    for each in facts:
        if each.case.split == "unlabelled":
            yield make_fault("S005", each.case.id, "label", "none")


def _check_folds(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    """Yield faults for labels missing from a fold although as many patients as there are folds have them."""
    num_labels: Counter[int] = Counter()
    holders: dict[int, set[tuple[str, int]]] = defaultdict(set)  # patient and fold by label value
    for each in facts:
        fold = each.case.fold
        if fold is not None and each.label and each.label.values:
            num_labels[fold] += 1
            for value in each.label.values:
                holders[value].add((each.case.patient, fold))
    lacking: dict[int, list[str]] = defaultdict(list)
    for name in description.foreground:
        with_label = holders[description.labels[name]]
        if len({patient for patient, _ in with_label}) >= len(num_labels):
            for fold in num_labels.keys() - {fold for _, fold in with_label}:
                lacking[fold].append(name)
    for fold in sorted(lacking):
        measured = (
            f"in none of the {num_labels[fold]} labels of fold {fold}: {list_some(lacking[fold], _MAX_NAMES)}"
        )
        yield make_fault("S010", "", f"fold {fold}", measured)


def _check_unmatched(facts: Sequence[CaseFacts], unmatched: Sequence[UnmatchedFacts]) -> Iterator[Fault]:
    shapes = np.array([volume.shape for each in facts for volume in each.images[:1]]).reshape(-1, 3)
    low, high = (shapes.min(0), shapes.max(0)) if shapes.size else (np.zeros(3), np.full(3, np.inf))
    for stray in unmatched:
        measured = stray.file.reason
        if stray.trouble:
            measured += f"; {stray.trouble}"
        elif stray.facts and shapes.size and _is_foreign(stray.facts.shape, low, high):
            usual = " × ".join(f"{least}–{most}" for least, most in zip(low, high, strict=True))
            measured += f"; unlike the cases: {shape_text(stray.facts.shape)} voxels, the cases have {usual}"
        code = "S009" if stray.file.reason.startswith(_LACKS_CHANNEL) else "S004"
        yield make_fault(code, "", stray.file.path, measured)


def _is_foreign(shape: tuple[int, ...], low: np.ndarray, high: np.ndarray) -> bool:
    if len(shape) != 3:
        return True
    sizes = np.array(shape)
    return bool(((sizes < low / _FOREIGN_FACTOR) | (sizes > high * _FOREIGN_FACTOR)).any())


def _check_loss(description: Description, loss: str) -> Iterator[Fault]:
    if misfit := find_head_mismatch(loss, description):
        measured, expected = misfit
        yield make_fault("S007", "", "loss", measured, expected=expected)


def _check_unit(description: Description) -> Iterator[Fault]:
    if description.unit == "px":
        yield make_fault("S008", "", "image", "pictures without a spacing")
