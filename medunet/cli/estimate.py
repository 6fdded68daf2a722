"""The command `estimate`, which tells what predicting a cohort takes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from medunet.cli.options import DataRoot, Device, Fold, Weights, exit_if_any
from medunet.commands.estimate import run_estimate
from medunet.commands.load_models import PredictOptions


def estimate(
    model: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run or model, a package (.zip), or a name that `medunet models` lists."
        ),
    ],
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Scans that are like the cohort's, folders of them, or one manifest.json; default: the run's own."
        ),
    ] = None,
    cases: Annotated[
        int | None, typer.Option("--cases", min=1, help="Size of the cohort; default: the scans given.")
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="Processes that predict at the same time.")
    ] = 1,
    efficiency: Annotated[
        float | None,
        typer.Option(
            "--efficiency",
            min=0.01,
            max=1.0,
            help="Of the workers together, as measured; default: none slows another.",
        ),
    ] = None,
    measure: Annotated[
        int | None,
        typer.Option(
            "--measure", min=1, help="Cases to predict now; default: 5, or none where masks tell their time."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the cohort's masks: keeps the measured ones, and the estimate in cost.json.",
        ),
    ] = None,
    data_root: DataRoot = None,
    fold: Fold = None,
    device: Device = None,
    weights: Weights = None,
    fast: Annotated[bool, typer.Option("--fast", help="As of `medunet predict`.")] = False,
    backend: Annotated[
        Literal["auto", "torch", "openvino"], typer.Option("--backend", help="As of `medunet predict`.")
    ] = "auto",
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16", "int8"],
        typer.Option("--precision", help="As of `medunet predict`."),
    ] = "auto",
) -> None:
    """Estimate time, memory, disk and cards for predicting a cohort, from a few measured cases."""
    exit_if_any(
        run_estimate(
            model,
            images or (),
            num_cases=cases,
            workers=workers,
            efficiency=efficiency,
            measure=measure,
            out=out,
            data_root=data_root,
            fold=fold,
            device_name=device or "auto",
            weights=weights,
            options=PredictOptions(precision, backend, fast),
        )
    )
