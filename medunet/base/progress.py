"""Progress bars on stderr, shown only if stderr is a terminal; long jobs log lines instead."""

import logging
import time
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
_log = logging.getLogger(__name__)
_LINE_EVERY_S = 30.0


def track(items: Sequence[_Item] | Iterable[_Item], what: str) -> Iterator[_Item]:
    """Iterate over items with a progress bar labelled `what`, which is removed at the end."""
    console = Console(stderr=True)
    yield from rich_track(items, what, console=console, transient=True, disable=not console.is_terminal)


class PercentBar:
    """A progress bar for a fraction from 0 to 1, followed by a text.

    It stays visible when it is stopped, unless it is `transient`.
    """

    def __init__(self, what: str, *, transient: bool = False) -> None:
        """Show the bar with the label `what`."""
        console = Console(stderr=True)
        self.is_shown = console.is_terminal
        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%  {task.description}"),
            TimeElapsedColumn(),
            console=console,
            transient=transient,
            disable=not self.is_shown,
        )
        self._task = self._progress.add_task("", total=1.0)
        self._progress.start()

    def update(self, done: float, text: str) -> None:
        """Set the fraction done and the text."""
        self._progress.update(self._task, completed=done, description=escape(text))

    def stop(self) -> None:
        """Stop updating the bar and leave it visible."""
        self._progress.stop()


class CaseBar:
    """Progress over cases that take seconds to minutes each: how many are done, which is in work, what is left.

    A context manager: a bar on a terminal, which is removed at the end; otherwise a line is logged every half minute.
    """

    def __init__(self, what: str, num_cases: int) -> None:
        """Prepare a bar with the label `what`."""
        self._what, self._num_cases = what, num_cases
        self._num_done, self._num_failed, self._case, self._part = 0, 0, "", 0.0

    def __enter__(self) -> Self:
        self._start = self._told = time.monotonic()
        self._bar = PercentBar(self._what, transient=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, case: str) -> None:
        """Name the case that is in work now."""
        self._case, self._part = case, 0.0
        self._show()

    def update(self, part: float) -> None:
        """Set how much of the case in work is done, from 0 to 1."""
        self._part = part
        self._show()

    def advance(self, *, failed: bool = False) -> None:
        """Count a case as done, or as failed."""
        self._num_done, self._part = self._num_done + 1, 0.0
        self._num_failed += failed
        if not self._case:  # workers do not tell which they begin
            self._show()

    def _show(self) -> None:
        done = min(self._num_done + self._part, self._num_cases)
        if self._bar.is_shown:
            self._bar.update(done / max(1, self._num_cases), self._describe(done))
        elif time.monotonic() - self._told >= _LINE_EVERY_S:
            self._told = time.monotonic()
            _log.info(f"{self._what}: {self._describe(done)}")

    def _describe(self, done: float) -> str:
        text = f"{self._num_done} of {self._num_cases} cases"
        text += f", {self._num_failed} failed" if self._num_failed else ""
        seconds = time.monotonic() - self._start
        if done:
            left_s = seconds / done * (self._num_cases - done)
            text += f", {seconds / done:.3g} s a case, {describe_seconds(left_s)} left"
        return f"{text}; now {self._case}" if self._case else text


def describe_seconds(seconds: float) -> str:
    """Return a time in words, such as "40 s", "12 min" or "3 h"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.0f} h"


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
