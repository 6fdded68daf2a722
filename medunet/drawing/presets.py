"""Windows to look at a scan in: presets by modality and body part, as level and width or from percentiles.

CT presets have the levels and widths of the OHIF viewer. The body part is guessed from the names of the targets, and
only decides which window is shown first: nothing is measured with it.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MAX_SAMPLES = 4e6  # voxels from which percentiles are computed


@dataclass(frozen=True)
class Preset:
    """A named window: intensities shown as black and as white."""

    name: str
    low: float
    high: float


def _window(name: str, level: float, width: float) -> Preset:
    return Preset(name, level - width / 2, level + width / 2)


# In HU.
_CT = (
    _window("soft tissue", 40, 400),
    _window("lung", -600, 1500),
    _window("bone", 480, 2500),
    _window("liver", 90, 150),
    _window("brain", 40, 80),
)
# Beginnings of the words of target names, by the CT preset for them.
_WORDS = {
    "lung": ("lung", "pulmon", "airway", "trachea", "bronch", "lobe", "nodule", "covid", "emphysema"),
    "bone": (
        *("bone", "skull", "mandible", "spine", "spinal", "vertebra", "sacrum", "rib", "sternum", "clavic"),
        *("scapula", "humerus", "femur", "tibia", "fibula", "pelvi", "hip", "fracture", "tooth", "teeth"),
    ),
    "liver": ("liver", "hepat"),
    "brain": ("brain", "cereb", "intracranial", "stroke", "haemorrhag", "hemorrhag", "ischaem", "ischem"),
}
# Words that are found in any body part, and do not decide.
_ANYWHERE = (
    *("tumor", "tumour", "lesion", "cancer", "metasta", "mass", "cyst", "vessel", "artery", "vein"),
    *("left", "right", "upper", "middle", "lower", "anterior", "posterior", "and", "of", "with", "infect"),
)


def display_presets(image: NDArray, modality: str, targets: Iterable[str]) -> list[Preset]:
    """Return the windows to choose from; the first is the one for these targets.

    Args:
        image: the scan `(I, J, K)`, or `(I, J, K, 3)` in colour.
        modality: "CT", "MR", "PET" or "other".
        targets: names of the targets, such as "left_lung". A CT whose targets are all of one body part is shown in
            its window, any other in that of soft tissue.

    Without fixed units (all but CT) the windows are percentiles of the finite nonzero voxels, of every n-th voxel in
    large volumes. PET starts at 0.
    """
    if modality == "CT":
        first = _ct_window(targets)
        return sorted(_CT, key=lambda preset: preset.name != first)  # stable
    low, dark, bright, high = (float(value) for value in _percentiles(image, (0.5, 10, 98, 99.5)))
    largest = float(np.nanmax(np.where(np.isfinite(image), image, np.nan), initial=-math.inf))
    smallest = float(np.nanmin(np.where(np.isfinite(image), image, np.nan), initial=math.inf))
    if not largest >= smallest:
        smallest, largest = 0.0, 1.0
    if modality == "PET":
        windows = [("standard", 0.0, high), ("bright", 0.0, bright), ("full range", 0.0, largest)]
    else:
        windows = [("standard", low, high), ("contrast", dark, bright), ("full range", smallest, largest)]
    return [
        Preset(name, start, end) if end > start else Preset(name, start - 0.5, start + 0.5)
        for name, start, end in windows
    ]


def _ct_window(targets: Iterable[str]) -> str:
    """Return the name of the CT preset of the body part that all targets are of; soft tissue if there is none."""
    parts = set()
    for target in targets:
        words = [word for word in re.split(r"[^a-z]+", target.casefold()) if word]
        found = {part for part, begins in _WORDS.items() if any(word.startswith(begins) for word in words)}
        if found:
            parts |= found
        elif not all(word.startswith(_ANYWHERE) for word in words):
            parts.add("soft tissue")
    return parts.pop() if len(parts) == 1 else "soft tissue"


def _percentiles(image: NDArray, percents: tuple[float, ...]) -> NDArray[np.float64]:
    step = max(1, math.ceil((image.size / _MAX_SAMPLES) ** (1 / 3)))
    values = image[::step, ::step, ::step]
    values = values[np.isfinite(values) & (values != 0)]
    return np.percentile(values, percents) if values.size else np.linspace(0, 1, len(percents))
