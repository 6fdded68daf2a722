"""`medunet compare --readers`: compare several readers' label maps of one case."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from medunet import __version__
from medunet.base.errors import DataError, InputError, MedunetError
from medunet.base.files import write_json
from medunet.commands.alone import alone
from medunet.commands.compare import number_text
from medunet.commands.terminal import console, print_stage
from medunet.imaging.segment_names import describe_joining
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_label
from medunet.records.description import Description, load_description
from medunet.records.scores import Surface
from medunet.scoring.agreement import ReaderPair, TargetAgreement, compare_readers
from medunet.scoring.pairs import find_pairs
from medunet.scoring.reading import check_declared, grid_difference
from medunet.scoring.tables import json_value, write_table


@alone("compare")
def compare_reader_maps(
    folder: Path, out: Path, dataset: str, surface: Surface = "area"
) -> list[TargetAgreement]:
    """Compare the label maps in a folder, which several readers drew of one case on one grid.

    Readers are named by their file. Writes readers.csv, readers.json and readers.png.

    Raises:
        InputError: There is no such folder, or it has fewer than two label maps.
        DataError: A file cannot be read, holds undeclared values or has another grid than the first; the message
            names all such files.
    """
    from medunet.drawing.figures import save_figure
    from medunet.reporting.compare_plots import draw_readers

    description = load_description(dataset)
    volumes = _read_readers(folder, description)
    first = next(iter(volumes.values()))
    maps = {reader: volume.array for reader, volume in volumes.items()}
    pairs, agreements = compare_readers(maps, first.spacing_mm, description.targets, surface=surface)
    write_table(out / "readers.csv", [asdict(pair) for pair in pairs])
    about = {
        "medunet": __version__,
        "dataset": description.name,
        "surface": surface,
        "readers": list(volumes),
        "unit_of_length": description.unit,
        "kappa": "Fleiss' over all voxels, grows with the field of view; kappa_in_box over the box of all masks",
    }
    write_json(
        out / "readers.json", json_value({"about": about, "targets": [asdict(entry) for entry in agreements]})
    )
    if (figure := draw_readers(pairs, agreements)) is not None:
        save_figure(out / "readers.png", figure)
    console.print(readers_table(pairs, agreements, description.unit))
    print_stage("Compare", f"{len(volumes)} readers, {len(agreements)} targets", out / "readers.csv")
    return agreements


def readers_table(
    pairs: Sequence[ReaderPair], agreements: Sequence[TargetAgreement], unit: str = "mm"
) -> Table:
    """Return a terminal table with a row per target: kappa, and Dice and largest HD95 over the pairs of readers."""
    table = Table(
        title="Agreement of readers",
        caption="kappa depends on the field of view; in box: within the box around all masks",
        caption_justify="left",
    )
    table.add_column("target", no_wrap=True)
    for heading in ("outlined", "kappa", "in box", "mean Dice", "lowest Dice", f"largest hd95 {unit}"):
        table.add_column(heading, justify="right")
    for entry in agreements:
        distances = [pair.hd95_mm for pair in pairs if pair.target == entry.target]
        largest = max((value for value in distances if not math.isnan(value)), default=math.nan)
        table.add_row(
            escape(entry.target),
            f"{entry.num_outlined}/{entry.num_readers}",
            *(
                number_text(value)
                for value in (entry.kappa, entry.kappa_in_box, entry.mean_dice, entry.lowest_dice)
            ),
            "∞" if math.isinf(largest) else number_text(largest),
        )
    return table


def _read_readers(folder: Path, description: Description) -> dict[str, Volume]:
    """Read the label maps of a folder, by file name without ending, and check that they have the same grid."""
    if not folder.is_dir():
        raise InputError(
            "no such folder", where=str(folder), hint="Give the folder of the readers' label maps."
        )
    entries = sorted(path for path in folder.iterdir() if path.is_file())
    pairs, _ = find_pairs(entries[0], folder) if entries else ([], [])  # used to list the label maps
    files = {pair.case: pair.prediction for pair in pairs if pair.prediction is not None}
    if len(files) < 2:
        raise InputError(
            f"has only {len(files)} label map(s)",
            where=str(folder),
            hint="Add label maps of two or more readers.",
        )
    volumes: dict[str, Volume] = {}
    faults = []
    rules = replace(description.label_rules, others="surplus")
    declared = set(description.labels.values())
    for reader, path in files.items():
        try:
            volumes[reader] = read_label(path, rules)
            check_declared(volumes[reader].array, declared, "refused")
        except MedunetError as error:
            faults.append(f"{reader}: {error.what}")
    if volumes:
        (name, first), *others = volumes.items()
        differences = {reader: grid_difference(first, volume, f"{name}'s") for reader, volume in others}
        grids = [f"{reader}: its {text}" for reader, text in differences.items() if text]
        ways = [f"Correct these files, or describe what they hold in {description.name}."] if faults else []
        ways += ["Resample the label maps to one grid."] if grids else []
        faults += grids
    else:
        ways = ["Correct these files."]
    if faults:
        raise DataError("; ".join(faults), where=folder.name, hint=" ".join(ways))
    for reader, volume in volumes.items():
        if text := describe_joining(volume.header.segments, description.labels):
            console.print(
                f"  [yellow]names[/] {escape(f'{reader}: {text}')}", highlight=False, soft_wrap=True
            )
    return volumes
