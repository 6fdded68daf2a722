"""What the checks of one case keep for those of the whole set: grids, hashes of voxels, brightness, volumes."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine
from medunet.records.manifest import Case

_GLANCED_VOXELS = 4096  # that tell most scans of real numbers from those of whole ones
_CHUNK = 1 << 20


@dataclass(frozen=True)
class VolumeFacts:
    """What is kept of a volume that could be read: its grid, a hash of its voxels, its bright end."""

    subject: str
    path: str
    shape: tuple[int, ...]
    affine: Affine
    content: str  # hash of shape and values, whatever their type; "" where all voxels are alike
    bright: dict[str, float] = field(default_factory=dict)  # 99.5 percentile, by channel
    values: frozenset[int] = frozenset()  # of a label
    volumes_ml: dict[int, float] = field(default_factory=dict)  # of a label, by value above 0


@dataclass(frozen=True)
class CaseFacts:
    """A case with the facts of those of its files that could be read."""

    case: Case
    images: tuple[VolumeFacts, ...] = ()
    label: VolumeFacts | None = None


def hash_content(array: NDArray[Any]) -> str:
    """Return a hash of an array's shape and values, "" where all values are alike.

    Values that are all whole are hashed as the narrowest of uint8, int16, int32 and int64 that holds them, others as
    float32: a copy that is stored as another type hashes alike.
    """
    if array.size == 0 or array.min() == array.max():
        return ""
    whole = as_whole(array)
    plain = array.astype(np.float32, order="K", copy=False) if whole is None else whole
    digest = hashlib.sha256(f"{array.shape} {plain.dtype}".encode())
    digest.update(np.ascontiguousarray(plain.T).data)  # NIfTI's own order, so mostly no copy
    return digest.hexdigest()


def as_whole(array: NDArray[Any]) -> NDArray[np.integer] | None:
    """Return an array as the narrowest of uint8, int16, int32 and int64 that holds it; None where not all are whole.

    The array itself is returned where it is of that type already.
    """
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (abs(low) < 2.0**62 and abs(high) < 2.0**62):  # false for NaN
            return None
        flat = array.ravel(order="K")
        if has_fractions(flat[:: 1 + flat.size // _GLANCED_VOXELS]) or any(map(has_fractions, chunks(flat))):
            return None
    for dtype in (np.uint8, np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype, order="K", copy=False)
    return None


def has_fractions(values: NDArray[np.floating]) -> bool:
    """Say whether any of the values is not whole."""
    return not np.array_equal(np.rint(values), values)


def chunks(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield a flat array in parts of a million, so that what is made of each stays small."""
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as '35×51×36'."""
    return "×".join(str(n) for n in shape)
