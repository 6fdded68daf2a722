"""Write the score files, and read the tables scores.csv and lesions.csv."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pandas as pd

from medunet.base.errors import InputError
from medunet.base.files import guess_delimiter, write_json, write_text
from medunet.base.words import list_some
from medunet.records.scores import CaseScore, LesionStatus, Status, json_number
from medunet.scoring.columns import (
    FIELD_OF_VIEW_COLUMNS,
    bounds_of,
    is_metric,
    metric_columns,
    robust_column,
)
from medunet.scoring.intervals import describe_intervals
from medunet.scoring.nnunet_summary import nnunet_summary
from medunet.scoring.notes import read_reason, reason_cell
from medunet.scoring.strata import summarise_strata
from medunet.scoring.summary import LabelSummary, average_dice, dice_by_case, summarise

TABLES = ("scores.csv", "lesions.csv", "scores.json", "summary.json")

_HEAD = ("case", "label", "status", "surface")
_HASHES = ("reference_sha256", "prediction_sha256")
_LESION_HEAD = ("case", "label", "rules", "lesion", "status", "counted")
_LESION_SIZES = ("reference_ml", "predicted_ml", "long_axis_mm", "short_axis_mm", "slice")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run such a cell as a formula
_MAX_NAMED = 20  # unusable cells listed in one message
_ROUNDING = 1e-6  # beyond the bounds of a metric


def write_scores(
    scores: Sequence[CaseScore],
    folder: Path,
    *,
    about: Mapping[str, Any],
    targets: Mapping[str, tuple[int, ...]],
    mask_ending: str = ".nii.gz",
    by: Sequence[str] = (),
) -> list[LabelSummary]:
    """Write scores.csv, lesions.csv, scores.json and summary.json to a folder and return the summaries.

    Each file is written atomically. `about` is stored in scores.json and describes how the scores were made.
    `targets` are the reference's label values by target, the keys of summary.json; `mask_ending` is the extension of
    the files named there. In CSV undefined values are blank and infinite ones `inf`; in JSON both are null, and the
    status distinguishes them. lesions.csv has a row for each lesion; if no score has lesions, an old one is removed.
    `strata` in scores.json has the summaries of the cases with each value of a column in `by`, such as site.
    """
    rows = _rows(scores)
    lesions, has_lesions = folder / "lesions.csv", any(score.lesions is not None for score in scores)
    rules = ["lesion_rules"] if has_lesions else []
    write_table(
        folder / "scores.csv",
        rows,
        [*_HEAD, *metric_columns(scores), *rules, "reason", *_extra_columns(scores)],
    )
    if has_lesions:
        write_table(lesions, _lesion_rows(scores), _lesion_columns(scores))
    else:
        lesions.unlink(missing_ok=True)
    summaries = summarise(scores)
    dice = average_dice(dice_by_case(scores), {score.case: score.unit for score in scores})
    how = {
        "intervals": describe_intervals(),
        "by": list(by),
        "depend_on_field_of_view": FIELD_OF_VIEW_COLUMNS,
    }
    write_json(
        folder / "scores.json",
        {
            "about": {**about, **how},
            "mean_dice": json_number(dice.mean),
            "mean_dice_interval": json_value(
                {name: value for name, value in asdict(dice).items() if name != "mean"}
            ),
            "summary": [json_value(asdict(summary)) for summary in summaries],
            "strata": [json_value(asdict(stratum)) for stratum in summarise_strata(scores, by)],
            "scores": json_value(rows),
        },
    )
    write_json(folder / "summary.json", json_value(nnunet_summary(scores, targets, mask_ending)))
    return summaries


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores.csv: metrics as numbers, blank as NaN and `inf` as infinity; all other columns as text.

    Further columns, such as those that a user joined by case, are read as text too. Cells may be separated by
    semicolons or tabs, numbers then have a decimal comma, as a spreadsheet may save them.

    The column `reason` of the file is split: in the result it holds why a case is missing or failed, and the column
    `notes` the notes of all other cases.

    Raises:
        InputError: the file is missing or is not a score table; the message lists the unusable cells.
    """
    table = _read_table(path, _HEAD, {"status": _STATUSES}, is_metric, "scores")
    cells = table["reason"] if "reason" in table else [""] * len(table)
    parts = [read_reason(cell, status) for cell, status in zip(cells, table["status"], strict=True)]
    notes = pd.Series([notes for _, notes in parts], index=table.index, dtype=object)
    return table.assign(reason=[reason for reason, _ in parts], notes=notes)


