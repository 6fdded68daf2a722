"""Check the intensities of an image (N…): whether it is constant, and whether a CT is in Hounsfield units."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.checks.case_facts import VolumeFacts, hash_content
from medunet.dataset.checks.fault_codes import make_fault
from medunet.imaging.volume import Header, StoredVoxels, sample_voxels
from medunet.records.description import Description
from medunet.records.fault import Fault

_AIR_HU = (-1100, -900)
_TISSUE_HU = 150  # fat, muscle and organs differ from water by at most this
_BIN_HU = 20
_PEAK_SHARE = 0.02  # of the voxels in one bin: more is a peak, not noise
_MUCH, _LITTLE = 0.10, 0.03  # of the voxels: more than the first is tissue, less than the second is none
_GREY = 255  # the largest grey value of 8 bits
_CUT = 0.01  # of the voxels at the darkest value: more is a window's lower end, not noise


def check_image(
    case_id: str,
    relative: str,
    channels: list[str],
    header: Header,
    stored: StoredVoxels,
    description: Description,
    *,
    hashed: bool = True,
) -> tuple[list[Fault], VolumeFacts]:
    """Check the intensities of a file whose frames are `channels`; return faults and data for dataset checks.

    The hash of the voxels, which takes the most time, is left out if not `hashed`.
    """
    faults: list[Fault] = []
    array = stored.array
    grey = array.ndim == 3  # used for each colour of a picture
    stained = header.is_picture and not _is_constant(array, stored)  # a stain may leave one colour constant
    bright = {}
    for index, name in enumerate(channels):
        frame = array if grey else array[..., index]
        if not stained and _is_constant(frame, stored):
            value = frame.flat[0] * stored.slope + stored.intercept
            faults.append(make_fault("N011", case_id, name, f"every voxel is {value:g}"))
            bright[name] = float(value)
            continue
        sample = sample_voxels(frame) * stored.slope + stored.intercept
        bright[name] = float(np.percentile(sample, 99.5))
        is_ct = description.channels[name].modality == "CT" and not header.is_picture
        if is_ct and np.isfinite(sample).all():
            faults += check_hounsfield(case_id, name, sample)
    content = hash_content(stored.values() if stored.is_scaled else array) if hashed else ""
    return faults, VolumeFacts("+".join(channels), relative, header.shape[:3], header.affine, content, bright)


def _is_constant(frame: NDArray[Any], stored: StoredVoxels) -> bool:
    """Return whether all values are equal in float32, in which scans are used, and fit it (else N004)."""
    ends = np.array([frame.min(), frame.max()], np.float64) * stored.slope + stored.intercept
    low, high = ends.astype(np.float32)
    return bool(low == high and np.isfinite(low))


def check_hounsfield(case_id: str, subject: str, sample: NDArray[Any]) -> list[Fault]:
    """Check with a sample of a CT's voxels that air is near -1000 HU and soft tissue near 0.

    An offset is reported only if both air and tissue are shifted by it: the darkest peak of the histogram is taken as
    air, at least a tenth of the voxels is where tissue would then be, and almost none where it should be. A scan
    whose air was clipped or cropped away, or that is padded with -2000, gives no fault. Grey values of 0 to 255, or
    of 0 to 1, are reported if the darkest one is frequent, as the lower end of a window is.
    """
    darkest, brightest = sample.min(), sample.max()
    if darkest >= 0 and brightest <= _GREY and np.mean(sample == darkest) >= _CUT:
        return [make_fault("N026", case_id, subject, f"values from {darkest:g} to {brightest:g}")]
    raw = _share(sample, 900, 1200) >= _MUCH and _share(sample, -1100, -_TISSUE_HU) < _LITTLE / 3
    if raw and _share(sample, -50, 100) >= _PEAK_SHARE:
        measured = (
            f"darkest voxels {np.percentile(sample, 1):.0f}, {_share(sample, 900, 1200):.0%} at 900 to 1200"
        )
        return [make_fault("N019", case_id, subject, measured)]
    counts, edges = np.histogram(sample, np.arange(-4000, 3000 + _BIN_HU, _BIN_HU))
    peaks = np.flatnonzero(counts >= _PEAK_SHARE * sample.size)
    if not peaks.size:
        return []
    first = int(peaks[0])
    first += int(np.argmax(counts[first : first + 5]))  # the top of the peak
    air = float(edges[first]) + _BIN_HU / 2
    offset = air + 1000
    if _AIR_HU[0] <= air <= _AIR_HU[1]:
        return []
    shifted, usual = (offset - _TISSUE_HU, offset + _TISSUE_HU), (-_TISSUE_HU, _TISSUE_HU)
    both = (max(shifted[0], usual[0]), min(shifted[1], usual[1]))
    shared = _share(sample, *both) if both[0] < both[1] else 0.0
    if _share(sample, *shifted) - shared < _MUCH or _share(sample, *usual) - shared > _LITTLE:
        return []
    return [
        make_fault("N020", case_id, subject, f"darkest peak at {air:.0f}, tissue shifted by the same offset")
    ]


def _share(sample: NDArray[Any], low: float, high: float) -> float:
    return float(np.count_nonzero((sample >= low) & (sample < high)) / sample.size)
