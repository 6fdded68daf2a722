"""The commands on packaged models: `package` and `models`."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.cli.options import exit_if_any, refuse_options
from medunet.commands.models import run_models
from medunet.commands.package import run_package


def package(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Folders of runs, or of models such as runs/liver/folds/0/model."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="NAME.zip", help="The package; its name is the model's.")
    ],
    fold: Annotated[
        str | None,
        typer.Option(
            "--fold", help="Fold of each run: 0, 1, ..., all; each: all trained ones; default: the first."
        ),
    ] = None,
    weights_licence: Annotated[
        str, typer.Option("--weights-licence", help="Licence under which the weights are given away.")
    ] = "",
    data_licence: Annotated[
        str, typer.Option("--data-licence", help="Licence of the data that it was trained on.")
    ] = "",
    attribution: Annotated[
        str, typer.Option("--attribution", help="Whom to name: authors and source of data and weights.")
    ] = "",
    example: Annotated[
        list[Path] | None,
        typer.Option(
            "--example", help="A scan that may be given away, a file per channel; default: a synthetic one."
        ),
    ] = None,
    scores_of: Annotated[
        Path | None,
        typer.Option(
            "--scores-of",
            metavar="RUN",
            help="A scored run of the same recipe with scans left out, for the card of members trained on all.",
        ),
    ] = None,
) -> None:
    """Write trained models as one ZIP for others, with licences, a model card and an example; no case is listed."""
    run_package(
        models,
        out,
        fold=fold,
        weights_licence=weights_licence,
        data_licence=data_licence,
        attribution=attribution,
        example=example or (),
        scores_of=scores_of,
    )


def models(
    name: Annotated[Path | None, typer.Argument(metavar="[NAME]", help="Show this model's card.")] = None,
    add: Annotated[
        Path | None, typer.Option("--add", metavar="FILE.zip", help="Copy a package into the user's folder.")
    ] = None,
    example: Annotated[
        Path | None,
        typer.Option("--example", metavar="FILE", help="Write the model's example, a scan to try it on."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another model of the same name, or the file.")
    ] = False,
) -> None:
    """List the models that `medunet predict` knows by name, show the card or write the example of one, or add one."""
    if name is not None:
        refuse_options("a model is named", {"--add": add})
    else:
        refuse_options("no model is named", {"--example": example})
    if add is None and example is None:
        refuse_options("nothing is written", {"--overwrite": overwrite or None})
    exit_if_any(range(run_models(name, add=add, example=example, overwrite=overwrite)))
