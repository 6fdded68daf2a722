"""Text of a model card in Markdown: tables, enumerations, and text from elsewhere made harmless."""

import re
from collections.abc import Iterable, Sequence

_BACKSLASHED = re.compile(r"([\\`*\[\]<>|])")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def or_unknown(value: int | None) -> str:
    """Return a number as text, or that it is not known."""
    return "not known" if value is None else str(value)


def join(texts: Iterable[str]) -> str:
    """Return texts as an enumeration: a, b and c."""
    *others, last = list(texts) or [""]
    return f"{', '.join(others)} and {last}" if others else last


def plain(text: str) -> str:
    """Return text from elsewhere on one line, so that it is read as text and not as Markdown or HTML."""
    return _BACKSLASHED.sub(r"\\\1", " ".join(text.split()))
