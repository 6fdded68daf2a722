"""Lists of names and numbers in messages, at a length that can be read."""

from collections.abc import Iterable


def list_some(texts: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """Return texts in one line, at most `most` of them, and how many more there are: "a, b and 3 more"."""
    listed = [str(text) for text in texts]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more


def two_digits(value: float) -> str:
    """Return a positive number with two digits or its whole ones, never with an exponent: "0.12", "3.4", "120"."""
    return f"{value:.2g}" if 0.001 <= value < 99.5 else f"{value:.0f}"
