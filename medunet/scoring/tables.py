"""Scores as files: scores.csv, scores.json, and summary.json as nnU-Net v2 writes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from medunet.errors import InputError
from medunet.files import write_json, write_text
from medunet.records import CaseScore, json_number
from medunet.scoring.summary import mean_dice, metric_columns, summarise

_HEAD = ("case", "label", "status", "surface")
_TEXT = (*_HEAD, "reason")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def write_scores(
    scores: Sequence[CaseScore],
    folder: Path,
    *,
    about: Mapping[str, Any],
    targets: Mapping[str, tuple[int, ...]],
    mask_ending: str = ".nii.gz",
) -> None:
    """Write scores.csv, scores.json and summary.json into a folder, each whole or not at all.

    `about` says in scores.json how the scores were made; `targets` are the reference's label values by target,
    which summary.json is keyed by, and `mask_ending` is that of the files that it names. In the CSV undefined is
    blank and infinite `inf`; in JSON both are null, and the status tells them apart.
    """
    rows = _rows(scores)
    table = pd.DataFrame(rows, columns=[*_HEAD, *metric_columns(scores), "reason"])
    for name in _TEXT:
        table[name] = table[name].map(_escape)
    write_text(folder / "scores.csv", table.to_csv(index=False, lineterminator="\n"))
    write_json(
        folder / "scores.json",
        {
            "about": dict(about),
            "mean_dice": json_number(mean_dice(scores)),
            "summary": [_plain(asdict(summary)) for summary in summarise(scores)],
            "scores": _plain(rows),
        },
    )
    write_json(folder / "summary.json", _plain(_nnunet_summary(scores, targets, mask_ending)))


def read_scores(path: Path) -> pd.DataFrame:
    """Read scores.csv: text columns as text, blank numbers as NaN, `inf` as infinity.

    Raises:
        InputError: the file is missing or is no score table.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        for name in table.columns:
            if name in _TEXT:
                table[name] = table[name].map(_unescape)
            else:
                table[name] = pd.to_numeric(table[name]).astype(float)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), mend="Make it with `medunet score`.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"not a table of scores ({error})", where=str(path)) from error
    if absent := [name for name in _HEAD if name not in table.columns]:
        raise InputError(f"not a table of scores: it lacks the columns {absent}", where=str(path))
    return table


def _rows(scores: Sequence[CaseScore]) -> list[dict[str, Any]]:
    columns = metric_columns(scores)
    return [
        {
            **{name: getattr(score, name) for name in _HEAD},
            **{name: get(score) for name, get in columns.items()},
            "reason": score.reason,
        }
        for score in scores
    ]


def _escape(text: str) -> str:
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA_STARTS) else text


def _unescape(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA_STARTS) else text


def _plain(value: Any) -> Any:
    """Return nested data with NaN and infinity as null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return json_number(value) if isinstance(value, float) else value


def _nnunet_summary(
    scores: Sequence[CaseScore], targets: Mapping[str, tuple[int, ...]], mask_ending: str
) -> dict[str, Any]:
    """Return what nnU-Net v2 writes, its keys and spelling; files are named by case id.

    Differences: a missing or failed case is listed with Dice and IoU 0 and counts in the means, where nnU-Net
    leaves it out; undefined is null, where nnU-Net writes NaN.
    """
    keys = {name: str(values[0]) if len(values) == 1 else str(values) for name, values in targets.items()}
    cases: dict[str, dict[str, Any]] = {}
    for score in scores:
        file = f"{score.case}{mask_ending}"
        case = cases.setdefault(
            score.case,
            {
                "metrics": {},
                "prediction_file": None if score.status == "missing" else file,
                "reference_file": file,
            },
        )
        case["metrics"][keys[score.label]] = _nnunet_metrics(score)
    labels = list(dict.fromkeys(keys[score.label] for score in scores))
    mean = {
        label: _mean_by_key([case["metrics"][label] for case in cases.values() if label in case["metrics"]])
        for label in labels
    }
    return {
        "foreground_mean": _mean_by_key(list(mean.values())),
        "mean": mean,
        "metric_per_case": list(cases.values()),
    }


def _nnunet_metrics(score: CaseScore) -> dict[str, float]:
    if score.tp is None or score.fp is None or score.fn is None or score.tn is None:
        unknown = dict.fromkeys(("FN", "FP", "TN", "TP", "n_pred", "n_ref"), math.nan)
        return {"Dice": 0.0, "IoU": 0.0, **unknown}
    return {
        "Dice": score.dice,
        "FN": score.fn,
        "FP": score.fp,
        "IoU": score.iou,
        "TN": score.tn,
        "TP": score.tp,
        "n_pred": score.tp + score.fp,
        "n_ref": score.tp + score.fn,
    }


def _mean_by_key(rows: list[dict[str, float]]) -> dict[str, float]:
    means = pd.DataFrame(rows).mean()  # over the defined values
    return {str(key): float(value) for key, value in means.items()}
