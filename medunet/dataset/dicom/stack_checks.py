"""Checks of one stack of DICOM slices (faults D…): distances, shifts, tilt, header rounding and values.

Slices are named by their position along the normal, from 1, and by InstanceNumber, but never by file or patient.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.dicom.stacks import Stack
from medunet.imaging.dicom import Slice
from medunet.imaging.geometry import max_volume_bytes
from medunet.records.fault import Fault, Severity

NAMED_AT_MOST = 3

_BYTES_PER_VOXEL = 4
_NOTED_MM = 1e-3  # smaller residuals are mentioned only if positions are not written more precisely
_NOTED_SHARE = 0.02  # of the unit in which positions are written
_UNIT_LENGTH = 1e-3  # tolerance of the lengths of exactly written image directions
_MOST_MISSING = 2  # neighbouring slices that a repair interpolates
_MOST_REPAIRED = _MOST_MISSING + 1.5  # largest distance to repair, in slice spacings
_STEEPEST_REPAIRED = 1.0  # largest tilt to repair: tangent of 45°


def stack_faults(stack: Stack, subject: str, repair: bool) -> list[Fault]:
    """Return all faults of the geometry and headers of a stack."""
    faults = []
    slices = stack.slices
    num_bytes = math.prod(stack.upright_shape if repair else stack.shape) * _BYTES_PER_VOXEL
    if num_bytes > max_volume_bytes():
        faults.append(make_fault("N018", "", subject, f"{num_bytes / 1e9:.3g} GB"))
    if stack.is_too_coarse:
        faults.append(_coarse_fault(stack, subject))
    else:
        if shifts := stack.in_plane_shifts():
            text = (
                f"shifted in its plane by {max(shifts.values()):.3g} mm: {name_slices(slices, list(shifts))}"
            )
            faults.append(make_fault("D004", "", subject, text))
        faults += _gap_faults(stack, subject, repair)
        if stack.is_tilted:
            faults.append(_tilt_fault(stack, subject, repair))
    faults += _rounding_faults(stack, subject)
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
    named = [name_slice(slices, place) for place in places[:NAMED_AT_MOST]]
    return ", ".join(named) + more(len(places))


def name_slice(slices: Sequence[Slice], place: int) -> str:
    """Return the name of a slice at a position in `slices`, from 0."""
    number = slices[place].frame.number
    what = "frame" if len(slices[place].file.frames) > 1 else "InstanceNumber"
    return f"slice {place + 1}" + ("" if number is None else f" ({what} {number})")


def more(count: int) -> str:
    """Return how many of `count` things are not named."""
    return f" and {count - NAMED_AT_MOST} more" if count > NAMED_AT_MOST else ""


def _rounding_faults(stack: Stack, subject: str) -> list[Fault]:
    """Return the notes on directions that are not one, and on how far slices are off the fitted grid."""
    texts = []
    if (jitter := float(np.ptp(stack.orientations, axis=0).max())) > 1e-9:
        texts.append(f"directions differ by up to {jitter:.1g}")
    lengths = np.linalg.norm(stack.orientations.reshape(-1, 3), axis=1)
    if (longest := float(lengths[np.abs(lengths - 1).argmax()])) and abs(longest - 1) > _UNIT_LENGTH:
        texts.append(f"directions have lengths of up to {longest:.4g}")
    faults = [make_fault("D006", "", subject, "; ".join(texts))] if texts else []
    is_off = stack.is_too_coarse or stack.is_tilted or stack.gaps() or stack.uneven_slices()
    if is_off or stack.in_plane_shifts():
        return faults
    residual_mm = stack.residual_mm
    if residual_mm > _NOTED_MM or (stack.unit_mm >= _NOTED_MM and residual_mm > _NOTED_SHARE * stack.unit_mm):
        text = (
            f"corners of slices are up to {residual_mm:.2g} mm off the volume's grid; positions are written to "
            f"{stack.unit_mm:g} mm, directions to {stack.direction_unit:g}"
        )
        largest_mm = max(stack.slice_spacing_mm, *stack.pixel_spacing_mm)
        severity: Severity = "warning" if residual_mm > largest_mm else "note"
        faults.append(make_fault("D018", "", subject, text, severity=severity))
    return faults


def _coarse_fault(stack: Stack, subject: str) -> Fault:
    mean_mm = float(np.ptp(stack.heights_mm)) / (len(stack.slices) - 1)
    text = (
        f"positions are written to {stack.unit_mm:g} mm, but slices are {mean_mm:.3g} mm apart on average; they are "
        f"up to {stack.off_even_mm:.2g} mm off even heights, so that a missing slice could not be told"
    )
    return make_fault(
        "D019", "", subject, text, expected=f"more than {2 * stack.unit_mm:g} mm between slices"
    )


def _gap_faults(stack: Stack, subject: str, repair: bool) -> list[Fault]:
    gaps, distances = stack.gaps(), stack.distances_mm
    if 2 * len(gaps) > len(distances) > 3:
        steps = np.rint(distances / stack.slice_spacing_mm) * stack.slice_spacing_mm
        is_multiple = np.abs(distances - steps) <= stack.tolerance_mm
        counts = Counter(f"{mm:.3g} mm" for mm in np.where(is_multiple, steps, distances))
        text = "distances of " + ", ".join(
            f"{mm} ({count}×)" for mm, count in counts.most_common(NAMED_AT_MOST)
        )
        text += more(len(counts))
    elif gaps:
        named = [
            f"{distances[gap]:.4g} mm from {name_slice(stack.slices, gap)} "
            f"to {name_slice(stack.slices, gap + 1)}"
            for gap in gaps[:NAMED_AT_MOST]
        ]
        text = "; ".join(named) + more(len(gaps))
    elif uneven := stack.uneven_slices():
        text = (
            f"off even heights: {name_slices(stack.slices, uneven)}, by up to {stack.most_uneven_mm:.2g} mm"
        )
    else:
        return []
    fault = make_fault("D002", "", subject, text, expected=f"{stack.slice_spacing_mm:.4g} mm between slices")
    if max(distances) > _MOST_REPAIRED * stack.slice_spacing_mm:
        hint = f"Get the series again; `--repair` interpolates up to {_MOST_MISSING} missing slices in a row."
        return [replace(fault, hint=hint)]
    if repair:
        fault = _repaired(fault, f"interpolated at even heights, {_repair_counts(stack)}")
    return [fault]


def _repair_counts(stack: Stack) -> str:
    """Return how many slices a repair makes of how many, and how many of the measured ones it blends."""
    text = f"{len(stack.slices)} → {stack.upright_shape[2]} slices"
    between = [int(place) for place in np.flatnonzero(~stack.is_on_grid())]
    if between:
        text += f", none of them at the height of {name_slices(stack.slices, between)}"
    return text


def _tilt_fault(stack: Stack, subject: str, repair: bool) -> Fault:
    steepness = stack.steepness
    last = name_slice(stack.slices, len(stack.slices) - 1)
    text = (
        f"{np.rad2deg(np.arctan(steepness)):.3g}°: {last} is {stack.drift_mm:.4g} mm off the normal "
        f"through {name_slice(stack.slices, 0)}"
    )
    fault = make_fault("D005", "", subject, text)
    if steepness > _STEEPEST_REPAIRED:
        return replace(fault, hint="Get the series again; `--repair` resamples tilts of up to 45°.")
    return _repaired(fault, "resampled upright") if repair else fault


def _repaired(fault: Fault, how: str) -> Fault:
    return replace(
        fault,
        severity="warning",
        measured=f"{fault.measured}; repaired: {how}",
        hint="No action is needed if resampled voxels are acceptable.",
    )
