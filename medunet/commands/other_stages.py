"""The time of `medunet check` and `medunet score` on a few cases of a manifest, for `medunet estimate`."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medunet.dataset.checks.manifest_checks import check_manifest
from medunet.records.config import Config
from medunet.records.data_root import case_paths
from medunet.records.manifest import Case, Manifest
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.labels import ScoreOptions
from medunet.scoring.pairs import Pair
from medunet.scoring.predicted import read_predicted

if TYPE_CHECKING:
    from medunet.inference.extrapolate import CaseSize, MeasuredCase


def time_stages(
    manifest: Manifest,
    data_root: Path,
    cases: Sequence[str],
    sizes: "Mapping[str, CaseSize]",
    masks: Mapping[str, Path],
    config: Config | None,
) -> "dict[str, list[MeasuredCase]]":
    """Check and score cases one by one in this process, and return what each took, by stage.

    Args:
        cases: of the manifest; those without a label are not scored.
        masks: predicted masks by case.
        config: of the run, for its options of scoring.
    """
    from medunet.inference.extrapolate import MeasuredCase

    by_id = {case.id: case for case in manifest.used}
    times: dict[str, list[MeasuredCase]] = {}
    for name in cases:
        case = by_id[name]
        start = time.monotonic()
        check_manifest(manifest.model_copy(update={"cases": (case,), "unmatched": ()}), data_root, workers=1)
        times.setdefault("check", []).append(MeasuredCase(sizes[name], 0, time.monotonic() - start, 0, 0))
        if case.label is not None and name in masks:
            start = time.monotonic()
            _score(case, masks[name], manifest, data_root, config)
            times.setdefault("score", []).append(MeasuredCase(sizes[name], 0, time.monotonic() - start, 0, 0))
    return times


def _score(case: Case, mask: Path, manifest: Manifest, data_root: Path, config: Config | None) -> None:
    description = manifest.description
    _, label = case_paths(case, description, data_root)
    predicted = read_predicted(mask.parent)
    assert label is not None
    assert predicted is not None
    score_pairs(
        [Pair(case.id, label, mask)],
        description.targets,
        predicted.targets,
        ScoreOptions(**config.scoring.model_dump()) if config else None,
        rules_reference=description.label_rules,
        rules_prediction=predicted.rules,
        ignore_value=description.ignore_value,
        workers=1,
    )
