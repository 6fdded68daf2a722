"""Windows to look at a scan in: presets by modality and body part, as level and width or from percentiles."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A named window: intensities shown as black and as white."""

    name: str
    low: float
    high: float
