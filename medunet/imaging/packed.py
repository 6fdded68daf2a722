"""Bytes of a file that gzip may have compressed: decoded once, to the checksum, and never more than asked for."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from medunet.base.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's word for gzip's frame, whose length and checksum it then verifies
_CHUNK = 1 << 18
_PIECE = 1 << 20
_MAX_RATIO = 1032  # deflate packs no tighter
_MAX_SURPLUS = 1 << 20  # bytes behind the last one asked for: more may be a bomb


class StreamError(DataError):
    """A compressed stream that is cut off or corrupt."""


class SizeError(DataError):
    """A file that is whole, and does not hold as many bytes as its header promises."""


def is_packed(path: Path) -> bool:
    """Say by a file's first bytes whether it is compressed by gzip."""
    with path.open("rb") as stream:
        return stream.read(2) == _GZIP_MAGIC


def read_start(path: Path, num_bytes: int) -> bytes:
    """Return a file's first bytes, unpacked; fewer where it holds no more.

    Raises:
        StreamError: the stream is cut off or corrupt within them.
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
    """Return `size` bytes from `offset` on, unpacked, and how many follow; a compressed file is read to its checksum.

    Memory is taken for what is asked alone, and only where the file can hold as much.

    Raises:
        StreamError: the stream is cut off or corrupt.
        SizeError: the file ends before the span, or more than 1 MiB behind it.
        OSError: the file cannot be read.
    """
    num_stored = path.stat().st_size
    if not is_packed(path):
        if num_stored < offset + size:
            raise _too_short(path, num_stored, offset + size)
        return np.fromfile(path, np.uint8, size, offset=offset), num_stored - offset - size
    if num_stored * _MAX_RATIO < offset + size:
        for _ in _inflate_file(path):  # which is little
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
                f"more than {position - size} bytes follow the last voxel that its header promises",
                where=path.name,
            )
    if position < size:
        raise _too_short(path, position + offset, offset + size)
    return span, position - size


def _too_short(path: Path, found: int, promised: int, words: str = "") -> SizeError:
    return SizeError(
        f"holds {words}{found} bytes where its header promises {promised}: the file is truncated or corrupt",
        where=path.name,
        hint="Copy or export it again.",
    )


def _inflate_file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from _inflate(stream, path.name, _PIECE)


def _inflate(stream: BinaryIO, name: str, max_piece: int) -> Iterator[bytes]:
    """Yield a gzip stream's bytes, all members of it, in pieces of at most `max_piece`."""
    inflater = isal_zlib.decompressobj(_GZIP_WINDOW)
    chunk = stream.read(_CHUNK)
    try:
        while chunk:
            if inflater.eof:  # another member follows, or zeros that fill up a tape's block
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
