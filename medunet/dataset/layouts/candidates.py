"""Find the layouts that a folder may have: by a list of cases in it or, without one, by file names."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import DataError, InputError
from medunet.base.files import read_json
from medunet.dataset.layouts import bids
from medunet.dataset.layouts.case_tables import lists_images, read_table
from medunet.dataset.layouts.datalists import has_cases
from medunet.dataset.layouts.dataset_json import describe_json, modality_of, plain_name
from medunet.dataset.layouts.folder_pairs import NamingScheme, find_pairs
from medunet.dataset.layouts.nnunet import check_case_count, has_file_list, is_numbered
from medunet.dataset.layouts.patterns import Listing, scan_folder, walk_files
from medunet.dataset.manifest import list_cases
from medunet.imaging.formats import PICTURES, SCANS, endings_of, expression_of
from medunet.imaging.volumes import read_header
from medunet.records.data_root import path_in_data_root
from medunet.records.description import Description

_SCAN, _PICTURE = expression_of(SCANS), expression_of(PICTURES)
_PAGED = tuple(each for each in PICTURES if each.may_have_pages)
_UNKNOWN = {"labels": {"background": 0, "label_1": 1}, "channels": {"image": {"modality": "other"}}}
_NAMED = ("brats", "brats2023", "lits")  # layouts whose file names identify the dataset


@dataclass(frozen=True)
class Candidate:
    """A layout that a folder may have, with the description and cases that result from it."""

    what: str
    evidence: str
    description: Description
    listing: Listing
    complete: bool = True  # False: labels, and channels without file endings, must be read from the files
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> str:
        """Number of cases and of labelled cases, as text."""
        labelled = sum(case.label is not None for case in self.listing.cases)
        num = len(self.listing.cases)
        return f"{num} case{'s' * (num != 1)}, {labelled} with a label"


def find_candidates(folder: Path, shipped: Sequence[Description], rejected: list[str]) -> list[Candidate]:
    """Return the layouts that a folder may have, without those whose files are all covered by an earlier one.

    Tables that cannot be used as lists of cases are appended to `rejected`, with the reason.

    Raises:
        InputError: the folder has a `dataset.json` or a table of images and labels that cannot be used.
    """
    listed = []
    if (folder / "dataset.json").is_file() and (found := _json_candidate(folder)):
        return [found]
    for path in (folder / name for name in _names(folder) if name.lower().endswith((".csv", ".tsv"))):
        try:
            table = read_table(path, path.name)
        except InputError as error:
            rejected.append(str(error))
            continue
        if table is not None and "label" in table.rows[0]:
            listed.append(table_candidate(path, folder))
        elif table is not None:
            rejected.append(f"{path.name} lists files, but has no column 'label'")
        elif lists_images(path):
            rejected.append(f"{path.name} has columns of images and labels, but names no image files in them")
    if listed:
        return listed
    kept: list[Candidate] = []
    for candidate in _by_names(folder, shipped):
        files = candidate.listing.paths
        if candidate.listing.cases and not any(files <= other.listing.paths for other in kept):
            kept.append(candidate)
    notes = [f"not used as a list of cases: {text}" for text in rejected]
    return [replace(each, notes=(*each.notes, *notes)) for each in kept]


def _json_candidate(folder: Path) -> Candidate | None:
    """Read a `dataset.json`: the Decathlon's lists cases; nnU-Net's, also in its first version, names channels."""
    path = folder / "dataset.json"
    plain = read_json(path)
    if not isinstance(plain, dict) or not plain.keys() & {"training", "channel_names", "modality"}:
        return None
    if has_cases(path) and not is_numbered(plain, folder):
        description = describe_json(plain, folder.absolute().name, "msd")
        listing = list_cases(description, folder)
        return Candidate("a Decathlon task", "dataset.json with a training list", description, listing)
    key = "channel_names" if "channel_names" in plain else "modality"
    return _nnunet_candidate(plain, folder, f"dataset.json with {key}")


def _nnunet_candidate(plain: dict[str, Any], folder: Path, evidence: str) -> Candidate:
    ending = str(plain.get("file_ending", ".nii.gz"))
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
    names = [name for name in _names(folder / "imagesTr") if name.lower().endswith(ending.lower())]
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


def table_candidate(path: Path, data_root: Path) -> Candidate:
    """Return the candidate for a CSV of cases.

    Raises:
        InputError: it is outside the data root, or lists no images.
    """
    place = path_in_data_root(path, data_root)
    if place is None:
        raise InputError(
            "is outside the data root", where=path.name, hint="Give a --data-root that contains it."
        )
    table = read_table(path, place)
    if table is None:
        raise InputError(
            "names no image files",
            where=path.name,
            hint="Write columns case, image (or one for each channel) and label, with a row for each case.",
        )
    channels = {name: {"modality": modality_of(name)} for name in table.channels} or _UNKNOWN["channels"]
    description = Description.parse(
        {
            **_UNKNOWN,
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


def _by_names(folder: Path, shipped: Sequence[Description]) -> Iterator[Candidate]:
    """Yield the candidates by file names alone, known datasets first."""
    paths = sorted(walk_files(folder))
    volumes = [path for path in paths if re.search(f"{_SCAN}$", path)]
    pictures = [path for path in paths if path.lower().endswith(endings_of(PICTURES))]
    for description in shipped:
        if volumes and (description.layout in _NAMED or description.files is not None):
            listing = scan_folder(description, folder)
            if description.files is not None and not _has_dataset_name(description, listing):
                continue
            yield Candidate(description.title, _example(listing), description, listing)
    yield from _bids_candidates(folder, volumes)
    name = plain_name(folder.absolute().name)
    numbers = {int(match[1]) for path in volumes if (match := re.fullmatch(r"imagesTr/.+_(\d{4})\..+", path))}
    if numbers and all(re.search(r"_\d{4}\.", path) for path in volumes if path.startswith("imagesTr/")):
        channels = {f"channel_{n}": {"modality": "other", "endings": [f"_{n:04d}"]} for n in sorted(numbers)}
        description = _draft(name, "nnunet", channels=channels)
        listing = scan_folder(description, folder)
        if any(case.label for case in listing.cases):
            evidence = f"imagesTr/CASE_0000 with labelsTr/CASE, {len(numbers)} channel(s), no dataset.json"
            yield Candidate("an nnU-Net raw dataset", evidence, description, listing, False)
    for scheme in find_pairs(volumes, _SCAN):
        yield _pairs_candidate(name, scheme, folder, "pairs", "pairs of volumes")
    for scheme in find_pairs(pictures, _PICTURE):
        yield _pairs_candidate(name, scheme, folder, "png", "pairs of 2D pictures")


def _bids_candidates(folder: Path, volumes: Sequence[str]) -> Iterator[Candidate]:
    """Yield a candidate for each kind of label map."""
    for kind in bids.find_label_kinds(volumes):
        endings = bids.find_channels(volumes, kind.cases)
        channels = {
            ending.strip("_"): {
                "modality": "CT"
                if ending.endswith(bids.CT_ENDINGS)
                else modality_of(ending.rpartition("_")[2]),
                "endings": [ending],
            }
            for ending in endings
        }
        if channels:
            files = kind.patterns.to_dict()
            name = plain_name(folder.absolute().name)
            description = _draft(name, "bids", channels=channels, files=files, patient=bids.PATIENT)
            listing = scan_folder(description, folder)
            yield Candidate("BIDS", f"sub-*{', '.join(endings)} with {kind}", description, listing, False)


def _pairs_candidate(name: str, scheme: NamingScheme, folder: Path, layout: str, what: str) -> Candidate:
    """Return the candidate for pairs of files, with the layout's default patterns if they find all pairs."""
    if not scheme.channels:
        default = _draft(name, layout)
        listing = scan_folder(default, folder)
        found = {(path, case.label) for case in listing.cases for path in case.images.values()}
        if found.issuperset(scheme.pairs):
            return Candidate(what, scheme.evidence, default, listing, False)
    channels = {each: {"modality": modality_of(each), "endings": [each]} for each in scheme.channels}
    files = scheme.patterns.to_dict()
    described = _draft(name, layout, files=files, channels=channels or _UNKNOWN["channels"])
    return Candidate(what, scheme.evidence, described, scan_folder(described, folder), False)


def _draft(name: str, layout: str, **others: Any) -> Description:
    return Description.parse({**_UNKNOWN, "name": name, "layout": layout, **others}, where=name)


def _has_dataset_name(description: Description, listing: Listing) -> bool:
    """Return whether label files contain the description's name, since its patterns may fit any dataset."""
    return any(description.name in (case.label or "") for case in listing.cases)


def _example(listing: Listing) -> str:
    """Return the file names of the first labelled case as evidence."""
    if not listing.cases:
        return ""
    case = next((case for case in listing.cases if case.label), listing.cases[0])
    names = [PurePosixPath(path).name for path in dict.fromkeys((*case.images.values(), case.label)) if path]
    return f"files such as {', '.join(names)}"


def _names(folder: Path) -> list[str]:
    """Return the sorted names of a folder's files; an empty list if it does not exist."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
