"""The folder of the scans, and files below it by their relative paths."""

import os
import re
from pathlib import Path

from medunet.base.errors import InputError
from medunet.records.description import Description
from medunet.records.manifest import Case

DATA_ROOT_VARIABLE = "MEDUNET_DATA_ROOT"
_LONGEST_NAME_BYTES = 255  # of a file, on all common disks


def can_be_path(text: str) -> bool:
    """Say whether a text can be a path at all: no part of it is too long for a disk, and it has no zero byte."""
    longest = max(map(len, re.split(rb"[/\\]", text.encode(errors="surrogatepass"))))
    return "\0" not in text and longest <= _LONGEST_NAME_BYTES


def data_root_from(option: Path | None) -> Path:
    """Return the data root: the `--data-root` given, else the environment variable MEDUNET_DATA_ROOT.

    Raises:
        InputError: neither is given, or it is no folder.
    """
    text = option or os.environ.get(DATA_ROOT_VARIABLE)
    if not text:
        raise InputError(
            "no data root is given", hint=f"Add --data-root FOLDER or set {DATA_ROOT_VARIABLE} to it."
        )
    if not Path(text).is_dir():
        source = "--data-root" if option else DATA_ROOT_VARIABLE
        raise InputError("the data root is no folder", where=str(text), hint=f"Check {source}.")
    return Path(text)


def place_below(path: Path, data_root: Path) -> str | None:
    """Return where a path lies below the data root, as POSIX; None where it leads out, itself or through a link.

    A path that runs through links within the data root keeps its own name.
    """
    if not can_be_path(str(path)):
        return None
    # Not `Path.resolve`: some versions of Python raise where a link leads to itself.
    real, real_root = Path(os.path.realpath(path)), Path(os.path.realpath(data_root))
    if not real.is_relative_to(real_root):
        return None
    own, root = path.absolute(), data_root.absolute()
    if ".." not in own.parts and own.is_relative_to(root):
        return own.relative_to(root).as_posix()
    return real.relative_to(real_root).as_posix()


def case_paths(case: Case, description: Description, data_root: Path) -> tuple[list[Path], Path | None]:
    """Return a case's image paths, one for each channel in the description's order, and its label's path.

    Raises:
        InputError: a path leads out of the data root, itself or through a link.
    """
    images = [file_path(case.images[name], data_root, f"case {case.id}") for name in description.channels]
    label = None if case.label is None else file_path(case.label, data_root, f"case {case.id}")
    return images, label


def file_path(relative: str, data_root: Path, where: str) -> Path:
    """Return the path of a file below the data root.

    Raises:
        InputError: it leads out of the data root, itself or through a link.
    """
    path = data_root / relative
    if Path(relative).is_absolute() or place_below(path, data_root) is None:
        raise InputError(
            f"the path {relative} leads out of the data root",
            where=where,
            hint="Move or copy the file into the data root, or choose a root that holds it.",
        )
    return path
