"""Work on the box that a mask fills, so that a small structure in a large scan costs little.

Everywhere in this room the scan is taken to go on beyond its border as it is at its border: a structure that the
border cuts is neither eaten there nor drawn towards it.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # (I, J, K)
Box = tuple[slice, ...]


def mask_box(mask: Mask, margin_voxels: Sequence[int] = (0, 0, 0)) -> Box | None:
    """Return the smallest box around a mask, wider by a margin but within the volume; None if it is empty."""
    box: Box = ()
    for axis, margin in enumerate(margin_voxels):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask.any(axis=others))
        if not filled.size:
            return None
        box += (slice(max(int(filled[0]) - margin, 0), int(filled[-1]) + 1 + margin),)
    return box


def on_box(
    mask: Mask,
    operation: Callable[[Mask], Mask],
    *,
    margin_voxels: Sequence[int] = (1, 1, 1),
    pad_voxels: Sequence[int] = (0, 0, 0),
) -> Mask:
    """Return `operation` done on the box of a mask, in a new array; an empty mask stays empty.

    The box has a margin of the mask's own surroundings as far as the volume reaches, and is then padded with its
    edge voxels; the operation must keep the shape it is given. A margin of one voxel shows it that there is
    background around the mask, so that more of it would tell it nothing new.
    """
    result = np.zeros_like(mask)
    if (box := mask_box(mask, margin_voxels)) is not None:
        frame = np.pad(mask[box], [(pad, pad) for pad in pad_voxels], mode="edge")
        inner = tuple(slice(pad, size - pad) for pad, size in zip(pad_voxels, frame.shape, strict=True))
        result[box] = operation(frame)[inner]
    return result
