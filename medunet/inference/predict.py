"""Predict many scans: skip those already predicted, report those that fail, and write an index."""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import remove_unfinished
from medunet.base.lock import LockedError, hold
from medunet.base.progress import CaseBar, track
from medunet.inference.cohort import Cohort, Done, Task, describe_times
from medunet.inference.cost_file import CostCount, count_cost, device_name
from medunet.inference.maps import map_paths
from medunet.inference.mask_index import describe_again, describe_making, head_of, read_entries, why_again
from medunet.inference.predictor import Predictor
from medunet.inference.scan import Scan
from medunet.postprocessing.steps import check_steps
from medunet.records.config import InferenceConfig, MapName
from medunet.records.description import Description
from medunet.records.mask_journal import join_journals

_log = logging.getLogger(__name__)
_WAIT_S = 1.0  # for another process, before its cases are tried again


def predict_scans(
    model: Predictor,
    scans: Sequence[Scan],
    folder: Path,
    config: InferenceConfig,
    *,
    overwrite: bool = False,
    ahead: bool | None = None,
    maps: Collection[MapName] = (),
) -> dict[str, str]:
    """Write `<case>.nii.gz` for every scan and `index.json`; return the failed cases with their reasons.

    The mask of a 2D image is `<case>.png`. A case is skipped if its mask exists and all that shaped it is the same:
    the scan's content, weights, plan, options, backend, precision, kind of device and version of prediction. A logged
    line says how many masks are predicted again and why. Each scan is read through the checks of an image: errors
    that are not accepted fail its case, and the faults are kept in the index. Each case is written to a journal,
    which readers see as part of the index, so that an interrupted command can be resumed. Several processes may
    predict different cases into one folder at once.

    Args:
        overwrite: predict all cases again.
        ahead: prepare the next scan while one computes, which takes the memory of another scan; None: on a GPU. The
            last mask is always written meanwhile.
        maps: that are written beside the masks; cases that lack one are predicted again.

    Raises:
        InputError: a mask would replace a file that medunet did not write, the folder holds masks of other labels, it
            cannot be written, or the postprocessing steps do not fit the model's targets.
        LockedError: other processes predict all of the cases into the folder. If they predict some, such as the test
            cases that several folds hold out, these wait until the others are done.
    """
    check_steps(config.postprocess, model.card.description.targets)
    if ahead is None:
        ahead = model.backend.device.type != "cpu"  # where a busy core slows the network

    def predict(mine: Sequence[Scan]) -> dict[str, str]:
        making = {each: describe_making(model, config, resample=each) for each in (False, True)}
        described = model.card.description
        tasks = find_tasks(mine, folder, described, making, overwrite=overwrite, maps=maps)
        with count_cost(folder, device_name(model.backend.device)) as cost:
            try:
                with CaseBar("Predict", len(tasks)) as bar:
                    cohort = Cohort(model, folder, config, ahead=ahead, maps=maps, bar=bar)
                    with closing(cohort.predict(enumerate(tasks))) as outcomes:
                        return collect(outcomes, bar, cost)
            finally:
                join_journals(folder, head_of(described))

    return predict_free(scans, folder, predict)


def predict_free(
    scans: Sequence[Scan], folder: Path, predict: Callable[[Sequence[Scan]], dict[str, str]]
) -> dict[str, str]:
    """Let `predict` predict scans that no other process predicts into the folder, and the others once it has ended.

    Returns the failed cases with their reasons, as `predict` does.

    Raises:
        LockedError: other processes predict all of the cases.
    """
    failed: dict[str, str] = {}
    waiting, is_told = list(scans), False
    while True:
        try:
            with hold(folder, "predict", [scan.case for scan in waiting], partly=True) as held:
                failed |= predict([scan for scan in waiting if scan.case in held])
        except LockedError as error:
            if len(waiting) == len(scans):
                raise
            if not is_told:
                _log.info(f"Waiting for cases that two commands were given: {error.what}.")
            is_told = True
            time.sleep(_WAIT_S)
            continue
        waiting = [scan for scan in waiting if scan.case not in held]
        if not waiting:
            return failed


