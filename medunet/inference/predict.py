"""Predict many scans: skip those already predicted, report those that fail, and write an index."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError, is_out_of_memory
from medunet.base.files import hash_file, hash_value, read_json_object, write_json
from medunet.base.progress import track
from medunet.dataset.layouts.patterns import stem
from medunet.imaging.formats import NIFTI, PICTURES, endings_of
from medunet.imaging.volumes import mask_ending
from medunet.inference.model import Model
from medunet.records.config import InferenceConfig
from medunet.records.description import Description


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

    The mask of a 2D image is `<case>.png`. A case is skipped if its mask exists and was predicted from the same image
    content, weights and options. The index is written before and after each case, so that an interrupted command can
    be resumed.

    Raises:
        InputError: a mask would replace a file that medunet did not write, the folder holds masks of other labels,
            or the folder cannot be written.
    """
    description = model.card.description
    targets = {name: list(values) for name, values in description.targets.items()}
    index_path = folder / "index.json"
    index = read_json_object(index_path) if index_path.exists() else {}
    done: dict[str, Any] = dict(index.get("cases", {}))
    _refuse_other_files(scans, folder, done, overwrite=overwrite)
    if done and index.get("targets") != targets:
        raise InputError(
            f"holds masks of {list(index.get('targets', {}))}, but this model segments {list(targets)}",
            where=str(folder),
            hint="Choose another --out.",
        )
    options = config.to_dict()
    del options["weights"]  # identified by the hash of the file
    failed: dict[str, str] = {}

    def write_index() -> None:
        content = {
            "schema": "medunet.predictions/1",
            "dataset": description.name,
            "labels": description.labels,
        }
        write_json(
            index_path, {**content, "targets": targets, "cases": dict(sorted(done.items())), "failed": failed}
        )

    for scan in track(scans, "Predict"):
        path = folder / scan.mask_name
        try:
            entry = {
                "image_sha256": hash_value([hash_file(image) for image in scan.images]),
                "model_sha256": model.weights_sha256,
                "weights": model.weights,
                "options_sha256": hash_value(options | ({"resample": True} if scan.resample else {})),
                "fold": model.card.fold,
            }
            before = {"weights": "best", **done.get(scan.case, {})}  # medunet 0.4 did not record the weights
            if not overwrite and path.exists() and all(before.get(key) == entry[key] for key in entry):
                continue
            done[scan.case] = {"begun": True}  # marks an unfinished mask as written by medunet
            write_index()
            start = time.monotonic()
            model.predict_file(scan.images, config, path, resample=scan.resample)
            seconds = round(time.monotonic() - start, 2)
            done[scan.case] = {**entry, "precision": model.precision, "seconds": seconds}
        except InputError:  # not specific to the case: a full disk, or unusable options
            raise
        except Exception as error:  # continue with the other cases
            failed[scan.case] = _reason(error, model)
            if done.pop(scan.case, None) is not None:
                path.unlink(missing_ok=True)  # an old mask must not be mistaken for this scan's
        write_index()
    write_index()
    return failed


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
