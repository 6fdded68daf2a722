"""The postprocessing steps that a selection on held-out cases tries on each target."""

import math

from medunet.records.config import PostprocessStep

_SHARES = (0.01, 0.1)  # of the target's usual volume, below which a component may be removed
_DIGITS = 2


def usual_steps(volume_ml: float, spacing_mm: float) -> tuple[PostprocessStep, ...]:
    """Return the steps to try on a target: each by itself, on its mask before postprocessing or after earlier steps.

    Components: keep the largest; remove those below 1% or 10% of the usual volume. Holes: fill them. Boundary: open,
    close, or take the median, in a ball of one voxel.

    Args:
        volume_ml: the target's usual volume, such as the median over the labels that have it; NaN: none has it.
        spacing_mm: the usual spacing, of the middle one of a scan's axes: slices may be much thicker.
    """
    radius_mm = _round_up(spacing_mm)
    plain = [
        {"keep_largest": True},
        *({"min_volume_ml": _round_up(share * volume_ml)} for share in _SHARES if volume_ml > 0),
        {"fill_holes": True},
        {"opening_mm": radius_mm},
        {"closing_mm": radius_mm},
        {"median_mm": radius_mm},
    ]
    return tuple(PostprocessStep.model_validate(step) for step in plain)


def _round_up(value: float) -> float:
    """Return a positive number rounded up to two significant digits, so that a ball reaches the next voxel."""
    exponent = _DIGITS - 1 - math.floor(math.log10(value))
    scaled = value * 10**exponent
    return round(math.ceil(scaled - 1e-9 * scaled) / 10**exponent, max(exponent, 0))
