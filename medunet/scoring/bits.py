"""Masks packed as bits, 64 voxels in a word, so that a liver in a CT fits into the processor's cache.

`Bits` are uint64 `(..., W)`: voxel p along the last axis is bit p % 64 of word p // 64. `BitIndices` are flat indices
of bits: `64 * (index of the word in the flat array) + bit`.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
BitIndices = NDArray[np.int64]

_ONE = np.uint64(1)
_LAST = np.uint64(63)


def memory_order(array: NDArray[np.generic]) -> tuple[int, ...]:
    """Return an array's axes from the largest stride to the smallest, the order in which it is contiguous in memory.

    nibabel returns arrays in Fortran order, and copying a CT to C order takes longer than computing all its scores.
    """
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def find_box(*arrays: NDArray[np.generic]) -> tuple[slice, ...]:
    """Return the bounding box of the nonzero voxels of boolean or integer arrays of one shape.

    The box is empty where all are zero. Each array is read about once.
    """
    first = arrays[0]
    order = memory_order(first)
    views = [array.transpose(order) for array in arrays]
    planes = np.flatnonzero(np.any([view.any(axis=tuple(range(1, view.ndim))) for view in views], axis=0))
    if not planes.size:
        return (slice(0, 0),) * first.ndim
    low, high = int(planes[0]), int(planes[-1]) + 1
    spans = [slice(low, high)]
    if first.ndim > 1:
        shadow = np.zeros(views[0].shape[1:], dtype=bool)
        for view in views:
            shadow |= np.bitwise_or.reduce(view[low:high], axis=0).astype(bool)
        for axis in range(shadow.ndim):
            others = tuple(other for other in range(shadow.ndim) if other != axis)
            rows = np.flatnonzero(shadow.any(axis=others))
            spans.append(slice(int(rows[0]), int(rows[-1]) + 1))
    box = dict(zip(order, spans, strict=True))
    return tuple(box[axis] for axis in range(first.ndim))


def pack(mask: NDArray[np.bool_]) -> Bits:
    """Pack a mask `(I, J, K)` or `(I, J)` with a border of background: `(I + 2, J + 2, W)` or `(I + 2, W)`.

    The last axis has no border before its first voxel, since bit shifts fill in zeros there; after its last voxel at
    least one bit is empty.
    """
    num_words = mask.shape[-1] // 64 + 1
    packed = np.zeros((*(size + 2 for size in mask.shape[:-1]), 8 * num_words), dtype=np.uint8)
    rows = np.packbits(mask, axis=-1, bitorder="little")
    packed[(*[slice(1, -1)] * (mask.ndim - 1), slice(rows.shape[-1]))] = rows
    return packed.view("<u8")


def find_cells(voxels: Bits) -> Bits:
    """Return the cells that contain surface: those whose corner voxels are neither all inside nor all outside.

    Packed voxels `(I + 2, J + 2, W)` give cells `(I + 1, J + 1, W)`: cell c of an axis lies between the voxels c - 1
    and c, counted without the border.
    """
    return _fold(np.bitwise_or, voxels) & ~_fold(np.bitwise_and, voxels)


def find_surface_voxels(voxels: Bits) -> Bits:
    """Return the voxels with a background neighbour across a face, which a 6-connected erosion removes.

    Packed voxels `(I + 2, J + 2, W)` give `(I, J, W)`.
    """
    num_padded = voxels.ndim - 1
    inner = (slice(1, -1),) * num_padded
    inside = _next_lower(voxels)[inner] & _next_higher(voxels)[inner]
    for axis in range(num_padded):
        for step in (slice(0, -2), slice(2, None)):
            inside &= voxels[(*inner[:axis], step, *inner[axis + 1 :])]
    return voxels[inner] & ~inside


def find_set_bits(bits: Bits) -> BitIndices:
    """Return the flat indices of the bits that are set, ascending."""
    words = np.flatnonzero(bits)
    row, bit = _find_bits(bits.reshape(-1)[words])
    return words[row] * 64 + bit


def unpack(bits: Bits) -> NDArray[np.bool_]:
    """Return all bits as a flat boolean array."""
    return np.unpackbits(bits.reshape(-1).view(np.uint8), bitorder="little").view(np.bool_)


def read_patterns(voxels: Bits, cells: Bits) -> tuple[BitIndices, NDArray[np.uint8]]:
    """Return the flat indices of cells and the pattern of each (see `areas.cell_areas`)."""
    indices, num_padded = find_set_bits(cells), voxels.ndim - 1
    row = 64 * voxels.shape[-1]
    first = indices  # of each cell's first voxel
    if num_padded == 2:  # a plane of voxels has one row more than a plane of cells
        first = indices + indices // (cells.shape[1] * row) * row
    strides = (voxels.shape[1] * row, row)[-num_padded:]
    inside = unpack(voxels).view(np.uint8)
    patterns = np.zeros(indices.size, dtype=np.uint8)
    for steps in product((0, 1), repeat=num_padded):
        corner = first + sum(step * stride for step, stride in zip(steps, strides, strict=True))
        for behind in (1, 0):
            patterns <<= 1
            patterns |= inside[corner - behind]
    return indices, patterns


def _find_bits(words: Bits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the word of each set bit, and its index within the word."""
    flags = np.unpackbits(words.view(np.uint8), bitorder="little")
    indices = np.flatnonzero(flags.view(np.bool_))
    return indices >> 6, indices & 63


def _fold(combine: Callable[[Bits, Bits], Bits], voxels: Bits) -> Bits:
    """Combine the corner voxels of every cell."""
    folded = combine(voxels, _next_lower(voxels))
    for axis in range(voxels.ndim - 1):
        behind = (slice(None),) * axis + (slice(None, -1),)
        ahead = (slice(None),) * axis + (slice(1, None),)
        folded = combine(folded[behind], folded[ahead])
    return folded


def _next_lower(bits: Bits) -> Bits:
    """Return at each index the bit of the previous voxel along the last axis."""
    moved = bits << _ONE
    moved[..., 1:] |= bits[..., :-1] >> _LAST
    return moved


def _next_higher(bits: Bits) -> Bits:
    """Return at each index the bit of the next voxel along the last axis."""
    moved = bits >> _ONE
    moved[..., :-1] |= bits[..., 1:] << _LAST
    return moved
