"""Checks of a DICOM series (faults D…): sort its slices into stacks that can be imported, or name the faulty slices.

Slices are named by their position along the normal, from 1, and by InstanceNumber, but never by file or patient.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.dicom.series import Series
from medunet.dataset.dicom.splitting import split_orientations, split_repeats
from medunet.dataset.dicom.stacks import Stack, group_by_height, sort_slices
from medunet.imaging.dicom import Slice
from medunet.imaging.geometry import max_volume_bytes
from medunet.records.fault import Fault

Modality = Literal["CT", "MR", "PET", "other"]

_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR", "PT": "PET"}
_UNIT = 2e-3  # tolerance of the squared lengths (1) and of the cosine (0) of the image directions
_FEWEST_OF_A_STACK = 3  # fewest slices of another orientation that form a stack of their own
_NAMED_AT_MOST = 3
_BYTES_PER_VOXEL = 4
_MOST_REPAIRED = (
    3.5  # largest distance to repair, in slice spacings: three or more missing slices are an error
)
_STEEPEST_REPAIRED = 1.0  # largest tilt to repair: tangent of 45°


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
    if not slices:
        return [Part(series, 1, None, tuple(common))]
    slices = sort_slices(slices)
    if len(slices) == 1 or (len(group_by_height(slices)) == 1 and len(split_orientations(slices)) == 1):
        text = f"{len(slices)} image{'s' * (len(slices) > 1)} at one position"
        return [Part(series, 1, None, (*common, make_fault("D013", "", subject, text)))]
    if found := _mixed_faults(slices, subject):
        return [Part(series, 1, None, (*common, *found))]
    stacks, found = _split(slices, subject)
    if not stacks:
        return [Part(series, 1, None, (*common, *found))]
    return [
        Part(series, number, stack, (*common, *found, *_stack_faults(stack, subject, repair)))
        for number, stack in enumerate(stacks, start=1)
    ]


def hounsfield_fault(stack: Stack, smallest: float) -> Fault | None:
    """Return the fault of a CT that is not in HU, judged by its tags and its smallest value; None if it is in HU."""
    frame = stack.slices[0].frame
    if frame.rescale_type not in ("", "HU"):
        known = frame.rescale_type if frame.rescale_type in ("US", "OD", "MGML", "ED", "Z_EFF") else "other"
        return make_fault("D012", "", "CT", f"RescaleType is {known}")
    if frame.intercept is None:
        return make_fault("D012", "", "CT", f"no RescaleIntercept, smallest value {smallest:g}")
    if smallest >= 0:
        return make_fault("D012", "", "CT", f"smallest value {smallest:g}")
    return None


def name_slices(slices: Sequence[Slice], places: Sequence[int]) -> str:
    """Return names of slices at positions in `slices`, from 0: the first few, and the number of further ones."""
    named = [name_slice(slices, place) for place in places[:_NAMED_AT_MOST]]
    return ", ".join(named) + _more(len(places))


def name_slice(slices: Sequence[Slice], place: int) -> str:
    """Return the name of a slice at a position in `slices`, from 0."""
    number = slices[place].frame.number
    return f"slice {place + 1}" + ("" if number is None else f" (InstanceNumber {number})")


def _more(count: int) -> str:
    return f" and {count - _NAMED_AT_MOST} more" if count > _NAMED_AT_MOST else ""


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
            f"{count} image{'s' * (count > 1)}: {reason}",
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
    if np.abs(directions @ directions.T - np.eye(2)).max() > _UNIT:
        return "image directions that are not perpendicular unit vectors", True
    return "", False


def _mixed_faults(slices: list[Slice], subject: str) -> list[Fault]:
    """Return the faults of slices that do not belong to one scan, such as another spacing, matrix or patient."""
    faults = []
    spacings = [one.frame.spacing_mm for one in slices]
    bad = [
        place for place, spacing in enumerate(spacings) if not spacing or not all(mm > 0 for mm in spacing)
    ]
    if bad:
        text = f"no positive PixelSpacing: {name_slices(slices, bad)}"
        return [make_fault("D010", "", subject, text)]
    if strays := _strays(slices, lambda one: tuple(round(mm, 4) for mm in one.frame.spacing_mm or ())):
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
        text = f"another orientation: {name_slices(slices, places)}"
        return [], [make_fault("D004", "", subject, text)]
    apart = ["orientation"] if len(groups) > 1 else []
    stacks: list[Stack] = []
    for group in groups:
        ordered = sort_slices(group)
        split, by = split_repeats(ordered)
        if not split:
            return [], [make_fault("D003", "", subject, _name_duplicates(ordered))]
        apart += [by] if by else []
        stacks += [Stack(tuple(part)) for part in split]
    if len(stacks) == 1:
        return stacks, []
    text = f"{len(stacks)} volumes, told apart by {' and '.join(dict.fromkeys(apart))}"
    return stacks, [make_fault("D014", "", subject, text)]


def _name_duplicates(slices: list[Slice]) -> str:
    duplicates = [group for group in group_by_height(slices) if len(group) > 1]
    named = [" and ".join(name_slice(slices, index) for index in group[:2]) for group in duplicates]
    text = "at one height: " + "; ".join(named[:_NAMED_AT_MOST]) + _more(len(named))
    images = Counter((one.file.instance_uid, one.frame.index) for one in slices if one.file.instance_uid)
    copies = sum(count - 1 for count in images.values())
    return text + (f"; {copies} of {len(slices)} are copies, by SOPInstanceUID" if copies else "")


def _stack_faults(stack: Stack, subject: str, repair: bool) -> list[Fault]:
    """Return all faults of the geometry and headers of a stack."""
    faults = []
    slices = stack.slices
    num_bytes = math.prod(stack.upright_shape if repair else stack.shape) * _BYTES_PER_VOXEL
    if num_bytes > max_volume_bytes():
        faults.append(make_fault("N018", "", subject, f"{num_bytes / 1e9:.3g} GB"))
    if shifts := stack.in_plane_shifts():
        text = f"shifted in its plane by {max(shifts.values()):.3g} mm: {name_slices(slices, list(shifts))}"
        faults.append(make_fault("D004", "", subject, text))
    faults += _gap_faults(stack, subject, repair)
    if stack.is_tilted:
        faults.append(_tilt_fault(stack, subject, repair))
    orientations = np.array([one.frame.orientation for one in slices])
    if (jitter := float(np.ptp(orientations, axis=0).max())) > 1e-9:
        faults.append(make_fault("D006", "", subject, f"directions differ by up to {jitter:.1g}"))
    words = set().union(*(one.frame.image_type for one in slices)) & {"DERIVED", "SECONDARY"}
    if words or any(one.file.secondary for one in slices):
        text = f"ImageType says {' and '.join(sorted(words))}" if words else "secondary capture"
        faults.append(make_fault("D007", "", subject, text))
    thickness_mm = slices[0].frame.thickness_mm
    if thickness_mm and abs(thickness_mm - stack.slice_spacing_mm) > stack.tolerance_mm:
        text = f"SliceThickness {thickness_mm:g} mm, distance {stack.slice_spacing_mm:.4g} mm"
        faults.append(make_fault("D011", "", subject, text))
    rescales = {(one.frame.slope, one.frame.intercept) for one in slices}
    if len(rescales) > 1:
        faults.append(make_fault("D015", "", subject, f"{len(rescales)} different rescales"))
    if any(one.file.photometric == "MONOCHROME1" for one in slices):
        faults.append(make_fault("D016", "", subject, "PhotometricInterpretation is MONOCHROME1"))
    return faults


def _gap_faults(stack: Stack, subject: str, repair: bool) -> list[Fault]:
    gaps, distances = stack.gaps(), stack.distances_mm
    if gaps:
        named = [
            f"{distances[gap]:.4g} mm from {name_slice(stack.slices, gap)} "
            f"to {name_slice(stack.slices, gap + 1)}"
            for gap in gaps[:_NAMED_AT_MOST]
        ]
        text = "; ".join(named) + _more(len(gaps))
    elif uneven := stack.uneven_slices():
        text = f"off even heights: {name_slices(stack.slices, uneven)}"
    else:
        return []
    fault = make_fault("D002", "", subject, text, expected=f"{stack.slice_spacing_mm:.4g} mm between slices")
    if repair and max(distances) <= _MOST_REPAIRED * stack.slice_spacing_mm:
        fault = _repaired(fault, "interpolated at even heights")
    return [fault]


def _tilt_fault(stack: Stack, subject: str, repair: bool) -> Fault:
    steepness = float(np.linalg.norm(stack.drift))
    last = name_slice(stack.slices, len(stack.slices) - 1)
    text = (
        f"{np.rad2deg(np.arctan(steepness)):.3g}°: {last} is {stack.drift_mm:.4g} mm off the normal "
        f"through {name_slice(stack.slices, 0)}"
    )
    fault = make_fault("D005", "", subject, text)
    return _repaired(fault, "resampled upright") if repair and steepness <= _STEEPEST_REPAIRED else fault


def _repaired(fault: Fault, how: str) -> Fault:
    return replace(
        fault,
        severity="warning",
        measured=f"{fault.measured}; repaired: {how}",
        hint="No action is needed if resampled voxels are acceptable.",
    )
