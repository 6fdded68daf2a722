"""Checks of the whole set (S…): duplicates, patients across folds, stray files, intensities, labels, loss."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medunet.dataset.case_checks import CaseFacts, VolumeFacts, hash_content, read_stream, shape_text
from medunet.dataset.fault_codes import make_fault
from medunet.dataset.loss_fit import find_head_misfit
from medunet.dataset.manifest import file_path
from medunet.errors import DataError, InputError
from medunet.imaging.volumes import read_volume
from medunet.records import Case, Description, Fault, Unmatched

_MIN_COHORT = 10  # scans from which a usual intensity can be told
_OUTLIER_DEVIATIONS = 5.0  # robust standard deviations of the logarithm ...
_OUTLIER_FACTOR = 10.0  # ... and at least this factor from the median: scanners differ by less
_FOREIGN_FACTOR = 2.0  # a stray file's size beyond the set's by this factor along any axis


@dataclass(frozen=True)
class UnmatchedFacts:
    """A file of no case, with what could be read of it, or why it could not be read."""

    file: Unmatched
    facts: VolumeFacts | None
    trouble: str = ""


def read_unmatched(file: Unmatched, data_root: Path) -> UnmatchedFacts:
    """Read a file that belongs to no case, so that it can be compared with those that do."""
    try:
        path = file_path(file.path, data_root, file.path)
        read_stream(path)
        volume = read_volume(path)
        content = hash_content(volume.array)
        picture = volume.header.nifti is None
        shape = volume.header.shape[:3] if picture else volume.header.shape  # colours are no fourth axis
        facts = VolumeFacts("", file.path, shape, volume.affine, content)
        return UnmatchedFacts(file, facts)
    except (DataError, InputError) as error:
        return UnmatchedFacts(file, None, error.what)
    except Exception as error:  # a stray file never stops the check
        return UnmatchedFacts(file, None, f"it cannot be read ({type(error).__name__})")


def check_set(
    description: Description,
    facts: Sequence[CaseFacts],
    unmatched: Sequence[UnmatchedFacts],
    loss: str,
) -> list[Fault]:
    """Check the used cases against each other, the stray files against them, and the loss against the labels."""
    return [
        *_check_patients([each.case for each in facts]),
        *_check_duplicates(facts, unmatched),
        *_check_intensities(description, facts),
        *_check_labels(description, facts),
        *_check_unmatched(facts, unmatched),
        *_check_loss(description, loss),
        *_check_unit(description),
    ]


def _place(case: Case) -> str:
    """Return where a case serves: 'fold 0', 'train', 'test' or 'unlabelled'."""
    return case.split if case.fold is None else f"fold {case.fold}"


def _check_patients(cases: Iterable[Case]) -> Iterator[Fault]:
    by_patient: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.split != "unlabelled":
            by_patient[case.patient].append(case)
    for group in by_patient.values():
        other = next((case for case in group if _place(case) != _place(group[0])), None)
        if other:
            measured = (
                f"in {_place(other)}, while case {group[0].id} of the same patient is in {_place(group[0])}"
            )
            yield make_fault("S003", other.id, "patient", measured)


def _check_duplicates(facts: Sequence[CaseFacts], unmatched: Sequence[UnmatchedFacts]) -> Iterator[Fault]:
    by_content: dict[str, list[tuple[Case | None, VolumeFacts]]] = defaultdict(list)
    for each in facts:
        for volume in (*each.images, *([each.label] if each.label else [])):
            by_content[volume.content].append((each.case, volume))
    for stray in unmatched:
        if stray.facts:
            by_content[stray.facts.content].append((None, stray.facts))
    by_content.pop("", None)  # empty labels are alike and no duplicates
    for group in by_content.values():
        first_case, first = group[0]
        if first_case is None:
            continue
        for case, volume in group[1:]:
            same_as = f"the same voxels as {first.subject} of case {first_case.id}"
            label = first.subject == "label"
            code = "S002" if label else "S001"
            if case is None:
                yield make_fault(code, first_case.id, volume.path, same_as, severity="warning")
            elif case.id == first_case.id:
                yield make_fault(
                    "P007",
                    case.id,
                    volume.subject,
                    f"the same voxels as {first.subject}",
                    expected="voxels of its own",
                )
            else:
                leaks = label or _place(case) != _place(first_case)
                measured = f"{same_as}; {_place(case)} and {_place(first_case)}"
                yield make_fault(
                    code, case.id, volume.subject, measured, severity="error" if leaks else "warning"
                )


def _check_intensities(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    """Name MR images whose 99.5 percentile lies far from the set's, on a logarithmic scale."""
    by_channel: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for each in facts:
        for volume in each.images:
            for name, bright in volume.bright.items():
                if description.channels[name].modality == "MR" and np.isfinite(bright) and bright > 0:
                    by_channel[name].append((each.case.id, bright))
    for name, pairs in by_channel.items():
        if len(pairs) < _MIN_COHORT:
            continue
        logs = np.log([bright for _, bright in pairs])
        median = float(np.median(logs))
        deviation = 1.4826 * float(np.median(np.abs(logs - median)))
        limit = max(_OUTLIER_DEVIATIONS * deviation, np.log(_OUTLIER_FACTOR))
        for (case_id, bright), distance in zip(pairs, np.abs(logs - median), strict=True):
            if distance > limit:
                yield make_fault(
                    "N012",
                    case_id,
                    name,
                    f"99.5 percentile {_number(bright)}, {_number(np.exp(distance))} times off the set's median",
                    expected=f"{_number(np.exp(median - limit))} to {_number(np.exp(median + limit))}",
                )


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _check_labels(description: Description, facts: Sequence[CaseFacts]) -> Iterator[Fault]:
    trained = [each.label for each in facts if each.case.split == "train" and each.label]
    seen = {value for label in trained for value in label.values}
    absent = [name for name in description.foreground if description.labels[name] not in seen]
    if trained and absent:
        more = f" and {len(absent) - 8} more" if len(absent) > 8 else ""
        yield make_fault(
            "S006", "", "label", f"in none of {len(trained)} labels: {', '.join(absent[:8])}{more}"
        )
    for each in facts:
        if each.case.split == "unlabelled":
            yield make_fault("S005", each.case.id, "label", "none")


