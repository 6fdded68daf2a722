"""Many scans predicted, one at a time: done ones skipped by content, failed ones named, an index kept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.config import InferenceConfig
from medunet.errors import InputError
from medunet.files import hash_file, hash_value, read_json, write_json
from medunet.inference.model import Model
from medunet.progress import track
from medunet.records import Description


@dataclass(frozen=True)
class Scan:
    """What is predicted as one case: an id, and an image per channel in the model's order."""

    case: str
    images: list[Path]


def scans_from_files(files: Sequence[Path], description: Description) -> list[Scan]:
    """Make scans of image files and folders given by the user.

    With one channel each file is a scan, named by its stem. With several, a file is a 4D volume that holds all
    channels, or files are grouped by the description's channel endings (`<case>_t1.nii.gz`, ...).

    Raises:
        InputError: a path does not exist, a name is used twice, or channels are missing; names all.
    """
    found, faults = [], []
    for path in files:
        if path.is_dir():
            found.extend(
                sorted(p for p in path.iterdir() if p.name.endswith((".nii", ".nii.gz")) and p.name[0] != ".")
            )
        elif path.is_file():
            found.append(path)
        else:
            faults.append(f"{path}: no such file")
    groups: dict[str, dict[str, Path]] = {}
    channels = list(description.channels)
    for path in found:
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        case, channel = _channel_of(name, description)
        slots = [channel] if channel else channels
        for slot in slots:
            if slot in groups.setdefault(case, {}):
                faults.append(f"{path.name}: a second image for {slot} of case {case}")
            groups[case][slot] = path
    for case, images in groups.items():
        if missing := [channel for channel in channels if channel not in images]:
            faults.append(f"case {case}: no image for {', '.join(missing)}")
    if not found and not faults:
        faults.append("no .nii or .nii.gz file was given")
    if faults:
        raise InputError("; ".join(faults), mend="Give every channel of every case, each once.")
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

    A case is skipped when its mask exists and was made from the same image content, weights and options. After
    each case the index is written whole, so that a killed run goes on where it stopped.
    """
    description = model.card.description
    index_path = folder / "index.json"
    index: dict[str, Any] = read_json(index_path) if index_path.exists() else {}
    done: dict[str, Any] = index.get("cases", {})
    options = hash_value(config.plain())
    failed: dict[str, str] = {}

    def write_index() -> None:
        write_json(
            index_path,
            {
                "schema": "medunet.predictions/1",
                "dataset": description.name,
                "labels": description.labels,
                "targets": {name: list(values) for name, values in description.targets.items()},
                "cases": dict(sorted(done.items())),
                "failed": failed,
            },
        )

    for scan in track(scans, "Predict"):
        path = folder / f"{scan.case}.nii.gz"
        try:
            entry = {
                "image_sha256": hash_value([hash_file(image) for image in scan.images]),
                "model_sha256": model.card.weights_sha256,
                "options_sha256": options,
                "fold": model.card.fold,
            }
            before = done.get(scan.case, {})
            if (
                not overwrite
                and path.exists()
                and all(before.get(key) == value for key, value in entry.items())
            ):
                continue
            start = time.monotonic()
            model.predict_file(scan.images, config, path)
            seconds = round(time.monotonic() - start, 2)
            done[scan.case] = {**entry, "precision": model.precision, "seconds": seconds}
        except Exception as error:  # whatever it is, the other cases go on
            failed[scan.case] = _reason(error)
            done.pop(scan.case, None)
            path.unlink(missing_ok=True)  # a mask of an earlier model must not pass for this one's
        write_index()
    write_index()
    return failed


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name}: no such file"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    first = (str(error).splitlines() or [""])[0]
    return first[:300] or type(error).__name__
