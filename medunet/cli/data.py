"""The commands from what a hospital has to a checked dataset."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.cli.options import Changes, DataRoot, Excluded, RunArgument, end_with, open_run
from medunet.commands.check import run_check
from medunet.commands.manifest import find_folds, find_place, run_manifest, run_recognise, write_description
from medunet.records.data_root import DATA_ROOT_VARIABLE, resolve_data_root
from medunet.records.description import Description, load_description


def import_dicom(
    tree: Annotated[Path, typer.Argument(help="A folder of DICOM files, of any names and in any order.")],
    out: Annotated[Path, typer.Argument(help="Where volumes, tables and the manifest go.")],
    dataset: Annotated[
        str | None, typer.Option(help="Description of channel and labels, for the manifest.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Resample gaps and gantry tilt away, and say where.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; else as many as cores and memory allow.")
    ] = None,
) -> None:
    """Make a NIfTI volume of each DICOM series, under pseudonyms, with a manifest and all faults."""
    from medunet.commands import import_dicom as importing

    description = None if dataset is None else load_description(dataset)
    end_with(importing.import_and_show(tree, out, description, repair=repair, workers=workers))


def fetch(
    name: Annotated[
        str | None, typer.Argument(help="hippocampus, liver, ... (see --list); or any name for a --url.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where the folder of scans goes; else MEDUNET_DATA_ROOT."),
    ] = None,
    url: Annotated[str | None, typer.Option(help="Another address: a mirror, or any tar or zip.")] = None,
    checksum: Annotated[
        str | None, typer.Option(help="sha256:HEX or md5:HEX, needed for archives from elsewhere.")
    ] = None,
    known: Annotated[bool, typer.Option("--list", help="Show the archives that are known by name.")] = False,
) -> None:
    """Download a public dataset, check and unpack it; the same command goes on after a cut."""
    from medunet.commands import fetch as fetching

    if known:
        fetching.list_archives()
        return
    if name is None:
        raise InputError("no archive is named", where="medunet fetch", hint="See `medunet fetch --list`.")
    if out is None and not os.environ.get(DATA_ROOT_VARIABLE):
        hint = f"Add --out FOLDER or set {DATA_ROOT_VARIABLE}."
        raise InputError("scans need a folder", where="medunet fetch", hint=hint)
    fetching.run_fetch(name, out or resolve_data_root(None), url=url, checksum=checksum)


def manifest(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="A folder or CSV, which is recognised; or a description's name (data_manifests/) or YAML file.",
        ),
    ],
    run: Annotated[Path, typer.Option("--run", help="The run's folder, made if need be.")],
    data_root: DataRoot = None,
    folds_file: Annotated[
        Path | None,
        typer.Option(help='Fixed folds, {"folds": [[case, ...], ...]} or nnU-Net\'s splits_final.json.'),
    ] = None,
    test_share: Annotated[
        float | None, typer.Option(help="Share of the patients that is drawn for the test, such as 0.2.")
    ] = None,
    test_file: Annotated[
        Path | None, typer.Option(help="Fixed test list: a case or patient a line, or JSON.")
    ] = None,
    stratify: Annotated[
        bool,
        typer.Option("--stratify", help="Read every label; folds and test get like volumes and sites."),
    ] = False,
    describe: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="Write the description that was made, to be edited."),
    ] = None,
    exclude: Excluded = None,
    changes: Changes = None,
) -> None:
    """List a dataset's cases with seeded, patient-grouped folds and, if asked for, a held-out test list."""
    description: Description | None = None
    if place := find_place(dataset):
        data_root = data_root or (place if place.is_dir() else place.parent)
        description = run_recognise(place, data_root)
        keys = ("folds_file=", "holdout=", "test_share=", "test_file=")
        divided = test_share or test_file or any(change.startswith(keys) for change in changes or ())
        folds_file = folds_file or (None if divided else find_folds(place))
    if describe is not None:
        write_description(description or load_description(dataset), describe)
    given = {
        "folds_file": None if folds_file is None else json.dumps(str(folds_file)),
        "test_file": None if test_file is None else json.dumps(str(test_file)),
        "test_share": test_share,
        "stratify": "true" if stratify else None,
    }
    extra = [f"{key}={value}" for key, value in given.items() if value is not None]
    opened = open_run(run, data_root, [*(changes or []), *extra], exclude, dataset=description or dataset)
    run_manifest(opened)


def check(
    run: RunArgument,
    data_root: DataRoot = None,
    exclude: Excluded = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept", metavar="CODE:CASE=REASON", help="Live with a fault of a case; it stays shown."
        ),
    ] = None,
    allow_resample: Annotated[
        bool,
        typer.Option("--allow-resample", help="Bring modalities on different grids to that of the first."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; else as many as cores and memory allow.")
    ] = None,
) -> None:
    """Check every file of the manifest and show all faults at once."""
    opened = open_run(run, data_root, exclude=exclude)
    if exclude:
        run_manifest(opened)
    end_with(run_check(opened, accept=accept or (), allow_resample=allow_resample, workers=workers))
