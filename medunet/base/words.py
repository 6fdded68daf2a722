"""Lists of names in messages, cut to a length that can be read."""

from collections.abc import Iterable


def list_some(texts: Iterable[object], most: int = 5, separator: str = ", ") -> str:
    """Return texts in one line, at most `most` of them, and how many more there are: "a, b and 3 more"."""
    listed = [str(text) for text in texts]
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return separator.join(listed[:most]) + more
