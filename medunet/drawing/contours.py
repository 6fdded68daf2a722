"""Contours of masks as polylines, drawn in the line styles of the palette."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from contourpy import LineType, contour_generator
from numpy.typing import NDArray
from PIL import ImageDraw

from medunet.drawing.palette import LineStyle

Line = NDArray[np.float64]  # points (N, 2): across and up in voxels, or x and y in pixels
Ink = tuple[int, int, int] | int  # a colour, or the index of one in a picture with a palette

_PERIOD, _DASH = 15.0, 8.5  # pixels
_SHORT_DASH = 5.0  # between beads
_BEAD = 2.8  # radius in pixels
_HALO = 1.3  # pixels of black on both sides of a line
_WIDE = 10  # pixels above which bends of a line are rounded, which takes longer


@dataclass(frozen=True)
class Pen:
    """What lines are drawn with: a picture enlarged by `scale`, and the ink for black."""

    draw: ImageDraw.ImageDraw
    scale: float = 1.0
    black: Ink = (0, 0, 0)


def find_contours(mask: NDArray[np.bool_]) -> list[Line]:
    """Return the closed contours of a mask `(across, up)`, in voxels, midway between voxels inside and outside."""
    if not mask.any():
        return []
    padded = np.pad(mask, 1).astype(np.float32)  # closes the contour where the mask reaches the border
    lines = contour_generator(z=padded.T, line_type=LineType.Separate).lines(0.5)
    return [np.asarray(line) - 1 for line in lines]


def draw_contour(pen: Pen, line: Line, ink: Ink, style: LineStyle, *, is_broken: bool = False) -> None:
    """Draw a contour in pixels: continuous, or broken into dashes.

    Hollow lines are dark in the middle. Beaded lines carry dots; where they are broken, these lie between the dashes.
    """
    scale = pen.scale
    line = line * scale
    beads = _bead_centres(line, scale) if style.ornament == "beaded" else []
    pieces = under = [line]
    if is_broken:
        dash = _SHORT_DASH if style.ornament == "beaded" else _DASH
        pieces = list(_cut_dashes(line, _PERIOD * scale, dash * scale))
        # The black below dashes is longer, so that they are seen on a continuous line of the same colour.
        under = list(_cut_dashes(line, _PERIOD * scale, (dash + 2 * _HALO) * scale))
    radius = max(_BEAD, style.width) * scale
    for colour, parts, width, bead in (
        (pen.black, under, style.width + 2 * _HALO, radius + _HALO * scale),
        (ink, pieces, style.width, radius),
    ):
        for part in parts:
            _stroke(pen, part, colour, width)
        for x, y in beads:
            pen.draw.ellipse((x - bead, y - bead, x + bead, y + bead), fill=colour)
    if style.ornament == "hollow":
        for piece in pieces:
            _stroke(pen, piece, pen.black, style.width / 2.6)


def _stroke(pen: Pen, line: Line, ink: Ink, width: float) -> None:
    width_px = max(1, round(width * pen.scale))
    pen.draw.line(line.ravel().tolist(), ink, width_px, "curve" if width_px > _WIDE else None)


def _lengths(line: Line) -> NDArray[np.float64]:
    """Return the length of a line up to each of its points."""
    return np.append(0.0, np.hypot(*np.diff(line, axis=0).T).cumsum())


def _place(line: Line, reached: NDArray[np.float64], at: NDArray[np.float64]) -> Line:
    """Return the points of a line at given lengths."""
    return np.stack([np.interp(at, reached, line[:, axis]) for axis in (0, 1)], axis=1)


def _bead_centres(line: Line, scale: float) -> Sequence[Sequence[float]]:
    reached = _lengths(line)
    period = _PERIOD * scale
    number = max(2, round(reached[-1] / period))
    return _place(line, reached, np.arange(number) * reached[-1] / number).tolist()


def _cut_dashes(line: Line, period: float, dash: float) -> Iterator[Line]:
    """Yield the dashes of a line: a whole number of periods, so that a closed line has no seam."""
    reached = _lengths(line)
    number = max(2, round(reached[-1] / period))
    share = min(dash / period, 0.95) / 2
    starts, ends = ((np.arange(number) + 0.5 + side * share) * reached[-1] / number for side in (-1, 1))
    corners = np.searchsorted(reached, starts, "right"), np.searchsorted(reached, ends)
    for first, last, start, end in zip(
        _place(line, reached, starts), _place(line, reached, ends), *corners, strict=True
    ):
        yield np.concatenate([first[None], line[start:end], last[None]])
