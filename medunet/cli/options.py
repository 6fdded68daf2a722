"""Options shared by several commands, and the functions that apply them."""

from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from medunet.base.errors import InputError
from medunet.commands.terminal import console
from medunet.records.config import WeightsName
from medunet.records.description import Description
from medunet.records.run_folder import RunFolder
from medunet.runs import run as runs

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run, such as runs/liver.")]
DataRoot = Annotated[
    Path | None, typer.Option("--data-root", help="Folder of the scans; default: MEDUNET_DATA_ROOT.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a key of the configuration, such as training.max_minutes=8; may be repeated.",
    ),
]
Excluded = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="CASE=REASON", help="Exclude a case; may be repeated."),
]
Fold = Annotated[
    str | None,
    typer.Option("--fold", help="Fold 0, 1, ...; each: all folds one after the other; all: every case."),
]
Device = Annotated[str | None, typer.Option("--device", help="Device: auto, cpu, cuda or cuda:1.")]
Weights = Annotated[
    WeightsName | None,
    typer.Option(
        "--weights", help="Best weights by validation, or final ones; default: by inference.weights."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Predict cases again that are already done.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes; default: as many as cores and memory allow."),
]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="Where the work is done: processes of this computer, or workers of Ray."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Ray's head node; default: a new cluster on this computer."
    ),
]


@contextmanager
def working(engine: str, address: str | None) -> Iterator[None]:
    """Do the parallel work within this context on the engine of the options.

    Raises:
        InputError: an address is given without Ray, or the cluster cannot be used.
    """
    if engine == "local":
        refuse_options("only Ray has an address: add --engine ray", {"--address": address})
        yield
        return
    from medunet.base.ray_engine import ray_engine

    with ray_engine(address):
        yield


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
    """Open a run with the configuration changes from the options.

    Raises:
        InputError: An option cannot be used.
    """
    all_changes = list(changes or [])
    if fold is not None:
        all_changes.append(f"training.fold={fold}")
    if device is not None:
        all_changes.append(f"device={device}")
    opened = runs.open_run(run, data_root, config_file=config_file, dataset=dataset, changes=all_changes)
    reasons = dict(opened.config.exclude)
    for entry in exclude or ():
        rest, equals, reason = entry[1:].partition("=")  # a case's name may begin with the sign
        case = entry[:1] + rest
        if not equals or not reason:
            raise InputError(f"'{entry}' has no reason", where="--exclude", hint="Write CASE=REASON.")
        reasons[case] = reason
    return replace(opened, config=opened.config.model_copy(update={"exclude": reasons}))


def exit_if_any(failures: Sized) -> None:
    """Exit with code 1 if there are any faults or failed cases."""
    if failures:
        raise typer.Exit(1)


def refuse_options(why: str, given: Mapping[str, object]) -> None:
    """Raise an InputError if any of the options is given, since it would be ignored."""
    if used := [name for name, value in given.items() if value is not None]:
        raise InputError(why, where=", ".join(used), hint="Leave the option out.")


def first_fold(run: RunFolder) -> str:
    """Return the first trained fold of a run; print it if it is not fold 0."""
    chosen = runs.first_trained_fold(run)
    if chosen != "0":
        console.print(f"Fold 0 is not trained: the model of fold {chosen} is used.", highlight=False)
    return chosen
