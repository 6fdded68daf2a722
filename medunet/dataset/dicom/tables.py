"""Output tables of a DICOM import: the table of series, and a manifest for each modality.

Rows of finished volumes are kept in a journal until the table is written, so that an import can be resumed.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from medunet.base.errors import InputError
from medunet.base.files import read_json_object, write_json, write_text
from medunet.dataset.dicom.series_checks import Modality
from medunet.records.description import Description
from medunet.records.manifest import Case, Manifest

Status = Literal["imported", "refused", "left out"]

_SCHEMA = "medunet.series/1"
_TABLE, _CSV, _JOURNAL = "series.json", "series.csv", "series.partial.jsonl"
_DROPPED = b"dropped "  # begins a line of the journal
_MODALITIES: tuple[Modality, ...] = get_args(Modality)
_MANIFESTS = ("manifest.json", *(f"manifest_{modality}.json" for modality in _MODALITIES))
TABLES = (*_MANIFESTS, _TABLE, _CSV, "checks.json", "checks.csv")  # that an import writes, but originals.csv


@dataclass(frozen=True)
class SeriesRow:
    """A row of series.csv: one volume of a series, or a series without a volume; unknown values are empty."""

    case: str
    patient: str
    modality: Modality
    status: Status
    num_slices: int  # of the DICOM series
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    voxel_type: str = ""
    smallest: float | None = None  # voxel value
    repaired: str = ""  # gaps, tilt or both
    faults: tuple[str, ...] = ()  # fault codes


class Journal:
    """Rows of the volumes that are already written, from the last table and from a stopped import."""

    def __init__(self, folder: Path) -> None:
        """Read the table and the journal in `folder`; an incomplete line is ignored.

        Raises:
            InputError: series.json is not valid.
        """
        self._path = folder / _JOURNAL
        self.rows = {row.case: row for row in read_rows(folder)}
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for line in lines:
            if line.startswith(_DROPPED):
                self.rows.pop(line.removeprefix(_DROPPED).decode(), None)
                continue
            try:
                row = TypeAdapter(SeriesRow).validate_json(line)
            except ValidationError:
                continue
            self.rows[row.case] = row

    def add(self, row: SeriesRow) -> None:
        """Append a row to the journal."""
        self._append(json.dumps(asdict(row)))
        self.rows[row.case] = row

    def drop(self, case: str) -> None:
        """Remove the row of a volume that is to be made again from other files."""
        if self.rows.pop(case, None) is not None:
            self._append(f"{_DROPPED.decode()}{case}")

    def _append(self, line: str) -> None:
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")  # the first newline ends an incomplete line

    def remove(self) -> None:
        """Remove the journal file after the table is written."""
        self._path.unlink(missing_ok=True)


def read_rows(folder: Path) -> list[SeriesRow]:
    """Read the rows of series.json in a folder; an empty list if there is no such file.

    Raises:
        InputError: The file is not valid.
    """
    path = folder / _TABLE
    if not path.exists():
        return []
    plain = read_json_object(path)
    try:
        if plain.get("schema") != _SCHEMA:
            raise InputError(f"its schema is not {_SCHEMA}", where=str(path), hint="Remove it.")
        return TypeAdapter(list[SeriesRow]).validate_python(plain.get("series"))
    except ValidationError as error:
        raise InputError(
            "does not contain a valid table of series", where=str(path), hint="Remove it."
        ) from error


def write_rows(rows: Sequence[SeriesRow], folder: Path) -> None:
    """Write series.csv and series.json atomically."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(SeriesRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in asdict(row).items()})
    write_text(folder / _CSV, text.getvalue())
    write_json(folder / _TABLE, {"schema": _SCHEMA, "series": [asdict(row) for row in rows]})


def make_manifests(rows: Iterable[SeriesRow], description: Description | None) -> dict[str, Manifest]:
    """Return manifests with the imported volumes as unlabelled cases, by file name; one for each modality.

    `description` is used for its own modality. Other modalities get a description with the modality as channel and
    one label.
    """
    imported: dict[str, list[SeriesRow]] = {}
    for row in rows:
        if row.status == "imported":
            imported.setdefault(row.modality, []).append(row)
    manifests = {}
    for modality in (name for name in _MODALITIES if name in imported):
        described = description if description and _modality(description) == modality else _plain(modality)
        channel = next(iter(described.channels))
        cases = tuple(
            Case(
                id=row.case,
                patient=row.patient,
                images={channel: f"images/{row.case}.nii.gz"},
                split="unlabelled",
            )
            for row in imported[modality]
        )
        name = "manifest.json" if len(imported) == 1 else f"manifest_{modality}.json"
        manifests[name] = Manifest(description=described, cases=cases)
    return manifests


def write_manifests(manifests: dict[str, Manifest], folder: Path) -> None:
    """Write manifests, given by file name, and remove other manifests of an earlier import."""
    for name, manifest in manifests.items():
        manifest.write(folder / name)
    for name in _MANIFESTS:
        if name not in manifests:
            (folder / name).unlink(missing_ok=True)


def find_written(folder: Path) -> list[str]:
    """Return the names of existing files in a folder that an import would write, except originals.csv."""
    images = ["images"] if any(folder.glob("images/*.nii.gz")) else []
    return [name for name in TABLES if (folder / name).exists()] + images


def _modality(description: Description) -> str:
    return next(iter(description.channels.values())).modality


def _plain(modality: Modality) -> Description:
    return Description.parse(
        {
            "name": f"imported_{modality}",
            "layout": "pairs",
            "channels": {modality: {"modality": modality}},
            "labels": {"background": 0, "foreground": 1},
            "patient": r"(p\d+)_s\d+",
        },
        "import-dicom",
    )


def _cell(value: Any) -> Any:
    if isinstance(value, tuple):
        return " ".join(f"{part:.6g}" if isinstance(part, float) else str(part) for part in value)
    return f"{value:.6g}" if isinstance(value, float) else value
