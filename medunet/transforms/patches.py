"""Patches cut from preprocessed cases: forced foreground, continued borders, everything from a given seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOCATIONS_PER_TARGET = 10_000  # as nnU-Net: bounds the memory, keeps every target in reach


@dataclass(frozen=True)
class PreparedCase:
    """A preprocessed case in memory or on disk: image float32 `(C, I, J, K)`, label uint8 `(I, J, K)`."""

    id: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    locations: Mapping[str, NDArray[np.int64]]  # per target, flat indices of some of its voxels


def find_locations(
    label: NDArray[np.uint8], targets: Mapping[str, tuple[int, ...]], seed: tuple[int, ...]
) -> dict[str, NDArray[np.int64]]:
    """Return for each target that is present the flat indices of at most 10,000 of its voxels."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, values in targets.items():
        voxels = np.flatnonzero(np.isin(label, values))
        if voxels.size:
            chosen = rng.choice(voxels, min(_LOCATIONS_PER_TARGET, voxels.size), replace=False)
            found[name] = np.sort(chosen)
    return found


def sample_patch(
    case: PreparedCase,
    size: tuple[int, ...],
    rng: np.random.Generator,
    *,
    foreground: bool,
    slice_axis: int | None,
    context_slices: int = 1,
    patch_size: tuple[int, ...] = (),
    valid_margin: tuple[int, ...] = (),
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a patch: image `(C, *size)` and label `(1, *size)`.

    What counts is the box in its middle that the network will predict: `patch_size` (by default all of `size`),
    which is what augmentation cuts it down to, less an unpadded network's `valid_margin` (voxels per axis on each
    side). That box lies anywhere in the volume with equal chance, or, with `foreground`, about a random voxel of a
    random target, moved inwards at the borders. Along an axis that is shorter than the box, the box holds all of
    it: centred as in prediction, or moved towards the forced voxel.

    What is cut about the box goes on beyond the borders: there they are repeated, or, for an unpadded network,
    mirrored as in prediction.

    With a `slice_axis`, size has two axes and the patch is cut from one slice across that axis. With
    `context_slices` (odd) the image holds that many neighbouring slices about it as channels
    `(C · context_slices, *size)`, the border slices repeated: all slices of channel 0, then of channel 1, and so on.
    """
    shape = case.label.shape
    unaugmented, margins = patch_size or size, valid_margin or (0,) * len(size)
    sizes = list(size)
    boxes = [n - 2 * margin for n, margin in zip(unaugmented, margins, strict=True)]
    if slice_axis is not None:
        sizes.insert(slice_axis, 1)
        boxes.insert(slice_axis, 1)
    if foreground and case.locations:
        names = sorted(case.locations)
        voxels = case.locations[names[rng.integers(len(names))]]
        centre = np.unravel_index(voxels[rng.integers(voxels.size)], shape)
        starts = [
            _moved_inwards(int(c) - n // 2, n, length)
            for c, n, length in zip(centre, boxes, shape, strict=True)
        ]
    else:
        starts = [
            int(rng.integers(length - n + 1)) if length >= n else -((n - length) // 2)  # as windows lie
            for n, length in zip(boxes, shape, strict=True)
        ]
    beyond = mirrored_index if any(margins) else _repeated_index
    index = [
        beyond(start - (n - box) // 2, n, length)
        for start, n, box, length in zip(starts, sizes, boxes, shape, strict=True)
    ]
    return _take_patch(case, index, slice_axis, context_slices)


def cut_patch(
    case: PreparedCase,
    starts: tuple[int, int, int],
    size: tuple[int, ...],
    *,
    slice_axis: int | None,
    context_slices: int = 1,
    valid_margin: tuple[int, ...] = (),
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut the patch whose predicted box, its part inside `valid_margin`, begins at `starts` `(I, J, K)` in voxels.

    Patches and their arguments are as `sample_patch` has them; `starts` may lie before the volume.
    """
    sizes, margins = list(size), list(valid_margin or (0,) * len(size))
    if slice_axis is not None:
        sizes.insert(slice_axis, 1)
        margins.insert(slice_axis, 0)
    beyond = mirrored_index if any(margins) else _repeated_index
    index = [
        beyond(start - margin, n, length)
        for start, margin, n, length in zip(starts, margins, sizes, case.label.shape, strict=True)
    ]
    return _take_patch(case, index, slice_axis, context_slices)


def mirrored_index(start: int, size: int, length: int) -> NDArray[np.int64]:
    """Return which voxels stand at `start .. start + size - 1` where an axis of `length` is mirrored at its ends.

    The end voxels are the mirrors, not repeated, and mirrored again where that does not reach far enough, as
    `numpy.pad` with mode "reflect"; an axis of one voxel is repeated.
    """
    last = max(length - 1, 1)
    position = np.arange(start, start + size)
    return np.minimum(np.abs((position + last) % (2 * last) - last), length - 1)


def _repeated_index(start: int, size: int, length: int) -> NDArray[np.int64]:
    """Return which voxels stand at `start .. start + size - 1` where the end voxels are repeated beyond."""
    return np.arange(start, start + size).clip(0, length - 1)


def _moved_inwards(start: int, size: int, length: int) -> int:
    """Move a box into the volume; one that is longer than the volume is moved until it holds all of it."""
    return min(max(start, min(0, length - size)), max(0, length - size))


def _take_patch(
    case: PreparedCase, index: list[NDArray[np.int64]], slice_axis: int | None, context_slices: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return image `(C, *size)` and label `(1, *size)` at an index per axis; of a slice with its neighbours."""
    label = _take(case.label, index)[None]
    if slice_axis is None:
        return _take(case.image, index), label
    first = int(index[slice_axis][0]) - context_slices // 2
    index = list(index)
    index[slice_axis] = _repeated_index(first, context_slices, case.label.shape[slice_axis])
    slices = np.moveaxis(_take(case.image, index), 1 + slice_axis, 1)
    return slices.reshape(-1, *slices.shape[2:]), label.squeeze(1 + slice_axis)


def _take(array: NDArray[Any], index: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    """Return a copy of the voxels at an index per spatial axis (the last three), reading no others from disk."""
    firsts = [int(places.min()) for places in index]
    box = tuple(slice(first, int(places.max()) + 1) for first, places in zip(firsts, index, strict=True))
    lead = (slice(None),) * (len(array.shape) - 3)
    block = np.array(array[(*lead, *box)])
    for axis, (first, places) in enumerate(zip(firsts, index, strict=True), start=len(lead)):
        if not np.array_equal(places, np.arange(first, first + block.shape[axis])):
            block = block.take(places - first, axis=axis)
    return block
