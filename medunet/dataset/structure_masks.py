"""Merge one mask for each structure, such as TotalSegmentator's, into one label map for each case."""

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from medunet.base.errors import DataError, InputError
from medunet.base.files import atomic_write, write_text
from medunet.base.pool import Lost, choose_workers, run_parallel
from medunet.base.progress import track
from medunet.base.words import list_some
from medunet.dataset.layouts.dataset_json import has_sides, modality_of, plain_name
from medunet.dataset.layouts.file_contents import guess_modality
from medunet.dataset.layouts.folder_pairs import IMAGE_FILES
from medunet.dataset.layouts.patterns import stem, walk_files
from medunet.imaging.formats import SCANS, endings_of, files_of
from medunet.imaging.volumes import describe_other_grid, read_header, read_label, write_mask
from medunet.records.description import Description, load_description

DESCRIPTION = "dataset.yaml"
MERGE_FIRST = (
    "Merge them into one label map for each case with `medunet merge-masks FOLDER OUT` (--labels liver,spleen for "
    "some), then run `medunet manifest OUT/dataset.yaml --data-root OUT --run RUN`."
)
_MOST_LABELS = 255
_MOST_MISSING = 5  # structures of a case that are named


@dataclass(frozen=True)
class StructureCase:
    """The image of a case and the mask of each structure, as paths relative to the folder."""

    id: str
    image: str
    masks: dict[str, str]


@dataclass(frozen=True)
class Merged:
    """The description of the merged dataset, the number of cases written, and why others were not, by case id."""

    description: Description
    num_written: int
    failed: dict[str, str]
    overlaps: Counter[str]  # voxels of two structures, by the pair's text
    left_out: tuple[str, ...]  # volumes that are neither image nor mask of a case


def find_structure_cases(paths: Sequence[str]) -> list[StructureCase]:
    """Return the cases whose masks are in files named after structures, beside their image or in one sub-folder.

    `s0001/ct.nii.gz` with `s0001/segmentations/liver.nii.gz` and so on; empty unless at least two structures occur,
    each in at least two cases if there are several.
    """
    folders: dict[PurePosixPath, list[str]] = defaultdict(list)
    for path in paths:
        folders[PurePosixPath(path).parent].append(path)
    below: dict[PurePosixPath, list[PurePosixPath]] = defaultdict(list)
    for folder in folders:
        below[folder.parent].append(folder)
    cases = []
    for folder, files in folders.items():
        images = [path for path in files if stem(path).casefold() in IMAGE_FILES]
        subfolders = [each for each in below[folder] if each != folder]
        if len(images) != 1 or len(subfolders) > 1:
            continue
        masks = folders[subfolders[0]] if subfolders else [path for path in files if path not in images]
        named = {stem(path): path for path in masks}
        if len(named) == len(masks) > 0:
            cases.append(StructureCase("_".join(folder.parts) or "case", images[0], named))
    counts = Counter(name for case in cases for name in case.masks)
    usual = {name for name, count in counts.items() if count > 1 or len(cases) == 1}
    return cases if len(usual) > 1 else []


def describe_structures(paths: Sequence[str]) -> str:
    """Describe a folder of one mask for each structure; "" if it is none."""
    cases = find_structure_cases(paths)
    if not cases:
        return ""
    names = sorted({name for case in cases for name in case.masks})
    shown = list_some(names, _MOST_MISSING)
    return f"holds one mask for each of {len(names)} structures ({shown}), in {len(cases)} case(s)"


