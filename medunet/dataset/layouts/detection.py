"""Recognise the layout of a dataset folder and complete its description from a sample of the files."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medunet.base.errors import InputError
from medunet.base.words import list_some
from medunet.dataset.layouts.candidates import find_candidates
from medunet.dataset.layouts.dataset_json import number_labels
from medunet.dataset.layouts.file_contents import count_frames, guess_modality, read_label_values
from medunet.dataset.layouts.list_candidates import Candidate, listed_candidate
from medunet.dataset.layouts.patterns import IMPORT_FIRST, Listing, walk_files
from medunet.dataset.manifest import list_cases
from medunet.dataset.structure_masks import MERGE_FIRST, describe_structures
from medunet.imaging.formats import SCANS, expression_of, files_of
from medunet.records.data_root import file_path
from medunet.records.description import Description

_IMPORTED = r"^(p\d{4,})_s\d{2,}"  # case ids of dicom/pseudonyms.py
_DICOM_MAGIC = b"DICM"
_SCAN = expression_of(SCANS)
_MAX_SUBFOLDERS = 50
_MAX_SHOWN = 12


@dataclass(frozen=True)
class Recognised:
    """The layout that was recognised, the evidence, and the description; `left_out` counts other files by reason."""

    what: str
    evidence: str
    description: Description
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def recognise(place: Path, data_root: Path, shipped: Sequence[Description]) -> Recognised:
    """Recognise the layout of a folder or a CSV of cases and make its description.

    A `dataset.json` or a CSV of paths is used first; without one, file names are matched, known datasets before plain
    pairs. Labels that are not named anywhere are read from a sample of label files and named after their values.

    Args:
        place: the folder, or a CSV within the data root.
        data_root: the folder that the CSV's paths are relative to; not used for a folder.
        shipped: the descriptions known by name.

    Raises:
        InputError: no layout or more than one matches; the message says what was found and how to proceed.
    """
    rejected_tables: list[str] = []
    if place.is_file():
        candidates = [listed_candidate(place, data_root)]
    else:
        candidates = find_candidates(place, shipped, rejected_tables)
    if not candidates:
        raise _unrecognised(place, shipped, rejected_tables)
    if len(candidates) > 1:
        ways = "; ".join(f"{each.what} ({each.evidence}; {each.count})" for each in candidates)
        raise InputError(
            f"can be read in {len(candidates)} ways: {ways}",
            where=place.absolute().name,
            hint="Give the folder or CSV of one of them, or a description (YAML) whose `files` say which to use.",
        )
    return _complete(candidates[0], data_root if place.is_file() else place, shipped)


def _complete(candidate: Candidate, data_root: Path, shipped: Sequence[Description]) -> Recognised:
    """Complete a candidate's description with labels and channels read from a sample of the files."""
    description, notes = candidate.description, list(candidate.notes)
    cases = candidate.listing.cases
    labels = [file_path(case.label, data_root, f"case {case.id}") for case in cases if case.label is not None]
    if not candidate.complete:
        if not labels:
            raise InputError(
                f"is {candidate.what} ({candidate.evidence}), but without labels",
                where=data_root.absolute().name,
                hint="Add the label maps (to a table, as a column 'label'), or describe the dataset in a YAML file.",
            )
        plain = description.to_dict()
        if not candidate.labels_named:
            plain |= _read_labels(labels, notes)
        plain["channels"] = _read_channels(candidate, data_root, notes)
        if not description.patient and all(re.match(_IMPORTED, case.id) for case in cases):
            plain["patient"] = _IMPORTED
            notes.append("cases named by `medunet import-dicom`: the part before _s is the patient")
        description = Description.parse(plain, where=candidate.what)
        notes.append(
            "to name labels and channels: write the description with --describe FILE.yaml, name them there, and "
            "give FILE.yaml instead of the folder"
        )
    if description.stored_values:
        notes.append(
            f"labels are renumbered, since values must be in 0..255: {_renumbering_text(description)}"
        )
    listing = list_cases(description, data_root)
    notes += _suggest_shipped(description, listing, shipped)
    return Recognised(
        candidate.what,
        f"{candidate.evidence}; {candidate.count}",
        description,
        _left_out(listing, data_root),
        tuple(notes),
    )


def _read_labels(labels: Sequence[Path], notes: list[str]) -> dict[str, Any]:
    """Return the labels, named by the files or after the values in them, and whether these number objects."""
    found = read_label_values(labels)
    notes += [f"{name} cannot be read: see `medunet check`" for name in found.unreadable]
    notes += [f"{name} was interpolated: see `medunet check`" for name in found.interpolated]
    values = found.names or {f"label_{value}": value for value in found.values}
    named = number_labels({"background": 0} | {name: value for name, value in values.items() if value})
    note = f"labels by {found}"
    if found.instances:
        named = {"labels": {"background": 0, "object": 1}}
        note = f"values number the objects of one label: {found}"
    notes.append(note)
    return {**named, "instances": found.instances}


def _renumbering_text(description: Description) -> str:
    """Return the renumbering as "liver 1000 → 1, tumour 2500 → 2"."""
    pairs = [
        (name, value, stored)
        for name, value in description.labels.items()
        for stored in description.stored_as(name)
    ]
    shown = [f"{name} {stored} → {value}" for name, value, stored in pairs if stored != value]
    return list_some(shown, _MAX_SHOWN)


