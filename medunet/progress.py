"""Progress of long work: a bar on a terminal's stderr, silence where output goes to a file."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

_Item = TypeVar("_Item")


def track(items: Sequence[_Item] | Iterable[_Item], what: str) -> Iterator[_Item]:
    """Yield the items while a bar headed by `what` moves; the bar goes away at the end."""
    console = Console(stderr=True)
    yield from rich_track(items, what, console=console, transient=True, disable=not console.is_terminal)
