"""What the stages say to a terminal: one line each, with the place where the result lies."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console()


def say(stage: str, text: str, path: Path) -> None:
    """Say what a stage did and where its result lies."""
    text, place = escape(text), escape(str(path))
    console.print(f"[bold]{stage}[/]: {text} [dim]({place})[/]", highlight=False, soft_wrap=True)
