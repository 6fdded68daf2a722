"""Unpacking an archive from elsewhere: tar (also .gz, .bz2, .xz) or zip, whole or not at all, and nowhere else.

An archive is a stranger's input. Names that lead out of the folder, links, devices, names that differ in case alone,
and archives beyond the limits are refused; its owners, modes and times are not taken over.
"""

import os
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import InputError
from medunet.dataset.archive_entries import BROKEN, Entry, broken, read_entries, refusal, too_large

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 1 << 28  # of the disk, left free
_SMALL_BYTES = 100_000_000  # below which no ratio is suspicious


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; the ratio is of unpacked to packed bytes, counted beyond 100 MB."""

    num_files: int = 500_000
    num_bytes: int = 1_000_000_000_000
    ratio: float = 100.0


def unpack(
    archive: Path,
    folder: Path,
    temporary: Path,
    *,
    limits: Limits = Limits(),
    prepare: Callable[[Path], None] = lambda content: None,
    advance: Callable[[int], None] = lambda num_bytes: None,
) -> None:
    """Unpack an archive into a new folder; a single folder at its top is left out of the paths.

    What macOS adds (`._x`, `.DS_Store`, `__MACOSX`) is left out.

    Args:
        temporary: where it is unpacked before it is renamed to `folder`, on the same disk; what is there is removed.
        prepare: called with the unpacked folder before it is renamed.
        advance: called with the number of bytes written since the last call.

    Raises:
        DataError: the archive is broken, hostile, or beyond the limits.
        InputError: the folder exists, cannot be written, or the disk is too full.
    """
    if folder.exists():
        raise InputError("is there already", where=str(folder), hint="Move it away first.")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        try:
            _write_entries(archive, temporary, limits, advance)
            content = [path for path in temporary.iterdir() if path.is_dir()]
            top = content[0] if len(list(temporary.iterdir())) == len(content) == 1 else temporary
            prepare(top)
            if hasattr(os, "sync"):
                os.sync()  # so that a folder of that name is whole, even after a power cut
            top.rename(folder)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)
    except OSError as error:
        raise InputError(
            f"cannot be unpacked ({error.strerror or error})",
            where=str(folder),
            hint="Free disk space or choose a folder that you may write to.",
        ) from error


def require_space(folder: Path, num_bytes: int) -> None:
    """Refuse to write so many bytes to a disk that has not room for them and some to spare.

    Raises:
        InputError: says how much is free and how much is needed.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _SPARE_BYTES:
        raise InputError(
            f"the disk has {free / 1e9:.1f} GB free, and {(num_bytes + _SPARE_BYTES) / 1e9:.1f} GB are needed",
            where=str(folder),
            hint="Free some space, or choose a folder on another disk.",
        )


def _write_entries(archive: Path, folder: Path, limits: Limits, advance: Callable[[int], None]) -> None:
    most_bytes = min(limits.num_bytes, int(max(_SMALL_BYTES, limits.ratio * archive.stat().st_size)))
    spellings: dict[str, str] = {}  # of every path so far, by what a disk that ignores case makes of it
    num_entries = num_bytes = 0
    for entry in read_entries(archive, most_bytes):
        num_entries += 1
        num_bytes += entry.num_bytes
        if num_entries > limits.num_files:
            raise refusal(archive, f"holds more than {limits.num_files} files")
        if num_bytes > most_bytes:
            raise too_large(archive, most_bytes)
        parts = _safe_parts(entry, archive)
        if any(part in ("__MACOSX", ".DS_Store") or part.startswith("._") for part in parts):
            continue
        _check_spelling(entry, parts, spellings, archive)
        path = folder.joinpath(*parts)
        if entry.kind == "folder":
            path.mkdir(parents=True, exist_ok=True)
            continue
        require_space(folder, entry.num_bytes)
        path.parent.mkdir(parents=True, exist_ok=True)
        _copy(entry, path, archive, advance)


def _copy(entry: Entry, path: Path, archive: Path, advance: Callable[[int], None]) -> None:
    """Write a file that is not there yet, of exactly as many bytes as the archive says."""
    num_left = entry.num_bytes
    try:
        with entry.open() as source, path.open("xb") as target:
            while num_left and (chunk := source.read(min(num_left, _CHUNK_BYTES))):
                target.write(chunk)
                num_left -= len(chunk)
                advance(len(chunk))
    except BROKEN as error:
        raise broken(archive, error) from error
    if num_left:
        raise refusal(archive, f"is cut off in {entry.name!r}")


def _safe_parts(entry: Entry, archive: Path) -> list[str]:
    """Return the parts of an entry's path below the folder; of the folder itself, none."""
    name = entry.name
    if entry.kind in ("link", "device"):
        raise refusal(archive, f"holds a {entry.kind}, {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = len(name) > 1 and name[1] == ":"
    if name.startswith("/") or "\\" in name or ".." in parts or drive:
        raise refusal(archive, f"holds {name!r}, which leads out of the folder")
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name) or (
        entry.kind == "file" and (not parts or name.endswith("/"))
    ):
        raise refusal(archive, f"holds {name!r}, which can name no file")
    return parts


def _check_spelling(entry: Entry, parts: list[str], spellings: dict[str, str], archive: Path) -> None:
    """Refuse a file that stands twice, and names that are one on a disk that ignores case or accents' spelling."""
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        spelling = path if depth < len(parts) or entry.kind == "folder" else f"{path} (a file)"
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        before = spellings.setdefault(key, spelling)
        if before != spelling:
            raise refusal(archive, f"holds {before!r} and {spelling!r}, which are one on some disks")
        if depth == len(parts) and entry.kind == "file":
            spellings[key] = f"{path} (a file before)"
