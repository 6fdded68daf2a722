"""What the checks of one case keep for those of the whole set: grids, hashes of voxels, brightness, volumes."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine
from medunet.imaging.whole_numbers import as_integers
from medunet.records.manifest import Case


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
    whole = as_integers(array)
    plain = array.astype(np.float32, order="K", copy=False) if whole is None else whole
    digest = hashlib.sha256(f"{array.shape} {plain.dtype}".encode())
    digest.update(np.ascontiguousarray(plain.T).data)  # NIfTI's own order, so mostly no copy
    return digest.hexdigest()


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as '35×51×36'."""
    return "×".join(str(n) for n in shape)
