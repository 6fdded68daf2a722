"""The cases behind masks of any tool: their images by name, and one folder that all paths are relative to."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.words import list_some
from medunet.dataset.layouts.patterns import channel_endings
from medunet.imaging.formats import PICTURES, SCANS, endings_of, strip_ending
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.scoring.pairs import Pair

_ENDINGS = endings_of((*SCANS, *PICTURES))
_MAX_NAMED = 5


def cases_of_pairs(
    pairs: Sequence[Pair], description: Description, images: Path | None
) -> tuple[Path, dict[str, Case]]:
    """Return a folder that holds all files, and the cases with paths relative to it.

    A case has its images if the folder `images` has them all (see `find_images`), otherwise none.

    Raises:
        InputError: The folder does not exist, has two images of one name, or none of any case.
    """
    found = {} if images is None else find_images(images, [pair.case for pair in pairs], description)
    files = [pair.reference for pair in pairs] + [path for own in found.values() for path in own.values()]
    root = Path(os.path.commonpath([path.absolute().parent for path in files]))
    cases = {}
    for pair in pairs:
        cases[pair.case] = Case(
            id=pair.case,
            patient=description.patient_of(pair.case),
            site=description.site_of(pair.case),
            images={
                name: path.absolute().relative_to(root).as_posix()
                for name, path in found.get(pair.case, {}).items()
            },
            label=pair.reference.absolute().relative_to(root).as_posix(),
            split="test",
        )
    return root, cases


def find_images(folder: Path, cases: Sequence[str], description: Description) -> dict[str, dict[str, Path]]:
    """Return the images of cases by channel, found by name in a folder and its subfolders.

    An image is named as its case, with the ending of its channel in the description (or nnU-Net's _0000, _0001, ...)
    where there are several channels; a file named as the case itself holds all channels. Cases without an image for
    every channel are left out.

    Raises:
        InputError: The folder does not exist, has two images of one name, or none of any case.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=str(folder), hint="Give the folder of the images.")
    by_stem = _by_stem(
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".")
    )
    numbered = {name: f"_{number:04d}" for number, name in enumerate(description.channels)}
    described = {name: ending for ending, name in channel_endings(description).items()}
    found: dict[str, dict[str, Path]] = {}
    for case in cases:
        for endings in (described, numbered, dict.fromkeys(description.channels, "")):
            own = {name: by_stem.get(f"{case}{ending}", []) for name, ending in endings.items()}
            if own and all(own.values()):
                if twice := [paths for paths in own.values() if len(paths) > 1]:
                    raise InputError(
                        f"case {case} has several images: {list_some([path.name for path in twice[0]], _MAX_NAMED)}",
                        where=str(folder),
                        hint="Keep one of them.",
                    )
                found[case] = {name: paths[0] for name, paths in own.items()}
                break
    if not found:
        names = list_some(list(by_stem) or ["nothing"], _MAX_NAMED)
        raise InputError(
            f"no image is named like a case: {list_some(list(cases), _MAX_NAMED)} expected, {names} found",
            where=str(folder),
            hint="Name each image as its mask, with _0000, _0001, ... where there are several channels.",
        )
    return found


def _by_stem(paths: Iterable[Path]) -> Mapping[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in paths:
        found.setdefault(strip_ending(path.name), []).append(path)
    return found
