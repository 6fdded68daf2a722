"""Predict many scans: skip those already predicted, report those that fail, and write an index."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.base.errors import DataError, InputError, MedunetError, is_out_of_memory
from medunet.base.files import hash_file, hash_value, read_json_object, write_json
from medunet.base.progress import track
from medunet.imaging.volumes import mask_ending
from medunet.inference.model import Model
from medunet.records.config import InferenceConfig
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted


@dataclass(frozen=True)
class Scan:
    """One case to predict: an id, and an image per channel in the model's order."""

    case: str
    images: list[Path]
    resample: bool = False  # resample images to the grid of the first one
    accepted: tuple[Accepted, ...] = ()  # faults that the user accepts
    trouble: str = ""  # why the scan cannot be predicted, such as a channel without an image

    @property
    def mask_name(self) -> str:
        """File name of the predicted mask."""
        return f"{self.case}{mask_ending(self.images[0])}"


def predict_scans(
    model: Model, scans: Sequence[Scan], folder: Path, config: InferenceConfig, *, overwrite: bool = False
) -> dict[str, str]:
    """Write `<case>.nii.gz` for every scan and `index.json`; return the failed cases with their reasons.

    The mask of a 2D image is `<case>.png`. A case is skipped if its mask exists and was predicted from the same image
    content, weights and options. Each scan is read through the checks of an image: errors that are not accepted fail
    its case, and the faults are kept in the index. The index is written before and after each case, so that an
    interrupted command can be resumed.

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
            if scan.trouble:
                raise DataError(scan.trouble)
            checked = model.check(scan.case, scan.images, accepted=scan.accepted, resample=scan.resample)
            entry = {
                "image_sha256": hash_value([hash_file(image) for image in scan.images]),
                "model_sha256": model.weights_sha256,
                "weights": model.weights,
                "options_sha256": hash_value(options | ({"resample": True} if scan.resample else {})),
                "fold": model.card.fold,
            }
            before = {"weights": "best", **done.get(scan.case, {})}  # medunet 0.4 did not record the weights
            if not overwrite and path.exists() and all(before.get(key) == entry[key] for key in entry):
                if "faults" not in before:  # predicted before 0.7, without these checks
                    checked.read()
                    done[scan.case] = {**before, "faults": _fault_rows(checked.faults)}
                continue
            done[scan.case] = {"begun": True}  # marks an unfinished mask as written by medunet
            write_index()
            start = time.monotonic()
            model.predict_file(scan.images, config, path, read=checked.read)
            seconds = round(time.monotonic() - start, 2)
            done[scan.case] = {
                **entry,
                "precision": model.precision,
                "seconds": seconds,
                "faults": _fault_rows(checked.faults),
            }
        except InputError:  # not specific to the case: a full disk, or unusable options
            raise
        except Exception as error:  # continue with the other cases
            failed[scan.case] = _reason(error, model)
            if done.pop(scan.case, None) is not None:
                path.unlink(missing_ok=True)  # an old mask must not be mistaken for this scan's
        write_index()
    write_index()
    return failed


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
        hint = "Free memory" if model.device.type == "cpu" else "Free memory there, or use --device cpu"
        return f"memory ran out on {model.device}. {hint}."
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name}: no such file"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = (str(error).splitlines() or [""])[0]
    return (first if isinstance(error, MedunetError) else first[:300]) or type(error).__name__
