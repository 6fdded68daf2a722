"""Terminal output of the commands, and a handler that prints the log of the other packages on stderr.

Only commands print. All other packages use the logger `medunet`. Importing a command attaches a handler that prints
the log on stderr, warnings in yellow. A program that imports only the other packages configures logging itself.
"""

import logging
from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console()


def print_stage(stage: str, text: str, path: Path) -> None:
    """Print a one-line summary of a stage and the path of its result."""
    text, place = escape(text), escape(str(path))
    console.print(f"[bold]{stage}[/]: {text} [dim]({place})[/]", highlight=False, soft_wrap=True)


def print_report(index: Path) -> None:
    """Print the line that says how to open a report."""
    print_stage("Report", "open in a browser", index)


class LogOnTerminal(logging.Handler):
    """Logging handler that prints messages on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one log record."""
        style = "yellow" if record.levelno >= logging.WARNING else ""
        errors = Console(stderr=True)  # created here because tests and notebooks replace sys.stderr
        errors.print(escape(record.getMessage()), style=style, highlight=False, soft_wrap=True)


def _show_log() -> None:
    log = logging.getLogger("medunet")
    if not any(isinstance(handler, LogOnTerminal) for handler in log.handlers):
        log.addHandler(LogOnTerminal())
        log.setLevel(logging.INFO)


_show_log()