def _read_channels(candidate: Candidate, data_root: Path, notes: list[str]) -> dict[str, Any]:
    """Return the channels with a modality for each, named by file endings or columns if there are any."""
    description = candidate.description
    channels = {name: channel.to_dict() for name, channel in description.channels.items()}
    if description.layout != "png":
        if list(channels) == ["image"]:
            files = _image_files(candidate, "image", data_root)
            modality, why = guess_modality(files)
            notes.append(f"images {why}")
            count = count_frames(files)
            names = [modality] if count == 1 else [f"channel_{number}" for number in range(count)]
            return {name: {"modality": modality} for name in names}
        for name, channel in channels.items():
            if channel["modality"] == "other":
                files = _image_files(candidate, name, data_root)
                if not any(file.exists() for file in files):
                    raise InputError(
                        f"none of the {len(files)} files of channel {name} exists, such as {files[0].name}",
                        where=candidate.description.table or candidate.what,
                        hint="Correct the paths. If it holds remarks that name files, remove it.",
                    )
                channel["modality"], why = guess_modality(files)
                notes.append(f"channel {name} {why}")
        return channels
    if list(channels) != ["image"]:
        return channels
    count = count_frames(_image_files(candidate, "image", data_root))
    colours = ("red", "green", "blue") if count == 3 else ("grey",)
    return {name: {"modality": "other"} for name in colours}


def _image_files(candidate: Candidate, channel: str, data_root: Path) -> list[Path]:
    """Return the files of a channel; raise an InputError if any is outside the data root."""
    return [file_path(case.images[channel], data_root, f"case {case.id}") for case in candidate.listing.cases]


def _suggest_shipped(
    description: Description, listing: Listing, shipped: Sequence[Description]
) -> Iterator[str]:
    """Yield a hint for each shipped description that fits the case names and label values."""
    values, ids = set(description.labels.values()), [case.id for case in listing.cases]
    for other in shipped:
        fits = ids and other.patient and all(re.fullmatch(other.patient, name) for name in ids)
        if other.layout == "msd" and fits and values <= set(other.labels.values()):
            yield f"`medunet manifest {other.name}` fits these case names; its labels are {list(other.foreground)}"


def _left_out(listing: Listing, data_root: Path) -> tuple[str, ...]:
    """Count the unmatched files by reason, and files of other types by ending."""
    known = listing.paths | {item.path for item in listing.unmatched}
    known |= {file.relative_to(data_root).as_posix() for path in known for file in files_of(data_root / path)}
    reasons = Counter(item.reason for item in listing.unmatched)
    kinds = Counter(
        f"of type {PurePosixPath(path).suffix.lower() or 'without ending'}"
        for path in walk_files(data_root)
        if path not in known
    )
    return tuple(f"{count} {reason}" for reason, count in (*reasons.most_common(), *kinds.most_common(8)))


def _unrecognised(folder: Path, shipped: Sequence[Description], rejected: Sequence[str]) -> InputError:
    """Return the error for a folder that fits no layout, with the tables that were rejected as lists of cases."""
    name, paths = folder.absolute().name, sorted(walk_files(folder))
    volumes = [path for path in paths if re.search(f"{_SCAN}$", path)]
    if series := {str(PurePosixPath(path).parent) for path in paths if _is_dicom(folder / path)}:
        return InputError(f"holds DICOM files in {len(series)} folder(s)", where=name, hint=IMPORT_FIRST)
    below = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    known = [text for child in below[:_MAX_SUBFOLDERS] if (text := _describe_subfolder(child, shipped))]
    if known:
        return InputError(
            f"is not a dataset, but folders in it are: {', '.join(known)}",
            where=name,
            hint="Give one of them.",
        )
    if rejected:
        return InputError(
            f"has no layout that is recognised, and its tables cannot be used: {'; '.join(rejected)}",
            where=name,
            hint="Correct the table that lists the cases: columns case, image (or one for each channel) and label.",
        )
    if structures := describe_structures(volumes):
        return InputError(structures, where=name, hint=MERGE_FIRST)
    kinds = Counter(PurePosixPath(path).suffix.lower() or "no ending" for path in paths)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MAX_SHOWN))
    examples = f", such as {', '.join(volumes[:4] or paths[:4])}" if paths else ""
    if paths and not volumes:
        examples = f" ({counts}){examples}"
    return InputError(
        f"has no layout that is recognised: {len(volumes)} volumes among {len(paths)} files{examples}",
        where=name,
        hint="Put images and labels with the same names into images/ and labels/ (.nii.gz, .nrrd, .mha; PNG, TIFF), "
        "list their paths in a CSV (case, image, label), or describe the dataset in a YAML file.",
    )


def _describe_subfolder(folder: Path, shipped: Sequence[Description]) -> str:
    """Return a sub-folder's name with its layout; "" if none is recognised."""
    try:
        found = find_candidates(folder, shipped, [])
    except InputError as error:
        return f"{folder.name} (which cannot be used: {error})"
    return f"{folder.name} ({found[0].what})" if found else ""


def _is_dicom(path: Path) -> bool:
    if not (path.is_file() and os.access(path, os.R_OK)):  # such as a dangling link
        return False
    with path.open("rb") as stream:
        return stream.read(132)[128:] == _DICOM_MAGIC
