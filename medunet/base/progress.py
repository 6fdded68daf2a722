"""Progress bars on stderr, shown only if stderr is a terminal."""

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
    """Iterate over items with a progress bar labelled `what`, which is removed at the end."""
    console = Console(stderr=True)
    yield from rich_track(items, what, console=console, transient=True, disable=not console.is_terminal)


class PercentBar:
    """A progress bar for a fraction from 0 to 1, followed by a text; it stays visible when it is stopped."""

    def __init__(self, what: str) -> None:
        """Show the bar with the label `what`."""
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

    def update(self, done: float, text: str) -> None:
        """Set the fraction done and the text."""
        self._progress.update(self._task, completed=done, description=text)

    def stop(self) -> None:
        """Stop updating the bar and leave it visible."""
        self._progress.stop()


class ByteBar:
    """A progress bar of bytes with speed and remaining time; a context manager that removes the bar at the end."""

    def __init__(self, what: str) -> None:
        """Prepare a bar with the label `what`."""
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
        """Restart the bar at `num_done` of `num_bytes` bytes; None if the total is unknown."""
        self._progress.reset(self._task, total=num_bytes, completed=num_done)

    def advance(self, num_bytes: int) -> None:
        """Add `num_bytes` to the bytes done."""
        self._progress.advance(self._task, num_bytes)

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(escape(text), highlight=False, soft_wrap=True)
