"""Pseudonyms of imported patients, series and files, and the one private file that leads back to the originals.

`originals.csv` is made with mode 0600 and never had another. Names once given are kept, so that studies which are
added later change none of them.
"""

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medunet.base.errors import InputError

ORIGINALS = "originals.csv"

_PATIENT = r"p(\d+)"
_BYTES = "surrogateescape"  # names of folders that are not UTF-8 are kept byte by byte
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # a spreadsheet would run what begins so


@dataclass(frozen=True)
class Original:
    """What a pseudonym stands for: a volume of a series, or a file that cannot be read."""

    case: str
    patient: str
    patient_key: str
    series_key: str
    part: int  # volume of the series, from 1
    patient_name: str = ""
    study_date: str = ""
    folder: str = ""  # of the series, or the path of the file, below the tree
    digest: str = ""  # of the files that the volume was made of


class Names:
    """The pseudonyms of one output folder."""

    def __init__(self, originals: Iterable[Original] = ()) -> None:
        self._originals = {(entry.series_key, entry.part): entry for entry in originals}
        self._patients = {
            entry.patient_key: entry.patient for entry in self._originals.values() if entry.patient
        }

    @classmethod
    def read(cls, folder: Path) -> "Names":
        """Read the names that an output folder has given; none where it is new.

        Raises:
            InputError: the file cannot be read, or is not what is written here.
        """
        path = folder / ORIGINALS
        try:
            text = path.read_bytes().decode("utf-8", _BYTES)  # with its line ends as they are
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
        """Return a volume's pseudonym: the one it has with this patient, or the patient's next, `p0001_s01`."""
        if (found := self.find(series_key, part)) and found.patient_key == patient_key:
            return found
        patient = self._patients.get(patient_key)
        if patient is None:
            patient = f"p{1 + _highest(self._patients.values(), _PATIENT):04}"
            self._patients[patient_key] = patient
        cases = (entry.case for entry in self._originals.values())
        number = 1 + _highest(cases, rf"{patient}_s(\d+)")
        return self.keep(Original(f"{patient}_s{number:02}", patient, patient_key, series_key, part))

    def name_file(self, path: str) -> Original:
        """Return the pseudonym of a file that cannot be read: the one it has, or the next, `f0001`."""
        key = f"file {path}"
        if found := self._originals.get((key, 1)):
            return found
        number = 1 + _highest((entry.case for entry in self._originals.values()), r"f(\d+)")
        return self.keep(Original(f"f{number:04}", "", "", key, 1, folder=path))

    @property
    def entries(self) -> tuple[Original, ...]:
        """All that has a pseudonym, by pseudonym."""
        return tuple(sorted(self._originals.values(), key=lambda entry: entry.case))

    def find(self, series_key: str, part: int) -> Original | None:
        """Return what has a pseudonym already."""
        return self._originals.get((series_key, part))

    def beyond(self, series_key: str, num_parts: int) -> list[Original]:
        """Return the volumes of a series that it had and now has no more."""
        return [
            entry
            for entry in self._originals.values()
            if entry.series_key == series_key and entry.part > num_parts
        ]

    def keep(self, entry: Original) -> Original:
        """Keep what is known of a pseudonym, in place of what was."""
        self._originals[entry.series_key, entry.part] = entry
        return entry

    def write(self, folder: Path) -> None:
        """Write all names, whole or not at all, readable by the user alone from the first byte.

        Raises:
            InputError: the folder cannot be written.
        """
        text = io.StringIO(newline="")
        columns = [column.name for column in fields(Original)]
        writer = csv.DictWriter(text, columns, lineterminator="\n", quoting=csv.QUOTE_ALL)  # of a \r too
        writer.writeheader()
        for entry in self.entries:
            writer.writerow({key: _inert(value) for key, value in asdict(entry).items()})
        path = folder / ORIGINALS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{ORIGINALS}.", dir=folder)  # made with mode 0600
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


def _highest(names: Iterable[str], pattern: str) -> int:
    matches = (re.fullmatch(pattern, name) for name in names)
    return max((int(match.group(1)) for match in matches if match), default=0)


def _is_whole(row: dict[str, str]) -> bool:
    """Tell whether a row has a text in each column, none beyond them, and a number as its part."""
    return all(isinstance(value, str) for value in row.values()) and bool(re.fullmatch(r"\d+", row["part"]))


def _inert(value: str | int) -> str | int:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _restore(value: str) -> str:
    return value[1:] if value.startswith("'") else value


def _unusable(path: Path) -> InputError:
    return InputError(
        "is not the list of originals that medunet writes",
        where=str(path),
        hint="Restore it, or choose another folder: without it cases would change their names.",
    )
