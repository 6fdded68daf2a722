"""Apply operations within a mask's bounding box, so that a small structure in a large scan takes little time.

All postprocessing operations treat the volume as continued beyond its border by its outermost voxels: a structure cut
by the border is neither eroded from there nor extended towards it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (I, J, K)
Box = tuple[slice, ...]


def bounding_box(mask: Mask, margin_voxels: Sequence[int] = (0, 0, 0)) -> Box | None:
    """Return the bounding box of a mask, extended by a margin within the volume; None if the mask is empty."""
    box: Box = ()
    for axis, margin in enumerate(margin_voxels):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if not filled.size:
            return None
        box += (slice(max(int(filled[0]) - margin, 0), int(filled[-1]) + 1 + margin),)
    return box


def apply_in_box(
    mask: Mask,
    operation: Callable[[Mask], Mask],
    *,
    margin_voxels: Sequence[int] = (1, 1, 1),
    pad_voxels: Sequence[int] = (0, 0, 0),
) -> Mask:
    """Return the result of `operation` applied to a mask's bounding box, in a new array; an empty mask stays empty.

    The box is extended by a margin within the volume and then padded with its edge voxels; the operation must keep
    the shape of its input. A margin of one voxel is enough to include background around the mask.
    """
    result = np.zeros_like(mask)
    if (box := bounding_box(mask, margin_voxels)) is not None:
        padded = np.pad(mask[box], [(pad, pad) for pad in pad_voxels], mode="edge")
        inner = tuple(slice(pad, size - pad) for pad, size in zip(pad_voxels, padded.shape, strict=True))
        result[box] = operation(padded)[inner]
    return result
