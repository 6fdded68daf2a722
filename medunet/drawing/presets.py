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
# Words of target names, by the CT preset for them, as regular expressions for whole words.
_WORDS = {
    "lung": r"lungs?|pulmonary|airways?|trachea|bronch\w*|covid|emphysema|pneumonia",
    "bone": (
        r"bones?|skull|mandible|spine|vertebrae?|sacrum|ribs?|sternum|clavic\w*|scapulae?|humerus|femurs?|tibia|fibula|"
        r"pelvis|hips?|fractures?|tooth|teeth"
    ),
    "liver": r"liver|hepatic",
    "brain": r"brain|cereb\w*|hippocamp\w*|intracranial|stroke|ha?emorrhages?|ischa?emia",
}
# Words that are used for any body part, and do not decide.
_ANYWHERE = (
    r"tumou?rs?|lesions?|cancer|metastas[ei]s|mass|nodules?|cysts?|core|necro\w*|o?edema|enhancing|vessels?|"
    r"arter(y|ies)|veins?|lobes?|infection|left|right|upper|middle|lower|anterior|posterior|whole|and|of|with|[a-z]"
)


def display_presets(
    image: NDArray, modality: str, targets: Iterable[str], pictured: str | None = None
) -> list[Preset]:
    """Return the windows to choose from; the first is the one for these targets, or for the one that is pictured.

    Args:
        image: the scan `(I, J, K)`, or `(I, J, K, 3)` in colour.
        modality: "CT", "MR", "PET" or "other".
        targets: names of the targets, such as "left_lung". A CT whose targets are all of one body part is shown in
            its window, any other in that of soft tissue.
        pictured: the target that a picture is of. If its own name tells a body part, that decides; "tumour" does not.

    Without fixed units (all but CT) the windows are percentiles of the finite nonzero voxels, of every n-th voxel in
    large volumes. PET starts at 0.
    """
    if modality == "CT":
        first = _ct_window(targets, pictured)
        return sorted(_CT, key=lambda preset: preset.name != first)  # stable
    low, dark, bright, high = (float(value) for value in _percentiles(image, (0.5, 10, 98, 99.5)))
    finite = image if image.dtype.kind in "biu" or np.isfinite(image.sum()) else image[np.isfinite(image)]
    smallest, largest = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if modality == "PET":
        windows = [("standard", 0.0, high), ("bright", 0.0, bright), ("full range", 0.0, largest)]
    else:
        windows = [("standard", low, high), ("contrast", dark, bright), ("full range", smallest, largest)]
    return [
        Preset(name, start, end) if end > start else Preset(name, start - 0.5, start + 0.5)
        for name, start, end in windows
    ]


def _ct_window(targets: Iterable[str], pictured: str | None) -> str:
    """Return the name of the CT preset of the body part that all targets are of; soft tissue if there is none."""
    own = _body_parts([pictured]) if pictured else set()
    parts = own or _body_parts(targets)
    return parts.pop() if len(parts) == 1 else "soft tissue"


def _body_parts(targets: Iterable[str]) -> set[str]:
    """Return the CT presets that the names of targets tell; none for words that are used for any body part."""
    parts = set()
    for target in targets:
        words = [word for word in re.split(r"[^a-z]+", target.casefold()) if word]
        found = {part for part, known in _WORDS.items() if any(re.fullmatch(known, word) for word in words)}
        if found:
            parts |= found
        elif not all(re.fullmatch(_ANYWHERE, word) for word in words):
            parts.add("soft tissue")
    return parts


def _percentiles(image: NDArray, percents: tuple[float, ...]) -> NDArray[np.float64]:
    step = max(1, math.ceil((image.size / _MAX_SAMPLES) ** (1 / 3)))
    values = image[::step, ::step, ::step].astype(np.float32, copy=False)
    values = values[np.isfinite(values) & (values != 0)]
    return np.percentile(values, percents) if values.size else np.linspace(0, 1, len(percents))
