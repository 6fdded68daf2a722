"""The legend of a picture: samples of lines and fillings with their names, on as many lines as they need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from medunet.drawing.contours import Pen, draw_contour
from medunet.drawing.letters import line_height, load_font
from medunet.drawing.palette import INK, LineStyle, to_rgb
from medunet.drawing.panel import OVER, STRIPE_PX, tint

_GAP_PX, _SAMPLE_PX = 8, 46


@dataclass(frozen=True)
class Line:
    """Entry of a contour."""

    text: str
    colour: str
    style: LineStyle
    is_broken: bool = False


@dataclass(frozen=True)
class Swatch:
    """Entry of filled voxels."""

    text: str
    colour: str
    is_striped: bool


Entry = Line | Swatch


def entry_width(entry: Entry, text_px: int) -> int:
    """Return the width in pixels that an entry takes."""
    return round(_SAMPLE_PX + load_font(text_px).getlength(entry.text) + 3 * _GAP_PX)


def break_lines(entries: Sequence[Entry], width: int, text_px: int) -> list[list[Entry]]:
    """Return the entries of each line of a legend of this width in pixels."""
    lines: list[list[Entry]] = []
    left = 0
    for entry in entries:
        own = entry_width(entry, text_px)
        if not lines or left + own > width:
            lines.append([])
            left = 0
        lines[-1].append(entry)
        left += own
    return lines


def draw_legend(picture: Image.Image, lines: Sequence[Sequence[Entry]], top: int, text_px: int) -> None:
    """Draw the lines of a legend onto a picture, from `top` on."""
    draw, font, height = ImageDraw.Draw(picture), load_font(text_px), line_height(text_px)
    for number, line in enumerate(lines):
        x, y = _GAP_PX, top + number * height
        for entry in line:
            picture.paste(_sample(entry, height), (x, y))
            draw.text((x + _SAMPLE_PX + _GAP_PX, y + height / 2), entry.text, INK, font, "lm")
            x += entry_width(entry, text_px)


def _sample(entry: Entry, height: int) -> Image.Image:
    sample = Image.new("RGB", (_SAMPLE_PX * OVER, height * OVER), "black")
    if isinstance(entry, Line):
        line = np.array([(2.0, height / 2), (_SAMPLE_PX - 2.0, height / 2)])
        pen = Pen(ImageDraw.Draw(sample), OVER)
        draw_contour(pen, line, to_rgb(entry.colour), entry.style, is_broken=entry.is_broken)
        return sample.reduce(OVER)
    inside = np.zeros((sample.height, sample.width), dtype=bool)
    inside[5 * OVER : -5 * OVER, 2 * OVER : -2 * OVER] = True
    sample.paste("#707070", (0, 0, *sample.size), Image.fromarray(inside))
    tint(sample, (0, 0), inside, entry.colour, STRIPE_PX * OVER if entry.is_striped else 0)
    return sample.reduce(OVER)
