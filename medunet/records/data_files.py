"""Separate files that hold the voxels of a header file (MetaImage, NRRD, .hdr and .img), and where they may lie.

A header is text from outside: it may name any file of the computer. Only files in the header's own folder or below it
are read.
"""

import os
import re
from pathlib import Path, PurePath

_HEADER_BYTES = 1 << 20  # a longer list of data files is not read
_META_IMAGE, _NRRD = (".mhd", ".mha"), (".nrrd", ".nhdr")
_META_FIELD = re.compile(r"^\s*ElementDataFile\s*[=:]\s*(.*?)\s*$")
_NRRD_FIELD = re.compile(r"^\s*data ?file\s*:\s*(.*?)\s*$", re.IGNORECASE)
_NUMBER = re.compile(r"%0?\d*d")


def data_files(path: Path) -> list[Path]:
    """Return the separate files that hold the voxels of a file, as its header names them; [] if it has none.

    Of a numbered series (`slice%03d.raw 1 60 1`) the files that exist are returned. The file itself may be missing or
    of another kind.
    """
    return [path.parent / name for name in _names(path)]


def count_listed_slices(path: Path) -> int:
    """Return the number of files of a MetaImage whose header lists one for each slice; 0 if it does not."""
    if not path.name.lower().endswith(_META_IMAGE):
        return 0
    with path.open("rb") as stream:
        start = os.fsdecode(stream.read(_HEADER_BYTES))
    return len(_names(path)) if re.search(r"^\s*ElementDataFile\s*[=:]\s*LIST\s*$", start, re.M) else 0


def outside_data_file(path: Path, root: Path | None = None) -> str:
    """Describe a separate data file that lies where none may be read; "" if there is none.

    Its name must be relative and without "..", so that it is in the header's folder or below. Links are resolved: the
    file must then be below `root`; without a root, in the header's folder or below, unless the header is a link, too.
    """
    for name in _names(path):
        pure = PurePath(name)
        if pure.is_absolute() or name == "-":
            return f"its voxels would be read from an absolute path, to {pure.name}"
        if ".." in pure.parts:
            return f"its voxels would be read from {name}, outside its folder"
        real = os.path.realpath(path.parent / name)
        if root is None and path.is_symlink():
            continue
        if not PurePath(real).is_relative_to(os.path.realpath(root or path.parent)):
            return f"its voxels would be read from {name}, a link to a file outside " + (
                "its folder" if root is None else "the data root"
            )
    return ""


def _names(path: Path) -> list[str]:
    """Return the names of the separate data files, as they are written in the header."""
    plain = path.name.lower()
    if re.search(r"\.(hdr|img)(\.gz)?$", plain):
        other = re.sub(r"\.(hdr|img)(?=(\.gz)?$)", _other_of_pair, path.name, flags=re.IGNORECASE)
        return [other]
    if not plain.endswith((*_META_IMAGE, *_NRRD)):
        return []
    try:
        with path.open("rb") as stream:
            start = stream.read(_HEADER_BYTES)
    except OSError:  # reported by the reader
        return []
    lines = [line.removesuffix("\r") for line in os.fsdecode(start).split("\n")]
    field = _META_FIELD if plain.endswith(_META_IMAGE) else _NRRD_FIELD
    for number, line in enumerate(lines):
        if plain.endswith(_NRRD) and not line:  # the voxels follow
            return []
        if match := field.match(line):
            return _listed(match[1], lines[number + 1 :], path)
    return []


def _listed(value: str, following: list[str], path: Path) -> list[str]:
    if not value or value.upper() == "LOCAL":
        return []
    if re.match(r"LIST\b", value):
        return [line.strip() for line in following if line.strip()]
    number_format = _NUMBER.search(value)
    if number_format is None:
        return [value]
    pattern, *numbers = value.split()
    try:
        first, last, *others = (int(number) for number in numbers[:3])
        chosen = range(first, last + 1, others[0] if others else 1)[:100_000]
    except ValueError:
        return [pattern]
    names = [_NUMBER.sub(number_format[0] % number, pattern) for number in chosen]
    return [name for name in names if (path.parent / name).exists()] or [pattern]


def _other_of_pair(match: re.Match[str]) -> str:
    """Return the ending of the other file of a pair, in capitals if this one's is."""
    other = ".img" if match[1].lower() == "hdr" else ".hdr"
    return other.upper() if match[1].isupper() else other