def merge_structures(
    folder: Path, out: Path, names: Sequence[str] = (), *, workers: int | None = None
) -> Merged:
    """Write images/CASE, labels/CASE.nii.gz and a description for `medunet manifest` into a new folder.

    Images are linked or copied. Labels have TotalSegmentator's values if all structures are its own, otherwise 1, 2,
    ... in the order of the names. Where masks overlap, a case fails, unless `names` gives the order: later structures
    then overwrite earlier ones.

    Args:
        names: structures to merge; () for all, in alphabetical order.
        workers: number of processes; None for as many as cores and memory allow.

    Raises:
        InputError: there are no such cases or structures, or the folder `out` is not empty.
    """
    volumes = [path for path in sorted(walk_files(folder)) if path.lower().endswith(endings_of(SCANS))]
    cases = find_structure_cases(volumes)
    known = sorted({name for case in cases for name in case.masks})
    if not cases:
        raise InputError(
            "has no cases with an image and masks named after structures",
            where=folder.absolute().name,
            hint="Expected are files such as CASE/ct.nii.gz with CASE/segmentations/liver.nii.gz and so on.",
        )
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"no case has a mask of {', '.join(unknown)}",
            where="--labels",
            hint=f"Choose from: {', '.join(known)}.",
        )
    chosen = list(dict.fromkeys(names or known))
    if len(chosen) > _MOST_LABELS:
        raise InputError(
            f"{len(chosen)} structures, but a label map holds {_MOST_LABELS}",
            hint="Choose some with --labels.",
        )
    if out.exists() and (not out.is_dir() or any(path.name[0] != "." for path in out.iterdir())):
        raise InputError("is not empty", where=str(out), hint="Give a new folder.")
    if out.absolute().resolve().is_relative_to(folder.resolve()):
        raise InputError("is within the folder of the masks", where=str(out), hint="Give another folder.")
    description = _describe(folder, cases, chosen)
    values = {name: description.labels[name] for name in chosen}
    unfinished = out / ".unfinished"  # so that a killed call leaves nothing that seems to be a dataset
    shutil.rmtree(unfinished, ignore_errors=True)
    merge = partial(_merge_case, folder=folder, out=unfinished, values=values, ordered=bool(names))
    first = read_header(folder / cases[0].image)
    num_workers = workers or choose_workers(len(cases), int(np.prod(first.shape)))
    failed: dict[str, str] = {}
    overlaps: Counter[str] = Counter()
    results = run_parallel(merge, cases, num_workers)
    for _ in track(cases, "Merge masks"):
        index, result = next(results)
        if isinstance(result, Counter):
            overlaps += result
        else:
            failed[cases[index].id] = result.why if isinstance(result, Lost) else result
    if len(failed) < len(cases):
        plain = description.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        text = yaml.safe_dump({"schema": description.schema_, **plain}, sort_keys=False, allow_unicode=True)
        for name in ("images", "labels"):
            (unfinished / name).replace(out / name)
        write_text(out / DESCRIPTION, text)
    shutil.rmtree(unfinished, ignore_errors=True)
    used = {path for case in cases for path in (case.image, *case.masks.values())}
    left_out = tuple(path for path in volumes if path not in used)
    return Merged(description, len(cases) - len(failed), dict(sorted(failed.items())), overlaps, left_out)


def _describe(folder: Path, cases: Sequence[StructureCase], names: Collection[str]) -> Description:
    """Return the description of the merged label maps."""
    known = load_description("totalsegmentator").labels
    values = known if set(names) <= known.keys() else {name: number for number, name in enumerate(names, 1)}
    modality = modality_of(stem(cases[0].image))
    if modality == "other":
        modality, _ = guess_modality([folder / case.image for case in cases])
    return Description.parse(
        {
            "name": plain_name(folder.absolute().name),
            "layout": "pairs",
            "channels": {modality: {"modality": modality}},
            "labels": {"background": 0, **{name: values[name] for name in names}},
            "sided": has_sides(set(names)),
        },
        where=folder.absolute().name,
    )


def _merge_case(
    case: StructureCase, *, folder: Path, out: Path, values: dict[str, int], ordered: bool
) -> Counter[str] | str:
    """Write one case; return the number of voxels by pair of overlapping structures, or why it cannot be written."""
    if missing := [name for name in values if name not in case.masks]:
        return f"no mask of {list_some(missing, _MOST_MISSING)}"
    image = folder / case.image
    if len(files_of(image)) > 1 or image.suffix.lower() in (".mhd", ".hdr"):
        return f"{case.image} has its voxels in another file: convert it to .nii.gz"
    try:
        like = read_header(image)
        merged = np.zeros(like.shape[:3], np.uint8)
        overlaps: Counter[str] = Counter()
        for name, value in values.items():
            mask = read_label(folder / case.masks[name])
            if describe_other_grid(mask.header, like):
                return f"{case.masks[name]} is not on the grid of {case.image}"
            inside = mask.array > 0
            if (present := np.unique(mask.array[inside])).size > 1:
                return (
                    f"{case.masks[name]} has {present.size} values above 0, up to {present[-1]}, where a mask has "
                    "one; save it as 0 and 1 (if it was interpolated, resample the original by nearest neighbour)"
                )
            for other, count in zip(*np.unique(merged[inside], return_counts=True), strict=True):
                if other:
                    first = next(each for each, known in values.items() if known == other)
                    overlaps[f"{first} and {name}"] += int(count)
            merged[inside] = value
        if overlaps and not ordered:
            shown = ", ".join(
                f"{pair} in {count} voxels" for pair, count in overlaps.most_common(_MOST_MISSING)
            )
            return f"masks overlap: {shown}; give their order with --labels, where later ones overwrite earlier ones"
        ending = image.name[len(stem(image.name)) :]
        _link(image, out / "images" / f"{case.id}{ending}")
        write_mask(out / "labels" / f"{case.id}.nii.gz", merged, like)
    except (DataError, InputError) as error:
        return str(error)
    return overlaps


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where the disk has no links between the two folders."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        with atomic_write(target) as temporary:
            shutil.copyfile(source, temporary)
