"""Packaged models: found by name or file, verified, and unpacked once into the user's cache folder."""

import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medunet.base.errors import DataError, InputError
from medunet.base.files import hash_file
from medunet.base.lock import wait_for
from medunet.base.user_folders import cache_folder, data_folder
from medunet.base.words import list_some
from medunet.dataset.archive_entries import BROKEN, broken, read_entries, refusal
from medunet.dataset.archives import Limits, unpack
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.package import PACKAGE_FILE, PACKAGE_NAME, Package

_log = logging.getLogger(__name__)
_LIMITS = Limits(num_files=1000, num_bytes=50_000_000_000, ratio=10.0)  # weights hardly shrink
_LARGEST_JSON = 1_000_000


def model_folders() -> list[Path]:
    """Return the folders in which models are named: the user's own, then the one that medunet ships."""
    own = data_folder("models")
    return [*([own] if own else []), Path(__file__).parents[1] / "models"]


def find_package(source: Path, folders: Sequence[Path] | None = None) -> Path | None:
    """Return the ZIP that a path or a model's name stands for; None if it stands for none.

    A path that exists comes before a name. `folders` are searched in order; None: `model_folders()`.

    Raises:
        InputError: it is the path of a ZIP that does not exist.
    """
    if source.suffix == ".zip":
        if not source.is_file():
            raise InputError(
                "no such file", where=str(source), hint="Check the path, or give a model's name."
            )
        return source
    if source.exists() or not re.fullmatch(PACKAGE_NAME, str(source)):
        return None
    for folder in model_folders() if folders is None else folders:
        if (path := folder / f"{source}.zip").is_file():
            return path
    return None


def find_models(source: Path, folders: Sequence[Path] | None = None) -> list[Path]:
    """Return the model folders of all members of a packaged model, given by its ZIP or its name.

    The package is verified (every SHA-256; no link, no path outside) and unpacked on first use.

    Raises:
        InputError: there is no such package, or no folder to unpack it to.
        DataError: it is broken, malicious, or not the content that package.json lists.
    """
    path = find_package(source, folders)
    if path is None:
        raise InputError(
            f"there is no model '{source}'",
            hint="Give a model folder, a run, a package (.zip), or a name that `medunet models` lists.",
        )
    folder, package = open_package(path)
    return [folder / member.folder for member in package.members]


def open_package(path: Path) -> tuple[Path, Package]:
    """Return the folder to which a package is unpacked, and its verified content.

    It is unpacked once, below the user's cache folder, and again if files there were changed.

    Raises:
        InputError: there is no home folder, or it cannot be written.
        DataError: as `find_models`.
    """
    cache = cache_folder("models")
    if cache is None:
        raise InputError(
            "there is no home folder to unpack it to", where=path.name, hint="Set XDG_CACHE_HOME."
        )
    sha256 = hash_file(path)
    folder = cache / sha256
    with wait_for(cache, "models"):  # a second command waits and finds it unpacked
        if folder.exists():
            try:
                return folder, verify_package(folder, path.name)
            except DataError as error:
                _log.warning(
                    f"The unpacked files of {path.name} were changed and are unpacked again: {error.what}"
                )
                shutil.rmtree(folder)

        verified: list[Package] = []

        def verify(content: Path) -> None:
            verified.append(verify_package(content, path.name))

        unpack(path, folder, cache / f".{sha256}.part", limits=_LIMITS, prepare=verify)
        return folder, verified[0]


def verify_package(folder: Path, name: str) -> Package:
    """Return the content of an unpacked package, after comparing every file with it.

    Raises:
        DataError: package.json or a model card cannot be used, files differ, are missing or are left over, or members
            have different channels or targets.
    """
    try:
        package = Package.read(folder / PACKAGE_FILE)
        cards = {each.folder: ModelCard.read(folder / each.folder / "model.json") for each in package.members}
    except InputError as error:
        raise _refused(name, f"{Path(error.where or '').name}: {error.what}") from error
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del found[PACKAGE_FILE]
    faults = [f"{each} is missing" for each in sorted(package.files.keys() - found.keys())]
    faults += [f"{each} is not listed" for each in sorted(found.keys() - package.files.keys())]
    faults += [
        f"{each} has another SHA-256"
        for each, path in sorted(found.items())
        if each in package.files and hash_file(path) != package.files[each]
    ]
    if different := describe_difference(cards):
        faults.append(different)
    if faults:
        raise _refused(name, list_some(faults, 3, "; "))
    return package


def describe_difference(cards: Mapping[str, ModelCard]) -> str:
    """Describe how models cannot be members of one package, whose masks are joined; "" if they can.

    They need the same channels and targets in the same order, with the same label values.
    """
    uses = {name: _use_of(card.description) for name, card in cards.items()}
    first, *others = uses or [""]
    faults = [
        f"{first} and {other} have different {what}"
        for other in others
        for what in uses[first]
        if uses[first][what] != uses[other][what]
    ]
    return "; ".join(faults)


def _use_of(description: Description) -> dict[str, list[Any]]:
    return {
        "channels": [(name, channel.modality) for name, channel in description.channels.items()],
        "labels": list(description.labels.items()),
        "regions": [(name, description.regions[name]) for name in description.region_order],
    }


def read_package(path: Path) -> Package:
    """Read the package.json of a ZIP, without unpacking it; its files are not verified.

    Raises:
        DataError: it is no package.
    """
    for entry in read_entries(path, _LARGEST_JSON):
        parts = entry.name.split("/")
        if parts[-1] == PACKAGE_FILE and len(parts) <= 2 and entry.kind == "file":
            try:
                with entry.open() as stream:
                    content = stream.read(_LARGEST_JSON)
                return Package.parse(json.loads(content), PACKAGE_FILE)
            except BROKEN as error:
                raise broken(path, error) from error
            except (ValueError, InputError) as error:
                text = error.what if isinstance(error, InputError) else str(error)
                raise _refused(path.name, f"{PACKAGE_FILE}: {text}") from error
    raise _refused(path.name, f"it holds no {PACKAGE_FILE}, and is no packaged model")


def _refused(name: str, why: str) -> DataError:
    return refusal(Path(name), why)
