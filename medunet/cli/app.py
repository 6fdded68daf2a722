"""The command line: options are parsed, and the command of the same name in `medunet/commands` is called."""

import sys
from typing import Annotated

import typer

from medunet import __version__
from medunet.cli import data, model, review, whole
from medunet.cli.devices import devices
from medunet.cli.guard import guard

app = typer.Typer(
    help="Segmentation of 3D medical volumes: manifest, check, plan, train, predict, score, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for command in (
    *(data.import_dicom, data.fetch, data.manifest, data.check),
    *(model.plan, model.train, model.tune, model.predict),
    *(review.score, review.compare, review.report),
    *(whole.run, whole.demo, devices),
):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"medunet {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    """Options of every command; `--debug` is read by `main`, wherever it stands."""


def main() -> None:
    """Entry point of the `medunet` command."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    guard(lambda: app(arguments))
