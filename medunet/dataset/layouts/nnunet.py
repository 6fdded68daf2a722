"""nnU-Net's raw datasets beyond their file names: explicit file lists, the count of cases, and fixed splits."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.layouts.patterns import Listing, list_named
from medunet.dataset.splits import read_folds
from medunet.records.data_root import path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import make_case

SPLITS = "splits_final.json"


def has_file_list(plain: Any) -> bool:
    """Say whether a `dataset.json` names the files of its cases itself."""
    return isinstance(plain, dict) and isinstance(plain.get("dataset"), dict)


def read_file_list(path: Path, description: Description, data_root: Path) -> Listing:
    """Read the cases of a `dataset.json` with `"dataset": {"case": {"images": [...], "label": ...}}`.

    Paths are relative to the file's folder, or absolute within it. Test images, which the list does not name, are
    not looked for. Files are not opened here: the check names those that are missing.

    Raises:
        InputError: names every entry that cannot be used.
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
            faults.append(f"{case_id}: {len(outside)} of its files lie outside the data root")
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
    return list_named(cases, path.name, description, data_root)


def compare_count(plain: Mapping[str, Any], listing: Listing) -> str:
    """Say where `numTraining` is not the number of training cases found; "" where it is, or is not given."""
    found = sum(case.split == "train" for case in listing.cases)
    given = plain.get("numTraining")
    if given is None or given == found:
        return ""
    reasons = Counter(item.reason for item in listing.unmatched)
    why = "; ".join(f"{count} × {reason}" for reason, count in reasons.items())
    return f"dataset.json says numTraining {given}, but {found} training cases are whole" + (
        why and f" ({why})"
    )


def find_splits(folder: Path) -> Path | None:
    """Return the `splits_final.json` of a raw dataset: in its folder, or in the preprocessed dataset beside it."""
    beside = folder.absolute().parent.parent / "nnUNet_preprocessed" / folder.absolute().name
    return next((place / SPLITS for place in (folder, beside) if (place / SPLITS).is_file()), None)


def read_any_folds(path: Path) -> list[list[str]]:
    """Read fixed folds: nnU-Net's `splits_final.json`, a list of `{"train": [...], "val": [...]}`, or our own form.

    A fold holds out its `val` and trains on the rest; cases that no split holds out become a last fold of their own.

    Raises:
        InputError: the file holds no splits, or such that training on the rest of the cases would not be the same.
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
            "holds no splits", where=path.name, hint='Write [{"train": ["case", ...], "val": [...]}, ...].'
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
