"""Candidates for a dataset that lists its cases: in a `dataset.json`, a datalist in JSON or a CSV."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import DataError, InputError
from medunet.dataset.layouts.case_tables import read_table
from medunet.dataset.layouts.datalists import common_start, has_cases, list_images, read_sections
from medunet.dataset.layouts.dataset_json import describe_json, modality_of, plain_name, read_channel_names
from medunet.dataset.layouts.nnunet import check_case_count, has_file_list, is_numbered
from medunet.dataset.layouts.patterns import Listing, stem
from medunet.dataset.manifest import list_cases
from medunet.imaging.formats import PICTURES, SCANS, endings_of, expression_of, is_picture
from medunet.imaging.volumes import read_header
from medunet.records.data_root import path_in_data_root
from medunet.records.description import Description

UNKNOWN = {"labels": {"background": 0, "label_1": 1}, "channels": {"image": {"modality": "other"}}}
_SCAN = expression_of(SCANS)
_PAGED = tuple(each for each in PICTURES if each.may_have_pages)


@dataclass(frozen=True)
class Candidate:
    """A layout that a folder may have, with the description and cases that result from it."""

    what: str
    evidence: str
    description: Description
    listing: Listing
    complete: bool = True  # False: labels, and channels without file endings, must be read from the files
    notes: tuple[str, ...] = ()
    labels_named: bool = False  # if not complete: only channels must be read from the files

    @property
    def count(self) -> str:
        """Number of cases and of labelled cases, as text."""
        labelled = sum(case.label is not None for case in self.listing.cases)
        num = len(self.listing.cases)
        return f"{num} case{'s' * (num != 1)}, {labelled} with a label"


def json_candidate(folder: Path) -> Candidate | None:
    """Read a `dataset.json`: the Decathlon's lists cases; nnU-Net's, also in its first version, names channels.

    A list of cases without names of channels or labels is a datalist. None if it has none of these.

    Raises:
        InputError: it cannot be used.
    """
    path = folder / "dataset.json"
    plain = read_sections(path)
    listed = has_cases(path)
    if not listed and not plain.keys() & {"channel_names", "modality"}:
        return None
    if listed and not is_numbered(plain, folder):
        if not _names_labels(plain) or not _names_channels(plain):
            return _datalist_candidate(path, path.name, folder)
        description = describe_json(plain, folder.absolute().name, "msd")
        listing = list_cases(description, folder)
        return Candidate("a Decathlon task", "dataset.json with a training list", description, listing)
    key = "channel_names" if "channel_names" in plain else "modality"
    return _nnunet_candidate(plain, folder, f"dataset.json with {key}")


def listed_candidate(path: Path, data_root: Path) -> Candidate:
    """Return the candidate for a CSV of cases or a datalist in JSON.

    Raises:
        InputError: it is outside the data root, or lists no images.
    """
    place = path_in_data_root(path, data_root)
    if place is None:
        raise InputError(
            "is outside the data root", where=path.name, hint="Give a --data-root that contains it."
        )
    if path.suffix.lower() == ".json":
        return _datalist_candidate(path, place, data_root)
    table = read_table(path, place)
    if table is None:
        raise InputError(
            "names no image files",
            where=path.name,
            hint="Write columns case, image (or one for each channel) and label, with a row for each case.",
        )
    channels = {name: {"modality": modality_of(name)} for name in table.channels} or UNKNOWN["channels"]
    description = Description.parse(
        {
            **UNKNOWN,
            "name": plain_name(data_root.absolute().name),
            "layout": "png" if table.has_pictures else "csv",
            "table": place,
            "channels": channels,
        },
        where=path.name,
    )
    columns = ", ".join(table.channels) or "image"
    notes = (f"columns of {place} not used: {', '.join(table.unused_text)}",) if table.unused else ()
    evidence = f"{place} with {len(table.rows)} rows and image columns {columns}"
    return Candidate(
        "a table of cases", evidence, description, list_cases(description, data_root), False, notes
    )


def _datalist_candidate(path: Path, place: str, data_root: Path) -> Candidate:
    """Return the candidate for a list of cases in JSON, such as MONAI's; what it does not name is left to the files.

    Raises:
        InputError: it lists no images, or its labels or channels are named in an invalid form.
    """
    sections = read_sections(path)
    images = list_images(sections)
    if not images or not has_cases(path):
        raise InputError(
            "lists no cases",
            where=path.name,
            hint='Write {"training": [{"image": ..., "label": ...}]}, or give the dataset\'s description.',
        )
    named, labels_named = _names_channels(sections), _names_labels(sections)
    channels = read_channel_names(sections, []) if named else _guess_channels(images)
    plain = {
        **sections,
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": sections["labels"] if labels_named else UNKNOWN["labels"],
    }
    num_pictures = sum(is_picture(PurePosixPath(paths[0])) for paths in images)
    layout: Any = "png" if 2 * num_pictures > len(images) else "csv"
    description = describe_json(plain, data_root.absolute().name, layout, table=place)
    listing = list_cases(description, data_root)
    missing = [name for name, known in (("labels", labels_named), ("channels", named)) if not known]
    without = f" without names of {' and '.join(missing)}" if missing else ""
    evidence, complete = f"{place}{without}", not missing
    return Candidate(
        "a list of cases in JSON", evidence, description, listing, complete, labels_named=labels_named
    )


def _guess_channels(images: Sequence[Sequence[str]]) -> list[str]:
    """Return a name for each image of an entry: its ending, if the same in all entries, or its number."""
    count = max(map(len, images))
    if count == 1:
        return ["image"]
    endings = set()
    for paths in images:
        stems = [stem(path) for path in paths]
        start = len(common_start(stems))
        endings.add(tuple(name[start:] for name in stems))
    (first, *others) = endings
    distinct = not others and len(set(first)) == count and all(first)
    return list(first) if distinct else [f"channel_{number}" for number in range(count)]


def _names_labels(plain: dict[str, Any]) -> bool:
    return bool(plain.get("labels"))


def _names_channels(plain: dict[str, Any]) -> bool:
    return bool(plain.get("channel_names") or plain.get("modality"))


def _nnunet_candidate(plain: dict[str, Any], folder: Path, evidence: str) -> Candidate:
    ending = f".{str(plain.get('file_ending', '.nii.gz')).removeprefix('.')}"
    name, pictures = folder.absolute().name, ending.lower() in endings_of(PICTURES)
    if not pictures and not re.fullmatch(_SCAN, ending):
        raise InputError(
            f"file_ending {ending!r} is not a supported image format",
            where="dataset.json",
            hint="Convert the files to .nii.gz with the same names, and write that ending.",
        )
    layout: Any = "nnunet"
    others: dict[str, Any] = {}
    if pictures:
        layout, others = "png", {"files": _numbered_pictures(plain, folder, ending)}
    description = describe_json(plain, name, layout, **others)
    listing = list_cases(description, folder)
    notes = [note] if (note := check_case_count(plain, listing)) else []
    if other := [name for name, channel in description.channels.items() if channel.modality == "other"]:
        notes.append(f"channels {', '.join(other)} are neither CT, MR nor PET by name: normalised like MR")
    explicit = "its own file lists" if has_file_list(plain) else f"imagesTr/CASE_0000{ending}"
    explicit += ", its training list" if isinstance(plain.get("training"), list) else ""
    return Candidate(
        "an nnU-Net raw dataset", f"{evidence}, {explicit}", description, listing, notes=tuple(notes)
    )


def _numbered_pictures(plain: dict[str, Any], folder: Path, ending: str) -> dict[str, str]:
    """Return the file patterns of nnU-Net's pictures, which have all colours in one file."""
    names = [name for name in file_names(folder / "imagesTr") if name.lower().endswith(ending.lower())]
    fault = ""
    if has_file_list(plain):
        fault, hint = "has an explicit list of pictures", "Write the list as a CSV: case, image, label."
    elif any(re.search(r"_000[1-9]\.", name) for name in names):
        fault, hint = "has several pictures per case", "Save the channels as red, green and blue of one file."
    elif names and ending.lower() in endings_of(_PAGED):
        try:
            read_header(folder / "imagesTr" / names[0])
        except DataError as error:
            fault, hint = error.what, "Convert stacks of slices to .nii.gz with their spacing."
    if fault:
        raise InputError(fault, where="dataset.json", hint=hint)
    file = rf"(?P<id>[^/]+){{}}(?i:{re.escape(ending)})"
    return {
        "image": f"images(?:Tr|(?P<test>Ts))/{file.format('_0000')}",
        "label": f"labelsT[rs]/{file.format('')}",
    }


def file_names(folder: Path) -> list[str]:
    """Return the sorted names of a folder's files; an empty list if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
