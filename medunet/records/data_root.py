"""The data root, which is the folder of the scans, and safe paths of files below it."""

import os
import re
from pathlib import Path

from medunet.base.errors import InputError
from medunet.records.data_files import outside_data_file
from medunet.records.description import Description
from medunet.records.manifest import Case

DATA_ROOT_VARIABLE = "MEDUNET_DATA_ROOT"
_LONGEST_NAME_BYTES = 255  # of a file or folder, on all common file systems


def can_be_path(text: str) -> bool:
    """Return whether a text is usable as a path: no component is too long, and it has no null byte."""
    longest = max(map(len, re.split(rb"[/\\]", text.encode(errors="surrogatepass"))))
    return "\0" not in text and longest <= _LONGEST_NAME_BYTES


def resolve_data_root(option: Path | None) -> Path:
    """Return the data root from the option `--data-root` or the environment variable MEDUNET_DATA_ROOT.

    Raises:
        InputError: Neither is given, or the path is not a folder.
    """
    text = option or os.environ.get(DATA_ROOT_VARIABLE)
    if not text:
        raise InputError(
            "no data root is given", hint=f"Add --data-root FOLDER or set {DATA_ROOT_VARIABLE} to it."
        )
    if not Path(text).is_dir():
        source = "--data-root" if option else DATA_ROOT_VARIABLE
        raise InputError("the data root is not a folder", where=str(text), hint=f"Check {source}.")
    return Path(text)


def path_in_data_root(path: Path, data_root: Path) -> str | None:
    """Return a path relative to the data root, in POSIX form; None if it is outside, also through a link.

    Links within the data root are not resolved.
    """
    if not can_be_path(str(path)):
        return None
    # Not `Path.resolve`: some versions of Python raise if a link points to itself.
    real, real_root = Path(os.path.realpath(path)), Path(os.path.realpath(data_root))
    if not real.is_relative_to(real_root):
        return None
    own, root = path.absolute(), data_root.absolute()
    if ".." not in own.parts and own.is_relative_to(root):
        return own.relative_to(root).as_posix()
    return real.relative_to(real_root).as_posix()


def case_paths(case: Case, description: Description, data_root: Path) -> tuple[list[Path], Path | None]:
    """Return the image paths of a case, one per channel in the description's order, and its label path or None.

    Raises:
        InputError: A path is outside the data root, also through a link.
    """
    images = [file_path(case.images[name], data_root, f"case {case.id}") for name in description.channels]
    label = None if case.label is None else file_path(case.label, data_root, f"case {case.id}")
    return images, label


def file_path(relative: str, data_root: Path, where: str) -> Path:
    """Return the path of a file below the data root.

    Raises:
        InputError: The path is outside the data root, also through a link; or its header names a data file that is.
    """
    path = data_root / relative
    shown = (
        Path(relative).name if Path(relative).is_absolute() else relative
    )  # reports must not hold local paths
    if Path(relative).is_absolute() or path_in_data_root(path, data_root) is None:
        raise InputError(
            f"the path {shown} is outside the data root",
            where=where,
            hint="Move or copy the file into the data root, or choose a data root that contains it.",
        )
    if outside := outside_data_file(path, data_root):
        raise InputError(
            f"the path {shown} leads outside the data root: {outside}",
            where=where,
            hint="Put the data file beside its header and name it there without a folder, or save both as one file.",
        )
    return path
