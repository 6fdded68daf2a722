"""What all pages share: templates, numbers as readers see them, pictures inlined, safe file names."""

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
    """Return a page made from a template, every value escaped."""
    return _environment().get_template(template).render(**values)


def number_text(value: float, decimals: int = 2, *, signed: bool = False) -> str:
    """Return a number as reports show it: "–" undefined, "∞" infinite, a true minus sign."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    zero = f"{0:.{decimals}f}"
    return zero if text.lstrip("+-") == zero else text.replace("-", "−")


def interval_text(low: float, high: float, decimals: int = 2) -> str:
    """Return an interval as reports show it, "–" where there is none."""
    return "–" if math.isnan(low) else f"{number_text(low, decimals)} to {number_text(high, decimals)}"


def data_uri(png: bytes) -> str:
    """Return a PNG as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def page_names(case_ids: Iterable[str]) -> dict[str, str]:
    """Return for each case id a file name that is safe on every file system, and that no other id has.

    An id of letters, digits, `-`, `_` and `.` keeps its name; any other gets a part of its hash.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for case_id in sorted(set(case_ids)):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", case_id).strip(".")[:80]
        if not name or name != case_id or name.casefold() in taken:
            name = f"{name or 'case'}-{hashlib.sha256(case_id.encode()).hexdigest()[:10]}"
        taken.add(name.casefold())
        names[case_id] = f"{name}.html"
    return names


def flat_items(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested JSON as rows of a dotted key and a text; a list stays on one row."""
    if isinstance(value, dict) and (value or not prefix):
        return [
            row
            for key, item in value.items()
            for row in flat_items(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, "–" if value is None or value == {} else str(value))]
