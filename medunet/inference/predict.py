"""Predict many scans: skip those already predicted, report those that fail, and write an index."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.base.errors import DataError, InputError, MedunetError, is_out_of_memory
from medunet.base.files import remove_unfinished
from medunet.base.lock import LockedError, hold
from medunet.base.progress import track
from medunet.imaging.volumes import mask_ending, share_grid
from medunet.inference.mask_index import MaskIndex, describe_again, describe_making, hash_images, why_again
from medunet.inference.model import Model
from medunet.records.config import InferenceConfig
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted

_log = logging.getLogger(__name__)
_WAIT_S = 1.0  # for another process, before its cases are tried again


@dataclass(frozen=True)
class Scan:
    """One case to predict: an id, and an image per channel in the model's order."""

    case: str
    images: list[Path]
    resample: bool = False  # resample images to the grid of the first one
    accepted: tuple[Accepted, ...] = ()  # faults that the user accepts
    trouble: str = ""  # why the scan cannot be predicted, such as a channel without an image

    @property
    def is_resampled(self) -> bool:
        """Whether an image is on another grid than the first one and is resampled to it."""
        try:
            return self.resample and not share_grid(self.images)
        except DataError:  # reading it says why
            return self.resample

    @property
    def mask_name(self) -> str:
        """File name of the predicted mask."""
        return f"{self.case}{mask_ending(self.images[0])}"


def predict_scans(
    model: Model, scans: Sequence[Scan], folder: Path, config: InferenceConfig, *, overwrite: bool = False
) -> dict[str, str]:
    """Write `<case>.nii.gz` for every scan and `index.json`; return the failed cases with their reasons.

    The mask of a 2D image is `<case>.png`. A case is skipped if its mask exists and all that shaped it is the same:
    the scan's content, weights, plan, options, precision, kind of device and version of prediction. A logged line
    says how many masks are predicted again and why. Each scan is read through the checks of an image: errors that are
    not accepted fail its case, and the faults are kept in the index. The index is written before and after each case,
    so that an interrupted command can be resumed. Several processes may predict different cases into one folder at
    once.

    Raises:
        InputError: a mask would replace a file that medunet did not write, the folder holds masks of other labels, or
            it cannot be written.
        LockedError: other processes predict all of the cases into the folder. If they predict some, such as the test
            cases that several folds hold out, these wait until the others are done.
    """
    failed: dict[str, str] = {}
    waiting, is_told = list(scans), False
    while True:
        try:
            with hold(folder, "predict", [scan.case for scan in waiting], partly=True) as held:
                mine = [scan for scan in waiting if scan.case in held]
                failed |= _predict_alone(model, mine, folder, config, overwrite=overwrite)
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
    model: Model, scans: Sequence[Scan], folder: Path, config: InferenceConfig, *, overwrite: bool
) -> dict[str, str]:
    """Predict scans that no other process predicts into the folder; return the failed cases with their reasons."""
    failed: dict[str, str] = {}
    index = MaskIndex(folder, model.card.description)
    done = index.read_cases()
    _refuse_other_files(scans, folder, done, overwrite=overwrite)
    remove_unfinished(folder / scan.mask_name for scan in scans)
    remaining, unchecked = (scans, set()) if overwrite else _remaining(model, scans, folder, config, done)
    for scan in track(remaining, "Predict"):
        path = folder / scan.mask_name
        try:
            if scan.trouble:
                raise DataError(scan.trouble)
            checked = model.check(scan.case, scan.images, accepted=scan.accepted, resample=scan.resample)
            if scan.case in unchecked:
                checked.read()
                index.change({scan.case: {**done[scan.case], "faults": _fault_rows(checked.faults)}})
                continue
            making = describe_making(model, config, resample=scan.is_resampled)
            entry = {"image_sha256": hash_images(scan.images), **making}
            done[scan.case] = {"begun": True}  # marks an unfinished mask as written by medunet
            index.change({scan.case: done[scan.case]}, drop=[scan.case])
            start = time.monotonic()
            model.predict_file(scan.images, config, path, read=checked.read)
            entry["seconds"] = round(time.monotonic() - start, 2)
            index.change({scan.case: {**entry, "faults": _fault_rows(checked.faults)}})
        except InputError:  # not specific to the case: a full disk, or unusable options
            raise
        except Exception as error:  # continue with the other cases
            failed[scan.case] = _reason(error, model)
            if scan.case in done:
                path.unlink(missing_ok=True)  # an old mask must not be mistaken for this scan's
            index.change(failed={scan.case: failed[scan.case]}, drop=[scan.case])
    index.change()  # also where nothing was left to predict
    return failed


def _remaining(
    model: Model, scans: Sequence[Scan], folder: Path, config: InferenceConfig, done: dict[str, Any]
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
        if why:
            remaining.append(scan)
            reasons.append(why)
        elif "faults" not in before:
            remaining.append(scan)
            unchecked.add(scan.case)
    if line := describe_again(reasons, len(scans)):
        _log.info(line)
    return remaining, unchecked


def _fault_rows(faults: Sequence[Fault]) -> list[dict[str, str]]:
    """Return what the index keeps of a scan's faults."""
    keys = ("code", "severity", "subject", "measured", "accepted")
    return [{key: getattr(fault, key) for key in keys if getattr(fault, key)} for fault in faults]


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


def _reason(error: BaseException, model: Model) -> str:
    if is_out_of_memory(error):
        hint = (
            "Free memory" if model.backend.device.type == "cpu" else "Free memory there, or use --device cpu"
        )
        return f"memory ran out on {model.backend.device}. {hint}."
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name}: no such file"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = (str(error).splitlines() or [""])[0]
    return (first if isinstance(error, MedunetError) else first[:300]) or type(error).__name__
