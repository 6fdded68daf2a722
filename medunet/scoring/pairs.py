"""Pairing of predictions with references: two files, files of the same name, or a table of pairs."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medunet.base.errors import InputError
from medunet.imaging.formats import LABEL_PICTURES, LABEL_VOLUMES, endings_of, strip_ending

_VOLUME_ENDINGS = endings_of(LABEL_VOLUMES)
_ENDINGS = (*_VOLUME_ENDINGS, *endings_of(LABEL_PICTURES))
_COLUMNS = ("case", "reference", "prediction")


@dataclass(frozen=True)
class Pair:
    """The reference and the prediction of one case; the prediction is None if there is no file for it."""

    case: str
    reference: Path
    prediction: Path | None


def find_pairs(
    reference: Path, prediction: Path, pairs_csv: Path | None = None
) -> tuple[list[Pair], list[str]]:
    """Return the pairs to score, and the names of predictions without a reference.

    - Two folders are matched by file name without extension, so formats may differ. Every reference becomes a pair,
      with or without a prediction.
    - A reference file is paired with the prediction file, or with each file of the prediction folder, such as several
      readers of one case. Cases are then named after the prediction.
    - `pairs_csv` overrides both, with columns case, reference, prediction and paths relative to the table; a blank
      prediction is a missing one. Files of the prediction folder that it does not list are returned as unmatched.

    Raises:
        InputError: a path does not exist, nothing matches, or the table cannot be used.
    """
    if pairs_csv is not None:
        pairs = _read_pairs(pairs_csv)
        named = {pair.prediction.resolve() for pair in pairs if pair.prediction is not None}
        present = list_volumes(prediction) if prediction.is_dir() else {}
        return pairs, [path.name for path in present.values() if path.resolve() not in named]
    if reference.is_dir() and prediction.is_dir():
        return _match(list_volumes(reference), list_volumes(prediction), prediction, "reference")
    if not reference.exists() or not prediction.exists():
        absent = reference if not reference.exists() else prediction
        raise InputError("no such file or folder", where=str(absent), hint="Check the path.")
    if reference.is_dir():
        raise InputError(
            "the reference is a folder but the prediction is a file",
            where=str(prediction),
            hint="Give two files, two folders, or one reference file and a folder of predictions.",
        )
    predictions = (
        list_volumes(prediction) if prediction.is_dir() else {strip_ending(prediction.name): prediction}
    )
    if not predictions:
        raise InputError(f"contains no {' or '.join(_ENDINGS)} file", where=str(prediction))
    return [Pair(stem, reference, path) for stem, path in predictions.items()], []


def match_cases(labels: dict[str, Path], prediction: Path) -> tuple[list[Pair], list[str]]:
    """Pair the label files of cases with the predictions in a folder, and return the names of unmatched predictions.

    The name of a prediction without extension is the id of its case.

    Raises:
        InputError: the folder does not exist, or nothing matches.
    """
    if not prediction.is_dir():
        raise InputError("no such folder", where=str(prediction), hint="Give the folder of the predictions.")
    return _match(labels, list_volumes(prediction), prediction, "case id")


def _match(
    references: dict[str, Path], predictions: dict[str, Path], folder: Path, what: str
) -> tuple[list[Pair], list[str]]:
    """Pair references with predictions by name; `what` describes the names of the references in messages."""
    if not references.keys() & predictions.keys():
        raise InputError(
            f"no prediction is named like a {what}: {_examples(references)} expected, "
            f"{_examples(predictions)} found",
            where=str(folder),
            hint="Rename the predictions, or give a table with --pairs.",
        )
    pairs = [Pair(stem, path, predictions.get(stem)) for stem, path in references.items()]
    return pairs, [path.name for stem, path in predictions.items() if stem not in references]


def list_volumes(folder: Path) -> dict[str, Path]:
    """Return a folder's label files by name without extension, sorted, without hidden files (such as macOS's `._*`).

    These are its volumes, of any format; in a folder without volumes, its 2D pictures.
    """
    volumes: dict[str, Path] = {}
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in [path for path in files if path.name.lower().endswith(_VOLUME_ENDINGS)] or files:
        if not path.name.lower().endswith(_ENDINGS):
            continue
        if twin := volumes.get(strip_ending(path.name)):
            raise InputError(
                f"contains both {twin.name} and {path.name}", where=str(folder), hint="Remove one of them."
            )
        volumes[strip_ending(path.name)] = path
    return volumes


def _examples(volumes: dict[str, Path]) -> str:
    return ", ".join(list(volumes)[:3]) or "nothing"


def _read_pairs(table: Path) -> list[Pair]:
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(table), hint="Check the path.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"not a readable table ({error})", where=str(table)) from error
    if absent := [name for name in _COLUMNS if name not in rows.columns]:
        raise InputError(
            f"the columns {absent} are missing",
            where=str(table),
            hint=f"Its columns must be {','.join(_COLUMNS)}.",
        )
    faults = [f"case '{case}' is listed twice" for case in rows["case"][rows["case"].duplicated()].unique()]
    pairs = []
    for number, (case, reference, prediction) in enumerate(zip(*(rows[c] for c in _COLUMNS), strict=True), 2):
        if not case or not reference:
            faults.append(f"line {number} has no case or no reference")
        pairs.append(Pair(case, table.parent / reference, table.parent / prediction if prediction else None))
    if faults or not pairs:
        raise InputError(
            "; ".join(faults) or "the table has no rows", where=str(table), hint="Correct the table."
        )
    return pairs
