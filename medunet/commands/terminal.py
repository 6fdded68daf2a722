"""What the commands print, and the log of the other rooms shown on the terminal.

Rooms below the commands print nothing: they log under `medunet`. Importing a command shows that log on stderr, its
warnings in yellow; a program that uses the rooms alone handles it as it likes.
"""

import logging
from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console()


def say(stage: str, text: str, path: Path) -> None:
    """Say what a stage did and where its result lies."""
    text, place = escape(text), escape(str(path))
    console.print(f"[bold]{stage}[/]: {text} [dim]({place})[/]", highlight=False, soft_wrap=True)


class LogOnTerminal(logging.Handler):
    """Prints each record's message on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        style = "yellow" if record.levelno >= logging.WARNING else ""
        errors = Console(stderr=True)  # as stderr is now: tests and notebooks replace it
        errors.print(escape(record.getMessage()), style=style, highlight=False, soft_wrap=True)


def _show_log() -> None:
    log = logging.getLogger("medunet")
    if not any(isinstance(handler, LogOnTerminal) for handler in log.handlers):
        log.addHandler(LogOnTerminal())
        log.setLevel(logging.INFO)


_show_log()
