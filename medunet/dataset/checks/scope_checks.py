"""Compare a new scan with the training scans (N…): spacing, field of view, intensities and modality.

What lies outside what a model was trained on is an error, which the user may accept by its code. What is not known of
the training scans, as in older plans, refuses nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.dataset.checks.fault_codes import make_fault
from medunet.imaging.sidecar import read_modality
from medunet.imaging.volume import Header, StoredVoxels, sample_voxels
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.plan import Fingerprint

# The codes with which a model refuses a scan that is readable and plausible in itself.
SCOPE_CODES = ("N019", "N020", "N025", "N026", "N027", "N028", "N029")
LARGEST_FIELD = 1.5  # times the largest field of view of the training scans, along each axis of the body
SPACING_FACTOR = 2.0  # beyond the training scans' range is a warning: augmentation covers less
COARSER, FINER = 4.0, 10.0  # beyond their range is an error: detail is missing, or it is no such scan

_TOLERANCE = 1 + 1e-3
_FEW = 1 / 2000  # of the voxels
_AIR_HU = (-1100, -900)
_SOFT_HU = (-150, 150)
_CT_SHARE = 0.05  # of the voxels in air and in soft tissue: more is a CT
_FAT_HU = -50  # fat and lung are below
_NEARLY_NONE = 1e-3  # of the voxels
_DARK_HU = -500  # training scans with voxels below this show air
_DIRECTIONS = "left–right, back–front and bottom–top"


def compare_grid(
    case: str, channel: str, header: Header, stored: StoredVoxels, fingerprint: Fingerprint
) -> list[Fault]:
    """Compare spacing and field of view along the body's axes with those of the training scans."""
    if header.is_picture:
        return []
    axes = nib.io_orientation(header.affine)[:, 0]
    if not np.isfinite(axes).all():
        return []
    order = [int(np.flatnonzero(axes == body)[0]) for body in range(3)]
    return _compare_spacing(case, channel, header, order, fingerprint) + _compare_field(
        case, channel, header, stored, order, fingerprint
    )


def compare_values(
    case: str,
    channels: Sequence[str],
    header: Header,
    stored: StoredVoxels,
    description: Description,
    fingerprint: Fingerprint,
) -> list[Fault]:
    """Compare the voxels of each channel of a file with the training scans, and with other modalities."""
    if header.is_picture:
        return []
    faults = []
    stated = read_modality(header.path)
    for index, name in enumerate(channels):
        modality = description.channels[name].modality
        if stated and modality not in (stated, "other"):
            text = f"the .json file beside it says {stated}"
            faults.append(make_fault("N029", case, name, text, expected=modality))
            continue
        frame: NDArray[Any] = stored.array if stored.array.ndim == 3 else stored.array[..., index]
        sample = sample_voxels(frame) * stored.slope + stored.intercept
        if modality == "CT":
            faults += _compare_hounsfield(case, name, sample, fingerprint)
        elif modality != "other":
            faults += _find_ct(case, name, sample, modality, fingerprint)
    return faults


def raise_severity(fault: Fault, fingerprint: Fingerprint) -> Fault:
    """Return a fault of a CT's values as an error where the training scans are known to be without it."""
    statistics = fingerprint.intensities.get(fault.subject, {})
    darkest = fingerprint.darkest.get(fault.subject)
    if fault.code in ("N019", "N026"):  # no voxel is below 0, as the training scans' are
        known = darkest if darkest is not None else statistics.get("percentile_00_5", 0.0)
        return replace(fault, severity="error") if known < 0 else fault
    if fault.code == "N020" and darkest is not None and darkest < _AIR_HU[1]:
        return replace(fault, severity="error")
    return fault


def _compare_spacing(
    case: str, channel: str, header: Header, order: Sequence[int], fingerprint: Fingerprint
) -> list[Fault]:
    if not fingerprint.spacings_mm:
        return []
    spacing_mm = np.array([header.spacing_mm[axis] for axis in order])
    known = np.array(fingerprint.spacings_mm)
    low, high = known.min(axis=0), known.max(axis=0)
    coarser, finer = float((spacing_mm / high).max()), float((low / spacing_mm).max())
    factor = max(coarser, finer)
    if factor <= SPACING_FACTOR * _TOLERANCE:
        return []
    usual = " × ".join(
        f"{least:.3g}" if math.isclose(least, most, rel_tol=1e-2) else f"{least:.3g}–{most:.3g}"
        for least, most in zip(low, high, strict=True)
    )
    beyond = coarser > COARSER * _TOLERANCE or finer > FINER * _TOLERANCE
    return [
        make_fault(
            *("N025", case, channel),
            f"{_times(spacing_mm)} mm {_DIRECTIONS}, {factor:.3g} times off",
            expected=f"{usual} mm",
            severity="error" if beyond else "warning",
        )
    ]


