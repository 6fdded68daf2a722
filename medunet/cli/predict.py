"""The command `predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from medunet.base.errors import InputError
from medunet.cli.options import (
    Address,
    DataRoot,
    Device,
    Engine,
    Fold,
    Overwrite,
    Weights,
    exit_if_any,
    first_fold,
    open_run,
    refuse_options,
    working,
)
from medunet.commands.load_models import PredictOptions, RoiOptions
from medunet.commands.parts import CaseChoice
from medunet.commands.predict import predict_images, run_predict
from medunet.commands.predict_job import parse_devices
from medunet.commands.terminal import console
from medunet.records.config import MapName
from medunet.records.run_folder import RunFolder
from medunet.runs.members import find_members
from medunet.runs.packages import find_package
from medunet.runs.run import member_folders
from medunet.runs.selection import chosen as chosen_selection
from medunet.runs.selection import model_of


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run or model, a package (.zip), or a name that `medunet models` lists."
        ),
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
    devices: Annotated[
        str | None,
        typer.Option("--devices", help="One worker for each: 0,1,2,3 are cards, cpu:2 is the CPU twice."),
    ] = None,
    engine: Engine = "local",
    address: Address = None,
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
    others: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="MODEL", help="Average with another model or run; may be repeated."),
    ] = None,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Also write how many networks agree with the mask, as NIfTI.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probabilities, compressed by slice.")
    ] = False,
    roi: Annotated[
        Path | None,
        typer.Option(
            "--roi", metavar="COARSE", help="Predict only around what this model, or run, finds in the scan."
        ),
    ] = None,
    roi_targets: Annotated[
        str | None,
        typer.Option("--roi-targets", help="Targets of COARSE, such as liver,spleen; default: all."),
    ] = None,
    roi_margin_mm: Annotated[
        float | None, typer.Option("--roi-margin-mm", help="Margin around them in mm; default: 20.")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write a page for each scan: volumes, lesions, viewer.")
    ] = False,
    no_selection: Annotated[
        bool, typer.Option("--no-selection", help="Do not follow what `medunet select` chose for the run.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option("--part", metavar="I/N", help="Predict part I of N of the cases, divided by their ids."),
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Name the cases without a mask, and predict these alone.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --missing: only name them.")] = False,
) -> None:
    """Segment scans with a trained model, or several as one; without images, the held-out cases of the run."""
    if devices is not None:
        refuse_options("--devices names the devices", {"--device": device})
    if engine == "ray":
        refuse_options("Ray shares out the devices of its nodes", {"--devices": devices})
    each = parse_devices(devices) if devices is not None else ()
    if roi is None:
        refuse_options(
            "there is no region of interest", {"--roi-targets": roi_targets, "--roi-margin-mm": roi_margin_mm}
        )
    targets = () if roi_targets is None else tuple(map(str.strip, roi_targets.split(",")))
    region = RoiOptions(roi, targets, roi_margin_mm) if roi is not None else None
    maps: tuple[MapName, ...] = ()
    maps += ("agreement",) if agreement else ()
    maps += ("probabilities",) if probabilities else ()
    cases = CaseChoice.parse(part, missing=missing, dry_run=dry_run)
    options = PredictOptions(precision, backend, fast, ram_gb, maps, region, cases)
    if not cases.is_all:
        refuse_options(
            "the list of pages is of all scans: add it after all parts", {"--report": report or None}
        )
    if missing:
        refuse_options("it repeats what is not missing", {"--overwrite": overwrite or None})
    if cases.part and "auto" in (backend, precision):
        text = "each part chooses by itself how to compute; --backend and --precision make all masks alike"
        console.print(f"  [yellow]note[/] {text}", highlight=False, soft_wrap=True)
    if not images and ((model / "model.json").exists() or find_package(model)):
        raise InputError("no scans are given", where="medunet predict", hint="Add scans and --out FOLDER.")
    if not images:
        refuse_options("the masks of held-out cases are written into the run's folder", {"--out": out})
        refuse_options(
            "the pages of held-out cases are written by `medunet report`", {"--report": report or None}
        )
        given = {"--accept": accept, "--allow-resample": allow_resample or None}
        refuse_options("faults of a run's own cases are accepted by `medunet check`", given)
        refuse_options(
            "held-out cases are never predicted by a selection", {"--no-selection": no_selection or None}
        )
        changes = [f"inference.weights={weights}"] if weights else None
        refuse_options("name other runs in the key inference.members", {"--with": others})
        opened = open_run(model, data_root, changes, fold=fold, device=device)
        only = opened.config.training.fold if fold is not None else None
        with working(engine, address):
            failed = run_predict(opened, fold=only, overwrite=overwrite, options=options, devices=each)
        exit_if_any(failed)
        return
    if out is None:
        raise InputError("no output folder is given", where="--out", hint="Add --out FOLDER.")
    selection = None if no_selection else chosen_selection(RunFolder(model))
    if selection is not None and (fold is not None or others):
        text = "selection.json is not followed: --fold and --with say which networks predict"
        console.print(f"  [yellow]note[/] {text}", highlight=False, soft_wrap=True)
        selection = None
    if selection is None:
        folders = _find_members(model, fold, others or ())
    else:
        folders = [model_of(RunFolder(model), member) for member in selection.configuration.members]
    with working(engine, address):
        failed = predict_images(
            folders,
            images,
            out,
            data_root,
            device_name=device or "auto",
            devices=each,
            overwrite=overwrite,
            weights=weights,
            accept=accept or (),
            allow_resample=allow_resample,
            options=options,
            selection=selection,
            report_of=model if report else None,
        )
    exit_if_any(failed)


def _find_members(model: Path, fold: str | None, others: Sequence[Path]) -> list[Path]:
    """Return the model folders that predict together; print which fold of a run was chosen."""
    folders = find_members(model, fold, others)
    run = RunFolder(model)
    if fold is None and run.config.exists():
        used, chosen = set(folders), first_fold(run)
        if left := [folder for folder in member_folders(run) if folder not in used]:
            text = f"Fold {chosen} predicts alone: --fold each averages {len(left)} more trained networks."
            console.print(text, highlight=False)
    return folders
