"""Masks as bits, 64 voxels a word: the box around a liver in a CT fits a processor's cache.

`Bits` are uint64 `(..., W)`: place p of the last axis is bit p % 64 of word p // 64. A "place" is a flat index of a
bit, `64 * (index of its word in the flat array) + bit`.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Places = NDArray[np.int64]

_ONE = np.uint64(1)
_LAST = np.uint64(63)


def memory_order(array: NDArray[np.generic]) -> tuple[int, ...]:
    """Return an array's axes from the widest stride to the narrowest: transposed so, it is read as it lies.

    A nibabel array lies in Fortran order, and copying a CT to C order takes longer than all of its scores.
    """
    return tuple(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))


def find_box(*arrays: NDArray[np.generic]) -> tuple[slice, ...]:
    """Return the smallest box that holds every nonzero voxel of arrays of one shape; empty where there is none.

    Of booleans or integers, each read about once.
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
    """Pack a mask `(I, J, K)` or `(I, J)` with a rim of background: `(I + 2, J + 2, W)` or `(I + 2, W)`.

    The last axis has no rim in front: a shift brings in background there; behind, at least one place is empty.
    """
    num_words = mask.shape[-1] // 64 + 1
    packed = np.zeros((*(size + 2 for size in mask.shape[:-1]), 8 * num_words), dtype=np.uint8)
    rows = np.packbits(mask, axis=-1, bitorder="little")
    packed[(*[slice(1, -1)] * (mask.ndim - 1), slice(rows.shape[-1]))] = rows
    return packed.view("<u8")


def find_cells(voxels: Bits) -> Bits:
    """Return the cells that a surface runs through: those whose voxels are neither all inside nor all outside.

    Of packed `(I + 2, J + 2, W)` the cells are `(I + 1, J + 1, W)`: cell c of an axis lies between its voxels
    c - 1 and c, counted without the rim.
    """
    return _fold(np.bitwise_or, voxels) & ~_fold(np.bitwise_and, voxels)


def find_surface_voxels(voxels: Bits) -> Bits:
    """Return the voxels with a background neighbour across a face: what a 6-connected erosion takes away.

    Of packed `(I + 2, J + 2, W)` they are `(I, J, W)`.
    """
    num_rims = voxels.ndim - 1
    inner = (slice(1, -1),) * num_rims
    inside = _next_lower(voxels)[inner] & _next_higher(voxels)[inner]
    for axis in range(num_rims):
        for step in (slice(0, -2), slice(2, None)):
            inside &= voxels[(*inner[:axis], step, *inner[axis + 1 :])]
    return voxels[inner] & ~inside


def list_places(bits: Bits) -> Places:
    """Return the places of the bits that are set, ascending."""
    words = np.flatnonzero(bits)
    row, bit = _find_bits(bits.reshape(-1)[words])
    return words[row] * 64 + bit


def unpack(bits: Bits) -> NDArray[np.bool_]:
    """Return a flag for every place, flat."""
    return np.unpackbits(bits.reshape(-1).view(np.uint8), bitorder="little").view(np.bool_)


def read_patterns(voxels: Bits, cells: Bits) -> tuple[Places, NDArray[np.uint8]]:
    """Return the places of cells and which of their voxels are inside (see `areas.measure_cells`)."""
    places, num_rims = list_places(cells), voxels.ndim - 1
    row = 64 * voxels.shape[-1]
    at = places
    if num_rims == 2:  # the voxels' planes hold one row more
        at = places + places // (cells.shape[1] * row) * row
    strides = (voxels.shape[1] * row, row)[-num_rims:]
    inside = unpack(voxels).view(np.uint8)
    patterns = np.zeros(places.size, dtype=np.uint8)
    for steps in product((0, 1), repeat=num_rims):
        corner = at + sum(step * stride for step, stride in zip(steps, strides, strict=True))
        for behind in (1, 0):
            patterns <<= 1
            patterns |= inside[corner - behind]
    return places, patterns


def _find_bits(words: Bits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which word each set bit lies in, and where in it."""
    flags = np.unpackbits(words.view(np.uint8), bitorder="little")
    places = np.flatnonzero(flags.view(np.bool_))
    return places >> 6, places & 63


def _fold(combine: Callable[[Bits, Bits], Bits], voxels: Bits) -> Bits:
    folded = combine(voxels, _next_lower(voxels))
    for axis in range(voxels.ndim - 1):
        behind = (slice(None),) * axis + (slice(None, -1),)
        ahead = (slice(None),) * axis + (slice(1, None),)
        folded = combine(folded[behind], folded[ahead])
    return folded


def _next_lower(bits: Bits) -> Bits:
    """Bring to each place the bit of the place before it."""
    moved = bits << _ONE
    moved[..., 1:] |= bits[..., :-1] >> _LAST
    return moved


def _next_higher(bits: Bits) -> Bits:
    """Bring to each place the bit of the place behind it."""
    moved = bits >> _ONE
    moved[..., :-1] |= bits[..., 1:] << _LAST
    return moved
