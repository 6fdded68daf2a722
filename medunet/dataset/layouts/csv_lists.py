"""Read a CSV table of cases: one row per case with the paths of its files, patient, site, fold and split."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medunet.base.errors import InputError
from medunet.dataset.layouts.patterns import Listing, make_listing, stem
from medunet.imaging.formats import PICTURES, SCANS, expression_of, is_picture
from medunet.records.data_root import can_be_path, path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import Case, Split, make_case

_COLUMNS = {  # accepted names of each column
    "case": ("case", "id", "caseid", "name"),
    "image": ("image", "img", "scan", "imagepath"),
    "label": ("label", "mask", "seg", "segmentation", "labelpath"),
    "patient": ("patient", "patientid", "subject", "subjectid"),
    "site": ("site", "center", "centre", "hospital", "scanner"),
    "fold": ("fold",),
    "split": ("split", "set", "partition"),
}
_SPLITS: dict[str, tuple[Split | None, int | None]] = {  # split, and the fold if the table has no fold column
    "": (None, None),
    **dict.fromkeys(("train", "training"), ("train", 1)),
    **dict.fromkeys(("val", "valid", "validation"), ("train", 0)),
    **dict.fromkeys(("test", "testing", "holdout"), ("test", None)),
    **dict.fromkeys(("unlabelled", "unlabeled"), ("unlabelled", None)),
}
_FILE = re.compile(f".+{expression_of((*SCANS, *PICTURES))}")
_MAX_SHOWN = 20


@dataclass(frozen=True)
class Table:
    """The rows of a CSV by normalised column name, and the columns with the images of each channel, in order."""

    place: str  # path of the CSV below the data root
    rows: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]  # line numbers of the rows in the file, from 1
    channels: tuple[str, ...]  # () if a single column, `image`, holds them
    unused: tuple[str, ...]

    @property
    def has_pictures(self) -> bool:
        """Whether the images are 2D pictures, by their endings."""
        columns = self.channels or ("image",)
        return any(is_picture(PurePosixPath(row[name])) for row in self.rows for name in columns)


def read_table(path: Path, place: str) -> Table | None:
    """Read a CSV of cases and detect its delimiter; return None if it has no column of image files.

    Columns are `case`, `image` (or one per channel, with the channel's name), `label`, and optionally `patient`,
    `site`, `fold` and `split` (train, validation, test). Excel's first line, `sep=;`, is supported.

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
    delimiter = declared[1] if declared else max(",;\t|", key=head.count)
    try:
        reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
        filled = [(reader.line_num, line) for line in reader if any(map(str.strip, line))]
    except csv.Error as error:
        raise InputError(f"is not a table ({error})", where=place, hint="Save it again as a CSV.") from error
    header, *lines = filled[bool(declared) :] or [(1, [])]
    names = [_column(name) for name in header[1]]
    _require_columns(names, lines, place)
    cells = [dict(zip(names, map(str.strip, line), strict=False)) for _, line in lines]
    rows = tuple({name: row.get(name, "") for name in names} for row in cells)
    channels = tuple(
        name
        for name in dict.fromkeys(names)
        if name and name not in _COLUMNS and any(row[name] for row in rows)
        and all(_FILE.fullmatch(row[name]) for row in rows if row[name])
    )  # fmt: skip
    if not rows or ("image" not in names and not channels):
        return None
    if "image" in names:
        channels = ()
        if not any(_FILE.fullmatch(row["image"]) for row in rows):
            return None
    if twice := sorted(name for name, count in Counter(names).items() if name and count > 1):
        raise InputError(f"columns occur twice: {', '.join(twice)}", where=place, hint="Rename one of each.")
    unused = tuple(name for name in names if name and name not in (*_COLUMNS, *channels))
    return Table(place, rows, tuple(number for number, _ in lines), channels, unused)


def list_table(description: Description, data_root: Path) -> Listing:
    """Read the cases of the description's table; files that are not in the table are unmatched.

    Paths are relative to the table's folder or to the data root. Files are not opened here: the dataset check reports
    those that are missing.

    Raises:
        InputError: rows cannot be used; the message lists all of them.
    """
    path = data_root / description.table
    table = read_table(path, description.table) if path.is_file() else None
    if table is None:
        raise InputError(
            "names no image files",
            where=description.table,
            hint="Write columns case, image (or one for each channel) and label, with a row for each case.",
        )
    faults: list[str] = []
    columns = _image_columns(table, description, faults)
    cases = [] if faults else list(_read_rows(table, columns, description, data_root, faults))
    cases = _add_folds(cases, table, faults)
    if faults:
        more = f"; and {len(faults) - _MAX_SHOWN} more" if len(faults) > _MAX_SHOWN else ""
        raise InputError(
            "; ".join(faults[:_MAX_SHOWN]) + more, where=description.table, hint="Correct these rows."
        )
    return make_listing(cases, description.table, description, data_root)


def _require_columns(names: list[str], lines: list[tuple[int, list[str]]], place: str) -> None:
    """Check that the table has a header and that no row has cells beyond its columns, as after an unquoted comma.

    Raises:
        InputError: the first line has file names, or rows have too many cells.
    """
    if any(_FILE.fullmatch(name) for name in names):
        raise InputError(
            "its first line names files, not columns",
            where=place,
            hint="Add a first line with column names: case, image (or one for each channel), label.",
        )
    named = [bool(name) for name in names]
    beyond = [
        str(number)
        for number, line in lines
        if any(cell.strip() and not (named + [False] * len(line))[at] for at, cell in enumerate(line))
    ]
    if beyond:
        shown = ", ".join(beyond[:_MAX_SHOWN]) + (" ..." if len(beyond) > _MAX_SHOWN else "")
        raise InputError(
            f"cells without a named column in row {shown}",
            where=place,
            hint="Name the column, or put a cell that holds the delimiter in quotes.",
        )


def _column(name: str) -> str:
    """Return the standard name of a column, or its own name if it is not a standard column."""
    letters = re.sub(r"[^a-z0-9]", "", name.casefold())
    return next((standard for standard, names in _COLUMNS.items() if letters in names), name.strip())


def _image_columns(table: Table, description: Description, faults: list[str]) -> dict[str, str]:
    """Return the column of each of the description's channels."""
    if not table.channels:
        return dict.fromkeys(description.channels, "image")
    columns = {name.casefold(): name for name in table.channels}
    if missing := [name for name in description.channels if name.casefold() not in columns]:
        faults.append(f"no column for channel {', '.join(missing)}; image columns are {list(table.channels)}")
        return {}
    return {name: columns[name.casefold()] for name in description.channels}


def _read_rows(
    table: Table, columns: Mapping[str, str], description: Description, data_root: Path, faults: list[str]
) -> Iterator[Case]:
    ids: dict[str, int] = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        found: list[str] = []
        images = {
            name: _file(row[column], column, table, data_root, found) for name, column in columns.items()
        }
        label = _file(row["label"], "label", table, data_root, found) if row.get("label") else None
        case_id = row.get("case") or stem(next(iter(images.values())))
        if case_id in ids:
            found.append(f"case {case_id} is already in row {ids[case_id]}")
        ids.setdefault(case_id, number)
        if row.get("split", "").casefold() not in _SPLITS:
            found.append(f"split {row['split']!r} is not one of train, validation, test, unlabelled")
        split = _SPLITS.get(row.get("split", "").casefold(), (None, None))[0]
        if split == "train" and label is None:
            found.append("a training case needs a label")
        if not found:
            try:
                yield make_case(
                    description,
                    case_id,
                    images,
                    label=label,
                    split=split or ("train" if label else "unlabelled"),
                    patient=row.get("patient", ""),
                    site=row.get("site", ""),
                )
            except InputError as error:
                found.append(error.what)
        faults += [f"row {number}: {fault}" for fault in dict.fromkeys(found)]


def _file(text: str, column: str, table: Table, data_root: Path, faults: list[str]) -> str:
    """Return the path in a cell, relative to the data root; append to `faults` if it cannot be used."""
    if not text:
        faults.append(f"{column} is empty")
        return ""
    if not can_be_path(text):
        faults.append(f"{column} is not a path: {text[:40]!r}")
        return ""
    given = PurePosixPath(text.replace("\\", "/"))
    folder = data_root / PurePosixPath(table.place).parent
    path = next((base / given for base in (folder, data_root) if (base / given).exists()), folder / given)
    place = path_in_data_root(path, data_root)
    if place is None:
        faults.append(f"{column} is outside the data root")
    return place or ""


def _add_folds(cases: list[Case], table: Table, faults: list[str]) -> list[Case]:
    """Return the cases with the table's folds; without folds, validation cases get fold 0 and the others fold 1."""
    if faults:
        return cases
    texts = [row.get("fold", "") for row in table.rows]
    splits = [row.get("split", "").casefold() for row in table.rows]
    validated = any(_SPLITS[split][1] == 0 for split in splits)
    if not any(texts) and not validated:
        return cases
    folded = []
    for number, case, text, split in zip(table.numbers, cases, texts, splits, strict=True):
        fold = int(text) if text.isdecimal() else None
        if case.split != "train" and text:
            faults.append(f"row {number}: has fold {text} although its split is {case.split}")
        elif any(texts) and case.split == "train" and fold is None:
            faults.append(f"row {number}: fold {text!r} is not a whole number of 0 or more")
        elif not any(texts) and case.split == "train":
            fold = 0 if _SPLITS[split][1] == 0 else 1
        folded.append(case.model_copy(update={"fold": fold}))
    return folded
