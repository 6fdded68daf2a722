"""Unpacking an archive from elsewhere: tar (also .gz, .bz2, .xz) or zip, whole or not at all, and nowhere else.

An archive is a stranger's input. Names that lead out of the folder, links, devices, names that differ in case alone,
and archives beyond the limits are refused; its owners, modes and times are not taken over.
"""

import bz2
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from medunet.base.errors import DataError, InputError

_Kind = Literal["file", "folder", "link", "device"]

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 1 << 28  # of the disk, left free
_LONGEST_HEADER_BYTES = 1 << 20
_SMALL_BYTES = 100_000_000  # below which no ratio is suspicious
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError),
    *(NotImplementedError, OverflowError, RecursionError, UnicodeError),
)


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most; the ratio is of unpacked to packed bytes, counted beyond 100 MB."""

    num_files: int = 500_000
    num_bytes: int = 1_000_000_000_000
    ratio: float = 100.0


@dataclass(frozen=True)
class _Entry:
    """One entry of an archive, named as the archive names it; `open` gives a file's content."""

    name: str
    kind: _Kind
    num_bytes: int
    open: Callable[[], IO[bytes]]


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
    for entry in _entries(archive, most_bytes):
        num_entries += 1
        num_bytes += entry.num_bytes
        if num_entries > limits.num_files:
            raise _refusal(archive, f"holds more than {limits.num_files} files")
        if num_bytes > most_bytes:
            raise _too_large(archive, most_bytes)
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


def _copy(entry: _Entry, path: Path, archive: Path, advance: Callable[[int], None]) -> None:
    """Write a file that is not there yet, of exactly as many bytes as the archive says."""
    num_left = entry.num_bytes
    try:
        with entry.open() as source, path.open("xb") as target:
            while num_left and (chunk := source.read(min(num_left, _CHUNK_BYTES))):
                target.write(chunk)
                num_left -= len(chunk)
                advance(len(chunk))
    except _BROKEN as error:
        raise _broken(archive, error) from error
    if num_left:
        raise _refusal(archive, f"is cut off in {entry.name!r}")


def _safe_parts(entry: _Entry, archive: Path) -> list[str]:
    """Return the parts of an entry's path below the folder; of the folder itself, none."""
    name = entry.name
    if entry.kind in ("link", "device"):
        raise _refusal(archive, f"holds a {entry.kind}, {name!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    drive = len(name) > 1 and name[1] == ":"
    if name.startswith("/") or "\\" in name or ".." in parts or drive:
        raise _refusal(archive, f"holds {name!r}, which leads out of the folder")
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in name) or (
        entry.kind == "file" and (not parts or name.endswith("/"))
    ):
        raise _refusal(archive, f"holds {name!r}, which can name no file")
    return parts


def _check_spelling(entry: _Entry, parts: list[str], spellings: dict[str, str], archive: Path) -> None:
    """Refuse a file that stands twice, and names that are one on a disk that ignores case or accents' spelling."""
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        spelling = path if depth < len(parts) or entry.kind == "folder" else f"{path} (a file)"
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        before = spellings.setdefault(key, spelling)
        if before != spelling:
            raise _refusal(archive, f"holds {before!r} and {spelling!r}, which are one on some disks")
        if depth == len(parts) and entry.kind == "file":
            spellings[key] = f"{path} (a file before)"


def _entries(archive: Path, most_bytes: int) -> Iterator[_Entry]:
    """Yield an archive's entries in its order; each is read before the next is asked for."""
    try:
        with archive.open("rb") as stream:
            magic = stream.read(4)
        if magic == b"PK\x03\x04":
            yield from _zip_entries(archive)
        else:
            opener = _OPENERS.get(magic[:2], open)
            with opener(archive, "rb") as unpacked:
                yield from _tar_entries(archive, _ForwardReader(archive, unpacked, most_bytes))
    except _BROKEN as error:
        raise _broken(archive, error) from error


def _tar_entries(archive: Path, reader: "_ForwardReader") -> Iterator[_Entry]:
    with tarfile.TarFile(fileobj=reader) as tar:
        while (member := _next(tar, reader)) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header
            kind: _Kind = "device"
            if member.isfile():
                kind = "file"
            elif member.isdir():
                kind = "folder"
            elif member.issym() or member.islnk():
                kind = "link"
            yield _Entry(member.name, kind, member.size, partial(_content, tar, member))
    if reader.last_block.strip(b"\0") or not reader.last_block:  # tarfile takes a broken header for the end
        raise _refusal(archive, "is broken or cut off behind its last readable file")


def _next(tar: tarfile.TarFile, reader: "_ForwardReader") -> tarfile.TarInfo | None:
    reader.in_header = True
    member = tar.next()
    reader.in_header = False
    return member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None, "files alone are asked for"
    return content


def _zip_entries(archive: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if info.flag_bits & 1:
                raise _refusal(archive, f"is encrypted ({info.orig_filename!r})")
            unix_kind = stat.S_IFMT(info.external_attr >> 16)
            kind: _Kind = "device"
            if unix_kind == stat.S_IFLNK:
                kind = "link"
            elif info.is_dir():
                kind = "folder"
            elif unix_kind in (0, stat.S_IFREG):
                kind = "file"
            yield _Entry(info.orig_filename, kind, info.file_size, partial(packed.open, info))


class _ForwardReader(io.RawIOBase):
    """A tar's stream, unpacked, that is only read forwards and whose length is bounded, headers and gaps included.

    `last_block` is what was last read, which at the end should be a block of zeros. While `in_header` is set, long
    reads and long rows of digits are refused: tarfile looks for a length in them in quadratic time (CVE-2024-6232).
    """

    def __init__(self, archive: Path, stream: IO[bytes], most_bytes: int) -> None:
        self._archive, self._stream, self._most_bytes = archive, stream, most_bytes
        self._position = 0
        self.last_block = b""
        self.in_header = True

    def read(self, size: int = -1) -> bytes:
        if self.in_header and not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise _refusal(self._archive, f"has a header of {size} bytes")
        self.last_block = self._take(size)
        if self.in_header and re.search(rb"\d{100}", self.last_block):
            raise _refusal(self._archive, "has a header with a number of 100 digits or more")
        return self.last_block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise _refusal(self._archive, "has a header that leads backwards")
        while self._position < offset and self._take(min(offset - self._position, _CHUNK_BYTES)):
            pass
        return self._position

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        if self._position > self._most_bytes + _SMALL_BYTES:  # which headers may add
            raise _too_large(self._archive, self._most_bytes)
        return data

    def tell(self) -> int:
        return self._position


def _refusal(archive: Path, why: str) -> DataError:
    return DataError(
        why, where=archive.name, hint="It was not unpacked; ask for another copy where it came from."
    )


def _too_large(archive: Path, most_bytes: int) -> DataError:
    return _refusal(
        archive, f"unpacks to more than {most_bytes / 1e9:g} GB, of {archive.stat().st_size / 1e9:g} packed"
    )


def _broken(archive: Path, error: BaseException) -> DataError:
    text = " ".join(str(error).split()) or type(error).__name__
    return _refusal(archive, f"is no whole archive ({text})")
