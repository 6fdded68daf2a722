"""Files of a preprocessed case in the cache: atomic writing, checksums, and reading of single patches.

Image and label are Blosc2 arrays, of which a patch reads and unpacks only the blocks that it needs. They can be
unpacked to `.npy` files, which are memory-mapped, so that all processes of a machine share one copy in memory.
"""

import errno
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import blosc2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from pydantic import Field

from medunet.base.errors import InputError
from medunet.base.files import atomic_write, hash_value
from medunet.base.record import Record
from medunet.transforms.patches import PreparedCase

_BLOCK, _CHUNK = 32, 128  # voxels along an axis: unit of unpacking, unit of storage
_READ_BYTES = 1 << 22
_ENDINGS = {"image": "_image.b2nd", "label": "_label.b2nd", "locations": "_locations.npy"}


class CachedArray:
    """An array in a file of the cache, read by indexing.

    Each process opens the file at its first read: only the path is pickled, and a forked process does not use the
    file handles of its parent. Blocks are unpacked in one thread, because in a forked process Blosc2 waits forever
    for the threads of its parent, and may crash if it is then set to one thread (`blosc2.set_nthreads`).
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: Any, crc32: int) -> None:
        """`crc32` is the checksum of the unpacked voxels in C order."""
        self.path, self.shape, self.dtype, self.crc32 = path, shape, np.dtype(dtype), crc32
        self._opened: dict[int, Any] = {}  # key: process id

    def __getitem__(self, index: Any) -> NDArray[Any]:
        process = os.getpid()
        if process not in self._opened:
            _allow_open_files()
            self._opened[process] = (
                blosc2.open(str(self.path), dparams={"nthreads": 1})
                if self.path.suffix == ".b2nd"
                else np.load(self.path, "r")
            )
        return self._opened[process][index]

    def __reduce__(self) -> tuple[Any, ...]:
        return CachedArray, (self.path, self.shape, self.dtype, self.crc32)

    @property
    def num_bytes(self) -> int:
        """Size of the array in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def unpacked(self) -> "CachedArray":
        """The same array as an unpacked `.npy` file, written by `unpack`."""
        return CachedArray(self.path.with_suffix(".npy"), self.shape, self.dtype, self.crc32)

    def is_intact(self) -> bool:
        """Return whether the unpacked file is undamaged; reading it also loads it into the page cache."""
        try:
            array = np.load(self.path, "r")
        except (OSError, ValueError, EOFError):
            return False
        is_same = array.shape == self.shape and array.dtype == self.dtype and array.flags.c_contiguous
        return is_same and isal_zlib.crc32(array) == self.crc32

    def unpack(self) -> None:
        """Write the unpacked array atomically."""
        with atomic_write(self.unpacked.path, suffix=".npy") as temporary:
            np.save(temporary, self[:], allow_pickle=False)