def _check_unmatched(facts: Sequence[CaseFacts], unmatched: Sequence[UnmatchedFacts]) -> Iterator[Fault]:
    shapes = np.array([volume.shape for each in facts for volume in each.images[:1]]).reshape(-1, 3)
    for stray in unmatched:
        measured = stray.file.reason
        if stray.trouble:
            measured += f"; {stray.trouble}"
        elif stray.facts and shapes.size and _is_foreign(stray.facts.shape, shapes):
            usual = " × ".join(
                f"{low}–{high}" for low, high in zip(shapes.min(0), shapes.max(0), strict=True)
            )
            measured += (
                f"; foreign to this set: {shape_text(stray.facts.shape)} voxels, the cases have {usual}"
            )
        yield make_fault("S004", "", stray.file.path, measured)


def _is_foreign(shape: tuple[int, ...], shapes: np.ndarray) -> bool:
    if len(shape) != 3:
        return True
    low, high = shapes.min(0) / _FOREIGN_FACTOR, shapes.max(0) * _FOREIGN_FACTOR
    return bool(((np.array(shape) < low) | (np.array(shape) > high)).any())


def _check_loss(description: Description, loss: str) -> Iterator[Fault]:
    if misfit := find_head_misfit(loss, description):
        measured, expected = misfit
        yield make_fault("S007", "", "loss", measured, expected=expected)


def _check_unit(description: Description) -> Iterator[Fault]:
    if description.unit == "px":
        yield make_fault("S008", "", "image", "pictures without a spacing")
