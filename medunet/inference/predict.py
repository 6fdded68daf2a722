"""Predict many scans: skip those already predicted, report those that fail, and write an index."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError, is_out_of_memory
from medunet.base.files import remove_unfinished
from medunet.base.lock import LockedError, hold
from medunet.base.progress import track
from medunet.dataset.layouts.patterns import stem
from medunet.imaging.formats import NIFTI, PICTURES, endings_of
from medunet.imaging.volumes import mask_ending
from medunet.inference.mask_index import MaskIndex, describe_again, describe_making, hash_images, why_again
from medunet.inference.model import Model
from medunet.records.config import InferenceConfig
from medunet.records.description import Description

_log = logging.getLogger(__name__)
_WAIT_S = 1.0  # for another process, before its cases are tried again


@dataclass(frozen=True)
class Scan:
    """One case to predict: an id, and an image per channel in the model's order."""

    case: str
    images: list[Path]
    resample: bool = False  # resample images to the grid of the first one

    @property
    def mask_name(self) -> str:
        """File name of the predicted mask."""
        return f"{self.case}{mask_ending(self.images[0])}"


def scans_from_files(files: Sequence[Path], description: Description) -> list[Scan]:
    """Group image files and folders given by the user into scans.

    With one channel each file is a scan, named by its stem. With several channels a file is a 4D volume or a 2D image
    that holds all channels, or files are grouped by the description's channel endings (`<case>_t1.nii.gz`, ...).

    Raises:
        InputError: a path does not exist, a name is used twice, or channels are missing; lists every fault.
    """
    found, faults = [], []
    endings = endings_of(PICTURES) if description.layout == "png" else NIFTI.endings
    for path in files:
        if path.is_dir():
            found.extend(
                sorted(p for p in path.iterdir() if p.name.lower().endswith(endings) and p.name[0] != ".")
            )
        elif path.is_file():
            found.append(path)
        else:
            faults.append(f"{path}: no such file")
    groups: dict[str, dict[str, Path]] = {}
    channels = list(description.channels)
    for path in found:
        case, channel = _channel_of(stem(path.name), description)
        slots = [channel] if channel else channels
        for slot in slots:
            if slot in groups.setdefault(case, {}):
                faults.append(f"{path.name}: a second image for {slot} of case {case}")
            groups[case][slot] = path
    for case, images in groups.items():
        if missing := [channel for channel in channels if channel not in images]:
            faults.append(f"case {case}: no image for {', '.join(missing)}")
    if not found and not faults:
        faults.append(f"no {' or '.join(endings)} file was given")
    if faults:
        raise InputError("; ".join(faults), hint="Give every channel of every case, each once.")
    return [Scan(case, [images[channel] for channel in channels]) for case, images in sorted(groups.items())]


def _channel_of(name: str, description: Description) -> tuple[str, str | None]:
    if len(description.channels) > 1:
        for channel, details in description.channels.items():
            for ending in details.endings:
                if name.endswith(ending):
                    return name.removesuffix(ending), channel
    return name, None


def predict_scans(
    model: Model, scans: Sequence[Scan], folder: Path, config: InferenceConfig, *, overwrite: bool = False
) -> dict[str, str]:
    """Write `<case>.nii.gz` for every scan and `index.json`; return the failed cases with their reasons.

    The mask of a 2D image is `<case>.png`. A case is skipped if its mask exists and all that shaped it is the same:
    the scan's content, weights, plan, options, precision, kind of device and version of prediction. A logged line
    says how many masks are predicted again and why. The index is written before and after each case, so that an
    interrupted command can be resumed. Several processes may predict different cases into one folder at once.

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
    remaining = list(scans) if overwrite else _remaining(model, scans, folder, config, done)
    for scan in track(remaining, "Predict"):
        path = folder / scan.mask_name
        try:
            making = describe_making(model, config, resample=scan.resample)
            entry = {"image_sha256": hash_images(scan.images), **making}
            done[scan.case] = {"begun": True}  # marks an unfinished mask as written by medunet
            index.change({scan.case: done[scan.case]}, drop=[scan.case])
            start = time.monotonic()
            model.predict_file(scan.images, config, path, resample=scan.resample)
            entry["seconds"] = round(time.monotonic() - start, 2)
            index.change({scan.case: entry})
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
) -> list[Scan]:
    """Return the scans without a mask that was made in the same way, and log why masks are predicted again."""
    remaining, reasons = [], []
    for scan in track(scans, "Verify"):
        before = done.get(scan.case, {})
        if "image_sha256" not in before or not (folder / scan.mask_name).exists():
            remaining.append(scan)
            continue
        try:
            why = why_again(before, describe_making(model, config, resample=scan.resample), scan.images)
        except OSError:  # the scan cannot be read, which is reported when it is predicted
            why = "the scan cannot be read"
        if why:
            remaining.append(scan)
            reasons.append(why)
    if line := describe_again(reasons, len(scans)):
        _log.info(line)
    return remaining


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
        hint = "Free memory" if model.device.type == "cpu" else "Free memory there, or use --device cpu"
        return f"memory ran out on {model.device}. {hint}."
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name}: no such file"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = (str(error).splitlines() or [""])[0]
    return first[:300] or type(error).__name__
