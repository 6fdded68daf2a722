"""Convert voxel values to integers: remove rounding errors, and find values that are not whole.

The dataset check, planning, training, scoring and reports all use this, so that they see the same labels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.volume import StoredVoxels

_SAMPLED_VOXELS = 4096  # tested first: enough to find fractions in most scans
_CHUNK = 1 << 20
_FLOAT32 = float(np.finfo(np.float32).eps)  # relative, of a number stored as float32
_NOISE = 1e-5  # of a value, or absolute below 1: more than calculations in float32 leave
_MOST_NOISE = 0.05
_LONGEST_TABLE = 1 << 20
_COARSEST_SLOPE = 0.5  # with a coarser one, half a step would leave hardly any value between whole numbers


@dataclass(frozen=True)
class RoundedValues:
    """A label's values after rounding, and the largest difference that was removed; 0 if all were whole."""

    array: NDArray[Any]
    largest_rounding: float = 0.0


def label_values(stored: StoredVoxels) -> RoundedValues:
    """Return a label's values; those that differ from a whole number by no more than a rounding error are rounded.

    Rounding errors are: noise of calculations, 1e-5 of the value; the float32 in which slope and intercept are
    stored; and half a step where values were stored as integers with a slope of up to 0.5, as when floats are saved
    with the header of an integer scan (NiBabel then chooses the slope from the range of values). Other values are
    unchanged.
    """
    array = stored.array
    if not stored.is_scaled:
        if array.dtype.kind != "f" or not any(map(has_fractions, chunks(array.ravel(order="K")))):
            return RoundedValues(array)
        array = array.copy(order="K")
        half_step = 0.0
    else:
        array = stored.values(np.float64)
        step = abs(stored.slope) if stored.array.dtype.kind != "f" else 0.0
        half_step = step / 2 * (1 + 1e-6) if step <= _COARSEST_SLOPE else 0.0
    largest = 0.0
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values, which remain unchanged
        for part in array.T:  # a slice at a time
            whole = np.rint(part)
            difference = np.abs(part - whole)
            tolerance = np.clip(_NOISE * np.abs(part), _NOISE, _MOST_NOISE)
            if stored.is_scaled:
                stored_as = np.abs(part - stored.intercept) + abs(stored.intercept)
                tolerance = np.maximum(tolerance, half_step + _FLOAT32 * stored_as)
            is_near = difference <= tolerance
            np.copyto(part, whole, where=is_near)
            largest = max(largest, float(difference.max(where=is_near, initial=0.0)))
    return RoundedValues(array, largest)


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


def renumber_labels(labels: NDArray[np.integer], renumber: Mapping[int, int]) -> NDArray[np.integer]:
    """Replace stored values by label values; the result has the narrowest type that holds it.

    `renumber` has an entry for every declared stored value. Values without an entry are unchanged, so that they are
    reported as undeclared.

    Raises:
        DataError: a value without an entry is also a label value, so that the two could not be told apart.
    """
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if high - low < _LONGEST_TABLE:
        occurring = np.arange(low, high + 1)
        present = np.zeros(occurring.size, bool)
        for part in labels.T:  # a slice at a time, since an index takes 8 bytes a voxel
            present[part.astype(np.int64) - low] = True
    else:
        occurring = np.unique(labels)
        present = np.ones(occurring.size, bool)
    given = [int(value) for value in occurring[present]]
    meant = set(renumber.values())
    if clashes := [value for value in given if value not in renumber and value in meant]:
        raise DataError(
            f"has the values {clashes}, which `stored_values` does not declare as stored in the files",
            hint="Declare them in the description, or give files with the values that it declares; masks of medunet "
            "hold the values of `labels`, and need their index.json beside them.",
        )
    table = np.zeros(occurring.size, np.int64)
    table[present] = [renumber.get(value, value) for value in given]
    narrow = as_integers(table)
    assert narrow is not None
    renumbered = np.empty_like(labels, dtype=narrow.dtype)
    for part, result in zip(labels.T, renumbered.T, strict=True):
        result[...] = narrow[np.searchsorted(occurring, part)]
    return renumbered


def stored_names(names: Mapping[str, int], renumber: Mapping[int, int] | None) -> Mapping[str, int]:
    """Return for each label name a value that `renumber` replaces by that label's value."""
    stored_as = {value: stored for stored, value in list((renumber or {}).items())[::-1]}
    return {name: stored_as.get(value, value) for name, value in names.items()}


def count_values(labels: NDArray[np.integer]) -> dict[int, int]:
    """Return the number of voxels of each value that occurs."""
    flat = labels.ravel(order="K")
    if not flat.size:
        return {}
    if flat.dtype == np.uint8 or (flat.min() >= 0 and flat.max() < 65536):
        total = np.zeros(1 + int(flat.max()), np.int64)
        num_foreground = 0
        for chunk in chunks(flat):
            foreground = chunk[chunk != 0]  # usually few, and counting is slower
            num_foreground += foreground.size
            total += np.bincount(foreground, minlength=total.size)
        total[0] = flat.size - num_foreground
        return {int(value): int(total[value]) for value in np.flatnonzero(total)}
    values, counts = np.unique(flat, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def has_fractions(values: NDArray[np.floating]) -> bool:
    """Return whether any of the values is not a whole number."""
    return not np.array_equal(np.rint(values), values)


def chunks(flat: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield a flat array in parts of a million elements, so that temporary arrays stay small."""
    for start in range(0, flat.size, _CHUNK):
        yield flat[start : start + _CHUNK]
