"""Scores that are older than the run's files: masks replaced, added or removed since, and cases excluded since."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from medunet.base.words import list_some
from medunet.imaging.volumes import mask_ending
from medunet.records.data_root import case_paths
from medunet.records.manifest import Case, Manifest
from medunet.scoring.mask_hashes import hash_mask

_MAX_NAMED = 10


@dataclass(frozen=True)
class StaleScores:
    """What changed since the cases were scored: a text for each kind of change, with its cases."""

    cases: dict[str, tuple[str, ...]]

    @property
    def warnings(self) -> list[str]:
        """A sentence for each kind of change that names the cases."""
        return [
            f"{what}: {list_some(cases, _MAX_NAMED)}. These scores are old: score again."
            for what, cases in self.cases.items()
        ]

    def of(self, case: str) -> list[str]:
        """Return what changed for one case."""
        return [f"{what}: these scores are old." for what, cases in self.cases.items() if case in cases]


def find_stale(scores: pd.DataFrame, manifest: Manifest, data_root: Path, predictions: Path) -> StaleScores:
    """Compare the scored cases with the manifest, and the masks' hashes in the score table with the files.

    A table from before 0.7 has no hashes; then only cases and missing predictions are compared.
    """
    listed = {case.id: case for case in manifest.cases}
    used = {case.id for case in manifest.used}
    found: dict[str, list[str]] = {}
    for case_id, rows in scores.groupby("case", sort=False):
        if case_id not in listed:
            found.setdefault("No longer in the manifest", []).append(str(case_id))
            continue
        if case_id not in used:
            found.setdefault("Excluded from the manifest since scoring", []).append(str(case_id))
        for change in _changes(rows, listed[str(case_id)], manifest, data_root, predictions):
            found.setdefault(change, []).append(str(case_id))
    return StaleScores({what: tuple(cases) for what, cases in found.items()})


def _changes(
    rows: pd.DataFrame, case: Case, manifest: Manifest, data_root: Path, predictions: Path
) -> Iterable[str]:
    """Yield what changed in the masks of one case."""
    images, label = case_paths(case, manifest.description, data_root)
    prediction = predictions / f"{case.id}{mask_ending(images[0])}"
    for role, path in (("reference", label), ("predicted", prediction)):
        column = f"{'prediction' if role == 'predicted' else role}_sha256"
        scored = next((value for value in rows.get(column, ()) if value), "")
        now = hash_mask(path)
        if scored and not now:
            yield f"The {role} mask was removed since scoring"
        elif scored and now != scored:
            yield f"The {role} mask was replaced since scoring"
    if (rows["status"] == "missing").all() and prediction.exists():
        yield "A predicted mask was added since scoring"
