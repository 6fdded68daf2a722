"""List the cases of a CSV: one row per case with the paths of its files, patient, site, fold and split."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from medunet.base.errors import InputError
from medunet.base.words import list_some
from medunet.dataset.layouts.case_tables import (
    COLUMNS,
    MAX_SHOWN,
    NAMES_FILE,
    PAIR_DATA,
    Table,
    is_missing,
    read_table,
)
from medunet.dataset.layouts.patterns import Listing, make_listing, stem
from medunet.imaging.formats import (
    LABEL_PICTURES,
    LABEL_VOLUMES,
    SCANS,
    expression_of,
    header_of_pair,
    is_picture,
)
from medunet.records.data_root import can_be_path, path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import Case, Split, make_case

_SPLITS: dict[str, tuple[Split | None, int | None]] = {  # split, and the fold if the table has no fold column
    "": (None, None),
    **dict.fromkeys(("train", "training"), ("train", 1)),
    **dict.fromkeys(("val", "valid", "validation"), ("train", 0)),
    **dict.fromkeys(("test", "testing", "holdout"), ("test", None)),
    **dict.fromkeys(("unlabelled", "unlabeled"), ("unlabelled", None)),
}
_NAMES_LABEL = re.compile(f".+(?:{expression_of((*SCANS, *LABEL_VOLUMES, *LABEL_PICTURES))}|{PAIR_DATA})")
_ELSEWHERE = re.compile(r"[A-Za-z]:[\\/]|\\\\|[A-Za-z][A-Za-z0-9+.-]+://|~[\\/]")  # C:\, \\server, s3://, ~/


def list_table(description: Description, data_root: Path) -> Listing:
    """Read the cases of the description's table; files that are not in the table are unmatched.

    Paths are relative to the table's folder or to the data root. A row without a label, or with NA, is an unlabelled
    case. Files are not opened here: the dataset check reports those that are missing.

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
        raise InputError(
            list_some(faults, MAX_SHOWN, "; "),
            where=description.table,
            hint="Correct these rows, or remove them to leave their cases out.",
        )
    return make_listing(cases, description.table, description, data_root)


def _image_columns(table: Table, description: Description, faults: list[str]) -> dict[str, str]:
    """Return the column of each of the description's channels, whatever is in its cells."""
    if not table.channels:
        return dict.fromkeys(description.channels, "image")
    columns = {name.casefold(): name for name in table.rows[0] if name not in COLUMNS}
    if missing := [name for name in description.channels if name.casefold() not in columns]:
        faults.append(f"no column for channel {', '.join(missing)}; image columns are {list(table.channels)}")
        return {}
    return {name: columns[name.casefold()] for name in description.channels}


def _read_rows(
    table: Table, columns: Mapping[str, str], description: Description, data_root: Path, faults: list[str]
) -> Iterator[Case]:
    ids: dict[str, int] = {}
    named = any(_filled(row, "case") for row in table.rows)
    for number, row in zip(table.numbers, table.rows, strict=True):
        found: list[str] = []
        images = {
            name: _image_file(row[column], column, table, data_root, description, found)
            for name, column in columns.items()
        }
        label = None
        if not is_missing(cell := row.get("label", "")):
            label = _file(cell, "label", _NAMES_LABEL, table, data_root, found)
        case_id = _filled(row, "case") or stem(next(iter(images.values())))
        if named and not _filled(row, "case"):
            found.append("case is empty")
        if case_id in ids:
            found.append(f"case {case_id} is already in row {ids[case_id]}")
        ids.setdefault(case_id, number)
        split_text = _filled(row, "split").casefold()
        if split_text not in _SPLITS:
            found.append(f"split {row['split']!r} is not one of train, validation, test, unlabelled")
        split = _SPLITS.get(split_text, (None, None))[0]
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
                    patient=_filled(row, "patient"),
                    site=_filled(row, "site"),
                )
            except InputError as error:
                found.append(error.what)
        faults += [f"row {number}: {fault}" for fault in dict.fromkeys(found)]


def _filled(row: Mapping[str, str], column: str) -> str:
    """Return a cell's text; "" if the column is absent or the cell says that there is no value."""
    cell = row.get(column, "")
    return "" if is_missing(cell) else cell


def _image_file(
    text: str, column: str, table: Table, data_root: Path, description: Description, faults: list[str]
) -> str:
    """Return the path of an image, as `_file`; a picture among volumes is a fault, and a volume among pictures."""
    place = _file(text, column, NAMES_FILE, table, data_root, faults)
    if place and is_picture(PurePosixPath(place)) != (description.layout == "png"):
        this, others = ("a volume", "pictures") if description.layout == "png" else ("a picture", "volumes")
        faults.append(
            f"{column} is {this}, {PurePosixPath(place).name}, but the dataset's images are {others}"
        )
    return place


def _file(
    text: str, column: str, names_file: re.Pattern[str], table: Table, data_root: Path, faults: list[str]
) -> str:
    """Return the path in a cell, relative to the data root; append to `faults` if it cannot be used."""
    if not text:
        faults.append(f"{column} is empty")
        return ""
    if not can_be_path(text):
        faults.append(f"{column} is not a path: {text[:40]!r}")
        return ""
    given = PurePosixPath(header_of_pair(text.replace("\\", "/")))
    if not names_file.fullmatch(text):
        faults.append(f"{column} names no file of a supported format: {given.name[:60]!r}")
        return ""
    folder = data_root / PurePosixPath(table.place).parent
    found = next((base / given for base in (folder, data_root) if (base / given).exists()), None)
    place = path_in_data_root(found or folder / given, data_root)
    if place is None or (found is None and _ELSEWHERE.match(text)):
        faults.append(f"{column} is outside the data root: {given.name[:60]}")
        return ""
    return place


def _add_folds(cases: list[Case], table: Table, faults: list[str]) -> list[Case]:
    """Return the cases with the table's folds; without folds, validation cases get fold 0 and the others fold 1."""
    if faults:
        return cases
    texts = [re.sub(r"\.0*$", "", _filled(row, "fold")) for row in table.rows]  # pandas writes 1.0
    splits = [_filled(row, "split").casefold() for row in table.rows]
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