def _compare_field(
    case: str,
    channel: str,
    header: Header,
    stored: StoredVoxels,
    order: Sequence[int],
    fingerprint: Fingerprint,
) -> list[Fault]:
    """Compare the box of the nonzero voxels, since padding is no field of view."""
    largest = fingerprint.field_of_view_mm
    if largest is None:
        return []
    limits = LARGEST_FIELD * _TOLERANCE * np.array(largest)
    step = np.array([header.spacing_mm[axis] for axis in order])
    if (step * [header.shape[axis] for axis in order] <= limits).all():
        return []
    sizes = _nonzero_sizes(stored)
    field_mm = step * [sizes[axis] for axis in order]
    if (field_mm <= limits).all():
        return []
    measured = (
        f"{_times(field_mm)} mm {_DIRECTIONS}, {(field_mm / np.array(largest)).max():.3g} times as large"
    )
    expected = f"at most {LARGEST_FIELD:g} times the training scans' largest, {_times(largest)} mm"
    return [make_fault("N028", case, channel, measured, expected=expected)]


def _nonzero_sizes(stored: StoredVoxels) -> list[int]:
    """Return the size in voxels, along each array axis, of the box of the voxels that are not 0."""
    array = stored.array
    zero = -stored.intercept / stored.slope if stored.is_scaled else 0
    hit = [np.zeros(size, bool) for size in array.shape[:3]]
    for k in range(array.shape[2]):  # one slice after the other, to save memory
        plane = array[:, :, k] != zero
        plane = plane if plane.ndim == 2 else plane.any(axis=2)
        hit[0] |= plane.any(axis=1)
        hit[1] |= plane.any(axis=0)
        hit[2][k] = plane.any()
    ends = [np.flatnonzero(line) for line in hit]
    return [int(each[-1] - each[0]) + 1 if each.size else 0 for each in ends]


def _compare_hounsfield(case: str, name: str, sample: NDArray[Any], fingerprint: Fingerprint) -> list[Fault]:
    """Compare a CT with the range of the structures in the training scans, and with their air."""
    known, faults = fingerprint.intensities.get(name), []
    shown = f"{sample.min():.4g} to {sample.max():.4g}, median {np.median(sample):.4g}"
    if known:
        low, high = known["percentile_00_5"], known["percentile_99_5"]
        if low < high and np.mean((sample >= low) & (sample <= high)) < _FEW:
            expected = (
                f"voxels of {low:.4g} to {high:.4g}, as in the labelled structures of the training scans"
            )
            faults.append(make_fault("N027", case, name, shown, expected=expected))
    darkest = fingerprint.darkest.get(name)
    if darkest is not None and darkest < _DARK_HU and np.mean(sample < _FAT_HU) < _NEARLY_NONE:
        expected = f"a CT, with air and fat below {_FAT_HU} HU"
        faults.append(make_fault("N029", case, name, shown, expected=expected))
    return faults


def _find_ct(
    case: str, name: str, sample: NDArray[Any], modality: str, fingerprint: Fingerprint
) -> list[Fault]:
    """Find a CT by its air near -1000 HU and its soft tissue near 0, unless the training scans have such values."""
    air, soft = (float(np.mean((sample >= low) & (sample <= high))) for low, high in (_AIR_HU, _SOFT_HU))
    known = fingerprint.darkest.get(name)
    if min(air, soft) < _CT_SHARE or (known is not None and known < _AIR_HU[1]):
        return []
    measured = f"{air:.0%} of the voxels at {_AIR_HU[0]} to {_AIR_HU[1]}, as air in a CT"
    return [make_fault("N029", case, name, measured, expected=modality)]


def _times(values: Sequence[float] | NDArray[Any]) -> str:
    return " × ".join(f"{value:.3g}" for value in values)
