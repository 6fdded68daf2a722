"""Predict many scans: skip those already predicted, report those that fail, and write an index."""

import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import remove_unfinished
from medunet.base.lock import LockedError, hold
from medunet.base.progress import track
from medunet.inference.cohort import Cohort
from medunet.inference.cost_file import count_cost
from medunet.inference.maps import map_paths
from medunet.inference.mask_index import MaskIndex, describe_again, describe_making, why_again
from medunet.inference.predictor import Predictor
from medunet.inference.scan import Scan
from medunet.postprocessing.steps import check_steps
from medunet.records.config import InferenceConfig, MapName

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
    that are not accepted fail its case, and the faults are kept in the index. The index is written after each case,
    when it also marks the next one as begun, so that an interrupted command can be resumed. Several processes may
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
    failed: dict[str, str] = {}
    check_steps(config.postprocess, model.card.description.targets)
    if ahead is None:
        ahead = model.backend.device.type != "cpu"  # where a busy core slows the network
    waiting, is_told = list(scans), False
    while True:
        try:
            with hold(folder, "predict", [scan.case for scan in waiting], partly=True) as held:
                mine = [scan for scan in waiting if scan.case in held]
                failed |= _predict_alone(
                    model, mine, folder, config, overwrite=overwrite, ahead=ahead, maps=maps
                )
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


def _predict_alone(
    model: Predictor,
    scans: Sequence[Scan],
    folder: Path,
    config: InferenceConfig,
    *,
    overwrite: bool,
    ahead: bool,
    maps: Collection[MapName],
) -> dict[str, str]:
    """Predict scans that no other process predicts into the folder; return the failed cases with their reasons."""
    done = MaskIndex(folder, model.card.description).read_cases()
    _refuse_other_files(scans, folder, done, overwrite=overwrite)
    files = [map_paths(folder, scan.case, scan.mask_name) for scan in scans]
    remove_unfinished([folder / scan.mask_name for scan in scans])
    remove_unfinished(path for each in files for path in each.values() if path.parent.exists())
    remaining, unchecked = (
        (scans, set()) if overwrite else _remaining(model, scans, folder, config, done, maps)
    )
    cohort = Cohort(model, folder, config, done, unchecked, ahead=ahead, maps=maps)
    with count_cost(folder, remaining, done, model.backend.device):
        return cohort.predict(remaining).failed


def _remaining(
    model: Predictor,
    scans: Sequence[Scan],
    folder: Path,
    config: InferenceConfig,
    done: dict[str, Any],
    maps: Collection[MapName],
) -> tuple[list[Scan], set[str]]:
    """Return the scans without a mask that was made in the same way, and log why masks are predicted again.

    Scans whose mask was predicted before 0.7, without the checks of an image, are among them; the second value names
    their cases, which only need these checks.
    """
    remaining: list[Scan] = []
    unchecked: set[str] = set()
    reasons = []
    for scan in track(scans, "Verify"):
        before = done.get(scan.case, {})
        if scan.trouble or "image_sha256" not in before or not (folder / scan.mask_name).exists():
            remaining.append(scan)
            continue
        try:
            why = why_again(before, describe_making(model, config, resample=scan.is_resampled), scan.images)
        except OSError:  # the scan cannot be read, which is reported when it is predicted
            why = "the scan cannot be read"
        if not why:
            paths = map_paths(folder, scan.case, scan.mask_name)
            missing = [
                name for name in maps if name not in before.get("maps", ()) or not paths[name].exists()
            ]
            why = f"no map of {', '.join(missing)}" if missing else ""
        if why:
            remaining.append(scan)
            reasons.append(why)
        elif "faults" not in before:
            remaining.append(scan)
            unchecked.add(scan.case)
    if line := describe_again(reasons, len(scans)):
        _log.info(line)
    return remaining, unchecked


def _refuse_other_files(
    scans: Sequence[Scan], folder: Path, done: dict[str, Any], *, overwrite: bool
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
