"""Check the header of a volume file (N…): type, scaling and number of voxels, grid, orientation and units."""

import numpy as np

from medunet.dataset.checks.case_facts import shape_text
from medunet.dataset.checks.fault_codes import make_fault
from medunet.imaging.geometry import (
    Affine,
    corner_displacement_mm,
    max_volume_bytes,
    shear_degrees,
    spacing_of,
)
from medunet.imaging.volume import Forms, Header, dtype_name
from medunet.records.fault import Fault

NOTED_MM = 1e-3  # smaller displacements are rounding errors
_SAME = 1e-7  # tolerance of affine entries, in any unit
_ROUNDED_VOXELS = 0.01  # rounding error of a quaternion, as a fraction of the smallest spacing
_MAX_SHEAR_DEGREES = 1.0


def check_readable(case_id: str, subject: str, header: Header, num_frames: int) -> list[Fault]:
    """Check whether the voxels can be read: type, scaling, size, and axes for `num_frames` channels."""
    faults = []

    def add(code: str, measured: str, expected: str = "") -> None:
        faults.append(make_fault(code, case_id, subject, measured, expected=expected))

    if header.dtype.kind not in "biuf":
        add("N023", f"{dtype_name(header.dtype)} voxels")
    if header.scaling_fault:
        add("N022", header.scaling_fault)
    elif not np.isfinite(header.slope):
        add("N024", f"slope {header.slope:g}, intercept {header.intercept:g}")
    if header.num_bytes > (cap := max_volume_bytes()):
        measured = f"{shape_text(header.shape)} voxels, {header.num_bytes / 1e9:.3g} GB"
        add("N018", measured, f"at most {cap / 1e9:g} GB (MEDUNET_MAX_VOLUME_GB)")
    frames = header.shape[3:] or (1,)
    if header.is_picture and frames == (1,) and num_frames > 1:
        faults.append(make_fault("N014", case_id, subject, "one channel"))
    elif len(header.shape) < 3 or frames != (num_frames,) or 0 in header.shape:
        expected = "3 axes" if num_frames == 1 else f"4 axes, the last of {num_frames} channels"
        if header.is_picture:
            expected = "a grey picture, since the description has one channel"
        add("N005", f"shape {shape_text(header.shape)}", expected)
    return faults


def check_grid(
    case_id: str, subject: str, header: Header, spacing_range_mm: tuple[float, float]
) -> list[Fault]:
    """Check size, spacing, axes, orientation, units, and whether sform and qform agree.

    `spacing_range_mm` is the smallest and the largest plausible spacing (see `Description.spacing_range_mm`).
    """
    faults = []

    def add(code: str, measured: str, expected: str = "") -> None:
        faults.append(make_fault(code, case_id, subject, measured, expected=expected))

    shape, affine = header.shape[:3], header.affine
    if min(shape[:2] if header.is_picture else shape) < 2:
        add("N006", f"shape {shape_text(shape)}")
    if is_singular(affine):
        add("N009", f"axes {np.array2string(affine[:3, :3], precision=3, separator=', ')}".replace("\n", ""))
        return faults
    spacing_mm = spacing_of(affine)
    spacing_text = " × ".join(f"{x:.4g}" for x in spacing_mm) + " mm"
    smallest_mm, largest_mm = spacing_range_mm
    if min(spacing_mm) < smallest_mm or max(spacing_mm) > largest_mm:
        add("N007", spacing_text, f"{smallest_mm:g} to {largest_mm:g} mm along each axis")
    shear = shear_degrees(affine)
    if shear > _MAX_SHEAR_DEGREES:
        add("N010", f"{shear:.1f}° from perpendicular")
    if header.is_picture:
        return faults
    if header.unit not in ("mm", "unknown"):
        taken = "" if header.unit in ("metres", "micrometres") else ", taken as mm"
        add("N016", f"{header.unit}{taken}; spacing {spacing_text}")
    if header.forms is None:
        return faults
    if header.forms.are_missing:
        add("N015", f"both codes 0; spacing {spacing_text}, axis directions are assumed")
    elif shear <= _MAX_SHEAR_DEGREES:  # a qform cannot represent shear
        faults += _compare_forms(case_id, subject, header, header.forms)
    return faults


def _compare_forms(case_id: str, subject: str, header: Header, forms: Forms) -> list[Fault]:
    if forms.qform_fault:
        return [make_fault("N008", case_id, subject, f"the qform cannot be read ({forms.qform_fault})")]
    sform, qform = forms.sform, forms.qform
    if sform is None or qform is None:
        return []
    if np.abs(sform - qform).max() < _SAME:  # the usual case
        return []
    smallest_mm = min(header.spacing_mm)
    mm_per_unit = smallest_mm / min(spacing_of(sform))
    displacement_mm = corner_displacement_mm(header.shape, sform, qform) * mm_per_unit
    if displacement_mm <= max(min(NOTED_MM, smallest_mm / 10), _ROUNDED_VOXELS * smallest_mm):
        return []
    slight = displacement_mm <= min(1.0, smallest_mm)  # false for NaN
    measured = f"their corners differ by up to {displacement_mm:.3g} mm"
    return [make_fault("N008", case_id, subject, measured, severity="warning" if slight else "error")]


def is_singular(affine: Affine) -> bool:
    """Return whether an affine's axes are not finite, have no length or are linearly dependent."""
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or lengths.min() < 1e-9:
        return True
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-4)
