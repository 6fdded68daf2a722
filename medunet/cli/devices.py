"""The command `devices`, which shows and sets precision and memory layout for this computer."""

from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.cli.options import Device, open_run
from medunet.commands import devices as showing


def devices(
    reference: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Folder of a run or model: also show how it is computed here."),
    ] = None,
    device: Device = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting for this computer, such as training.precision=fp32 or inference.channels_last=on; "
            "KEY=auto removes it.",
        ),
    ] = None,
) -> None:
    """Show the hardware, the chosen precision and memory layout with reasons; `--set` overrides them."""
    if changes:
        from medunet.compute.choice_cache import change_settings

        change_settings(changes)
    showing.show_computer()
    if reference is None:
        showing.show_cached_choices()
    elif (reference / "model.json").exists():
        showing.show_model(reference, device or "auto")
    elif (reference / "config.yaml").exists():
        showing.show_run(open_run(reference, reference), device or "auto")  # its data are not read
    else:
        raise InputError(
            "has neither config.yaml nor model.json",
            where=str(reference),
            hint="Give the folder of a run or of a model (folds/0/model).",
        )
