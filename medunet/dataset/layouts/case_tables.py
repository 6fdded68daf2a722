"""Read a CSV of cases: its delimiter, its columns, and which of them name the images of each channel."""

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medunet.base.errors import InputError
from medunet.base.files import guess_delimiter
from medunet.base.words import list_some
from medunet.imaging.formats import PICTURES, SCANS, expression_of, is_picture

PAIR_DATA = r"(?i:\.img(\.gz)?)"  # of a volume in two files, x.hdr and x.img, which may be named by either
COLUMNS = {  # accepted names of each column
    "case": ("case", "id", "caseid", "name"),
    "image": ("image", "img", "scan", "imagepath"),
    "label": ("label", "mask", "seg", "segmentation", "labelpath"),
    "patient": ("patient", "patientid", "subject", "subjectid"),
    "site": ("site", "center", "centre", "hospital", "scanner"),
    "fold": ("fold",),
    "split": ("split", "set", "partition"),
}
_ENDINGS = expression_of((*SCANS, *PICTURES))
NAMES_FILE = re.compile(f".+(?:{_ENDINGS}|{PAIR_DATA})")
MAX_SHOWN = 20
_MISSING = {"", "na", "n/a", "#n/a", "nan", "none", "null", "nil", "missing", "-", "--", "–", "?", "."}
_LIKE_FILE = re.compile(f".{_ENDINGS}(?![A-Za-z0-9])")  # also scan.nii.gz.bak
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
_MAP_WORDS = r"labels?|masks?|segs?|segmentations?|gt|annotations?|preds?|predictions?|outputs?"
_LABEL_MAP = re.compile(rf"(?:.*[^a-z])?(?:{_MAP_WORDS})(?:[^a-z].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Table:
    """The rows of a CSV by normalised column name, and the columns with the images of each channel, in order."""

    place: str  # path of the CSV below the data root
    rows: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]  # line numbers of the rows in the file, from 1
    channels: tuple[str, ...]  # () if a single column, `image`, holds them
    unused: tuple[str, ...]
    has_pictures: bool  # whether most images are 2D pictures, by their endings

    @property
    def unused_text(self) -> tuple[str, ...]:
        """The unused columns, those that name files with the number of such rows."""
        counts = {
            name: sum(bool(NAMES_FILE.fullmatch(row[name])) for row in self.rows) for name in self.unused
        }
        num = len(self.rows)
        return tuple(
            f"{name} (names files in {count} of {num} rows)" if count else name
            for name, count in counts.items()
        )


def read_table(path: Path, place: str) -> Table | None:
    """Read a CSV of cases and detect its delimiter; return None if it has no column of image files.

    Columns are `case`, `image` (or one per channel, with the channel's name), `label`, and optionally `patient`,
    `site`, `fold` and `split` (train, validation, test). A column is a channel if at least half of its filled cells
    name files; cells such as NA count as empty. Columns named as label maps or predictions are not, nor are
    pictures beside volumes. Excel's first line, `sep=;`, is supported.

    Raises:
        InputError: it is not a table in UTF-8, its first line has no or duplicate column names, or rows have more
            cells than there are columns.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(
            "cannot be read as text in UTF-8",
            where=place,
            hint="Save it in UTF-8, in Excel as 'CSV UTF-8'.",
        ) from error
    head = next((line for line in text.splitlines() if line.strip()), "")
    declared = re.fullmatch('"?sep=(.)"?', head)
    delimiter = declared[1] if declared else guess_delimiter(head)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        filled = [(reader.line_num, line) for line in reader if any(map(_clean, line))]
    except csv.Error as error:
        raise InputError(f"is not a table ({error})", where=place, hint="Save it again as a CSV.") from error
    header, *lines = filled[bool(declared) :] or [(1, [])]
    names = [_column(name) for name in header[1]]
    _require_columns(names, lines, place)
    cells = [dict(zip(names, map(_clean, line), strict=False)) for _, line in lines]
    rows = tuple({name: row.get(name, "") for name in names} for row in cells)
    found = _file_columns(names, rows)
    if not rows or not found or ("image" in names and "image" not in found):
        return None
    if twice := sorted(name for name, count in Counter(names).items() if name and count > 1):
        raise InputError(f"columns occur twice: {', '.join(twice)}", where=place, hint="Rename one of each.")
    if "image" in names:
        found = {"image": found["image"]}
    has_pictures = all(found.values())
    channels = tuple(name for name, pictures in found.items() if pictures == has_pictures and name != "image")
    unused = tuple(name for name in names if name and name not in (*COLUMNS, *channels))
    return Table(place, rows, tuple(number for number, _ in lines), channels, unused, has_pictures)


def lists_images(path: Path) -> bool:
    """Return whether a table that `read_table` did not take has columns for images and labels all the same."""
    head = next((line for line in path.read_text("utf-8-sig").splitlines() if line.strip()), "")
    names = {_column(name) for name in re.split(r"[,;\t|]", head)}
    return {"image", "label"} <= names


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty or says that there is no value, such as NA."""
    return cell.casefold() in _MISSING


def _clean(cell: str) -> str:
    """Return a cell without white space, invisible characters and further quotes around it."""
    cell = cell.strip().strip(_INVISIBLE).strip()
    quoted = len(cell) > 2 and cell[0] == cell[-1] and cell[0] in "'\"`"
    return cell[1:-1].strip() if quoted else cell


def _file_columns(names: list[str], rows: tuple[dict[str, str], ...]) -> dict[str, bool]:
    """Return the columns that may be channels or `image`, with whether most of their files are pictures."""
    found: dict[str, bool] = {}
    for name in dict.fromkeys(names):
        if not name or (name in COLUMNS and name != "image") or _LABEL_MAP.fullmatch(name):
            continue
        filled = [row[name] for row in rows if not is_missing(row[name])]
        files = [cell for cell in filled if NAMES_FILE.fullmatch(cell)]
        like_files = [cell for cell in filled if _LIKE_FILE.search(cell)]
        if files and (2 * len(like_files) >= len(filled) or name == "image"):
            found[name] = 2 * sum(is_picture(PurePosixPath(cell)) for cell in files) > len(files)
    return found


def _require_columns(names: list[str], lines: list[tuple[int, list[str]]], place: str) -> None:
    """Check that the table has a header and that no row has cells beyond its columns, as after an unquoted comma.

    Raises:
        InputError: the first line has file names, or rows have too many cells.
    """
    if any(NAMES_FILE.fullmatch(name) for name in names):
        raise InputError(
            "its first line names files, not columns",
            where=place,
            hint="Add a first line with column names: case, image (or one for each channel), label.",
        )
    named = [bool(name) for name in names]
    beyond = [
        str(number)
        for number, line in lines
        if any(_clean(cell) and not (named + [False] * len(line))[at] for at, cell in enumerate(line))
    ]
    if beyond:
        raise InputError(
            f"cells without a named column in row {list_some(beyond, MAX_SHOWN)}",
            where=place,
            hint="Name the column, or put a cell that holds the delimiter in quotes.",
        )


def _column(name: str) -> str:
    """Return the standard name of a column, or its own name if it is not a standard column."""
    letters = re.sub(r"[^a-z0-9]", "", name.casefold())
    return next((standard for standard, names in COLUMNS.items() if letters in names), _clean(name))
