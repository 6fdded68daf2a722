"""The columns by which a report groups and filters its cases: site, fold, voxel size, and those a user names."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from medunet.records.manifest import Manifest
from medunet.scoring.columns import is_metric
from medunet.scoring.strata import MAX_STRATA, UNKNOWN, choose_strata, columns_of_cases, columns_of_tables

SPACING = "voxel size"  # the longest edge of the voxels
_CLASSES_MM = ((1.5, "0 to 1.5 mm"), (3.0, "1.5 to 3 mm"), (5.0, "3 to 5 mm"))
_LONGER = "over 5 mm"
_NO_GROUPS = ("case", "label", "status", "surface", "reason", "notes", "lesion_rules", "patient", "split")


def add_columns(
    scores: pd.DataFrame, manifest: Manifest | None, by: Sequence[str], joined: Path | None
) -> pd.DataFrame:
    """Return the scores with the columns named in `by`, from the table `joined`, the scores or the manifest.

    The manifest's site and fold are added too. A case without a value is "unknown".

    Raises:
        InputError: as for `medunet.scoring.strata.choose_strata`.
    """
    cases = list(scores["case"].drop_duplicates())
    known = columns_of_tables([scores], by)
    listed = {} if manifest is None else columns_of_cases(manifest.cases)
    for name, values in listed.items():
        known[name] = {**values, **{case: value for case, value in known.get(name, {}).items() if value}}
    chosen, _ = choose_strata(by, known, cases, joined)
    for name in ("site", "fold"):
        chosen.setdefault(name, {case: known.get(name, {}).get(case, "") for case in cases})
    columns = {name: scores["case"].map(values) for name, values in chosen.items()}
    return scores.assign(**{name: column.fillna("").replace("", UNKNOWN) for name, column in columns.items()})


def add_spacing(scores: pd.DataFrame, spacings_mm: Mapping[str, Sequence[float] | None]) -> pd.DataFrame:
    """Return the scores with the class of each scan's longest voxel edge, if any is known."""
    classes = {case: _class_of(spacing) for case, spacing in spacings_mm.items()}
    if set(classes.values()) <= {UNKNOWN}:
        return scores
    return scores.assign(**{SPACING: scores["case"].map(classes).fillna(UNKNOWN)})


def groups_of(scores: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return the columns that get tables and charts: those of `by`, the site and the voxel size if they differ."""
    names = dict.fromkeys([*by, "site", SPACING])
    return [name for name in names if name in scores and (name in by or len(set(scores[name])) > 1)]


def filters_of(scores: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Return the text columns by which cases can be filtered: those with 2 to 20 values."""
    texts = [
        str(name)
        for name in scores.columns
        if not is_metric(str(name)) and name not in _NO_GROUPS and not str(name).endswith("_sha256")
    ]
    names = dict.fromkeys([*by, *texts])
    return [name for name in names if name in scores and 2 <= scores[name].nunique() <= MAX_STRATA]


def _class_of(spacing_mm: Sequence[float] | None) -> str:
    if not spacing_mm:
        return UNKNOWN
    longest = max(spacing_mm)
    return next((name for limit_mm, name in _CLASSES_MM if longest <= limit_mm), _LONGER)
