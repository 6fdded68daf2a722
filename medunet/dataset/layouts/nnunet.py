"""Read nnU-Net's raw datasets: explicit file lists, training lists of its first version, and fixed splits."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.layouts.patterns import Listing, make_listing, stem
from medunet.dataset.splits import read_folds
from medunet.records.data_root import can_be_path, path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import Unmatched, make_case

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


def is_numbered(plain: Mapping[str, Any], folder: Path) -> bool:
    """Return whether a `dataset.json` with a training list is nnU-Net's of the first version.

    It lists each case once, with or without the ending _0000 of its first channel, and imagesTr/ has a file for each
    channel, such as CASE_0000.nii.gz. The Decathlon's lists the files themselves, under the names of their labels.
    """
    images = folder / "imagesTr"
    stems = {stem(path.name) for path in images.iterdir()} if images.is_dir() else set()
    channels = plain.get("channel_names", plain.get("modality"))
    numbers = range(len(channels) if isinstance(channels, dict | list) else 1)
    for image, case_id in ((stem(image), _case_of(image, label)) for image, label in _listed_files(plain)):
        complete = all(f"{case_id}_{number:04d}" in stems for number in numbers)
        if complete and (image == f"{case_id}_0000" or (image == case_id and image not in stems)):
            return True
    return False


def follow_training_list(listing: Listing, path: Path, description: Description, data_root: Path) -> Listing:
    """Return a listing by file names with the training cases that a `dataset.json` of the first version lists.

    Files of other training cases are unmatched. A listed case without files stays a case, whose missing files the
    dataset check names.

    Raises:
        InputError: a listed path is outside the data root.
    """
    listed = {_case_of(image, label): (image, label) for image, label in _listed_files(read_json(path))}
    kept = [case for case in listing.cases if case.split != "train" or case.id in listed]
    left_out = [case for case in listing.cases if case not in kept]
    incomplete = {stem(item.path) for item in listing.unmatched}
    cases = list(kept)
    for case_id in sorted(listed.keys() - {case.id for case in kept}):
        if any(re.fullmatch(rf"{re.escape(case_id)}(_\d{{4}})?", name) for name in incomplete):
            continue
        image, label = listed[case_id]
        place = path_in_data_root(data_root / image, data_root)
        label_place = path_in_data_root(data_root / label, data_root) if label else None
        if place is None or (label and label_place is None):
            raise InputError(
                f"the files of case {case_id} are outside the data root",
                where=f"{path.name}: training",
                hint="Write paths relative to the data root.",
            )
        file_name = PurePosixPath(place)
        ending = file_name.name.removeprefix(stem(place))
        images = {
            name: file_name.with_name(f"{case_id}_{number:04d}{ending}").as_posix()
            for number, name in enumerate(description.channels)
        }
        cases.append(make_case(description, case_id, images, label=label_place, split="train"))
    reason = f"not listed in {path.name}"
    files = {file for case in left_out for file in (*case.images.values(), case.label) if file}
    unmatched = [*listing.unmatched, *(Unmatched(path=file, reason=reason) for file in files)]
    return Listing(
        tuple(sorted(cases, key=lambda case: case.id)), tuple(sorted(unmatched, key=lambda item: item.path))
    )


def _case_of(image: str, label: str) -> str:
    return stem(label) if label else re.sub("_0000$", "", stem(image))


def _listed_files(plain: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield image and label of each training case that a `dataset.json` lists; label "" if it has none."""
    training = plain.get("training")
    for entry in training if isinstance(training, list) else []:
        image = entry.get("image") if isinstance(entry, dict) else None
        label = entry.get("label", "") if isinstance(entry, dict) else None
        if isinstance(image, str) and isinstance(label, str) and can_be_path(image) and can_be_path(label):
            yield image.replace("\\", "/"), label.replace("\\", "/")


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
