"""A sheet of panels on black: heading and titles above, legend, window and scale bar below."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from medunet.drawing.legend import Entry, break_lines, draw_legend, entry_width
from medunet.drawing.letters import line_height, load_font, printable
from medunet.drawing.palette import INK
from medunet.drawing.panel import Panel

_GAP_PX = 8  # between panels, and around texts
_GUTTER_PX = 20  # around a panel, for the letters of the directions
_LONGEST_BAR_PX = 150
_BARS_MM = tuple(digit * 10.0**power for power in range(-4, 4) for digit in (1, 2, 5))
_TEXT_PX = 16


@dataclass(frozen=True)
class Place:
    """A panel with its title, and the letters at its left, right, upper and lower edge."""

    panel: Panel
    title: str = ""
    directions: tuple[str, str, str, str] | None = None
    least_px: int = 0  # width that it takes at least

    @property
    def gutter(self) -> int:
        """The free pixels around the panel."""
        return _GUTTER_PX if self.directions else 0

    @property
    def size(self) -> tuple[int, int]:
        """Width and height with the letters."""
        width, height = (size + 2 * self.gutter for size in self.panel.size)
        return max(width, self.least_px), height


@dataclass(frozen=True)
class Footer:
    """The last line: the window, and the scale."""

    window_text: str
    px_per_mm: float
    unit: str


def draw_sheet(
    rows: Sequence[Sequence[Place]],
    legend: Sequence[Entry],
    *,
    heading: str = "",
    footer: Footer | None = None,
    text_px: int = _TEXT_PX,
) -> Image.Image:
    """Return the sheet in RGB, with the panels of each row side by side and in columns of one width."""
    font, line_px = load_font(text_px), line_height(text_px)
    heading = printable(heading)
    columns = [max(place.size[0] for place in column) for column in zip(*rows, strict=True)]
    panels_px = sum(columns) + _GAP_PX * (len(columns) - 1)
    entries = [entry_width(entry, text_px) for entry in legend]
    width = round(max(panels_px, font.getlength(heading) + 2 * _GAP_PX, *entries, 0))
    lines = break_lines(legend, width, text_px)
    titles_px = [line_px if any(place.title for place in row) else _GAP_PX for row in rows]
    heights = [max(place.size[1] for place in row) for row in rows]
    heading_px = line_px if heading else 0
    below_px = line_px * (len(lines) + (_num_lines(footer, width, text_px) if footer else 0))
    height = heading_px + sum(titles_px) + sum(heights) + _GAP_PX + below_px
    sheet = Image.new("RGB", (width, height), "black")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX, line_px / 2), heading, INK, font, "lm")
    y = heading_px
    for row, title_px, row_px in zip(rows, titles_px, heights, strict=True):
        y += title_px
        x = (width - panels_px) // 2
        for place, column_px in zip(row, columns, strict=True):
            draw.text((x + column_px / 2, y - line_px / 2), printable(place.title), INK, font, "mm")
            _draw_place(sheet, place, x + (column_px - place.size[0]) // 2, y)
            x += column_px + _GAP_PX
        y += row_px
    draw_legend(sheet, lines, y + _GAP_PX, text_px)
    if footer:
        _draw_footer(sheet, footer, text_px)
    return sheet


def _draw_place(sheet: Image.Image, place: Place, x: int, y: int) -> None:
    sheet.paste(place.panel.finish(), (x + (place.size[0] - place.panel.size[0]) // 2, y + place.gutter))
    if place.directions is None:
        return
    draw, font, edge = ImageDraw.Draw(sheet), load_font(_TEXT_PX), place.gutter / 2
    width, height = place.size
    positions = (edge, height / 2), (width - edge, height / 2), (width / 2, edge), (width / 2, height - edge)
    for letter, (across, down) in zip(place.directions, positions, strict=True):
        draw.text((x + across, y + down), letter, INK, font, "mm")


def scale_bar(px_per_mm: float, unit: str) -> tuple[int, str]:
    """Return the length in pixels of the longest round scale bar up to 150 pixels, and its text."""
    length = max(
        (length for length in _BARS_MM if length * px_per_mm <= _LONGEST_BAR_PX), default=_BARS_MM[0]
    )
    is_micro = unit == "mm" and length < 1
    text = f"{1000 * length:g} µm" if is_micro else f"{length:g} {unit}"
    return round(length * px_per_mm), text


def _num_lines(footer: Footer, width: int, text_px: int) -> int:
    """Return the lines of the footer: the scale bar is on a line of its own where the sheet is narrow."""
    font = load_font(text_px)
    bar_px, text = scale_bar(footer.px_per_mm, footer.unit)
    needed_px = font.getlength(printable(footer.window_text)) + bar_px + font.getlength(text) + 5 * _GAP_PX
    return 2 if needed_px > width else 1


def _draw_footer(sheet: Image.Image, footer: Footer, text_px: int) -> None:
    draw, font, line_px = ImageDraw.Draw(sheet), load_font(text_px), line_height(text_px)
    width, height = sheet.size
    top = height - line_px * _num_lines(footer, width, text_px)
    draw.text((_GAP_PX, top + line_px / 2), printable(footer.window_text), INK, font, "lm")
    bar_px, text = scale_bar(footer.px_per_mm, footer.unit)
    right, middle = width - _GAP_PX, height - line_px // 2
    draw.rectangle((right - bar_px, middle - 2, right - 1, middle + 1), INK)
    draw.text((right - bar_px - _GAP_PX, middle), text, INK, font, "rm")
