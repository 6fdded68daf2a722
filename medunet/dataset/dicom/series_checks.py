"""Checks of a DICOM series (faults D…): sort its slices into stacks that can be imported, or name the faulty slices.

Slices are named by their position along the normal, from 1, and by InstanceNumber, but never by file or patient.
"""

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.dicom.copies import drop_copies, drop_equal
from medunet.dataset.dicom.heights import group_by_height, sort_slices
from medunet.dataset.dicom.series import Series
from medunet.dataset.dicom.splitting import (
    corner_shift_mm,
    split_orientations,
    split_repeats,
    split_spacings,
)
from medunet.dataset.dicom.stack_checks import NAMED_AT_MOST, more, name_slice, name_slices, stack_faults
from medunet.dataset.dicom.stacks import Stack
from medunet.dataset.dicom.strays import degrees_between, split_strays
from medunet.imaging.dicom import Slice
from medunet.records.fault import Fault, Severity

Modality = Literal["CT", "MR", "PET", "other"]

_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PET"}
_PERPENDICULAR = 0.05  # largest cosine of the angle between image directions that are only inexact
_LENGTHS = (0.8, 1.25)  # of image directions that are only inexact
_ALMOST_DEGREES = 2.0  # orientations that differ by less are those of one volume if its slices alternate
_FEWEST_OF_A_STACK = 3  # fewest slices of another orientation that form a stack of their own


@dataclass(frozen=True)
class Part:
    """One volume of a series, or a series without a volume (`stack` is None), with its faults."""

    series: Series
    number: int  # from 1
    stack: Stack | None
    faults: tuple[Fault, ...]  # without case id

    @property
    def modality(self) -> Modality:
        """Modality of the series: CT, MR, PET or other."""
        return modality_of(self.series)

    @property
    def is_refused(self) -> bool:
        """Whether any fault is an error."""
        return any(fault.severity == "error" for fault in self.faults)


def modality_of(series: Series) -> Modality:
    """Return the modality of a series: CT, MR, PET or other."""
    return _MODALITIES.get(series.files[0].modality, "other")


def check_series(series: Series, *, repair: bool = False) -> list[Part]:
    """Split a series into volumes and check each; with `repair`, gaps and tilt become warnings.

    Only the headers in `series` are used; no files are read.
    """
    subject = modality_of(series)
    slices, common = _usable_slices(series, subject)
    if not series.patient_is_named:
        common.append(make_fault("D017", "", subject, "PatientID is empty"))
    if series.num_joined:
        text = f"{series.num_joined} series of one slice each"
        common.append(make_fault("D022", "", subject, text))
    if not slices:
        return [Part(series, 1, None, tuple(common))]
    slices, found = _without_copies(slices, subject)
    common += found
    slices = sort_slices(slices)
    if len(slices) == 1 or (len(group_by_height(slices)) == 1 and len(split_orientations(slices)) == 1):
        text = f"{_count(len(slices))} at one position"
        return [Part(series, 1, None, (*common, make_fault("D013", "", subject, text)))]
    slices, strays = split_strays(slices)
    for difference, group in strays:
        text = f"{_count(len(group))}: another {difference}; the other slices are complete without them"
        common.append(make_fault("D001", "", subject, text, severity="warning"))
    if found := _spacing_faults(slices, subject):
        return [Part(series, 1, None, (*common, *found))]
    if found := _mixed_faults(slices, subject):
        return [Part(series, 1, None, (*common, *found))]
    stacks, found = _split(slices, subject)
    if not stacks:
        return [Part(series, 1, None, (*common, *found))]
    return [
        Part(series, number, stack, (*common, *found, *stack_faults(stack, subject, repair)))
        for number, stack in enumerate(stacks, start=1)
    ]


