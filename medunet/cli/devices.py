"""The command that shows and sets how this computer computes."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.cli.options import Device, open_run
from medunet.commands import devices as showing


def devices(
    reference: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="A run's or model's folder: how it would be computed."),
    ] = None,
    device: Device = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="For this computer: training.precision=fp32, inference.channels_last=on; =auto takes it back.",
        ),
    ] = None,
) -> None:
    """Show what this computer has, how it computes and why; `--set` overrides what was found."""
    if changes:
        from medunet.compute.choice_cache import change_settings

        change_settings(changes)
    showing.show_computer()
    if reference is None:
        showing.show_kept()
    elif (reference / "model.json").exists():
        showing.show_model(reference, device or "auto")
    elif (reference / "config.yaml").exists():
        showing.show_run(open_run(reference, reference), device or "auto")  # its data are not read
    else:
        raise InputError(
            "holds neither config.yaml nor model.json",
            where=str(reference),
            hint="Give a run's folder, or a model's (folds/0/model).",
        )
