"""Colours and line styles of targets and errors, which colour-blind readers can tell apart."""

from collections.abc import Iterable

# Okabe and Ito's colours, suitable for all kinds of colour vision; vermilion is reserved for errors.
TARGET_COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#CC79A7", "#009E73", "#0072B2")
FALSE_POSITIVE, FALSE_NEGATIVE = "#D55E00", "#56B4E9"


def colour_targets(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each target; colours repeat from the seventh target on."""
    return {name: TARGET_COLOURS[index % len(TARGET_COLOURS)] for index, name in enumerate(names)}