def _usable_slices(series: Series, subject: str) -> tuple[list[Slice], list[Fault]]:
    """Return the slices that may be part of a volume, and faults that count the others by reason."""
    usable: list[Slice] = []
    why: Counter[tuple[str, bool]] = Counter()  # the reason, and whether a volume may lack this image
    for file in series.files:
        if file.skip_reason:
            why[file.skip_reason, False] += 1
        for frame in file.frames:
            reason, missed = _why_left_out(Slice(file, frame))
            if reason:
                why[reason, missed] += 1
            else:
                usable.append(Slice(file, frame))
    faults = [
        make_fault(
            "D001",
            "",
            subject,
            f"{_count(count)}: {reason}",
            severity="warning" if missed and usable else "note",
        )
        for (reason, missed), count in sorted(why.items())
    ]
    return usable, faults


def _why_left_out(one: Slice) -> tuple[str, bool]:
    frame = one.frame
    if "LOCALIZER" in frame.image_type:
        return "localizer", False
    if "MOSAIC" in frame.image_type:
        return "mosaic of slices", True
    if frame.position_mm is None:
        return "no position", True
    if frame.orientation is None:
        return "no orientation", True
    directions = np.reshape(frame.orientation, (2, 3))
    lengths = np.linalg.norm(directions, axis=1)
    if not (lengths >= _LENGTHS[0]).all() or not (lengths <= _LENGTHS[1]).all():
        return "image directions that are not perpendicular unit vectors", True
    if abs(float(directions[0] @ directions[1])) > _PERPENDICULAR:
        return "image directions that are not perpendicular unit vectors", True
    return "", False


def _without_copies(slices: list[Slice], subject: str) -> tuple[list[Slice], list[Fault]]:
    """Leave out exact copies by SOPInstanceUID; also return the faults of slices that share one unduly."""
    kept, copies, contradictions = drop_copies(slices)
    faults = []
    if copies:
        text = f"{len(copies)} of {_count(len(slices))}, by SOPInstanceUID and values"
        named = {one.file.patient_id for one in kept}
        others = sum(one.file.patient_id not in named for one in copies)
        if others:
            text += f"; {others} of them with another PatientID"
        faults.append(make_fault("D020", "", subject, text, severity="warning" if others else "note"))
    if contradictions:
        text = f"{_count(len(contradictions))} with the SOPInstanceUID of another image, but other values"
        one_place = any(one.frame.position_mm == other.frame.position_mm for one, other in contradictions)
        severity: Severity = "error" if one_place else "warning"
        faults.append(make_fault("D021", "", subject, text, severity=severity))
    return kept, faults


def _count(number: int) -> str:
    return f"{number} image{'s' * (number != 1)}"


def _spacing_faults(slices: list[Slice], subject: str) -> list[Fault]:
    spacings = [one.frame.spacing_mm for one in slices]
    bad = [
        place for place, spacing in enumerate(spacings) if not spacing or not all(mm > 0 for mm in spacing)
    ]
    if not bad:
        return []
    return [make_fault("D010", "", subject, f"no positive PixelSpacing: {name_slices(slices, bad)}")]


def _mixed_faults(slices: list[Slice], subject: str) -> list[Fault]:
    """Return the faults of slices that do not belong to one scan, such as another spacing, matrix or patient."""
    faults = []
    spacing_of = {id(one): number for number, group in enumerate(split_spacings(slices)) for one in group}
    shape = Counter(one.file.shape for one in slices).most_common(1)[0][0]
    strays = [
        place
        for place in _strays(slices, lambda one: spacing_of[id(one)])
        if slices[place].file.shape == shape
    ]
    if strays:
        faults.append(make_fault("D010", "", subject, f"another spacing: {name_slices(slices, strays)}"))
    what: dict[str, Callable[[Slice], Hashable]] = {
        "patient": lambda one: one.file.patient_id,
        "study": lambda one: one.file.study_uid,
        "modality": lambda one: one.file.modality,
        "frame of reference": lambda one: one.file.frame_of_reference,
        "matrix": lambda one: one.file.shape,
    }
    together: dict[tuple[int, ...], list[str]] = {}
    for name, key in what.items():
        if strays := _strays(slices, key):
            together.setdefault(tuple(strays), []).append(name)
    for places, names in together.items():
        text = f"another {' and '.join(names)}: {name_slices(slices, places)}"
        faults.append(make_fault("D004", "", subject, text))
    return faults


