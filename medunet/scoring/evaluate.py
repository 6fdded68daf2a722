"""Scoring of whole cohorts: pairs of label files, in several processes, with a reason for every failed case."""

import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from medunet.base.errors import MedunetError
from medunet.base.pool import Lost, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.imaging.volumes import read_header
from medunet.records.label_rules import LabelRules
from medunet.records.scores import CaseScore, Status
from medunet.scoring.journal import Journal
from medunet.scoring.labels import (
    ScoreOptions,
    Targets,
    check_names,
    field_of_view_mm,
    find_common_targets,
    score_labels,
)
from medunet.scoring.mask_hashes import hash_mask
from medunet.scoring.pairs import Pair
from medunet.scoring.reading import find_slice_axis, read_pair


def _score_pair(
    pair: Pair,
    *,
    targets_reference: Targets,
    targets_prediction: Targets,
    options: ScoreOptions,
    rules_reference: LabelRules,
    rules_prediction: LabelRules,
    ignore_value: int | None,
    resample: bool,
) -> list[CaseScore]:
    """Score one pair of label files as `score_pairs` does; any error becomes the reason of a failed case."""
    unscored = partial(_unscored, pair, find_common_targets(targets_reference, targets_prediction), options)
    try:
        if pair.prediction is None or not pair.prediction.exists():
            return unscored("missing", "there is no prediction file")
        labels = read_pair(
            pair.reference, pair.prediction, rules_reference, rules_prediction, resample=resample
        )
        scores = score_labels(
            labels.reference.array,
            labels.prediction,
            labels.reference.spacing_mm,
            targets_reference,
            targets_prediction,
            pair.case,
            options,
            ignore_value=ignore_value,
            slice_axis=find_slice_axis(labels.reference.affine),
            numbers_reference=labels.numbers_reference,
            numbers_prediction=labels.numbers_prediction,
        )
    except Exception as error:  # the text of a library's error may contain paths: give its type only
        stopped = f"scoring stopped with {type(error).__name__}"
        return unscored("failed", error.what if isinstance(error, MedunetError) else stopped)
    return [replace(score, notes=(*score.notes, *labels.notes)) for score in scores]


def _score_hashed_pair(pair: Pair, **how: Any) -> list[CaseScore]:
    """Score one pair as `_score_pair` does, with the hashes of its files, taken before they are read."""
    reference, prediction = hash_mask(pair.reference), hash_mask(pair.prediction)
    return [
        replace(score, reference_sha256=reference, prediction_sha256=prediction)
        for score in _score_pair(pair, **how)
    ]


def score_pairs(
    pairs: Iterable[Pair],
    targets_reference: Targets,
    targets_prediction: Targets,
    options: ScoreOptions | None = None,
    *,
    rules_reference: LabelRules | None = None,
    rules_prediction: LabelRules | None = None,
    ignore_value: int | None = None,
    resample: bool = False,
    workers: int | None = None,
    journal: Path | None = None,
) -> list[CaseScore]:
    """Score pairs of label files, each on the grid of its reference, with a progress bar on stderr.

    `rules_...` say which values the files may hold, and whether these number objects. Voxels with `ignore_value` in
    the reference are left out (see `score_labels`). With `resample`, a prediction on another grid
    is resampled to the reference's grid by nearest neighbour, and a note says so. The cases are spread over `workers`
    processes (None: see `choose_workers`). Cases that an earlier, interrupted call stored in `journal` are not scored
    again; the caller removes that file once the scores are written.

    A case without a prediction is "missing". A case that cannot be read, holds undeclared values, is on another grid
    or whose process was killed is "failed". Both get a row with the reason for every target, and the other cases are
    still scored.

    Raises:
        InputError: the two sides have no target in common, or an option cannot be used.
    """
    options = options or ScoreOptions()
    names = find_common_targets(targets_reference, targets_prediction)
    check_names(options, names)  # checked once, so that not every case fails
    sides = rules_reference or LabelRules(), rules_prediction or LabelRules()
    score_one = partial(
        _score_hashed_pair,
        targets_reference=dict(targets_reference),
        targets_prediction=dict(targets_prediction),
        options=options,
        rules_reference=sides[0],
        rules_prediction=sides[1],
        ignore_value=ignore_value,
        resample=resample,
    )
    expected = list(pairs)
    done: dict[int, list[CaseScore]] = {}
    finished = None
    if journal is not None:
        targets = [list(targets_reference.items()), list(targets_prediction.items())]
        rules = [*map(asdict, sides), ignore_value, resample]
        finished = Journal(journal, [asdict(options), targets, rules])
        found = {index: finished.find(pair) for index, pair in enumerate(expected)}
        done = {index: scores for index, scores in found.items() if scores is not None}
    remaining = [index for index in range(len(expected)) if index not in done]
    waiting = [expected[index] for index in remaining]
    num_workers = workers or choose_workers(len(waiting), _count_largest(waiting))
    with closing(run_parallel(score_one, waiting, num_workers)) as results:
        for _, (index, scores) in zip(track(waiting, "Score"), results, strict=True):
            pair = waiting[index]
            if isinstance(scores, Lost):
                scores = _unscored(pair, names, options, "failed", scores.why)
            elif finished is not None:
                finished.add(pair, scores)
            done[remaining[index]] = scores
    return [score for index in range(len(expected)) for score in done[index]]


def _unscored(
    pair: Pair, names: list[str], options: ScoreOptions, status: Status, reason: str
) -> list[CaseScore]:
    """Return a row without scores for each target of a missing or failed case."""
    try:
        header = read_header(pair.reference, label=True)
        penalty_mm = field_of_view_mm(header.shape[:3], header.spacing_mm)
    except Exception:  # the penalty is unknown
        penalty_mm = math.nan
    return [
        CaseScore(
            case=pair.case,
            label=name,
            status=status,
            surface=options.surface,
            nsd=dict.fromkeys(options.tolerances_mm, math.nan),
            reason=reason,
            hd95=options.hd95,
            percentile=options.percentile,
            penalty_mm=penalty_mm,
        )
        for name in names
    ]


def _count_largest(pairs: list[Pair]) -> int:
    """Return the number of voxels of the largest reference, by file size; 0 if it cannot be read."""
    try:
        sizes = {pair.reference: pair.reference.stat().st_size for pair in pairs if pair.reference.exists()}
        return math.prod(read_header(max(sizes, key=lambda path: sizes[path]), label=True).shape)
    except Exception:  # reported when the case is scored
        return 0
