"""Read nnU-Net's raw datasets: explicit file lists, the number of cases, and fixed splits."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.layouts.patterns import Listing, make_listing
from medunet.dataset.splits import read_folds
from medunet.records.data_root import path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import make_case

SPLITS = "splits_final.json"


def has_file_list(plain: Any) -> bool:
    """Return whether a `dataset.json` lists the files of its cases explicitly."""
    return isinstance(plain, dict) and isinstance(plain.get("dataset"), dict)


def read_file_list(path: Path, description: Description, data_root: Path) -> Listing:
    """Read the cases of a `dataset.json` with `"dataset": {"case": {"images": [...], "label": ...}}`.

    Paths are relative to the file's folder, or absolute within it. Test images are not in the list and not searched
    for. Files are not opened here: the dataset check reports those that are missing.

    Raises:
        InputError: entries cannot be used; the message lists all of them.
    """
    cases, faults = [], []
    for case_id, entry in read_json(path)["dataset"].items():
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(images, list) or not all(isinstance(item, str) for item in (*images, label)):
            faults.append(f"{case_id}: write a list of 'images' and a 'label'")
            continue
        files = [path_in_data_root(data_root / text, data_root) for text in (*images, label)]
        if outside := [text for text, file in zip((*images, label), files, strict=True) if file is None]:
            faults.append(f"{case_id}: {len(outside)} of its files are outside the data root")
        elif len(images) != len(description.channels):
            faults.append(f"{case_id}: {len(images)} images for the channels {list(description.channels)}")
        else:
            cases.append(
                make_case(
                    description,
                    case_id,
                    dict(zip(description.channels, [file for file in files[:-1] if file], strict=True)),
                    label=files[-1],
                    split="train",
                )
            )
    if faults:
        raise InputError("; ".join(faults), where=f"{path.name}: dataset", hint="Correct these entries.")
    return make_listing(cases, path.name, description, data_root)


def check_case_count(plain: Mapping[str, Any], listing: Listing) -> str:
    """Describe how `numTraining` differs from the number of training cases found; "" if equal or not given."""
    found = sum(case.split == "train" for case in listing.cases)
    given = plain.get("numTraining")
    if given is None or given == found:
        return ""
    reasons = Counter(item.reason for item in listing.unmatched)
    why = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
    return f"dataset.json says numTraining {given}, but {found} training cases are complete" + (
        why and f" ({why})"
    )


def find_splits(folder: Path) -> Path | None:
    """Return the `splits_final.json` of a raw dataset, from its folder or nnU-Net's folder of preprocessed data."""
    preprocessed = folder.absolute().parent.parent / "nnUNet_preprocessed" / folder.absolute().name
    return next((place / SPLITS for place in (folder, preprocessed) if (place / SPLITS).is_file()), None)


def read_any_folds(path: Path) -> list[list[str]]:
    """Read fixed folds from nnU-Net's `splits_final.json`, a list of `{"train": [...], "val": [...]}`, or our format.

    The `val` cases of each split become a fold; cases that are in no `val` become an additional last fold.

    Raises:
        InputError: the file has no splits, or a split does not train on all cases outside its `val`.
    """
    plain = read_json(path)
    if not isinstance(plain, list):
        return read_folds(path)
    valid = plain and all(
        isinstance(split, dict)
        and all(isinstance(split.get(key), list) and split[key] for key in ("train", "val"))
        and all(isinstance(name, str) for key in ("train", "val") for name in split[key])
        for split in plain
    )
    if not valid:
        raise InputError(
            "has no splits", where=path.name, hint='Write [{"train": ["case", ...], "val": [...]}, ...].'
        )
    held_out = [list(split["val"]) for split in plain]
    everything = {name for split in plain for name in (*split["train"], *split["val"])}
    faults = []
    counts = Counter(name for fold in held_out for name in fold)
    if twice := sorted(name for name, count in counts.items() if count > 1):
        faults.append(f"cases are held out twice: {', '.join(twice)}")
    for number, split in enumerate(plain):
        if set(split["train"]) != everything - set(split["val"]):
            faults.append(f"split {number} does not train on all the cases that it does not hold out")
    if faults:
        raise InputError(
            "; ".join(faults), where=path.name, hint="Give folds that divide the cases, with --folds-file."
        )
    rest = sorted(everything - counts.keys())
    return [*held_out, *([rest] if rest else [])]
