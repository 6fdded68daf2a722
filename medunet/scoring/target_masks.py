"""Masks of targets, cut out of label maps in their own boxes: most of a scan belongs to no target."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.scoring.bits import memory_order

Labels = NDArray[np.integer]
Box = tuple[slice, ...]

_MAX_VALUE = 65_535  # largest label value whose box is found together with all others
_MAX_COMPARED = 4  # label values of a target; np.isin is faster for more


def widen(box: Box, shape: tuple[int, ...]) -> Box:
    """Return a box at least two voxels wide if the grid is: lesions in a box of one slice are measured in 2D."""
    sides = []
    for side, size in zip(box, shape, strict=True):
        start, stop = side.start, max(side.stop, side.start + 1)
        if stop - start == 1 and size > 1:
            start, stop = (start, stop + 1) if stop < size else (start - 1, stop)
        sides.append(slice(start, stop))
    return tuple(sides)


def find_boxes(
    reference: Labels, prediction: Labels
) -> Callable[[tuple[int, ...], tuple[int, ...]], Box] | None:
    """Return a function that returns the bounding box of given label values in either map.

    Each map is read once: with many targets, searching the whole map for each takes longer than computing all scores.
    Returns None if a label value is negative or too large.
    """
    boxes_by_value = []
    for labels in (reference, prediction):
        # SciPy lists every value up to the largest.
        if labels.min(initial=0) < 0 or labels.max(initial=0) > _MAX_VALUE:
            return None
        order = memory_order(labels)
        boxes = ndimage.find_objects(labels.transpose(order))
        back = np.argsort(order)
        boxes_by_value.append([box and tuple(box[axis] for axis in back) for box in boxes])

    def find_target_box(*values: tuple[int, ...]) -> Box:
        boxes = [
            listed[value - 1]
            for listed, wanted in zip(boxes_by_value, values, strict=True)
            for value in wanted
            if 0 < value <= len(listed) and listed[value - 1]
        ]
        sides = zip(*boxes, strict=True) if boxes else [[slice(0, 0)]] * reference.ndim
        joined = [slice(min(side.start for side in each), max(side.stop for side in each)) for each in sides]
        return widen(tuple(joined), reference.shape)

    return find_target_box


def mask_of(labels: Labels, values: tuple[int, ...], kept: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if 0 < len(values) <= _MAX_COMPARED:
        mask = labels == values[0]
        for value in values[1:]:
            mask |= labels == value
    else:
        order = memory_order(labels)  # NumPy uses C order, and copying to it takes longer than the search
        mask = np.isin(labels.transpose(order), values).transpose(np.argsort(order))
    if kept is not None:
        mask &= kept
    return mask
