"""The commands from a checked dataset to predicted masks."""

import json
from pathlib import Path
from typing import Annotated

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
    end_with,
    open_run,
    refuse_given,
)
from medunet.commands.plan import run_plan, show_network
from medunet.commands.predict import predict_images, run_predict
from medunet.commands.train import run_train
from medunet.commands.tune import run_tune


def plan(
    run: RunArgument,
    data_root: DataRoot = None,
    device: Device = None,
    changes: Changes = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="Show the network's layers, output sizes and parameters.")
    ] = False,
) -> None:
    """Choose spacing, patch, network and batch size, with reasons."""
    opened = open_run(run, data_root, changes, device=device)
    run_plan(opened)
    if summary:
        show_network(opened)


def train(
    run: RunArgument,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    ram_gb: Annotated[
        float | None,
        typer.Option("--ram-gb", help="Memory for preprocessed cases; else half of what is free."),
    ] = None,
    init_from: Annotated[
        Path | None, typer.Option("--from", help="Model folder whose weights begin the training.")
    ] = None,
    changes: Changes = None,
) -> None:
    """Train a fold; the same command resumes it. Under `torchrun -m medunet.cli` all processes share each batch."""
    given = {
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
            help="A database server's URL, shared by several machines; else SQLite in the run's folder."
        ),
    ] = None,
    changes: Changes = None,
) -> None:
    """Search for better settings, `tuning.space`, in trials that resume and that end early where they are poor."""
    run_tune(open_run(run, data_root, changes, fold=fold, device=device), storage_url=storage)


def predict(
    model: Annotated[Path, typer.Argument(help="A run's folder, or a model folder (folds/0/model).")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Scans, folders of scans, or one manifest.json.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where masks go; needed with images.")] = None,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
) -> None:
    """Predict scans; without images, the run's held-out cases."""
    if not images and (model / "model.json").exists():
        raise InputError("no scans are named", where="medunet predict", hint="Add scans and --out FOLDER.")
    if not images:
        refuse_given("a run's held-out cases are predicted into its own folder", {"--out": out})
        changes = [f"inference.weights={weights}"] if weights else None
        opened = open_run(model, data_root, changes, fold=fold, device=device)
        end_with(run_predict(opened, overwrite=overwrite))
        return
    if out is None:
        raise InputError("masks need a folder", where="--out", hint="Add --out FOLDER.")
    folder = model if (model / "model.json").exists() else model / "folds" / (fold or "0") / "model"
    end_with(
        predict_images(
            folder, images, out, data_root, device_name=device or "auto", overwrite=overwrite, weights=weights
        )
    )
