"""The command line application: parses options and calls the functions in `medunet/commands`."""

import sys
from typing import Annotated

import typer

from medunet.base.packages import keep_imports_lean

keep_imports_lean()  # before NiBabel and MONAI are imported

from medunet import __version__  # noqa: E402
from medunet.cli import all_stages, data, model, packages, review  # noqa: E402
from medunet.cli.devices import devices  # noqa: E402
from medunet.cli.estimate import estimate  # noqa: E402
from medunet.cli.exit_codes import run_and_exit  # noqa: E402
from medunet.cli.predict import predict  # noqa: E402

app = typer.Typer(
    help="Segment 3D medical images with U-Nets. Stages: manifest, check, plan, train, predict, score, report.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for command in (
    *(data.import_dicom, data.fetch, data.merge_masks, data.manifest, data.check),
    *(model.plan, model.preprocess, model.train, model.tune),
    *(predict, estimate, model.calibrate, model.export),
    *(packages.package, packages.models, model.import_model),
    *(review.score, review.select, review.compare, review.report),
    *(all_stages.run, all_stages.demo, devices),
):
    app.command()(command)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"medunet {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options that apply to every command; `main` reads `--debug` from any position."""


def main() -> None:
    """Run the `medunet` command."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    run_and_exit(lambda: app(arguments))
