"""Scores as files: all of them written, and the tables scores.csv and lesions.csv read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pandas as pd

from medunet.base.errors import InputError
from medunet.base.files import write_json, write_text
from medunet.records.scores import CaseScore, LesionStatus, json_number
from medunet.scoring.columns import FIELD_OF_VIEW_COLUMNS, metric_columns, robust_column
from medunet.scoring.nnunet_summary import nnunet_summary
from medunet.scoring.notes import read_reason, reason_cell
from medunet.scoring.summary import LabelSummary, mean_dice, summarise

_HEAD = ("case", "label", "status", "surface")
_TEXT = (*_HEAD, "lesion_rules", "reason")
_LESION_HEAD = ("case", "label", "rules", "lesion", "status", "counted")
_LESION_SIZES = ("reference_ml", "predicted_ml", "long_axis_mm", "short_axis_mm", "slice")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run
_MOST_NAMED = 20  # cells that cannot be used, in one message


def write_scores(
    scores: Sequence[CaseScore],
    folder: Path,
    *,
    about: Mapping[str, Any],
    targets: Mapping[str, tuple[int, ...]],
    mask_ending: str = ".nii.gz",
) -> list[LabelSummary]:
    """Write scores.csv, lesions.csv, scores.json and summary.json into a folder, each whole or not at all.

    `about` says in scores.json how the scores were made; `targets` are the reference's label values by target,
    which summary.json is keyed by, and `mask_ending` is that of the files that it names. In the CSV undefined is
    blank and infinite `inf`; in JSON both are null, and the status tells them apart. lesions.csv has a row for each
    lesion; one of earlier scores is removed where no score has lesions. Returns the summaries in scores.json.
    """
    rows = _rows(scores)
    lesions, has_lesions = folder / "lesions.csv", any(score.lesions is not None for score in scores)
    rules = ["lesion_rules"] if has_lesions else []
    write_table(folder / "scores.csv", rows, [*_HEAD, *metric_columns(scores), *rules, "reason"])
    if has_lesions:
        write_table(lesions, _lesion_rows(scores), _lesion_columns(scores))
    else:
        lesions.unlink(missing_ok=True)
    summaries = summarise(scores)
    write_json(
        folder / "scores.json",
        {
            "about": {**about, "depend_on_field_of_view": FIELD_OF_VIEW_COLUMNS},
            "mean_dice": json_number(mean_dice(scores)),
            "summary": [plain(asdict(summary)) for summary in summaries],
            "scores": plain(rows),
        },
    )
    write_json(folder / "summary.json", plain(nnunet_summary(scores, targets, mask_ending)))
    return summaries


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores.csv: text columns as text, blank numbers as NaN, `inf` as infinity.

    The column `reason` holds why a case is missing or failed, and `notes` what the file's says of the others.

    Raises:
        InputError: the file is missing or is no score table; names every cell that cannot be used.
    """
    table = _read_table(path, _HEAD, dict.fromkeys(_TEXT, _TEXTS), "scores")
    cells = table["reason"] if "reason" in table else [""] * len(table)
    told = [read_reason(cell, status) for cell, status in zip(cells, table["status"], strict=True)]
    notes = pd.Series([notes for _, notes in told], index=table.index, dtype=object)
    return table.assign(reason=[reason for reason, _ in told], notes=notes)


def read_lesions(path: Path) -> pd.DataFrame:
    """Read lesions.csv: as `read_scores`, with `counted` as true or false, `lesion` and `slice` as whole numbers.

    Raises:
        InputError: the file is missing or is no table of lesions; names every cell that cannot be used.
    """
    kinds = {
        **dict.fromkeys(("case", "label", "rules"), _TEXTS),
        "lesion": _COUNTS,
        "slice": _COUNTS,  # of missed lesions and of false positives too
        "status": _FINDINGS,
        "counted": _FLAGS,
    }
    return _read_table(path, (*_LESION_HEAD, "dice", *_LESION_SIZES), kinds, "lesions")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV, undefined blank and infinite `inf`; no text is a spreadsheet's formula."""
    safe = [
        {name: _escape(value) if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    table = pd.DataFrame(safe, columns=None if columns is None else list(columns))
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def plain(value: Any) -> Any:
    """Return nested data as JSON can hold it: NaN and infinity are null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return json_number(value) if isinstance(value, float) else value


class _Kind(NamedTuple):
    """How a column's cells are read: `read` returns their values, and which of them are none."""

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


def _read_findings(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    return cells, ~cells.isin(get_args(LesionStatus))


def _read_texts(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    return cells.map(_unescape), pd.Series(False, index=cells.index)


_NUMBERS = _Kind("a number or blank", _read_numbers)
_COUNTS = _Kind("a whole number of 0 or more", _read_counts)
_FLAGS = _Kind("true or false", _read_flags)
_FINDINGS = _Kind(" or ".join(get_args(LesionStatus)), _read_findings)
_TEXTS = _Kind("text", _read_texts)


def _read_table(path: Path, needed: Sequence[str], kinds: Mapping[str, _Kind], what: str) -> pd.DataFrame:
    """Read a table whose columns are of `kinds`, or numbers; rows without any text are left out."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), hint="Make it with `medunet score`.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"not a table of {what} ({error})", where=str(path)) from error
    if absent := [name for name in needed if name not in table.columns]:
        raise InputError(f"not a table of {what}: it lacks the columns {absent}", where=str(path))
    table.index += 2  # as a spreadsheet numbers rows, the header being the first
    table = table[(table != "").any(axis=1)]
    values, faults = {}, []
    for place, name in enumerate(table.columns):
        kind = kinds.get(name, _NUMBERS)
        values[name], is_wrong = kind.read(table[name])
        for row, cell in table.loc[is_wrong, name].items():
            measured = f"'{cell}' is" if cell else "blank is"
            faults.append((row, place, f"row {row}, column {name}: {measured} not {kind.expected}"))
    if faults:
        named = [text for *_, text in sorted(faults)[:_MOST_NAMED]]
        more = f" and {len(faults) - _MOST_NAMED} more" if len(faults) > _MOST_NAMED else ""
        raise InputError(
            f"not a table of {what}: {'; '.join(named)}{more}",
            where=str(path),
            hint="Correct these cells, or make the file anew with `medunet score`.",
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
        }
        for score in scores
    ]


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
