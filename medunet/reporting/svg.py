"""Charts as SVG for pages: axes with ticks, lines, texts, and dots that are links to cases."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

Mark = Literal["dot", "cross"]  # cross: a failure
_RADIUS = 3.2
_CELL = 3  # edge of the squares in which there are cases without a link
_LONGEST_NAME = 24  # characters of a label; the whole name is its title

WIDTH, HEIGHT = 430, 290  # of a chart, with its margins
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 30, 44


@dataclass(frozen=True)
class Figure:
    """Charts that belong together, with a heading and what they show."""

    heading: str
    charts: tuple[Markup, ...]
    caption: str


@dataclass(frozen=True)
class CaseLink:
    """Where the dot of a case leads, and the number of the case from the worst (0) on."""

    number: int
    href: str


@dataclass(frozen=True)
class Dot:
    """One case in a chart, at a place in the units of its SVG; `text` is said on hover and on focus."""

    case: str
    x: float
    y: float
    text: str
    mark: Mark = "dot"
    is_outlying: bool = False  # among the first to be a link, where not all are


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` at places from `start` to `end`; values outside are drawn at the nearer end."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value."""
        low, high, value = (self._scaled(each) for each in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        """Return round values within the axis, about five."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1.0,) if self.high > 1000 * self.low else (1.0, 2.0, 5.0)
            values = [factor * 10.0**power for power in powers for factor in factors]
            return [value for value in values if self.low <= value <= self.high]
        rough = (self.high - self.low) / 5
        if rough <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= 0.75 * rough)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _scaled(self, value: float) -> float:
        return math.log10(max(value, self.low)) if self.is_log else value


def range_of(values: Iterable[float], pad: float = 0.06) -> tuple[float, float]:
    """Return the range of values with a margin of the share `pad` on both sides; 0 to 1 without values."""
    found = list(values)
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    margin = pad * (high - low) or max(abs(high), 1.0) * pad
    return low - margin, high + margin


def tick_text(value: float) -> str:
    """Return the value of a tick as text, with a typographic minus sign."""
    text = f"{0.0 if abs(value) < 1e-12 else value:.6g}"
    if abs(value) >= 10_000:
        text = f"{value / 1000:g}k"
    return text.replace("-", "−")


class Chart:
    """An SVG picture under construction; all texts are escaped. Classes are styled in cohort.css."""

    def __init__(self, width: float, height: float, label: str) -> None:
        """Begin a chart; `label` is what is read to those who do not see it."""
        self._size, self._label = (width, height), label
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "rule") -> None:
        """Draw a line."""
        self._parts.append(f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """Draw a rectangle."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{max(width, 0):g}" height="{max(height, 0):g}"/>'
        )

    def text(self, x: float, y: float, text: str, kind: str = "tick", anchor: str = "middle") -> None:
        """Write a text; a long one is shortened, and whole as its title."""
        short = text if len(text) <= _LONGEST_NAME or kind != "name" else f"{text[: _LONGEST_NAME - 1]}…"
        title = "" if short == text else f"<title>{escape(text)}</title>"
        self._parts.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(short)}{title}</text>'
        )

    def x_axis(self, axis: Axis, top: float, bottom: float, title: str) -> None:
        """Draw an axis below the chart with a line at each tick."""
        for value in axis.ticks():
            place = axis.at(value)
            self.line(place, top, place, bottom)
            self.text(place, bottom + 15, tick_text(value))
        self.text((axis.start + axis.end) / 2, bottom + 33, title, "title")

    def y_axis(self, axis: Axis, left: float, right: float, title: str) -> None:
        """Draw an axis left of the chart with a line at each tick; its title is above it."""
        for value in axis.ticks():
            place = axis.at(value)
            self.line(left, place, right, place)
            self.text(left - 6, place + 4, tick_text(value), anchor="end")
        self.text(left - 6, min(axis.start, axis.end) - 8, title, "title", anchor="start")

    def dots(self, dots: Sequence[Dot], links: Mapping[str, CaseLink], most_linked: int) -> None:
        """Draw dots, of which the `most_linked` outlying and worst cases are links; others are one grey shape."""
        ordered = sorted(dots, key=lambda dot: (not dot.is_outlying, links[dot.case].number), reverse=True)
        others = ordered[: max(len(ordered) - most_linked, 0)]
        if others:
            cells = dict.fromkeys((round(dot.x / _CELL), round(dot.y / _CELL)) for dot in others)
            marks = "".join(
                f"M{column * _CELL - _CELL / 2:g} {row * _CELL - _CELL / 2:g}h{_CELL}v{_CELL}h-{_CELL}z"
                for column, row in cells
            )
            self._parts.append(f'<path class="unlinked" d="{marks}"/>')
        for dot in ordered[len(others) :]:  # the worst are drawn last, above the others
            link = links[dot.case]
            mark = f'<circle cx="{dot.x:g}" cy="{dot.y:g}" r="{_RADIUS}"/>'
            if dot.mark == "cross":
                mark = (
                    f'<path d="M{dot.x - _RADIUS:g} {dot.y - _RADIUS:g}l{2 * _RADIUS:g} {2 * _RADIUS:g}'
                    f'm0 {-2 * _RADIUS:g}l{-2 * _RADIUS:g} {2 * _RADIUS:g}"/>'
                )
            self._parts.append(
                f'<a href="{escape(link.href)}" data-c="{link.number}">'
                f"<title>{escape(dot.text)}</title>{mark}</a>"
            )

    def svg(self) -> Markup:
        """Return the chart as markup."""
        width, height = self._size
        head = f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="group" '
        return Markup(  # its parts are numbers, our class names and escaped texts
            f'{head}aria-label="{escape(self._label)}">{"".join(self._parts)}</svg>'
        )


def said_status(status: str) -> str:
    """Return what a dot says of a status that is not "ok": ", missed"."""
    return "" if status == "ok" else f", {status.replace('_', ' ')}"
