"""Helpers for all report pages: templates, scripts and their policy, numbers as text, pictures, safe file names."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import medunet

_TEMPLATES = Path(__file__).parent / "templates"
_VIEWER = "viewer.js"  # the only script that loads another one
_IN_SCRIPTS = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number_text
    environment.filters["interval"] = interval_text
    environment.globals["medunet_version"] = medunet.__version__
    return environment


def render(template: str, *, styles: Sequence[str] = (), scripts: Sequence[str] = (), **values: Any) -> str:
    """Return the HTML of a template with all values escaped.

    `styles` and `scripts` name files in `templates/`, such as `cohort.css` and `cohort.js`: both are written into the
    page, the scripts at its end. No other script runs, since the page's policy allows these by their hash alone.
    """
    sources = {name: (_TEMPLATES / name).read_text(encoding="utf-8") for name in (*styles, *scripts)}
    assert not any(re.search(r"</(style|script)|<!--", source, re.IGNORECASE) for source in sources.values())
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            page_policy=content_policy([sources[name] for name in scripts], viewer=_VIEWER in scripts),
            page_styles=[Markup(sources[name]) for name in styles],
            page_scripts=[Markup(sources[name]) for name in scripts],
        )
    )


def render_part(template: str, **values: Any) -> Markup:
    """Return the HTML of a template for a part of a page, with all values escaped."""
    return Markup(_environment().get_template(template).render(**values))


def content_policy(scripts: Sequence[str], *, viewer: bool = False) -> Markup:
    """Return the Content-Security-Policy of a page with these inline scripts.

    Nothing else is loaded or runs. The viewer's library is a file beside the pages, which `'self'` allows in Chromium
    and in Firefox also for a page that is opened from a file.
    """
    allowed = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts
    ]
    rules = ["default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"]
    if viewer:
        allowed.insert(0, "'self'")
    if allowed:
        rules.append(f"script-src {' '.join(allowed)}")
    return Markup("; ".join(rules))


def json_script(element_id: str, value: Any) -> Markup:
    """Return a `<script type="application/json">` with an id that holds a value as data, never as code.

    Infinite and undefined numbers have no form in JSON and are refused with a ValueError: write None.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(
        _IN_SCRIPTS
    )
    return Markup('<script type="application/json" id="{}">{}</script>').format(element_id, Markup(text))


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
    """Return nested JSON as rows of dotted key and text.

    A list becomes one row, unless it holds objects or lists: these are numbered from 1, such as `members.1.run`.
    """
    if isinstance(value, dict) and (value or not prefix):
        return [
            row
            for key, item in value.items()
            for row in flat_items(item, f"{prefix}.{key}" if prefix else str(key))
        ]
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return flat_items({str(number): item for number, item in enumerate(value, 1)}, prefix)
    if isinstance(value, list):
        return [(prefix, ", ".join(str(item) for item in value))]
    return [(prefix, "–" if value is None or value == {} else str(value))]
