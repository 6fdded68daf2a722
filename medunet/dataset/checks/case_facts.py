"""Data of one case for the checks of the whole dataset: grids, hashes of voxels, intensities and label volumes."""

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
    """Data of a volume that could be read: its grid, a hash of its voxels, and its high intensities or labels."""

    subject: str
    path: str
    shape: tuple[int, ...]
    affine: Affine
    content: str  # hash of shape and values, independent of the data type; "" if all voxels are equal
    bright: dict[str, float] = field(default_factory=dict)  # 99.5th percentile by channel
    values: frozenset[int] = frozenset()  # of a label map
    volumes_ml: dict[int, float] = field(default_factory=dict)  # of a label map, by value above 0


@dataclass(frozen=True)
class CaseFacts:
    """A case with the data of those of its files that could be read."""

    case: Case
    images: tuple[VolumeFacts, ...] = ()
    label: VolumeFacts | None = None


def hash_content(array: NDArray[Any]) -> str:
    """Return a hash of an array's shape and values, or "" if all values are equal.

    Whole numbers are hashed as the narrowest of uint8, int16, int32 and int64 that holds them, other values as
    float32, so that a copy stored with another data type has the same hash.
    """
    if array.size == 0 or array.min() == array.max():
        return ""
    whole = as_integers(array)
    plain = array.astype(np.float32, order="K", copy=False) if whole is None else whole
    digest = hashlib.sha256(f"{array.shape} {plain.dtype}".encode())
    digest.update(np.ascontiguousarray(plain.T).data)  # NIfTI's memory order, so usually without a copy
    return digest.hexdigest()


def shape_text(shape: tuple[int, ...]) -> str:
    """Return a shape as '35×51×36'."""
    return "×".join(str(n) for n in shape)
