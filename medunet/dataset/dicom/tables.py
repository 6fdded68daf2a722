"""What an import leaves for its readers: the table of series, and a manifest for each modality.

Rows of finished volumes are kept in a journal until the table is written, so that an import can be stopped.
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
_MODALITIES: tuple[Modality, ...] = get_args(Modality)
_MANIFESTS = ("manifest.json", *(f"manifest_{modality}.json" for modality in _MODALITIES))


@dataclass(frozen=True)
class SeriesRow:
    """One volume of a series, or a series without any; numbers that are not known are empty."""

    case: str
    patient: str
    modality: Modality
    status: Status
    num_slices: int  # in the source
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    voxel_type: str = ""
    smallest: float | None = None  # value
    repaired: str = ""  # gaps, tilt
    faults: tuple[str, ...] = ()  # codes


class Journal:
    """Rows of volumes that are written: those of the last table and those of an import that was stopped."""

    def __init__(self, folder: Path) -> None:
        """Read what is kept in `folder`; a line that a kill has cut off is ignored.

        Raises:
            InputError: series.json is not what is written here.
        """
        self._path = folder / _JOURNAL
        self.rows = {row.case: row for row in read_rows(folder)}
        lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        for line in lines:
            try:
                row = TypeAdapter(SeriesRow).validate_json(line)
            except ValidationError:
                continue
            self.rows[row.case] = row

    def add(self, row: SeriesRow) -> None:
        """Keep a row on disk."""
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{json.dumps(asdict(row))}\n")  # a line that was cut off before ends here
        self.rows[row.case] = row

    def remove(self) -> None:
        """Forget the journal when the table is written."""
        self._path.unlink(missing_ok=True)


def read_rows(folder: Path) -> list[SeriesRow]:
    """Read the rows of a folder's series.json; none where there is no such file.

    Raises:
        InputError: it is not what `write_rows` writes.
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
            "does not hold series as they are written", where=str(path), hint="Remove it."
        ) from error


def write_rows(rows: Sequence[SeriesRow], folder: Path) -> None:
    """Write series.csv and series.json, each whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in fields(SeriesRow)], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in asdict(row).items()})
    write_text(folder / _CSV, text.getvalue())
    write_json(folder / _TABLE, {"schema": _SCHEMA, "series": [asdict(row) for row in rows]})


def make_manifests(rows: Iterable[SeriesRow], description: Description | None) -> dict[str, Manifest]:
    """Return the manifests of imported volumes as unlabelled cases, by file name: one, or one for each modality.

    `description` is taken for its own modality; others, and all without it, get one that names the modality as
    channel and declares one label.
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
    """Write manifests by their file names, and remove those of an earlier import that are none of them."""
    for name, manifest in manifests.items():
        manifest.write(folder / name)
    for name in _MANIFESTS:
        if name not in manifests:
            (folder / name).unlink(missing_ok=True)


def find_written(folder: Path) -> list[str]:
    """Return the names of what stands in a folder and an import would write, but for the list of originals."""
    names = (*_MANIFESTS, _TABLE, _CSV, "checks.json", "checks.csv")
    images = ["images"] if any(folder.glob("images/*.nii.gz")) else []
    return [name for name in names if (folder / name).exists()] + images


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
