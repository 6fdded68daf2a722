"""Recognise label maps of whole numbers that were interpolated or compressed: by ramps and noise where labels end.

Nearest-neighbour labels change from one value to the next in one step, and fill areas. Linear or cubic resampling,
rotation of a picture and smoothed outlines leave voxels whose values lie between those of their neighbours; JPEG
leaves values close to those of the labels. A mask of 0 and 255 then seems to have up to 254 classes.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

_FEWEST_VALUES = 3  # in between: a map with fewer may well have a thin layer between two others
_FEWEST_VOXELS = 10
_RAMP_SHARE = 0.5  # of the changes of value along an axis
# Fewer successive numbers may be those of shells, unless nearly all are ramps.
_FEW_NUMBERS, _SURE_RAMP_SHARE = 8, 0.8
_FILLED_SHARE = 0.05  # of a value's voxels: with fewer that have equal neighbours it fills no area
_EXPLAINED_SHARE = 0.75  # of the voxels whose values fill no area
_CLOSE, _FEWEST_LEVELS = 0.05, 64  # of the range of values; levels of a range in which that means something
_LOSSY, _LOSSY_LEVELS = 0.03, 4  # of the range, or levels: closer values of a JPEG were one
_MOST_REPEATS, _FEWEST_PLANES = 8, 8  # of a pixel that was enlarged, and pixels that there were before
_MAX_PLANES = 48  # of a volume that are looked at


def describe_interpolation(
    labels: NDArray[np.integer], values: Collection[int], *, is_lossy: bool = False
) -> str:
    """Return the evidence that a label map `(I, J, K)` of whole numbers was interpolated or compressed; "" if none.

    At least three values must occur that true labels do not explain, in one of two ways:

    - Ramps: along some axis half of all change, by size, is in voxels strictly between their two neighbours, not in
      steps between areas or in single peaks. Thin layers that are numbered in their order are no ramps.
    - Values that fill no area, at most 5% of their voxels having equal neighbours on all sides in the plane: 75% of
      these voxels are strictly between two opposite neighbours, or differ from one by less than 5% of the range, as
      after JPEG.

    Args:
        labels: the map, or the part of it that holds all values other than 0.
        values: that occur.
        is_lossy: whether the file's format changes values, as JPEG does: then two values that differ by less than 3%
            of the range or by up to 4 suffice.
    """
    ordered = np.sort(np.fromiter(values, np.int64, len(values)))
    if is_lossy and ordered.size > 2:
        gap, levels = int(np.diff(ordered).min()), int(ordered[-1] - ordered[0])
        if gap <= max(_LOSSY * levels, _LOSSY_LEVELS):
            return f"{ordered.size} values, some only {gap} apart, in a format that changes values"
    if ordered.size < 2 + _FEWEST_VALUES or labels.ndim != 3 or not labels.size:
        return ""
    labels = _undo_repeats(labels)
    for axis in range(3):
        if labels.shape[axis] > 3 and (found := _find_ramps(_planes(labels, axis), axis)):
            return found
    thin = min(range(3), key=lambda axis: labels.shape[axis])
    return _find_noise(np.moveaxis(_planes(labels, (thin + 1) % 3, fixed=thin), thin, 0))


def _planes(labels: NDArray[np.integer], axis: int, fixed: int | None = None) -> NDArray[np.int64]:
    """Return evenly spaced planes that contain an axis, stacked along the longest other axis or the `fixed` one."""
    others = [other for other in range(3) if other != axis]
    across = fixed if fixed is not None else max(others, key=lambda other: labels.shape[other])
    step = 1 + (labels.shape[across] - 1) // _MAX_PLANES
    chosen = labels[tuple(slice(None, None, step) if other == across else slice(None) for other in range(3))]
    return chosen.astype(np.int64)


def _undo_repeats(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return a map before it was enlarged by repeating voxels along two axes or three; any other map unchanged.

    A smoothed mask that was enlarged by nearest neighbour has plateaus instead of ramps.
    """
    kept = []
    for axis in range(3):
        line = np.moveaxis(labels, axis, 0)
        starts = 1 + np.flatnonzero((line[1:] != line[:-1]).any(axis=(1, 2)))
        has_label = line[starts[:-1]].any(axis=(1, 2))
        lengths = np.diff(starts)[has_label]  # not of both ends
        if lengths.size < _FEWEST_PLANES:
            continue
        shortest, longest = np.quantile(lengths, [0.05, 0.8])
        if 1 < longest <= _MOST_REPEATS and longest - shortest <= 1:
            kept.append((axis, np.concatenate([[0], starts])))
    if len(kept) < 2:
        return labels
    for axis, planes in kept:
        labels = np.take(labels, planes, axis)
    return labels


