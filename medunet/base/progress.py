"""Progress of long work: a bar on a terminal's stderr, silence where output goes to a file."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import track as rich_track

_Item = TypeVar("_Item")


def track(items: Sequence[_Item] | Iterable[_Item], what: str) -> Iterator[_Item]:
    """Yield the items while a bar headed by `what` moves; the bar goes away at the end."""
    console = Console(stderr=True)
    yield from rich_track(items, what, console=console, transient=True, disable=not console.is_terminal)


class ShareBar:
    """A bar of the share that is done, from 0 to 1, and a text behind it; it stays where it is when it stops."""

    def __init__(self, what: str) -> None:
        """Head the bar by `what`, and show it."""
        console = Console(stderr=True)
        self.is_shown = console.is_terminal
        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=not self.is_shown,
        )
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()

    def move(self, done: float, text: str) -> None:
        """Move the bar to the share that is done, with a new text."""
        self._progress.update(self._task, completed=done, description=text)

    def stop(self) -> None:
        """Leave the bar as it is, and give the terminal back."""
        self._progress.stop()


class ByteBar:
    """A bar of bytes with speed and remaining time; it goes away when its `with` ends."""

    def __init__(self, what: str) -> None:
        """Head the bar by `what`."""
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            *(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(what, total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, num_bytes: int | None, num_done: int = 0) -> None:
        """Begin anew at `num_done` of so many bytes; None where their number is not known."""
        self._progress.reset(self._task, total=num_bytes, completed=num_done)

    def advance(self, num_bytes: int) -> None:
        """Move on by so many bytes."""
        self._progress.advance(self._task, num_bytes)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(escape(text), highlight=False, soft_wrap=True)
