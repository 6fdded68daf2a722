"""Read case lists in JSON: the Decathlon's `dataset.json` and MONAI's datalists."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.base.words import list_some
from medunet.dataset.layouts.patterns import Listing, make_listing, stem
from medunet.imaging.formats import header_of_pair
from medunet.records.data_root import can_be_path, path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import Case, Split, make_case

_SECTIONS: dict[str, Split] = {
    **dict.fromkeys(("training", "train", "validation", "valid", "val"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled"), "unlabelled"),
}
_TRAINING, _VALIDATION = ("training", "train"), ("validation", "valid", "val")
_MAX_SHOWN = 20


@dataclass(frozen=True)
class _Entry:
    """One case of a section, with paths relative to the data root."""

    place: str  # position in the file, for messages
    section: str
    split: Split
    images: dict[str, str]
    label: str | None
    fold: Any  # as written


def has_cases(path: Path) -> bool:
    """Return whether a JSON file lists training cases, as the Decathlon's does and nnU-Net's does not."""
    return any(isinstance(read_sections(path).get(name), list) for name in _TRAINING)


def read_sections(path: Path) -> dict[str, Any]:
    """Read a JSON file of cases as an object with a list for each section; a plain list is the section `training`.

    Raises:
        InputError: it is not valid JSON.
    """
    plain = read_json(path)
    if (
        isinstance(plain, list)
        and plain
        and all(isinstance(each, dict) and "image" in each for each in plain)
    ):
        return {"training": plain}
    sections = plain if isinstance(plain, dict) else {}
    train = sections.get("train")
    if isinstance(train, list) and not any(isinstance(each, dict) and "image" in each for each in train):
        return {name: each for name, each in sections.items() if name != "train"}  # such as nnU-Net's splits
    return sections


def list_images(sections: Mapping[str, Any]) -> list[list[str]]:
    """Return the paths of the images of every entry that has any, for guessing channels and kinds of files."""
    found = []
    for name in _SECTIONS:
        items = sections.get(name, [])
        for item in items if isinstance(items, list) else [items]:
            paths = item.get("image") if isinstance(item, dict) else item
            paths = [paths] if isinstance(paths, str) else paths
            if isinstance(paths, list) and paths and all(isinstance(path, str) for path in paths):
                found.append(paths)
    return found


def read_datalist(path: Path, description: Description, data_root: Path) -> Listing:
    """Read the cases listed in a `dataset.json` or datalist; files that are not listed are unmatched.

    Folds are taken from the entries' `fold` keys. Without them, a `validation` section becomes fold 0 and `training`
    fold 1. Paths are relative to the data root or to the list's folder. Files are not opened here: the dataset check
    reports those that are missing.

    Raises:
        InputError: the list has an invalid form, or contradicts the description's labels or channels; the message
            lists all faults.
    """
    plain = read_sections(path)
    if not any(isinstance(plain.get(name), list) for name in _TRAINING):
        raise InputError(
            "has no list 'training'",
            where=path.name,
            hint='Write {"training": [{"image": ..., "label": ...}]}.',
        )
    faults = [*_label_faults(plain.get("labels"), description), *_channel_faults(plain, description)]
    if faults:
        raise InputError(
            f"contradicts description {description.name}: {'; '.join(faults)}",
            where=path.name,
            hint="Use the description that belongs to this data, or correct one of the two.",
        )
    listing = make_listing(
        _read_cases(plain, description, data_root, path), path.name, description, data_root
    )
    other = {
        place: f"in section {name!r} of {path.name}, which is not used"
        for name, items in plain.items()
        if name not in _SECTIONS and isinstance(items, list)
        for item in items
        for text in ([item] if isinstance(item, str) else item.values() if isinstance(item, dict) else ())
        if isinstance(text, str) and (place := path_in_data_root(data_root / text, data_root))
    }
    unmatched = tuple(
        item.model_copy(update={"reason": other.get(item.path, item.reason)}) for item in listing.unmatched
    )
    return replace(listing, unmatched=unmatched)


def _read_cases(
    plain: Mapping[str, Any], description: Description, data_root: Path, path: Path
) -> list[Case]:
    faults: list[str] = []
    entries = list(_read_entries(plain, description, data_root, path, faults))
    folds_given = any(entry.fold is not None for entry in entries)
    for entry in entries:
        fold_needed = entry.split == "train" and folds_given
        if fold_needed and (type(entry.fold) is not int or entry.fold < 0):
            faults.append(f"{entry.place}: 'fold' must be a whole number of 0 or more in every entry")
    if faults:
        raise InputError(
            list_some(faults, _MAX_SHOWN, "; "), where=path.name, hint="Correct or remove these entries."
        )
    validated = any(plain.get(name) for name in _VALIDATION)
    cases = []
    for case_id, entry in zip(_unique_ids(entries, path.name), entries, strict=True):
        fold = None
        if entry.split == "train" and folds_given:
            fold = entry.fold
        elif entry.split == "train" and validated:
            fold = 0 if entry.section in _VALIDATION else 1
        cases.append(
            make_case(description, case_id, entry.images, label=entry.label, split=entry.split, fold=fold)
        )
    return cases


def _read_entries(
    plain: Mapping[str, Any], description: Description, data_root: Path, path: Path, faults: list[str]
) -> Iterator[_Entry]:
    """Yield the entries of all sections; append to `faults` those that cannot be used."""
    for section, split in _SECTIONS.items():
        items = plain.get(section, [])
        for number, item in enumerate(items if isinstance(items, list) else [items]):
            place = f"{section}[{number}]"
            # The Decathlon lists test images as plain paths.
            entry = item if isinstance(item, dict) else {"image": item}
            label = entry.get("label") or None
            try:
                if label is not None and not isinstance(label, str):
                    raise InputError("'label' must be one path", hint="Merge several label maps into one.")
                images = _images_of(entry, description, data_root, path.parent)
                label = None if label is None else _relative(label, data_root, path.parent)
            except InputError as error:
                faults.append(f"{place}: {error}")
                continue
            yield _Entry(
                place=place,
                section=section,
                split="unlabelled" if split == "train" and label is None else split,
                images=images,
                label=label,
                fold=entry.get("fold"),
            )


def _unique_ids(entries: list[_Entry], where: str) -> list[str]:
    """Return an id for each entry: the file name, preceded by the folder names if file names are not unique."""
    ids = [_case_id(list(entry.images.values())) for entry in entries]
    if len(set(ids)) < len(ids):
        folders = [PurePosixPath(next(iter(entry.images.values()))).parent.parts for entry in entries]
        ids = ["_".join([*parts, name]) for parts, name in zip(folders, ids, strict=True)]
    if twice := sorted(name for name, count in Counter(ids).items() if count > 1):
        raise InputError(f"images occur twice: {', '.join(twice)}", where=where, hint="List each image once.")
    return ids


def _images_of(
    entry: Mapping[str, Any], description: Description, data_root: Path, folder: Path
) -> dict[str, str]:
    paths = entry.get("image")
    channels = list(description.channels)
    if isinstance(paths, list) and len(paths) == 1:
        (paths,) = paths
    if isinstance(paths, str):
        return dict.fromkeys(channels, _relative(paths, data_root, folder))
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InputError("'image' must be a path or a list of paths")
    if len(paths) != len(channels):
        raise InputError(
            f"{len(paths)} images, but description {description.name} has {len(channels)} channels: {channels}",
            hint="List one image for each channel, in that order.",
        )
    return {name: _relative(path, data_root, folder) for name, path in zip(channels, paths, strict=True)}


def _relative(text: str, data_root: Path, folder: Path) -> str:
    """Return a path relative to the data root, given relative to it or, if there is no such file, to the list."""
    text = header_of_pair(text.replace("\\", "/"))
    bases = (data_root, folder) if can_be_path(text) else ()
    path = next((base / text for base in bases if (base / text).exists()), data_root / text)
    below = path_in_data_root(path, data_root)
    if below is None:
        raise InputError(
            f"the path {text} is outside the data root", hint="Write paths relative to the data root."
        )
    return below


def _case_id(images: list[str]) -> str:
    """Return the stem of the image, or the common start of several stems up to a separator."""
    stems = [stem(path) for path in images]
    if len(set(stems)) == 1:
        return stems[0]
    return re.sub(r"[_.-]$", "", common_start(stems)) or stems[0]


def common_start(stems: Sequence[str]) -> str:
    """Return what file names have in common at their start, up to and including a separator."""
    common = takewhile(lambda letters: len(set(letters)) == 1, zip(*stems, strict=False))
    return re.sub("[^_. -]*$", "", "".join(letters[0] for letters in common))


def _label_faults(labels: Any, description: Description) -> list[str]:
    """Compare label names and values, from `{"1": "liver"}` or `{"liver": 1}`, with the description's."""
    if not isinstance(labels, dict) or any(isinstance(value, list) for value in labels.values()):
        return []  # nnU-Net's regions have several values
    named: dict[str, int] = {}
    for key, value in labels.items():
        if isinstance(value, str) and str(key).isdigit():
            named[value] = int(key)
        elif isinstance(value, int):
            named[str(key)] = value
    stored = {name: description.stored_as(name)[0] for name in description.labels}
    return _contradictions("label", named, stored)


def _channel_faults(plain: Mapping[str, Any], description: Description) -> list[str]:
    """Compare the order of the channels, from `{"0": "FLAIR"}`, with the description's."""
    channels = plain.get("modality", plain.get("channel_names"))
    if not isinstance(channels, dict) or not all(str(key).isdigit() for key in channels):
        return []
    named = {str(name): int(key) for key, name in channels.items()}
    if len(named) < len(channels):  # duplicate names do not show the order
        return []
    return _contradictions("channel", named, {name: i for i, name in enumerate(description.channels)})


def _contradictions(kind: str, listed: Mapping[str, int], described: Mapping[str, int]) -> list[str]:
    """Describe where two tables of values by name differ: in the set of values, or in the value of a common name."""
    faults = []
    if listed and sorted(listed.values()) != sorted(described.values()):
        faults.append(f"{kind}s {dict(listed)} against {dict(described)}")
    by_name = {_normalise(name): value for name, value in described.items()}
    for name, value in listed.items():
        expected = by_name.get(_normalise(name), value)
        if expected != value:
            faults.append(f"{kind} '{name}' is {value}, not {expected}")
    return faults


def _normalise(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
