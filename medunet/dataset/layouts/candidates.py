"""Find the layouts that a folder may have: by a list of cases in it or, without one, by file names."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import InputError
from medunet.dataset.layouts import bids
from medunet.dataset.layouts.case_tables import lists_images, read_table
from medunet.dataset.layouts.datalists import has_cases
from medunet.dataset.layouts.dataset_json import modality_of, plain_name
from medunet.dataset.layouts.folder_pairs import NamingScheme, find_pairs
from medunet.dataset.layouts.list_candidates import (
    UNKNOWN,
    Candidate,
    file_names,
    json_candidate,
    listed_candidate,
)
from medunet.dataset.layouts.patterns import Listing, scan_folder, walk_files
from medunet.imaging.formats import PICTURES, SCANS, endings_of, expression_of, format_of
from medunet.records.description import Description

_SCAN, _PICTURE = expression_of(SCANS), expression_of(PICTURES)
_USUAL_SCAN = expression_of(
    each for each in SCANS if each.ending != ".hdr"
)  # as in descriptions of earlier runs
_NAMED = ("brats", "brats2023", "lits")  # layouts whose file names identify the dataset


def find_candidates(folder: Path, shipped: Sequence[Description], rejected: list[str]) -> list[Candidate]:
    """Return the layouts that a folder may have, without those whose files are all covered by an earlier one.

    Tables that cannot be used as lists of cases are appended to `rejected`, with the reason.

    Raises:
        InputError: the folder has a `dataset.json` or a table of images and labels that cannot be used.
    """
    listed = []
    if (folder / "dataset.json").is_file():
        if found := json_candidate(folder):
            return [found]
        rejected.append("dataset.json names neither cases nor channels")
    for path in (folder / name for name in file_names(folder) if name.lower().endswith(".json")):
        try:
            is_list = path.is_file() and has_cases(path)
        except InputError as error:
            rejected.append(str(error).replace(str(path), path.name))
            continue
        if is_list:
            listed.append(listed_candidate(path, folder))
    for path in (folder / name for name in file_names(folder) if name.lower().endswith((".csv", ".tsv"))):
        try:
            table = read_table(path, path.name)
        except InputError as error:
            rejected.append(str(error))
            continue
        if table is not None and "label" in table.rows[0]:
            listed.append(listed_candidate(path, folder))
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
    images = [path for path in volumes if path.startswith("imagesTr/")]
    if 2 * sum(bool(re.search(r"_\d{4}\.", path)) for path in images) > len(images):
        channels = {f"channel_{n}": {"modality": "other", "endings": [f"_{n:04d}"]} for n in sorted(numbers)}
        description = _draft(name, "nnunet", channels=channels)
        listing = scan_folder(description, folder)
        if any(case.label for case in listing.cases):
            evidence = f"imagesTr/CASE_0000 with labelsTr/CASE, {len(numbers)} channel(s), no dataset.json"
            yield Candidate("an nnU-Net raw dataset", evidence, description, listing, False)
    paired = any(format_of(PurePosixPath(path)).ending == ".hdr" for path in volumes)
    for scheme in find_pairs(volumes, _SCAN if paired else _USUAL_SCAN):
        yield _pairs_candidate(name, scheme, folder, "pairs", "pairs of volumes")
    for scheme in find_pairs(pictures, _PICTURE):
        yield _pairs_candidate(name, scheme, folder, "png", "pairs of 2D pictures")


def _bids_candidates(folder: Path, volumes: Sequence[str]) -> Iterator[Candidate]:
    """Yield a candidate for each kind of label map."""
    for kind in bids.find_label_kinds(volumes):
        endings, notes = bids.find_channels(volumes, kind.cases)
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
            evidence = f"sub-*{', '.join(endings)} with {kind}"
            yield Candidate("BIDS", evidence, description, listing, False, tuple(notes))


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
    described = _draft(name, layout, files=files, channels=channels or UNKNOWN["channels"])
    return Candidate(what, scheme.evidence, described, scan_folder(described, folder), False)


def _draft(name: str, layout: str, **others: Any) -> Description:
    return Description.parse({**UNKNOWN, "name": name, "layout": layout, **others}, where=name)


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
