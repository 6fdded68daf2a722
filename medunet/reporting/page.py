"""Helpers for all report pages: templates, number formatting, embedded pictures and safe file names."""

import base64
import hashlib
import math
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import medunet


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number_text
    environment.filters["interval"] = interval_text
    environment.globals["medunet_version"] = medunet.__version__
    return environment


def render(template: str, **values: Any) -> str:
    """Return the HTML of a template with all values escaped."""
    return _environment().get_template(template).render(**values)


def number_text(value: float, decimals: int = 2, *, signed: bool = False) -> str:
    """Return a number as text: "–" if undefined, "∞" if infinite, with a typographic minus sign."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    zero = f"{0:.{decimals}f}"
    return zero if text.lstrip("+-") == zero else text.replace("-", "−")


def interval_text(low: float, high: float, decimals: int = 2) -> str:
    """Return an interval as text, "–" if it is undefined."""
    return "–" if math.isnan(low) else f"{number_text(low, decimals)} to {number_text(high, decimals)}"


def data_uri(png: bytes) -> str:
    """Return a PNG as data URI, which embeds it in the page."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|(com|lpt)\d)(\.|$)")  # no name of a file on Windows


def page_names(case_ids: Iterable[str]) -> dict[str, str]:
    """Return a unique file name for each case id that is safe on every file system.

    An id of letters, digits, `-`, `_` and `.` keeps its name; others get a part of the id's hash, as do those that
    Windows reserves for devices, such as CON.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for case_id in sorted(set(case_ids)):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", case_id).strip(".")[:80]
        if not name or name != case_id or name.casefold() in taken or _DEVICE.match(name):
            name = f"{name or 'case'}-{hashlib.sha256(case_id.encode()).hexdigest()[:10]}"
        taken.add(name.casefold())
        names[case_id] = f"{name}.html"
    return names


def flat_items(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested JSON as rows of dotted key and text; a list becomes one row."""
    if isinstance(value, dict) and (value or not prefix):
        return [
            row
            for key, item in value.items()
            for row in flat_items(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, "–" if value is None or value == {} else str(value))]
