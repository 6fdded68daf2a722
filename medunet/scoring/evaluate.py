"""Scores of whole cohorts: pairs of label files of any tool, in several processes, what fails named."""

import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from medunet.base.pool import choose_workers, run_parallel
from medunet.base.progress import track
from medunet.imaging.volumes import read_header
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
from medunet.scoring.pairs import Pair
from medunet.scoring.reading import find_slice_axis, read_pair


def _score_pair(
    pair: Pair,
    *,
    targets_reference: Targets,
    targets_prediction: Targets,
    options: ScoreOptions,
    reference_instances_as: int | None,
    prediction_instances_as: int | None,
    ignore_value: int | None,
    resample: bool,
) -> list[CaseScore]:
    """Score one pair of label files as `score_pairs` does; whatever goes wrong is the reason of a failed case."""
    unscored = partial(_unscored, pair, find_common_targets(targets_reference, targets_prediction), options)
    try:
        if pair.prediction is None or not pair.prediction.exists():
            return unscored("missing", "there is no prediction file")
        reference, prediction, note = read_pair(
            pair.reference,
            pair.prediction,
            reference_instances_as=reference_instances_as,
            prediction_instances_as=prediction_instances_as,
            resample=resample,
        )
        scores = score_labels(
            reference.array,
            prediction,
            reference.spacing_mm,
            targets_reference,
            targets_prediction,
            pair.case,
            options,
            ignore_value=ignore_value,
            slice_axis=find_slice_axis(reference.affine),
        )
    except Exception as error:  # a library's own may hold paths in its text: its kind must do
        what = getattr(error, "what", f"scoring stopped with {type(error).__name__}")
        return unscored("failed", what)
    return scores if note is None else [replace(score, notes=(*score.notes, note)) for score in scores]


def score_pairs(
    pairs: Iterable[Pair],
    targets_reference: Targets,
    targets_prediction: Targets,
    options: ScoreOptions | None = None,
    *,
    reference_instances_as: int | None = None,
    prediction_instances_as: int | None = None,
    ignore_value: int | None = None,
    resample: bool = False,
    workers: int | None = None,
    journal: Path | None = None,
) -> list[CaseScore]:
    """Score pairs of label files, each on its reference's own grid, with a progress bar on stderr.

    Files that number objects give `..._instances_as`, the label value that each number stands for. Voxels that the
    reference gives `ignore_value` are left out (see `score_labels`). With `resample` a prediction on another grid is
    brought to the reference's, the nearest voxel's label for each, and a note says so. `workers` processes
    share the cases (None: as many as `choose_workers` finds). Cases that `journal` holds of an earlier, stopped
    call are not scored again; the caller removes it when the scores are safe.

    A case without a prediction is "missing"; one that cannot be read, lies on another grid or whose process is
    ended by the system is "failed": each has a row for every target with the reason, and the other cases go on.

    Raises:
        InputError: no target is common, or an option cannot be used.
    """
    options = options or ScoreOptions()
    names = find_common_targets(targets_reference, targets_prediction)
    check_names(options, names)  # once, so that it is not a failure of every case
    score_one = partial(
        _score_pair,
        targets_reference=dict(targets_reference),
        targets_prediction=dict(targets_prediction),
        options=options,
        reference_instances_as=reference_instances_as,
        prediction_instances_as=prediction_instances_as,
        ignore_value=ignore_value,
        resample=resample,
    )
    expected = list(pairs)
    done: dict[int, list[CaseScore]] = {}
    kept = None
    if journal is not None:
        targets = [list(targets_reference.items()), list(targets_prediction.items())]
        rules = [reference_instances_as, prediction_instances_as, ignore_value, resample]
        kept = Journal(journal, [asdict(options), targets, rules])
        found = {index: kept.find(pair) for index, pair in enumerate(expected)}
        done = {index: scores for index, scores in found.items() if scores is not None}
    todo = [index for index in range(len(expected)) if index not in done]
    waiting = [expected[index] for index in todo]
    num_workers = workers or choose_workers(len(waiting), _count_largest(waiting))
    with closing(run_parallel(score_one, waiting, num_workers)) as results:
        for _, (place, scores) in zip(track(waiting, "Score"), results, strict=True):
            pair = waiting[place]
            if scores is None:
                why = "the process that scored it was ended from outside, perhaps for want of memory"
                scores = _unscored(pair, names, options, "failed", why)
            elif kept is not None:
                kept.add(pair, scores)
            done[todo[place]] = scores
    return [score for index in range(len(expected)) for score in done[index]]


def _unscored(
    pair: Pair, names: list[str], options: ScoreOptions, status: Status, reason: str
) -> list[CaseScore]:
    """Return a row for each target of a case that has no scores."""
    try:
        header = read_header(pair.reference, label=True)
        penalty_mm = field_of_view_mm(header.shape[:3], header.spacing_mm)
    except Exception:  # then it is not known
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
    """Return the voxels of the largest reference, by size of file; 0 where it cannot be read."""
    try:
        sizes = {pair.reference: pair.reference.stat().st_size for pair in pairs if pair.reference.exists()}
        return math.prod(read_header(max(sizes, key=lambda path: sizes[path]), label=True).shape)
    except Exception:  # its case says why
        return 0
