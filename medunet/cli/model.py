"""The commands on models, from `plan` and `train` to `calibrate` and `export`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from medunet.base.errors import InputError
from medunet.cli.options import (
    Address,
    Changes,
    DataRoot,
    Device,
    Engine,
    Fold,
    RunArgument,
    Weights,
    exit_if_any,
    first_fold,
    open_run,
    working,
)
from medunet.commands.calibrate import run_calibrate
from medunet.commands.export import run_export
from medunet.commands.import_model import run_import_model
from medunet.commands.plan import run_plan, show_network
from medunet.commands.preprocess import run_preprocess
from medunet.commands.train import run_train
from medunet.commands.tune import run_tune
from medunet.records.run_folder import RunFolder
from medunet.runs.members import find_members
from medunet.runs.packages import find_package
from medunet.runs.run import first_trained_fold


def plan(
    run: RunArgument,
    data_root: DataRoot = None,
    device: Device = None,
    changes: Changes = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show the network's layers, output sizes and parameters.")
    ] = False,
) -> None:
    """Choose spacing, patch size, network and batch size, with a reason for each."""
    opened = open_run(run, data_root, changes, device=device)
    run_plan(opened)
    if summary:
        show_network(opened)


def preprocess(
    run: RunArgument,
    data_root: DataRoot = None,
    engine: Engine = "local",
    address: Address = None,
    changes: Changes = None,
) -> None:
    """Preprocess the training cases of all folds before `train`, which otherwise does it itself."""
    opened = open_run(run, data_root, changes)
    with working(engine, address):
        run_preprocess(opened)


def train(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Networks of each fold, which differ in their seed; default: 1."),
    ] = None,
    member: Annotated[
        int | None,
        typer.Option("--member", min=0, help="Train this one of the --seeds alone, counted from 0."),
    ] = None,
    device: Device = None,
    ram_gb: Annotated[
        float | None,
        typer.Option(
            "--ram-gb", help="Memory for preprocessed cases in GB; default: half of the free memory."
        ),
    ] = None,
    init_from: Annotated[
        Path | None,
        typer.Option("--from", help="Initialise the network with the weights in this model folder."),
    ] = None,
    changes: Changes = None,
) -> None:
    """Train or resume a fold; `torchrun -m medunet.cli train` trains data-parallel in several processes."""
    given = {
        "training.seeds": seeds,
        "training.member": member,
        "training.ram_gb": ram_gb,
        "training.init_from": json.dumps(str(init_from)) if init_from else None,
    }
    extra = [f"{key}={value}" for key, value in given.items() if value is not None]
    run_train(open_run(run, data_root, [*(changes or []), *extra], fold=fold, device=device))


def tune(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    storage: Annotated[
        str | None,
        typer.Option(
            help="FILE.journal or the URL of a database server, which several commands share; default: SQLite in "
            "the run's folder."
        ),
    ] = None,
    changes: Changes = None,
) -> None:
    """Search the settings in `tuning.space`; trials resume, and poor ones are stopped early."""
    run_tune(open_run(run, data_root, changes, fold=fold, device=device), storage_url=storage)


def calibrate(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    changes: Changes = None,
) -> None:
    """Quantise a fold's network to int8, and measure what int8 and `predict --fast` cost in Dice."""
    chosen = fold or first_trained_fold(RunFolder(run))
    opened = open_run(run, data_root, changes, fold=chosen, device=device)
    exit_if_any(run_calibrate(opened, opened.config.training.fold))


def export(
    model: Annotated[
        Path, typer.Argument(help="Folder of a run, or of a model such as runs/liver/folds/0/model.")
    ],
    to: Annotated[
        Literal["onnx", "openvino"], typer.Option("--to", help="Format: onnx, or OpenVINO's .xml and .bin.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Output folder, which must be new or an earlier export.")
    ],
    fold: Fold = None,
    weights: Weights = None,
) -> None:
    """Write a trained network for other runtimes, checked to give the same labels there."""
    run_export(_model_folder(model, fold), to, out, weights=weights)


def import_model(
    source: Annotated[
        Path,
        typer.Argument(help="Results folder of nnU-Net v2 (Trainer__Plans__Configuration), or a ZIP of it."),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Output folder, which must be new or an earlier import.")
    ],
    configuration: Annotated[
        str | None,
        typer.Option(help="Such as 3d_fullres; needed where the source holds several."),
    ] = None,
    checkpoint: Annotated[
        Literal["final", "best"] | None,
        typer.Option(
            help="Which checkpoint of each fold; default: final, or best where there is no final one."
        ),
    ] = None,
) -> None:
    """Import a trained model of nnU-Net v2, to predict with it by nnU-Net's own rules."""
    run_import_model(source, out, configuration=configuration, checkpoint=checkpoint)


def _model_folder(model: Path, fold: str | None) -> Path:
    """Return the folder of the only network that is meant.

    That of a run's fold, by default of the first trained one, is the one of its first seed.

    Raises:
        InputError: there is none, or a package has several.
    """
    folders = find_members(model, fold)
    if len(folders) > 1 and find_package(model):
        raise InputError(
            f"has {len(folders)} members, of which one must be chosen",
            where=str(model),
            hint="Give the folder of one of its members.",
        )
    if fold is None and RunFolder(model).config.exists():
        first_fold(RunFolder(model))
    return folders[0]
