"""The legend of a picture: samples of lines and fillings with their names, on as many lines as they need."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from medunet.drawing.contours import Pen, draw_contour
from medunet.drawing.letters import line_height, load_font
from medunet.drawing.palette import INK, LineStyle, to_rgb
from medunet.drawing.panel import OPAQUE, OVER, STRIPE_PX, tint

_GAP_PX = 8
_SAMPLE = 46, 26  # pixels of a sample beside a text of 16
_TEXT_PX = 16


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
    opacity: int = OPAQUE


@dataclass(frozen=True)
class Text:
    """Entry without a sample."""

    text: str


Entry = Line | Swatch | Text


def entry_width(entry: Entry, text_px: int) -> int:
    """Return the width in pixels that an entry takes."""
    sample_px = 0 if isinstance(entry, Text) else _sample_width(text_px) + _GAP_PX
    return round(sample_px + load_font(text_px).getlength(entry.text) + 2 * _GAP_PX)


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
            left = x
            if not isinstance(entry, Text):
                sample = _sample(entry, text_px / _TEXT_PX)
                picture.paste(sample, (x, y + (height - sample.height) // 2))
                left += _sample_width(text_px) + _GAP_PX
            draw.text((left, y + height / 2), entry.text, INK, font, "lm")
            x += entry_width(entry, text_px)


def _sample_width(text_px: int) -> int:
    return round(_SAMPLE[0] * text_px / _TEXT_PX)


def _sample(entry: Line | Swatch, scale: float) -> Image.Image:
    """Return a sample that is larger beside larger texts."""
    width, height = _SAMPLE
    sample = Image.new("RGB", (round(width * scale) * OVER, round(height * scale) * OVER), "black")
    pen = Pen(ImageDraw.Draw(sample), OVER * scale)
    if isinstance(entry, Line):
        line = np.array([(2.0, height / 2), (width - 2.0, height / 2)])
        draw_contour(pen, line, to_rgb(entry.colour), entry.style, is_broken=entry.is_broken)
        return sample.reduce(OVER)
    inside = np.zeros((sample.height, sample.width), dtype=bool)
    inside[5 * OVER : -5 * OVER, 2 * OVER : -2 * OVER] = True
    sample.paste("#707070", (0, 0, *sample.size), Image.fromarray(inside))
    tint(sample, (0, 0), inside, entry.colour, STRIPE_PX * OVER if entry.is_striped else 0, entry.opacity)
    return sample.reduce(OVER)
