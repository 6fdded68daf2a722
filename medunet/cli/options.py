"""Options that several commands share, and what every command does with them."""

from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.records.config import WeightsName
from medunet.records.description import Description
from medunet.runs import run as runs

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder, such as runs/liver.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of the scans; else MEDUNET_DATA_ROOT.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the configuration: training.max_minutes=8."),
]
Excluded = Annotated[
    list[str] | None, typer.Option("--exclude", metavar="CASE=REASON", help="Leave a case out by name.")
]
Fold = Annotated[str | None, typer.Option("--fold", help="0, 1, ..., each (one after the other) or all.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Weights = Annotated[
    WeightsName | None,
    typer.Option("--weights", help="best (by validation) or final; else as the training's settings say."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Redo the cases that are done already.")]


def open_run(
    run: Path,
    data_root: Path | None,
    changes: list[str] | None = None,
    exclude: list[str] | None = None,
    fold: str | None = None,
    device: str | None = None,
    dataset: str | Description | None = None,
    config_file: Path | None = None,
) -> runs.Run:
    """Open a run with the options' changes to its configuration."""
    all_changes = list(changes or [])
    if fold is not None:
        all_changes.append(f"training.fold={fold}")
    if device is not None:
        all_changes.append(f"device={device}")
    opened = runs.open_run(run, data_root, config_file=config_file, dataset=dataset, changes=all_changes)
    reasons = dict(opened.config.exclude)
    for entry in exclude or ():
        case, equals, reason = entry.partition("=")
        if not equals or not reason:
            raise InputError(f"'{entry}' gives no reason", where="--exclude", hint="Write CASE=REASON.")
        reasons[case] = reason
    config = opened.config.model_copy(update={"exclude": reasons})
    return runs.Run(opened.folder, config, opened.data_root)


def end_with(troubles: Sized) -> None:
    """End with exit code 1 if there are any faults or failed cases."""
    if troubles:
        raise typer.Exit(1)


def refuse_given(why: str, given: Mapping[str, object]) -> None:
    """Refuse options that would be ignored."""
    if used := [name for name, value in given.items() if value is not None]:
        raise InputError(why, where=", ".join(used), hint="Leave the option out.")