class _CachedLocations(Mapping[str, NDArray[np.int64]]):
    """Voxel indices of each target from `find_locations`, concatenated in one file."""

    def __init__(self, array: CachedArray, numbers: Mapping[str, int]) -> None:
        self._array, self._numbers = array, dict(numbers)

    def __getitem__(self, target: str) -> NDArray[np.int64]:
        number = self._numbers[target]
        names = list(self._numbers)
        start = sum(self._numbers[name] for name in names[: names.index(target)])
        return self._array[start : start + number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


class _CachedFile(Record):
    num_bytes: int
    crc32: int  # of the file's bytes


class CacheEntry(Record):
    """Index of a case's files in the cache, with their checksums; written last, it marks the entry as complete."""

    schema_: Literal["medunet.cached/1"] = Field("medunet.cached/1", alias="schema")
    files: dict[str, _CachedFile]
    shape: tuple[int, int, int, int]  # of the image, (C, I, J, K)
    voxels_crc32: dict[str, int]  # of image and label, unpacked
    num_locations: dict[str, int]
    own_hash: str = ""

    def _hash(self) -> str:
        return hash_value(self.model_dump(mode="json", exclude={"own_hash"}))


def write_entry(
    cache: Path,
    key: str,
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    locations: Mapping[str, NDArray[np.int64]],
) -> None:
    """Write a case's image `(C, I, J, K)`, label `(I, J, K)` and locations, and finally its `CacheEntry`.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    paths = {name: cache / f"{key}{ending}" for name, ending in _ENDINGS.items()}
    image, label = np.ascontiguousarray(image), np.ascontiguousarray(label)
    _pack(paths["image"], image)
    _pack(paths["label"], label)
    with atomic_write(paths["locations"], suffix=".npy") as temporary:
        joined = np.concatenate([np.empty(0, np.int64), *locations.values()])
        np.save(temporary, joined, allow_pickle=False)
    entry = CacheEntry(
        files={name: _CachedFile(num_bytes=path.stat().st_size, crc32=_crc32(path)) for name, path in paths.items()},
        shape=image.shape,
        voxels_crc32={"image": isal_zlib.crc32(image), "label": isal_zlib.crc32(label)},
        num_locations={name: voxels.size for name, voxels in locations.items()},
    )  # fmt: skip
    entry.model_copy(update={"own_hash": entry._hash()}).write(cache / f"{key}.json")


def read_entry(cache: Path, key: str) -> CacheEntry | None:
    """Return a cache entry; None if it does not exist or is damaged."""
    try:
        entry = CacheEntry.read(cache / f"{key}.json")
    except InputError:
        return None
    return entry if entry.own_hash == entry._hash() else None


def find_damage(cache: Path, key: str) -> str:
    """Verify an entry's files; return a description of the damage, or "" if there is none.

    Every byte is read for a CRC-32 checksum, at 4 GB a second or the speed of the disk.
    """
    entry = read_entry(cache, key)
    if entry is None:
        return f"{key}.json is damaged"
    for name, ending in _ENDINGS.items():
        path, stored = cache / f"{key}{ending}", entry.files[name]
        try:
            num_bytes = path.stat().st_size
            if num_bytes != stored.num_bytes:
                return f"{path.name} has {num_bytes} bytes of {stored.num_bytes}"
            if _crc32(path) != stored.crc32:
                return f"the checksum of {path.name} is wrong"
        except OSError as error:
            return f"{path.name} cannot be read ({error.strerror or error})"
    return ""


def open_entry(cache: Path, key: str, case_id: str) -> PreparedCase:
    """Return the case of a verified entry; its arrays stay on disk."""
    entry = read_entry(cache, key)
    assert entry is not None, f"{key} has just been written"
    paths = {name: cache.absolute() / f"{key}{ending}" for name, ending in _ENDINGS.items()}
    crc32 = entry.voxels_crc32
    image: Any = CachedArray(paths["image"], entry.shape, np.float32, crc32["image"])
    label: Any = CachedArray(paths["label"], entry.shape[1:], np.uint8, crc32["label"])
    locations = CachedArray(paths["locations"], (sum(entry.num_locations.values()),), np.int64, 0)
    return PreparedCase(case_id, image, label, _CachedLocations(locations, entry.num_locations))


def _allow_open_files() -> None:
    """Raise this process's limit of open files to the maximum: each case keeps three files open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _pack(path: Path, array: NDArray[Any]) -> None:
    chunks, blocks = (
        (*array.shape[:-3], *(min(side, n) for n in array.shape[-3:])) for side in (_CHUNK, _BLOCK)
    )
    with atomic_write(path, suffix=".b2nd") as temporary:
        temporary.unlink(missing_ok=True)
        try:
            blosc2.asarray(
                array, chunks=chunks, blocks=blocks, urlpath=str(temporary), mode="w",
                cparams={
                    "codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE], "nthreads": 1
                },
                dparams={"nthreads": 1},  # stored in the file: the same on every machine
            )  # fmt: skip
        except RuntimeError as error:  # Blosc2's error for a full disk
            raise OSError(errno.ENOSPC, str(error)) from error


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(_READ_BYTES):
            value = isal_zlib.crc32(piece, value)
    return value