def find_tasks(
    scans: Sequence[Scan],
    folder: Path,
    description: Description,
    making: Mapping[bool, Mapping[str, Any]],
    *,
    overwrite: bool,
    maps: Collection[MapName],
) -> list[Task]:
    """Return the scans without a mask that was made in the same way, and log why masks are predicted again.

    No other process predicts them into the folder. Scans whose mask was predicted before 0.7, without the checks
    of an image, only need these.

    Args:
        making: what shapes a mask, by whether the scan is resampled, see `describe_making`.

    Raises:
        InputError: a mask would replace a file that medunet did not write, or the folder holds masks of other labels.
    """
    join_journals(folder)
    entries = read_entries(folder, description)
    _refuse_other_files(scans, folder, entries, overwrite=overwrite)
    remove_leftovers(scans, folder)
    tasks: list[Task] = []
    reasons = []
    for scan in scans if overwrite else track(scans, "Verify"):
        before = entries.get(scan.case)
        if (
            overwrite
            or scan.trouble
            or before is None
            or "image_sha256" not in before
            or not (folder / scan.mask_name).exists()
        ):
            tasks.append(Task(scan, before))
            continue
        if why := _why_again(scan, before, making, folder, maps):
            tasks.append(Task(scan, before))
            reasons.append(why)
        elif "faults" not in before:
            tasks.append(Task(scan, before, only_checks=True))
    if line := describe_again(reasons, len(scans)):
        _log.info(line)
    return tasks


def remove_leftovers(scans: Sequence[Scan], folder: Path) -> None:
    """Remove unfinished masks and maps that killed processes left, while none predicts these scans."""
    remove_unfinished(folder / scan.mask_name for scan in scans)
    maps = (path for scan in scans for path in map_paths(folder, scan.case, scan.mask_name).values())
    remove_unfinished(path for path in maps if path.parent.exists())


def _why_again(
    scan: Scan,
    before: Mapping[str, Any],
    making: Mapping[bool, Mapping[str, Any]],
    folder: Path,
    maps: Collection[MapName],
) -> str:
    try:
        why = why_again(before, making[scan.is_resampled], scan.images)
    except OSError:  # the scan cannot be read, which is reported when it is predicted
        return "the scan cannot be read"
    if why:
        return why
    paths = map_paths(folder, scan.case, scan.mask_name)
    missing = [name for name in maps if name not in before.get("maps", ()) or not paths[name].exists()]
    return f"no map of {', '.join(missing)}" if missing else ""


def collect(outcomes: Iterable[tuple[int, Done]], bar: CaseBar, cost: CostCount) -> dict[str, str]:
    """Count cases as they are finished, log what they took, and return the failed ones with their reasons."""
    start = time.monotonic()
    failed: dict[str, str] = {}
    for _, done in outcomes:
        bar.advance(failed=bool(done.failed))
        cost.add(done)
        if done.failed:
            failed[done.case] = done.failed
    if cost.num_computed:
        _log.info(describe_times(cost.took, cost.num_computed, time.monotonic() - start))
    return failed


def _refuse_other_files(
    scans: Sequence[Scan], folder: Path, done: Mapping[str, Any], *, overwrite: bool
) -> None:
    images = {image.resolve() for scan in scans for image in scan.images}
    targets = {scan.case: folder / scan.mask_name for scan in scans}
    if any(path.resolve() in images for path in targets.values()):
        raise InputError(
            "masks written there would replace the scans", where=str(folder), hint="Choose another --out."
        )
    foreign = [path.name for case, path in targets.items() if path.exists() and case not in done]
    if foreign and not overwrite:
        raise InputError(
            f"holds {foreign[:3]}, which medunet did not write",
            where=str(folder),
            hint="Choose another --out, or --overwrite to replace them.",
        )
