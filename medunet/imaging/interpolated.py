"""Recognise label maps of whole numbers that were interpolated or compressed: by ramps and noise where labels end.

Nearest-neighbour labels change from one value to the next in one step, and fill areas. Linear or cubic resampling,
rotation of a picture and smoothed outlines leave voxels in between, whose values lie between those of their neighbours;
JPEG leaves values close to those of the labels. A mask of 0 and 255 then seems to have up to 254 classes.
"""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

_FEWEST_VALUES = 3  # in between: a map with fewer may well have a thin layer between two others
_FEWEST_VOXELS = 10
_RAMP_SHARE = 0.6  # of the changes of value along an axis
_BETWEEN_SHARE, _CLOSE_SHARE = 0.8, 0.7  # of the voxels whose values fill no area
_FILLED_SHARE = 0.05  # of a value's voxels: with fewer that have equal neighbours it fills no area
_CLOSE, _FEWEST_LEVELS = 0.05, 64  # of the range of values; of a range in which that means something
_LAYERS = (
    2  # as many values in between as this times the length of a ramp: otherwise they are numbered layers
)
_LOSSY = 0.03  # of the range: two values of a JPEG that are closer were one
_MAX_PLANES = 48  # of a volume that are looked at


def describe_interpolation(
    labels: NDArray[np.integer], values: Collection[int], *, is_lossy: bool = False
) -> str:
    """Return the evidence that a label map `(I, J, K)` of whole numbers was interpolated or compressed; "" if none.

    At least three values must occur that true labels do not explain, in one of two ways:

    - Ramps: along some axis 60% of all change, by size, is in voxels strictly between their two neighbours, and not in
      steps between areas or in single peaks. Thin layers that are numbered in their order are no ramps.
    - Values that fill no area, at most 5% of their voxels having equal neighbours on all sides in the plane: of these
      voxels 80% are strictly between two opposite neighbours, or 70% differ from a neighbour by less than 5% of the
      range, as after JPEG.

    Args:
        labels: the map, or the part of it that holds all values other than 0.
        values: that occur.
        is_lossy: whether the file's format changes values, as JPEG does: then two values that differ by less than 3%
            of the range suffice.
    """
    ordered = np.sort(np.fromiter(values, np.int64, len(values)))
    if is_lossy and ordered.size > 2:
        gap, levels = int(np.diff(ordered).min()), int(ordered[-1] - ordered[0])
        if gap <= _LOSSY * levels:
            return f"{ordered.size} values, some only {gap} apart, in a format that changes values"
    if ordered.size < 2 + _FEWEST_VALUES or labels.ndim != 3 or not labels.size:
        return ""
    for axis in range(3):
        if labels.shape[axis] > 3 and (found := _find_ramps(_planes(labels, axis), axis)):
            return found
    thin = min(range(3), key=lambda axis: labels.shape[axis])
    return _find_noise(np.moveaxis(_planes(labels, (thin + 1) % 3, fixed=thin), thin, 0))


def _planes(labels: NDArray[np.integer], axis: int, fixed: int | None = None) -> NDArray[np.integer]:
    """Return evenly spaced planes of a volume that contain an axis, stacked along the longest other axis or `fixed`."""
    others = [other for other in range(3) if other != axis]
    across = fixed if fixed is not None else max(others, key=lambda other: labels.shape[other])
    step = 1 + (labels.shape[across] - 1) // _MAX_PLANES
    chosen = labels[tuple(slice(None, None, step) if other == across else slice(None) for other in range(3))]
    return chosen.astype(np.int64)


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
    starts = is_ramp.copy()
    starts[1:] &= ~is_ramp[:-1]
    if share < _RAMP_SHARE or _are_layers(values, num_voxels / int(starts.sum())):
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
    is_thin = (filled <= _FILLED_SHARE * counts)[index]
    thin = values[filled <= _FILLED_SHARE * counts]
    num_voxels = int(is_thin.sum())
    if num_voxels < _FEWEST_VOXELS or thin.size < _FEWEST_VALUES:
        return ""
    own = planes[is_thin]
    close = max(1.0, _CLOSE * float(values[-1] - values[0]))
    distances = [np.abs(side[is_thin] - own) for side in sides]
    is_close = np.logical_or.reduce([(distance > 0) & (distance <= close) for distance in distances])
    is_between = np.zeros(own.size, bool)
    for one, other in ((sides[0], sides[1]), (sides[2], sides[3])):
        low, high = np.minimum(one, other)[is_thin], np.maximum(one, other)[is_thin]
        is_between |= (low < own) & (own < high)
    if values[-1] - values[0] >= _FEWEST_LEVELS and is_close.mean() >= _CLOSE_SHARE:
        return f"{_text(thin)} scattered in {num_voxels} voxels next to almost equal values, as after JPEG"
    if is_between.mean() >= _BETWEEN_SHARE and not _are_layers(thin, thin.size):
        return f"{_text(thin)} in {num_voxels} voxels, {is_between.mean():.0%} of them between their neighbours' values"
    return ""


def _are_layers(values: NDArray[np.int64], length: float) -> bool:
    """Return whether values in between, in ramps of this mean length, may be layers that are numbered in order."""
    return bool(values.size < _LAYERS * length and np.diff(values).mean() < 2)


def _text(values: NDArray[np.int64]) -> str:
    return f"values {', '.join(map(str, values[:5]))}{', …' if values.size > 5 else ''} ({values.size} in all) are"
