"""The commands on models: `plan`, `train`, `tune`, `predict`, `calibrate` and `export`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from medunet.base.errors import InputError
from medunet.cli.options import (
    Changes,
    DataRoot,
    Device,
    Fold,
    Overwrite,
    RunArgument,
    Weights,
    exit_if_any,
    open_run,
    refuse_options,
)
from medunet.commands.calibrate import run_calibrate
from medunet.commands.export import run_export
from medunet.commands.plan import run_plan, show_network
from medunet.commands.predict import PredictOptions, predict_images, run_predict
from medunet.commands.terminal import console
from medunet.commands.train import run_train
from medunet.commands.tune import run_tune
from medunet.records.run_folder import RunFolder
from medunet.runs.run import first_trained_fold
from medunet.runs.selection import chosen as chosen_selection
from medunet.runs.selection import run_of


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


def train(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, help="Networks of each fold, which differ in their seed; default: 1."),
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
            help="URL of a database server that several machines share; default: SQLite in the run's folder."
        ),
    ] = None,
    changes: Changes = None,
) -> None:
    """Search the settings in `tuning.space`; trials resume, and poor ones are stopped early."""
    run_tune(open_run(run, data_root, changes, fold=fold, device=device), storage_url=storage)


def predict(
    model: Annotated[
        Path, typer.Argument(help="Folder of a run, or of a model such as runs/liver/folds/0/model.")
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Scans, folders of scans, or one manifest.json.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder for the masks; required with images.")
    ] = None,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="CODE[:CASE]",
            help="Predict in spite of a fault, in every scan or in one; may be repeated.",
        ),
    ] = None,
    allow_resample: Annotated[
        bool,
        typer.Option(
            "--allow-resample", help="Resample channels on different grids to the first one's grid."
        ),
    ] = False,
    ram_gb: Annotated[
        float | None,
        typer.Option("--ram-gb", help="Most memory of the command in GB; default: what is free."),
    ] = None,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Larger steps of the window, no averaging: quicker, at some cost in Dice."
        ),
    ] = False,
    backend: Annotated[
        Literal["auto", "torch", "openvino"],
        typer.Option("--backend", help="What computes the network; auto: what is faster on this computer."),
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"],
        typer.Option("--precision", help="Precision of the network; int8 after `medunet calibrate`."),
    ] = "auto",
    no_selection: Annotated[
        bool, typer.Option("--no-selection", help="Do not follow what `medunet select` chose for the run.")
    ] = False,
) -> None:
    """Segment scans with a trained model; without images, the held-out cases of the run."""
    if not images and (model / "model.json").exists():
        raise InputError("no scans are given", where="medunet predict", hint="Add scans and --out FOLDER.")
    if not images:
        refuse_options("the masks of held-out cases are written into the run's folder", {"--out": out})
        given = {"--accept": accept, "--allow-resample": allow_resample or None}
        refuse_options("faults of a run's own cases are accepted by `medunet check`", given)
        refuse_options(
            "held-out cases are never predicted by a selection", {"--no-selection": no_selection or None}
        )
        changes = [f"inference.weights={weights}"] if weights else None
        opened = open_run(model, data_root, changes, fold=fold, device=device)
        only = opened.config.training.fold if fold is not None else None
        options = PredictOptions(precision, backend, fast, ram_gb)
        exit_if_any(run_predict(opened, fold=only, overwrite=overwrite, options=options))
        return
    if out is None:
        raise InputError("no output folder is given", where="--out", hint="Add --out FOLDER.")
    selection = None
    if not no_selection and not (model / "model.json").exists():
        selection = chosen_selection(RunFolder(model))
        model = model if selection is None else run_of(RunFolder(model), selection).root
    exit_if_any(
        predict_images(
            _model_folder(model, fold),
            images,
            out,
            data_root,
            device_name=device or "auto",
            overwrite=overwrite,
            weights=weights,
            accept=accept or (),
            allow_resample=allow_resample,
            options=PredictOptions(precision, backend, fast, ram_gb),
            selection=selection,
        )
    )


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


def _model_folder(model: Path, fold: str | None) -> Path:
    """Return the model folder that is meant: itself, or that of a run's fold, by default of the first trained one."""
    if (model / "model.json").exists():
        return model
    chosen = fold or first_trained_fold(RunFolder(model))
    if fold is None and chosen != "0":
        console.print(f"Fold 0 is not trained: the model of fold {chosen} is used.", highlight=False)
    return RunFolder(model).model(chosen)