def _strays(slices: list[Slice], key: Callable[[Slice], Hashable]) -> list[int]:
    """Return the positions of the slices whose `key` differs from the most common one."""
    keys = [key(one) for one in slices]
    usual = Counter(keys).most_common(1)[0][0]
    return [place for place, found in enumerate(keys) if found != usual]


def _split(slices: list[Slice], subject: str) -> tuple[list[Stack], list[Fault]]:
    """Split slices into stacks; if this is not possible, return no stack and the fault."""
    groups = split_orientations(slices)
    if strays := [one for group in groups[1:] if len(group) < _FEWEST_OF_A_STACK for one in group]:
        places = [place for place, one in enumerate(slices) if any(one is stray for stray in strays)]
        usual = groups[0][len(groups[0]) // 2]
        degrees = max(degrees_between(one, usual) for one in strays)
        shift_mm = max(corner_shift_mm(one, usual) for one in strays)
        text = f"another orientation: {name_slices(slices, places)}, by up to {degrees:.3g}°"
        text += f" or {shift_mm:.3g} mm at the corners"
        return [], [make_fault("D004", "", subject, text)]
    if fault := _alternation_fault(groups, subject):
        return [], [fault]
    apart = ["orientation"] if len(groups) > 1 else []
    stacks: list[Stack] = []
    copies: list[Fault] = []
    for group in groups:
        ordered = sort_slices(group)
        split, by = split_repeats(ordered)
        if not split:
            kept = drop_equal(ordered, group_by_height(ordered))
            if len(kept) < len(ordered):
                text = f"{len(ordered) - len(kept)} of {_count(len(ordered))}, by position and values"
                copies.append(make_fault("D020", "", subject, text))
                ordered = kept
                split, by = split_repeats(ordered)
        if not split:
            return [], [*copies, make_fault("D003", "", subject, _name_duplicates(ordered))]
        apart += [by] if by else []
        stacks += [Stack(tuple(part)) for part in split]
    if len(stacks) == 1:
        return stacks, copies
    text = f"{len(stacks)} volumes, told apart by {' and '.join(dict.fromkeys(apart))}"
    return stacks, [*copies, make_fault("D014", "", subject, text)]


def _alternation_fault(groups: list[list[Slice]], subject: str) -> Fault | None:
    """Return the fault of slices that alternate between almost the same orientations: they are no two volumes."""
    for first, second in combinations(groups, 2):
        degrees, shift_mm = degrees_between(first[0], second[0]), corner_shift_mm(first[0], second[0])
        ordered = sort_slices([*first, *second])
        if degrees > _ALMOST_DEGREES or len(group_by_height(ordered)) < len(ordered):
            continue
        in_first = {id(one) for one in first}
        if sum((id(one) in in_first) != (id(other) in in_first) for one, other in pairwise(ordered)) < 2:
            continue
        text = f"orientations that alternate within one stack by {degrees:.3g}°, {shift_mm:.3g} mm at the corners"
        return make_fault("D004", "", subject, text)
    return None


def _name_duplicates(slices: list[Slice]) -> str:
    duplicates = [group for group in group_by_height(slices) if len(group) > 1]
    named = [" and ".join(name_slice(slices, index) for index in group[:2]) for group in duplicates]
    text = "at one height: " + "; ".join(named[:NAMED_AT_MOST]) + more(len(named))
    stack = Stack(tuple(slices))
    if float(np.ptp(stack.heights_mm)) <= 2 * stack.unit_mm * (len(slices) - 1):
        text += f"; positions are written to {stack.unit_mm:g} mm, which may move slices to one height"
    return text
