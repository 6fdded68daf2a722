"""Pseudonyms of imported patients, series and files, stored with their originals in the private originals.csv.

The file is created with mode 0600. Existing pseudonyms never change when further studies are imported.
"""

import csv
import io
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medunet.base.errors import InputError

ORIGINALS = "originals.csv"

_NUMBERED = r"(p\d+_s|p|f)(\d+)"
_BYTES = "surrogateescape"  # keeps folder names that are not valid UTF-8
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "'",
)  # a spreadsheet would execute a cell that starts with one of these


@dataclass(frozen=True)
class Original:
    """The original of a pseudonym: a volume of a series, or a file that cannot be read."""

    case: str
    patient: str
    patient_key: str
    series_key: str
    part: int  # number of the volume in the series, from 1
    patient_name: str = ""
    study_date: str = ""
    folder: str = ""  # folder of the series, or path of the unreadable file, relative to the tree
    digest: str = ""  # hash of the files that the volume was made from


class Pseudonyms:
    """The pseudonyms in one output folder, each with its original."""

    def __init__(self, originals: Iterable[Original] = ()) -> None:
        self._originals: dict[tuple[str, int], Original] = {}
        self._parts: dict[str, set[int]] = {}  # of each series
        self._patients: dict[str, str] = {}  # pseudonym of each patient key
        self._highest: dict[str, int] = {}  # number of patients, of each patient's volumes, and of files
        for entry in originals:
            self.put(entry)

    @classmethod
    def read(cls, folder: Path) -> "Pseudonyms":
        """Read the pseudonyms of an output folder; empty if it has no originals.csv.

        Raises:
            InputError: originals.csv cannot be read or is not valid.
        """
        path = folder / ORIGINALS
        try:
            text = path.read_bytes().decode("utf-8", _BYTES)  # without translating line ends
            reader = csv.DictReader(io.StringIO(text, newline=""))
            rows = list(reader)
        except FileNotFoundError:
            return cls()
        except (OSError, csv.Error) as error:
            raise _unusable(path) from error
        columns = [column.name for column in fields(Original)]
        if sorted(reader.fieldnames or ()) != sorted(columns) or not all(map(_is_whole, rows)):
            raise _unusable(path)
        plain = [{key: _restore(value) for key, value in row.items()} for row in rows]
        return cls(Original(**{**row, "part": int(row["part"])}) for row in plain)  # type: ignore[arg-type]

    def name_volume(self, patient_key: str, series_key: str, part: int) -> Original:
        """Return the pseudonym of a volume, such as `p0001_s01`: its existing one, or the patient's next."""
        if (found := self.find(series_key, part)) and _one_form(found.patient_key) == _one_form(patient_key):
            return found
        patient = self._patients.get(_one_form(patient_key))
        if patient is None:
            patient = f"p{1 + self._highest.get('p', 0):04}"
        number = 1 + self._highest.get(f"{patient}_s", 0)
        return self.put(Original(f"{patient}_s{number:02}", patient, patient_key, series_key, part))

    def name_file(self, path: str) -> Original:
        """Return the pseudonym of an unreadable file, such as `f0001`: its existing one, or the next."""
        key = f"file {path}"
        if found := self._originals.get((key, 1)):
            return found
        number = 1 + self._highest.get("f", 0)
        return self.put(Original(f"f{number:04}", "", "", key, 1, folder=path))

    def alike_patients(self) -> list[list[str]]:
        """Return groups of pseudonyms of patients whose keys differ only in letter case."""
        groups: dict[str, list[str]] = {}
        for key, patient in self._patients.items():
            groups.setdefault(key.casefold(), []).append(patient)
        return [sorted(group) for group in groups.values() if len(group) > 1]

    @property
    def entries(self) -> tuple[Original, ...]:
        """All entries, sorted by pseudonym."""
        return tuple(sorted(self._originals.values(), key=lambda entry: entry.case))

    def find(self, series_key: str, part: int) -> Original | None:
        """Return the entry of a volume; None if it has no pseudonym yet."""
        return self._originals.get((series_key, part))

    def removed_volumes(self, series_key: str, num_parts: int) -> list[Original]:
        """Return the entries of volumes that a series no longer has, now that it has `num_parts` volumes."""
        parts = sorted(part for part in self._parts.get(series_key, ()) if part > num_parts)
        return [self._originals[series_key, part] for part in parts]

    def put(self, entry: Original) -> Original:
        """Add an entry, or replace the one of the same volume, and return it."""
        self._originals[entry.series_key, entry.part] = entry
        self._parts.setdefault(entry.series_key, set()).add(entry.part)
        if entry.patient:
            self._patients.setdefault(_one_form(entry.patient_key), entry.patient)
        for name in (entry.case, entry.patient):
            if match := re.fullmatch(_NUMBERED, name):
                self._highest[match[1]] = max(self._highest.get(match[1], 0), int(match[2]))
        return entry

    def write(self, folder: Path) -> None:
        """Write originals.csv atomically; only the user can read it (mode 0600).

        Raises:
            InputError: The folder is not writable.
        """
        text = io.StringIO(newline="")
        columns = [column.name for column in fields(Original)]
        writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)  # quotes \r, too
        writer.writeheader()
        for entry in self.entries:
            writer.writerow({key: _inert(value) for key, value in asdict(entry).items()})
        path = folder / ORIGINALS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(
                prefix=f".{ORIGINALS}.", dir=folder
            )  # created with mode 0600
            try:
                with os.fdopen(handle, "w", encoding="utf-8", errors=_BYTES, newline="") as stream:
                    stream.write(text.getvalue())
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(temporary).replace(path)
            finally:
                Path(temporary).unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot be written ({error.strerror or error})",
                where=str(path),
                hint="Free disk space or choose a folder that you may write to.",
            ) from error


def _one_form(key: str) -> str:
    """Return a text in Unicode's composed form, since some systems write the same letters in two ways."""
    return unicodedata.normalize("NFC", key)


def _is_whole(row: dict[str, str]) -> bool:
    """Return whether a row has a text in every column, no further cells, and a number as its part."""
    return all(isinstance(value, str) for value in row.values()) and bool(re.fullmatch(r"\d+", row["part"]))


def _inert(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _restore(value: str) -> str:
    return value[1:] if value.startswith("'") else value


def _unusable(path: Path) -> InputError:
    return InputError(
        "is not a valid list of originals",
        where=str(path),
        hint="Restore the file, or choose another folder, since without it pseudonyms would change.",
    )
