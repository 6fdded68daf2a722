"""Read byte ranges of files that may be gzip-compressed, with the checksum verified and memory use bounded."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from medunet.base.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's window bits for the gzip format, whose length and checksum it then verifies
_CHUNK = 1 << 18
_PIECE = 1 << 20
_MAX_RATIO = 1032  # highest compression ratio of deflate
_MAX_SURPLUS = 1 << 20  # bytes allowed after the last requested one: more may be a decompression bomb


class StreamError(DataError):
    """A compressed stream is truncated or corrupt."""


class SizeError(DataError):
    """The number of bytes in a file does not match its header."""


def is_gzipped(path: Path) -> bool:
    """Return whether a file is compressed with gzip, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


def read_start(path: Path, num_bytes: int) -> bytes:
    """Return the first `num_bytes` decompressed bytes of a file, or all if it is shorter.

    Raises:
        StreamError: the stream is truncated or corrupt within these bytes.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as stream:
        start = stream.read(num_bytes)
        if not start.startswith(_GZIP_MAGIC):
            return start
        stream.seek(0)
        start = b""
        for piece in _inflate(stream, path.name, num_bytes):
            start += piece
            if len(start) >= num_bytes:
                break
        return start[:num_bytes]


def read_span(path: Path, offset: int, size: int) -> tuple[NDArray[np.uint8], int]:
    """Return `size` decompressed bytes from `offset` on, and the number of bytes after them.

    A compressed file is read to its end, so that its checksum is verified. Memory is allocated only for the requested
    bytes, and only if the file can contain that many.

    Raises:
        StreamError: the stream is truncated or corrupt.
        SizeError: the file ends before the requested bytes do, or more than 1 MiB after them.
        OSError: the file cannot be read.
    """
    num_stored = path.stat().st_size
    if not is_gzipped(path):
        if num_stored < offset + size:
            raise _too_short(path, num_stored, offset + size)
        return np.fromfile(path, np.uint8, size, offset=offset), num_stored - offset - size
    if num_stored * _MAX_RATIO < offset + size:
        for _ in _inflate_file(path):  # a small file; a corrupt stream raises its own error
            pass
        raise _too_short(path, num_stored * _MAX_RATIO, offset + size, "at most ")
    span = np.empty(size, np.uint8)
    view = span.data
    position = -offset
    for piece in _inflate_file(path):
        start, stop = max(0, position), position + len(piece)
        if start < size and stop > 0:
            part = memoryview(piece)[start - position : size - position]
            view[start : start + len(part)] = part
        position = stop
        if position > size + _MAX_SURPLUS:
            raise SizeError(
                f"more than {position - size} bytes follow the last voxel that its header describes",
                where=path.name,
            )
    if position < size:
        raise _too_short(path, position + offset, offset + size)
    return span, position - size


def _too_short(path: Path, found: int, expected: int, qualifier: str = "") -> SizeError:
    return SizeError(
        f"holds {qualifier}{found} bytes but its header requires {expected}: the file is truncated or corrupt",
        where=path.name,
        hint="Copy or export it again.",
    )


def _inflate_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from _inflate(stream, path.name, _PIECE)


def _inflate(stream: BinaryIO, name: str, max_piece: int) -> Iterator[bytes]:
    """Yield the decompressed bytes of all members of a gzip stream, in pieces of at most `max_piece`."""
    inflater = isal_zlib.decompressobj(_GZIP_WINDOW)
    chunk = stream.read(_CHUNK)
    try:
        while chunk:
            if inflater.eof:  # followed by another member, or by zero padding
                chunk = chunk.lstrip(b"\0") or stream.read(_CHUNK).lstrip(b"\0")
                if not chunk:
                    return
                inflater = isal_zlib.decompressobj(_GZIP_WINDOW)
            yield inflater.decompress(chunk, max_piece)
            chunk = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            chunk = chunk or stream.read(_CHUNK)
    except isal_zlib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance, not a class
        raise _broken(name, str(error)) from error
    if not inflater.eof:
        raise _broken(name, "it ends before its end marker")


def _broken(name: str, reason: str) -> StreamError:
    return StreamError(
        f"the compressed stream is broken ({reason}): the file is truncated or corrupt",
        where=name,
        hint="Copy or export it again.",
    )
