"""`medunet import-dicom`: import DICOM series and print a table of series and faults."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from medunet.commands.alone import alone
from medunet.commands.terminal import console, print_stage
from medunet.dataset.checks.manifest_checks import fault_table
from medunet.dataset.dicom.importer import import_tree
from medunet.dataset.dicom.tables import SeriesRow
from medunet.records.description import Description
from medunet.records.fault import Fault

_STYLES = {"refused": "bold red", "left out": "dim", "imported": ""}


@alone("import-dicom")
def import_and_show(
    tree: Path, out: Path, description: Description | None, *, repair: bool, workers: int | None
) -> list[Fault]:
    """Import every series below `tree`, print series and faults, and return the errors."""
    imported = import_tree(tree, out, description=description, repair=repair, workers=workers)
    console.print(series_table(imported.rows))
    if imported.faults:
        console.print(fault_table(imported.faults))
    counts = Counter(row.status for row in imported.rows)
    numbers = ", ".join(f"{counts[status]} {status}" for status in ("imported", "refused", "left out"))
    count = imported.num_others
    others = (
        f"; {count} file{' is not a DICOM image' if count == 1 else 's are not DICOM images'}"
        if count
        else ""
    )
    if imported.num_again:
        others += (
            f"; {imported.num_again} further link{'s' * (imported.num_again != 1)} to files read already"
        )
    print_stage("Import", f"{len(imported.rows)} series: {numbers}{others}", out / "series.csv")
    for name, manifest in imported.manifests.items():
        count = len(manifest.cases)
        print_stage(
            "Manifest", f"{count} case{'s' * (count != 1)} of {manifest.description.name}", out / name
        )
    return [fault for fault in imported.faults if fault.severity == "error"]


def series_table(rows: Sequence[SeriesRow]) -> Table:
    """Return a terminal table of the series."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("case", "", "slices", "shape", "spacing mm", "status", "faults"):
        table.add_column(column, overflow="fold", no_wrap=column == "case")
    for row in rows:
        shape = "×".join(str(count) for count in row.shape)
        spacing = "×".join(f"{mm:.4g}" for mm in row.spacing_mm)
        status = f"{row.status}, {row.repaired} repaired" if row.repaired else row.status
        cells = (row.case, row.modality, str(row.num_slices), shape, spacing, status)
        table.add_row(*(Text(cell) for cell in (*cells, " ".join(row.faults))), style=_STYLES[row.status])
    return table
