"""Colours and line styles of targets and errors, which colour-blind readers can tell apart.

The colours were searched for: seen with normal vision and by protanopes, deuteranopes and tritanopes, every pair of
them differs by at least 14 (CIEDE2000), and those of the first three targets and of the errors by at least 20. In
grey, targets are told apart by the ornament of their lines, reference and prediction by continuous and broken lines.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

TARGET_COLOURS = ("#EEFF33", "#FFBBEE", "#88EEBB", "#BB4499", "#BBBB55", "#558855")
FALSE_POSITIVE, FALSE_NEGATIVE = "#EE2211", "#3388FF"
DISAGREEMENT = "#AA66FF"  # of networks, where there is no reference and so no error
INK = "#F2F2F2"  # texts, and outlines in pictures of errors

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class LineStyle:
    """The look of a target's contours."""

    ornament: Literal["plain", "hollow", "beaded"]
    width: float  # in pixels, of the whole line


LINE_STYLES = (
    LineStyle("plain", 2.2),
    LineStyle("hollow", 4.6),
    LineStyle("beaded", 1.6),
    LineStyle("plain", 4.2),
    LineStyle("hollow", 6.6),
    LineStyle("beaded", 3.0),
)


def colour_targets(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each target; colours repeat from the seventh target on."""
    return {name: TARGET_COLOURS[index % len(TARGET_COLOURS)] for index, name in enumerate(names)}


def style_targets(names: Iterable[str]) -> dict[str, LineStyle]:
    """Return a line style for each target; styles repeat from the seventh target on, together with the colours."""
    return {name: LINE_STYLES[index % len(LINE_STYLES)] for index, name in enumerate(names)}


def to_rgb(colour: str) -> Rgb:
    """Return a colour such as "#3388FF" as red, green and blue in 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