def _find_ramps(labels: NDArray[np.int64], axis: int) -> str:
    line = np.moveaxis(labels, axis, 0)
    line = np.concatenate([line[:1], line, line[-1:]])  # so that a label may end at the border
    change = np.diff(line, axis=0)
    before, after = change[:-1], change[1:]
    is_ramp = (before > 0) & (after > 0) | (before < 0) & (after < 0)
    is_peak = (before > 0) & (after < 0) | (before < 0) & (after > 0)
    is_step = (change[1:-1] != 0) & (change[:-2] == 0) & (change[2:] == 0)
    num_voxels = int(is_ramp.sum())
    values = np.unique(line[1:-1][is_ramp])
    if num_voxels < _FEWEST_VOXELS or values.size < _FEWEST_VALUES:
        return ""
    in_ramps = float(np.abs(before + after)[is_ramp].sum())
    others = float(np.abs(before - after)[is_peak].sum() + np.abs(change[1:-1])[is_step].sum())
    share = in_ramps / (in_ramps + others)
    if share < _RAMP_SHARE:
        return ""
    if _are_successive(values):
        starts = is_ramp.copy()
        starts[1:] &= ~is_ramp[:-1]
        length = num_voxels / int(starts.sum())  # of a ramp: layers have as many values as that
        if values.size < 2 * length or (values.size < _FEW_NUMBERS and share < _SURE_RAMP_SHARE):
            return ""
    return f"{_text(values)} between their neighbours' values; {share:.0%} of all change is in such ramps"


def _find_noise(planes: NDArray[np.int64]) -> str:
    """Look for values that fill no area in planes `(N, rows, columns)`."""
    values, index = np.unique(planes, return_inverse=True)
    if values.size < 2 + _FEWEST_VALUES or min(planes.shape[1:]) < 3:
        return ""
    index = index.reshape(planes.shape)
    padded = np.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="edge")
    sides = [padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:]]
    is_inside = np.logical_and.reduce([side == planes for side in sides])
    counts = np.bincount(index.ravel(), minlength=values.size)
    filled = np.bincount(index[is_inside], minlength=values.size)
    is_thin = filled <= _FILLED_SHARE * counts
    thin, where = values[is_thin], is_thin[index]
    num_voxels, levels = int(where.sum()), int(values[-1] - values[0])
    if num_voxels < _FEWEST_VOXELS or thin.size < _FEWEST_VALUES:
        return ""
    if levels < _FEWEST_LEVELS and _are_successive(thin):
        return ""
    own = planes[where]
    is_explained = np.zeros(own.size, bool)
    if levels >= _FEWEST_LEVELS:
        for side in sides:
            distance = np.abs(side[where] - own)
            is_explained |= (distance > 0) & (distance <= _CLOSE * levels)
    for one, other in ((sides[0], sides[1]), (sides[2], sides[3])):
        low, high = np.minimum(one, other)[where], np.maximum(one, other)[where]
        is_explained |= (low < own) & (own < high)
    share = float(is_explained.mean())
    if share < _EXPLAINED_SHARE:
        return ""
    return f"{_text(thin)} scattered in {num_voxels} voxels, {share:.0%} of them next to or between similar values"


def _are_successive(values: NDArray[np.int64]) -> bool:
    """Return whether values follow one another, as numbers that are given to layers in their order."""
    return bool(np.diff(values).mean() < 2)


def _text(values: NDArray[np.int64]) -> str:
    return f"values {', '.join(map(str, values[:5]))}{', …' if values.size > 5 else ''} ({values.size} in all) are"