def read_lesions(path: Path) -> pd.DataFrame:
    """Read lesions.csv like `read_scores`, with `counted` as booleans, `lesion` and `slice` as integers.

    Raises:
        InputError: the file is missing or is not a table of lesions; the message lists the unusable cells.
    """
    kinds = {
        "lesion": _COUNTS,
        "slice": _COUNTS,  # missed lesions and false positives also have one
        "status": _LESION_STATUSES,
        "counted": _FLAGS,
    }
    return _read_table(path, (*_LESION_HEAD, "dice", *_LESION_SIZES), kinds, _is_lesion_number, "lesions")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, undefined values blank and infinite ones `inf`; text that may be a formula is escaped."""
    safe = [
        {name: _escape(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    table = pd.DataFrame(safe, columns=None if columns is None else list(columns))
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def json_value(value: Any) -> Any:
    """Return nested data with NaN and infinity replaced by None, which JSON stores as null."""
    if isinstance(value, dict):
        return {key: json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return json_number(value) if isinstance(value, float) else value


class _Kind(NamedTuple):
    """How the cells of a column are read: `read` returns their values, and which cells are invalid."""

    expected: str
    read: Callable[[pd.Series], tuple[pd.Series, pd.Series]]


def _read_numbers(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    return numbers, numbers.isna() & (cells != "")


def _read_counts(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    is_whole = (numbers >= 0) & (numbers % 1 == 0)
    return numbers.where(is_whole, 0).astype(int), ~is_whole


def _read_flags(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    flags = cells.str.lower()  # a spreadsheet saves TRUE
    return flags == "true", ~flags.isin(["true", "false"])


def _one_of(choices: Sequence[str]) -> _Kind:
    return _Kind(" or ".join(choices), lambda cells: (cells, ~cells.isin(choices)))


def _read_texts(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    return cells.map(_unescape), pd.Series(False, index=cells.index)


_NUMBERS = _Kind("a number or blank", _read_numbers)
_COUNTS = _Kind("a whole number of 0 or more", _read_counts)
_FLAGS = _Kind("true or false", _read_flags)
_STATUSES = _one_of(get_args(Status))
_LESION_STATUSES = _one_of(get_args(LesionStatus))
_TEXTS = _Kind("text", _read_texts)


def _is_lesion_number(column: str) -> bool:
    return column in _LESION_SIZES or is_metric(column)


def _read_table(
    path: Path,
    needed: Sequence[str],
    kinds: Mapping[str, _Kind],
    is_number: Callable[[str], bool],
    what: str,
) -> pd.DataFrame:
    """Read a table; columns not in `kinds` are numbers or text, and blank rows are left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), hint="Create it with `medunet score`.") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"not a table of {what}: it is not text in UTF-8",
            where=str(path),
            hint="Save it as CSV in UTF-8, or create it again with `medunet score`.",
        ) from error
    separator = guess_delimiter(text.partition("\n")[0])
    try:
        table = pd.read_csv(
            io.StringIO(text),
            sep=separator,
            header=None,  # pandas renames columns of the same name, and shifts those of too short a header
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
        )
    except ValueError as error:
        raise InputError(
            f"not a table of {what} ({error})", where=str(path), hint="Create it again with `medunet score`."
        ) from error
    table = table.fillna("")  # the missing cells of short rows
    names = table.iloc[0].tolist()
    absent = [name for name in needed if name not in names]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if absent or twice:
        found = [f"the columns {absent} are missing"] if absent else []
        found += [f"the columns {twice} are there more than once"] if twice else []
        raise InputError(
            f"not a table of {what}: {'; '.join(found)}",
            where=str(path),
            hint="Correct the first row, or create the file again with `medunet score`.",
        )
    table = table.iloc[1:].reset_index(drop=True)
    table.columns = pd.Index(names)
    table = table.loc[:, [bool(name) for name in names]]
    table.index += 2  # row numbers as in a spreadsheet, where the header is row 1
    table = table[(table != "").any(axis=1)]
    values, faults = {}, []
    for position, name in enumerate(table.columns):
        kind = kinds.get(name, _NUMBERS if is_number(name) else _TEXTS)
        cells = table[name].str.replace(",", ".") if kind is _NUMBERS and separator != "," else table[name]
        values[name], is_wrong = kind.read(cells)
        if kind is _NUMBERS:
            low, high = bounds_of(name)
            is_outside = (values[name] < low - _ROUNDING) | (values[name] > high + _ROUNDING)
            for row, cell in table.loc[is_outside, name].items():
                text = f"row {row}, column {name}: {cell} is not between {low:g} and {high:g}"
                faults.append((row, position, text))
        for row, cell in table.loc[is_wrong, name].items():
            cell_is = f"'{cell}' is" if cell else "blank is"
            faults.append((row, position, f"row {row}, column {name}: {cell_is} not {kind.expected}"))
    if faults:
        named = list_some([text for *_, text in sorted(faults)], _MAX_NAMED, "; ")
        raise InputError(
            f"not a table of {what}: {named}",
            where=str(path),
            hint="Correct these cells, or create the file again with `medunet score`.",
        )
    return pd.DataFrame(values).reset_index(drop=True)


