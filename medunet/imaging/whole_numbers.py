"""Whole numbers among the values of voxels: which values a label file holds, and whether all are whole.

The check, planning, training and scoring ask here, so that all see the same labels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.volume import StoredVoxels

_GLANCED_VOXELS = 4096  # that tell most scans of real numbers from those of whole ones
_CHUNK = 1 << 20
_ROUNDING = float(np.finfo(np.float32).eps)  # of a number kept as float32, relative


def label_values(stored: StoredVoxels) -> NDArray[Any]:
    """Return a label's values, those that miss a whole number by a scale's rounding alone made that number.

    Slope and intercept are kept as float32: with a slope of 0.1 the stored 10 means 1.0000000149. Each of the two
    terms of a value may be off by the rounding of one float32; what lies farther from a whole number is left.
    """
    if not stored.is_scaled:
        return stored.array
    values = stored.values(np.float64)
    with np.errstate(invalid="ignore"):  # infinite values, which are left
        for part in values.T:  # a slice at a time
            whole = np.rint(part)
            most = _ROUNDING * (np.abs(part - stored.intercept) + abs(stored.intercept))
            np.copyto(part, whole, where=np.abs(part - whole) <= most)
    return values


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
