"""Unpack an untrusted archive, tar (also .gz, .bz2, .xz) or zip, completely or not at all.

Paths outside the folder, links, devices, names that differ only in case, and archives beyond the limits raise an
error. Owners, permissions and times in the archive are ignored.
"""

import os
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.files import name_on_disk
from medunet.dataset.archive_entries import BROKEN, Entry, broken, read_entries, refusal, too_large

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 1 << 28  # disk space to leave free
_SMALL_BYTES = 100_000_000  # unpacked size up to which any compression ratio is accepted


@dataclass(frozen=True)
class Limits:
    """Limits of an archive's content; the ratio of unpacked to compressed size applies above 100 MB."""

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
    """Unpack an archive into a new folder; a single top-level folder is removed from the paths.

    Files added by macOS (`._x`, `.DS_Store`, `__MACOSX`) are left out.

    Args:
        temporary: folder to unpack to before renaming it to `folder`, on the same disk; removed first if it exists.
        prepare: called with the unpacked folder before it is renamed.
        advance: called with the number of bytes written since the last call.

    Raises:
        DataError: the archive is broken, malicious, or beyond the limits.
        InputError: the folder exists or cannot be written, or the disk is too full.
    """
    if folder.exists():
        raise InputError("exists already", where=str(folder), hint="Move it away first.")
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
                os.sync()  # so that the renamed folder is complete even after a power failure
            top.rename(folder)
        finally:
            if temporary.exists():
                shutil.rmtree(temporary)
    except OSError as error:
        raise InputError(
            f"cannot be unpacked ({error.strerror or error})",
            where=str(folder),
            hint="Free some disk space, or choose a folder that you can write to.",
        ) from error


def require_space(folder: Path, num_bytes: int) -> None:
    """Check that a disk has space for a number of bytes and some more.

    Raises:
        InputError: it does not; the message gives the free and the required space.
    """
    free = shutil.disk_usage(folder).free
    if free < num_bytes + _SPARE_BYTES:
        raise InputError(
            f"the disk has {free / 1e9:.1f} GB free, but {(num_bytes + _SPARE_BYTES) / 1e9:.1f} GB are needed",
            where=str(folder),
            hint="Free some space, or choose a folder on another disk.",
        )


def _write_entries(archive: Path, folder: Path, limits: Limits, advance: Callable[[int], None]) -> None:
    max_bytes = min(limits.num_bytes, int(max(_SMALL_BYTES, limits.ratio * archive.stat().st_size)))
    spellings: dict[str, str] = {}  # of every path so far, by its case-insensitive form
    num_entries = num_bytes = 0
    for entry in read_entries(archive, max_bytes):
        num_entries += 1
        num_bytes += entry.num_bytes
        if num_entries > limits.num_files:
            raise refusal(archive, f"contains more than {limits.num_files} files")
        if num_bytes > max_bytes:
            raise too_large(archive, max_bytes)
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
    """Write a new file with exactly the number of bytes that the archive states."""
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
        raise refusal(archive, f"is truncated in {entry.name!r}")


def _safe_parts(entry: Entry, archive: Path) -> list[str]:
    """Return the parts of an entry's path below the folder; an empty list for the folder itself."""
    name = entry.name
    if entry.kind in ("link", "device"):
        raise refusal(archive, f"contains a {entry.kind}, {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = len(name) > 1 and name[1] == ":"
    if name.startswith("/") or "\\" in name or ".." in parts or drive:
        raise refusal(archive, f"contains {name!r}, which is outside the folder")
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name) or (
        entry.kind == "file" and (not parts or name.endswith("/"))
    ):
        raise refusal(archive, f"contains {name!r}, which is not a valid file name")
    return parts


def _check_spelling(entry: Entry, parts: list[str], spellings: dict[str, str], archive: Path) -> None:
    """Raise an error for duplicate files and for names that are equal on disks that ignore case or Unicode form."""
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        spelling = path if depth < len(parts) or entry.kind == "folder" else f"{path} (a file)"
        key = name_on_disk(path)
        before = spellings.setdefault(key, spelling)
        if before != spelling:
            raise refusal(archive, f"contains {before!r} and {spelling!r}, which are the same on some disks")
        if depth == len(parts) and entry.kind == "file":
            spellings[key] = f"{path} (a file before)"