def _rows(scores: Sequence[CaseScore]) -> list[dict[str, Any]]:
    columns = metric_columns(scores)
    return [
        {
            **{name: getattr(score, name) for name in _HEAD},
            **{name: get(score) for name, get in columns.items()},
            "lesion_rules": score.lesions.rules if score.lesions else "",
            "reason": reason_cell(score),
            "patient": score.unit,
            "site": score.site,
            **score.strata,
            **{name: getattr(score, name) for name in _HASHES},
        }
        for score in scores
    ]


def _extra_columns(scores: Sequence[CaseScore]) -> list[str]:
    """Return the columns behind `reason`: the patient, the site if any is known, further strata, and the hashes."""
    sites = ["site"] if any(score.site for score in scores) else []
    strata = dict.fromkeys(name for score in scores for name in score.strata)
    return ["patient", *sites, *strata, *_HASHES]


def _lesion_columns(scores: Sequence[CaseScore]) -> list[str]:
    distance = robust_column(scores)
    return [*_LESION_HEAD, "dice", distance, *_LESION_SIZES]


def _lesion_rows(scores: Sequence[CaseScore]) -> list[dict[str, Any]]:
    distance = robust_column(scores)
    return [
        {
            "case": score.case,
            "label": score.label,
            "rules": score.lesions.rules,
            "lesion": lesion.number,
            "status": lesion.status,
            "counted": "true" if lesion.counted else "false",
            "dice": lesion.dice,
            distance: lesion.hd95_mm,
            "reference_ml": lesion.reference_ml,
            "predicted_ml": lesion.predicted_ml,
            "long_axis_mm": lesion.long_axis_mm,
            "short_axis_mm": lesion.short_axis_mm,
            "slice": lesion.slice_index,
        }
        for score in scores
        if score.lesions is not None
        for lesion in score.lesions.lesions
    ]


def _escape(text: str) -> str:
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def _unescape(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS) else text
