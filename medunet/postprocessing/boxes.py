"""Apply operations within a mask's bounding box, so that a small structure in a large scan takes little time.

All postprocessing operations treat the volume as continued beyond its border by its outermost voxels: a structure cut
by the border is neither eroded from there nor extended towards it.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from medunet.base.threads import map_threads, slices

Mask = NDArray[np.bool_]  # (I, J, K)
Box = tuple[slice, ...]

_SLAB_VOXELS = 1 << 22  # processed together, in one thread


def bounding_box(mask: Mask, margin_voxels: Sequence[int] = (0, 0, 0)) -> Box | None:
    """Return the bounding box of a mask, extended by a margin within the volume; None if the mask is empty."""
    slow = max(range(mask.ndim), key=lambda axis: abs(mask.strides[axis]))
    first, second = others = tuple(axis for axis in range(3) if axis != slow)
    filled = {slow: np.flatnonzero(mask.any(axis=(first, second)))}
    if not filled[slow].size:
        return None
    shadow = mask.any(axis=slow)  # along memory, which is much faster than across
    for place, axis in enumerate(others):
        filled[axis] = np.flatnonzero(np.any(shadow, axis=1 - place))
    return tuple(
        slice(max(int(filled[axis][0]) - margin, 0), int(filled[axis][-1]) + 1 + margin)
        for axis, margin in enumerate(margin_voxels)
    )


def apply_in_box(
    mask: Mask,
    operation: Callable[[Mask], Mask],
    *,
    margin_voxels: Sequence[int] = (1, 1, 1),
    pad_voxels: Sequence[int] = (0, 0, 0),
) -> Mask:
    """Return the result of `operation` applied to a mask's bounding box, in a new array; an empty mask stays empty.

    The box is extended by a margin within the volume and then padded with its edge voxels; the operation must keep
    the shape of its input, and must not change it. A margin of one voxel is enough to include background around the
    mask.
    """
    result = np.zeros_like(mask)
    if (box := bounding_box(mask, margin_voxels)) is not None:
        padded = (
            np.pad(mask[box], [(pad, pad) for pad in pad_voxels], mode="edge")
            if any(pad_voxels)
            else mask[box]
        )
        inner = tuple(slice(pad, size - pad) for pad, size in zip(pad_voxels, padded.shape, strict=True))
        result[box] = operation(padded)[inner]
    return result


def apply_in_slabs(mask: Mask, operation: Callable[[Mask], Mask], reach_voxels: int) -> Mask:
    """Return the result of `operation` applied to slabs along a mask's first axis, in threads.

    The operation must keep the shape of its input, and its result at a voxel must not depend on slices that are
    further than `reach_voxels` away. Each slab is extended by as many slices within the mask.
    """
    result = np.empty_like(mask)
    per_slice = max(1, math.prod(mask.shape[1:]))

    def apply(part: slice) -> None:
        start = max(part.start - reach_voxels, 0)
        changed = operation(mask[start : part.stop + reach_voxels])
        result[part] = changed[part.start - start : part.stop - start]

    # Slabs of four times the reach, so that extending them adds no more than half to the work.
    map_threads(apply, slices(mask.shape[0], max(1, _SLAB_VOXELS // per_slice, 4 * reach_voxels)))
    return result
