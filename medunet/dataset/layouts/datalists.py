"""Read case lists in JSON: the Decathlon's `dataset.json` and MONAI's datalists."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json
from medunet.dataset.layouts.patterns import Listing, make_listing, stem
from medunet.records.data_root import path_in_data_root
from medunet.records.description import Description
from medunet.records.manifest import Case, Split, make_case

_SECTIONS: dict[str, Split] = {
    "training": "train",
    "validation": "train",
    "test": "test",
    "testing": "test",
}


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
    plain = read_json(path)
    return isinstance(plain, dict) and isinstance(plain.get("training"), list)


def read_datalist(path: Path, description: Description, data_root: Path) -> Listing:
    """Read the cases listed in a `dataset.json` or datalist; files that are not listed are unmatched.

    Folds are taken from the entries' `fold` keys. Without them, a `validation` section becomes fold 0 and `training`
    fold 1. Files are not opened here: the dataset check reports those that are missing.

    Raises:
        InputError: the list has an invalid form, or contradicts the description's labels or channels.
    """
    plain = read_json(path)
    if not isinstance(plain, dict) or not isinstance(plain.get("training"), list):
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
    cases = _read_cases(plain, description, data_root, path.name)
    return make_listing(cases, path.name, description, data_root)


def _read_cases(
    plain: Mapping[str, Any], description: Description, data_root: Path, where: str
) -> list[Case]:
    entries = list(_read_entries(plain, description, data_root, where))
    ids = _unique_ids(entries, where)
    folds_given = any(entry.fold is not None for entry in entries)
    cases = []
    for case_id, entry in zip(ids, entries, strict=True):
        fold = None
        if entry.split == "train" and folds_given:
            if type(entry.fold) is not int or entry.fold < 0:
                raise InputError(
                    "'fold' must be a whole number of 0 or more in every entry", where=entry.place
                )
            fold = entry.fold
        elif entry.split == "train" and plain.get("validation"):
            fold = 0 if entry.section == "validation" else 1
        cases.append(
            make_case(description, case_id, entry.images, label=entry.label, split=entry.split, fold=fold)
        )
    return cases


def _read_entries(
    plain: Mapping[str, Any], description: Description, data_root: Path, where: str
) -> Iterator[_Entry]:
    for section, split in _SECTIONS.items():
        items = plain.get(section, [])
        for number, item in enumerate(items if isinstance(items, list) else [items]):
            place = f"{where}: {section}[{number}]"
            # The Decathlon lists test images as plain paths.
            entry = item if isinstance(item, dict) else {"image": item}
            label = entry.get("label")
            if label is not None and not isinstance(label, str):
                raise InputError("'label' must be one path", where=place)
            yield _Entry(
                place=place,
                section=section,
                split="unlabelled" if split == "train" and label is None else split,
                images=_images_of(entry, description, data_root, place),
                label=None if label is None else _relative(label, data_root, place),
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
    entry: Mapping[str, Any], description: Description, data_root: Path, place: str
) -> dict[str, str]:
    paths = entry.get("image")
    channels = list(description.channels)
    if isinstance(paths, str):
        return dict.fromkeys(channels, _relative(paths, data_root, place))
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise InputError("'image' must be a path or a list of paths", where=place)
    if len(paths) != len(channels):
        raise InputError(
            f"{len(paths)} images, but description {description.name} has {len(channels)} channels: {channels}",
            where=place,
            hint="List one image for each channel, in that order.",
        )
    return {name: _relative(path, data_root, place) for name, path in zip(channels, paths, strict=True)}


def _relative(path: str, data_root: Path, place: str) -> str:
    below = path_in_data_root(data_root / path, data_root)
    if below is None:
        raise InputError(
            f"the path {path} is outside the data root",
            where=place,
            hint="Write paths relative to the data root.",
        )
    return below


def _case_id(images: list[str]) -> str:
    """Return the stem of the image, or the common start of several stems up to a separator."""
    stems = [stem(path) for path in images]
    if len(set(stems)) == 1:
        return stems[0]
    common = takewhile(lambda letters: len(set(letters)) == 1, zip(*stems, strict=False))
    return re.sub(r"[_.-][^_.-]*$", "", "".join(letters[0] for letters in common)) or stems[0]


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
