"""Read the entries of an untrusted archive, tar (also .gz, .bz2, .xz) or zip, one after the other.

Streams are only read forwards and up to a size limit. Broken archives, and headers that tarfile would parse very
slowly, raise an error.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from medunet.base.errors import DataError

_Kind = Literal["file", "folder", "link", "device"]

_CHUNK_BYTES = 1 << 20
_LONGEST_HEADER_BYTES = 1 << 20
_MAX_HEADERS_BYTES = 100_000_000  # in a tar, in addition to its files
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
BROKEN = (  # exceptions raised on reading a broken archive
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError),
    *(NotImplementedError, OverflowError, RecursionError, UnicodeError),
)


@dataclass(frozen=True)
class Entry:
    """One entry of an archive, with the name that the archive gives it; `open` returns a file's content."""

    name: str
    kind: _Kind
    num_bytes: int
    open: Callable[[], IO[bytes]]


def read_entries(archive: Path, max_bytes: int) -> Iterator[Entry]:
    """Yield an archive's entries in order; each must be read before the next one is requested.

    Raises:
        DataError: the archive is broken or malicious, or a tar unpacks to more than `max_bytes` and its headers.
    """
    try:
        with archive.open("rb") as stream:
            magic = stream.read(4)
        if magic == b"PK\x03\x04":
            yield from _zip_entries(archive)
        else:
            opener = _OPENERS.get(magic[:2], open)
            with opener(archive, "rb") as unpacked:
                yield from _tar_entries(archive, _ForwardReader(archive, unpacked, max_bytes))
    except BROKEN as error:
        raise broken(archive, error) from error


def _tar_entries(archive: Path, reader: "_ForwardReader") -> Iterator[Entry]:
    with tarfile.TarFile(fileobj=reader) as tar:
        while (member := _next(tar, reader)) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # otherwise it keeps every header
            kind: _Kind = "device"
            if member.isfile():
                kind = "file"
            elif member.isdir():
                kind = "folder"
            elif member.issym() or member.islnk():
                kind = "link"
            yield Entry(member.name, kind, member.size, partial(_content, tar, member))
    if reader.last_block.strip(b"\0") or not reader.last_block:  # for tarfile, a broken header is the end
        raise refusal(archive, "is broken or truncated after its last readable file")


def _next(tar: tarfile.TarFile, reader: "_ForwardReader") -> tarfile.TarInfo | None:
    reader.in_header = True
    member = tar.next()
    reader.in_header = False
    return member


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None, "only called for files"
    return content


def _zip_entries(archive: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            if info.flag_bits & 1:
                raise refusal(archive, f"is encrypted ({info.orig_filename!r})")
            unix_kind = stat.S_IFMT(info.external_attr >> 16)
            kind: _Kind = "device"
            if unix_kind == stat.S_IFLNK:
                kind = "link"
            elif info.is_dir():
                kind = "folder"
            elif unix_kind in (0, stat.S_IFREG):
                kind = "file"
            yield Entry(info.orig_filename, kind, info.file_size, partial(packed.open, info))


class _ForwardReader(io.RawIOBase):
    """A decompressed tar stream that is only read forwards, with a limit of its length including headers and gaps.

    `last_block` holds the bytes read last, which at the end should be a block of zeros. While `in_header` is set,
    long reads and long sequences of digits raise an error, since tarfile parses them in quadratic time
    (CVE-2024-6232).
    """

    def __init__(self, archive: Path, stream: IO[bytes], max_bytes: int) -> None:
        self._archive, self._stream, self._max_bytes = archive, stream, max_bytes
        self._position = 0
        self.last_block = b""
        self.in_header = True

    def read(self, size: int = -1) -> bytes:
        if self.in_header and not 0 <= size <= _LONGEST_HEADER_BYTES:
            raise refusal(self._archive, f"has a header of {size} bytes")
        self.last_block = self._take(size)
        if self.in_header and re.search(rb"\d{100}", self.last_block):
            raise refusal(self._archive, "has a header with a number of 100 digits or more")
        return self.last_block

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset < self._position:
            raise refusal(self._archive, "has a header that points backwards")
        while self._position < offset and self._take(min(offset - self._position, _CHUNK_BYTES)):
            pass
        return self._position

    def _take(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        if self._position > self._max_bytes + _MAX_HEADERS_BYTES:
            raise too_large(self._archive, self._max_bytes)
        return data

    def tell(self) -> int:
        return self._position


def refusal(archive: Path, why: str) -> DataError:
    """Return the error for an archive that cannot be unpacked, with the reason."""
    return DataError(why, where=archive.name, hint="It was not unpacked. Get another copy from its source.")


def too_large(archive: Path, max_bytes: int) -> DataError:
    """Return the error for an archive that unpacks to more than the limit."""
    return refusal(
        archive,
        f"unpacks to more than {max_bytes / 1e9:g} GB, from {archive.stat().st_size / 1e9:g} GB compressed",
    )


def broken(archive: Path, error: BaseException) -> DataError:
    """Return the error for an archive on whose reading `error`, one of BROKEN, was raised."""
    text = " ".join(str(error).split()) or type(error).__name__
    return refusal(archive, f"is not a complete archive ({text})")
