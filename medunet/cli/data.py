"""The commands that prepare a dataset: `import-dicom`, `fetch`, `merge-masks`, `manifest` and `check`."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from medunet.base.errors import InputError
from medunet.cli.options import (
    Address,
    Changes,
    DataRoot,
    Engine,
    Excluded,
    RunArgument,
    Workers,
    exit_if_any,
    open_run,
    working,
)
from medunet.commands.check import run_check
from medunet.commands.manifest import (
    find_dataset_path,
    find_folds,
    require_new_yaml,
    run_manifest,
    run_recognise,
    with_patients,
    write_description,
)
from medunet.records.data_root import DATA_ROOT_VARIABLE, resolve_data_root
from medunet.records.description import Description, load_description


def import_dicom(
    tree: Annotated[
        Path, typer.Argument(help="Folder of DICOM files, searched recursively; file names do not matter.")
    ],
    out: Annotated[Path, typer.Argument(help="Output folder for volumes, tables and the manifest.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Dataset description for the manifest, with one channel: a name or YAML file."),
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Resample series with missing slices or gantry tilt, and report them."),
    ] = False,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Convert DICOM series to NIfTI volumes under pseudonyms, and write a manifest and all faults."""
    from medunet.commands import import_dicom as importing

    description = None if dataset is None else load_description(dataset)
    with working(engine, address):
        failures = importing.import_and_show(tree, out, description, repair=repair, workers=workers)
    exit_if_any(failures)


def fetch(
    name: Annotated[
        str | None, typer.Argument(help="hippocampus, liver, ... (see --list); or any name for a --url.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Folder in which the dataset's folder is created; default: MEDUNET_DATA_ROOT."
        ),
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Download from this URL instead: a mirror, or any tar or zip archive.")
    ] = None,
    checksum: Annotated[
        str | None,
        typer.Option(help="sha256:HEX or md5:HEX of the archive; required for archives not in --list."),
    ] = None,
    known: Annotated[
        bool, typer.Option("--list", help="List the archives that can be fetched by name.")
    ] = False,
) -> None:
    """Download a public dataset, verify and unpack it; run the same command to resume a stopped download."""
    from medunet.commands import fetch as fetching

    if known:
        fetching.list_archives()
        return
    if name is None:
        raise InputError("no archive is named", where="medunet fetch", hint="See `medunet fetch --list`.")
    if out is None and not os.environ.get(DATA_ROOT_VARIABLE):
        hint = f"Add --out FOLDER or set {DATA_ROOT_VARIABLE}."
        raise InputError("no output folder is given", where="medunet fetch", hint=hint)
    fetching.run_fetch(name, out or resolve_data_root(None), url=url, checksum=checksum)


def merge_masks(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of cases, such as CASE/ct.nii.gz with CASE/segmentations/liver.nii.gz."),
    ],
    out: Annotated[Path, typer.Argument(help="New folder for images, label maps and their description.")],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Structures to merge; where masks overlap, later ones overwrite earlier ones. Default: all.",
        ),
    ] = None,
    workers: Workers = None,
) -> None:
    """Merge one mask for each structure, such as TotalSegmentator's, into one label map for each case."""
    from medunet.commands.merge_masks import run_merge_masks

    names = [name.strip() for name in (labels or "").split(",") if name.strip()]
    exit_if_any(run_merge_masks(folder, out, names, workers=workers))


def manifest(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="Folder or CSV of cases, whose layout is recognised; or a dataset description: the name of one "
            "in data_manifests/, or a YAML file.",
        ),
    ],
    run: Annotated[Path, typer.Option("--run", help="Folder of the run; created if missing.")],
    data_root: DataRoot = None,
    folds_file: Annotated[
        Path | None,
        typer.Option(help='Fixed folds: {"folds": [[case, ...], ...]} or nnU-Net\'s splits_final.json.'),
    ] = None,
    test_share: Annotated[
        float | None, typer.Option(help="Fraction of the patients to draw as a test set, such as 0.2.")
    ] = None,
    test_file: Annotated[
        Path | None, typer.Option(help="Fixed test set: one case or patient per line, or JSON.")
    ] = None,
    stratify: Annotated[
        bool,
        typer.Option("--stratify", help="Balance label volumes and sites between folds; reads every label."),
    ] = False,
    describe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml", help="Write the dataset description to a new file that you can edit."
        ),
    ] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Regular expression whose only group is the patient's part of a case id, such as '^(.+?)_visit'.",
        ),
    ] = None,
    exclude: Excluded = None,
    changes: Changes = None,
) -> None:
    """List the cases of a dataset and split them by patient into folds and, optionally, a test set."""
    description: Description | None = None
    if describe is not None:
        require_new_yaml(describe)
    if place := find_dataset_path(dataset):
        data_root = data_root or (place if place.is_dir() else place.parent)
        description = run_recognise(place, data_root)
        keys = ("folds_file=", "holdout=", "test_share=", "test_file=")
        divided = test_share or test_file or any(change.startswith(keys) for change in changes or ())
        folds_file = folds_file or (None if divided else find_folds(place))
    if patient is not None:
        description = with_patients(description or load_description(dataset), patient)
    given = {
        "folds_file": None if folds_file is None else json.dumps(str(folds_file)),
        "test_file": None if test_file is None else json.dumps(str(test_file)),
        "test_share": test_share,
        "stratify": "true" if stratify else None,
    }
    extra = [f"{key}={value}" for key, value in given.items() if value is not None]
    opened = open_run(run, data_root, [*(changes or []), *extra], exclude, dataset=description or dataset)
    run_manifest(opened)
    if describe is not None:
        write_description(description or load_description(dataset), describe)


def check(
    run: RunArgument,
    data_root: DataRoot = None,
    exclude: Excluded = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="CODE[:CASE=REASON]",
            help="Accept a fault of a case, or of every case; it is still listed.",
        ),
    ] = None,
    allow_resample: Annotated[
        bool,
        typer.Option(
            "--allow-resample", help="Resample modalities on different grids to the first one's grid."
        ),
    ] = False,
    workers: Workers = None,
    engine: Engine = "local",
    address: Address = None,
) -> None:
    """Check every file of the manifest and list all faults."""
    opened = open_run(run, data_root, exclude=exclude)
    if exclude:
        run_manifest(opened)
    with working(engine, address):
        faults = run_check(opened, accept=accept or (), allow_resample=allow_resample, workers=workers)
    exit_if_any(faults)
