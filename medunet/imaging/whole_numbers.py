"""Convert voxel values to integers: correct the rounding of scale factors, and find values that are not whole.

The dataset check, planning, training and scoring all use this, so that they see the same labels.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.volume import StoredVoxels

_SAMPLED_VOXELS = 4096  # tested first: enough to find fractions in most scans
_CHUNK = 1 << 20
_ROUNDING = float(np.finfo(np.float32).eps)  # relative, of a number stored as float32


def label_values(stored: StoredVoxels) -> NDArray[Any]:
    """Return a label's values, with differences from whole numbers due to the rounding of scale factors removed.

    Slope and intercept are stored as float32: with a slope of 0.1 the stored 10 becomes 1.0000000149. A value is
    rounded if its difference can be explained by one float32 rounding of each of the two terms; others are unchanged.
    """
    if not stored.is_scaled:
        return stored.array
    values = stored.values(np.float64)
    with np.errstate(invalid="ignore"):  # infinite values, which remain unchanged
        for part in values.T:  # a slice at a time
            whole = np.rint(part)
            tolerance = _ROUNDING * (np.abs(part - stored.intercept) + abs(stored.intercept))
            np.copyto(part, whole, where=np.abs(part - whole) <= tolerance)
    return values


def as_integers(array: NDArray[Any]) -> NDArray[np.integer] | None:
    """Convert an array to the narrowest of uint8, int16, int32 and int64 that holds its values.

    Returns None if any value is not whole, and the array itself if it has that type already.
    """
    if array.dtype.kind == "b":
        return array.view(np.uint8)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if not (abs(low) < 2.0**62 and abs(high) < 2.0**62):  # false for NaN
            return None
        flat = array.ravel(order="K")
        if has_fractions(flat[:: 1 + flat.size // _SAMPLED_VOXELS]) or any(map(has_fractions, chunks(flat))):
            return None
    for dtype in (np.uint8, np.int16, np.int32, np.int64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return array.astype(dtype, order="K", copy=False)
    return None


def has_fractions(values: NDArray[np.floating]) -> bool:
    """Return whether any of the values is not a whole number."""
    return not np.array_equal(np.rint(values), values)


def chunks(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield a flat array in parts of a million elements, so that temporary arrays stay small."""
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]
