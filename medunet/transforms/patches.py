"""Sample patches from preprocessed cases, with foreground oversampling and padding at the borders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOCATIONS_PER_TARGET = 10_000  # as nnU-Net: limits the memory


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
    """Return the flat indices of at most 10,000 random voxels of each target that is present."""
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
    """Sample a random patch: image `(C, *size)` and label `(1, *size)`.

    The position is chosen for the central box that the network predicts: `patch_size` (by default all of `size`), to
    which augmentation crops the patch, minus an unpadded network's `valid_margin` (voxels per axis on each side). The
    box is placed uniformly in the volume or, with `foreground`, around a random voxel of a random target, moved
    inwards at the borders. Along an axis that is shorter than the box, the box contains the whole axis: centred as in
    prediction, or moved towards the chosen voxel.

    The rest of the patch may extend beyond the volume: there border voxels are repeated or, for an unpadded network,
    the volume is mirrored as in prediction.

    With a `slice_axis`, `size` has two axes and the patch is cut from one slice perpendicular to that axis. With
    `context_slices` (odd) the image holds that many neighbouring slices as channels `(C · context_slices, *size)`,
    border slices repeated: all slices of channel 0, then of channel 1, and so on.
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
            _move_inside(int(c) - n // 2, n, length)
            for c, n, length in zip(centre, boxes, shape, strict=True)
        ]
    else:
        starts = [
            int(rng.integers(length - n + 1))
            if length >= n
            else -((n - length) // 2)  # as prediction windows
            for n, length in zip(boxes, shape, strict=True)
        ]
    padded_index = mirrored_index if any(margins) else _repeated_index
    index = [
        padded_index(start - (n - box) // 2, n, length)
        for start, n, box, length in zip(starts, sizes, boxes, shape, strict=True)
    ]
    image = _take_image(case.image, index, slice_axis, context_slices)
    return image, _take_label(case.label, index, slice_axis)


def cut_image(
    image: NDArray[np.float32],
    starts: tuple[int, int, int],
    size: tuple[int, ...],
    *,
    slice_axis: int | None,
    context_slices: int = 1,
    valid_margin: tuple[int, ...] = (),
) -> NDArray[np.float32]:
    """Cut an image patch `(C, *size)` whose predicted box (inside `valid_margin`) starts at `starts` `(I, J, K)`.

    `starts` are in voxels and may be negative. The other arguments are those of `sample_patch`.
    """
    index = _cut_index(image.shape[1:], starts, size, slice_axis, valid_margin)
    return _take_image(image, index, slice_axis, context_slices)


def cut_label(
    label: NDArray[np.uint8],
    starts: tuple[int, int, int],
    size: tuple[int, ...],
    *,
    slice_axis: int | None,
    valid_margin: tuple[int, ...] = (),
) -> NDArray[np.uint8]:
    """Cut the label `(1, *size)` of the patch that `cut_image` cuts."""
    index = _cut_index(label.shape, starts, size, slice_axis, valid_margin)
    return _take_label(label, index, slice_axis)


def _cut_index(
    shape: tuple[int, ...],
    starts: tuple[int, int, int],
    size: tuple[int, ...],
    slice_axis: int | None,
    valid_margin: tuple[int, ...],
) -> list[NDArray[np.int64]]:
    sizes, margins = list(size), list(valid_margin or (0,) * len(size))
    if slice_axis is not None:
        sizes.insert(slice_axis, 1)
        margins.insert(slice_axis, 0)
    padded_index = mirrored_index if any(margins) else _repeated_index
    return [
        padded_index(start - margin, n, length)
        for start, margin, n, length in zip(starts, margins, sizes, shape, strict=True)
    ]


def mirrored_index(start: int, size: int, length: int) -> NDArray[np.int64]:
    """Return the voxel indices for positions `start .. start + size - 1` of an axis of `length` mirrored at its ends.

    Mirroring is that of `numpy.pad` with mode "reflect": end voxels are not repeated, and long paddings are mirrored
    several times. An axis of one voxel is repeated.
    """
    last = max(length - 1, 1)
    position = np.arange(start, start + size)
    return np.minimum(np.abs((position + last) % (2 * last) - last), length - 1)


def _repeated_index(start: int, size: int, length: int) -> NDArray[np.int64]:
    """Return the voxel indices for positions `start .. start + size - 1` of an axis whose end voxels are repeated."""
    return np.arange(start, start + size).clip(0, length - 1)


def _move_inside(start: int, size: int, length: int) -> int:
    """Return the start of a box moved into the volume; a box longer than the volume is moved to contain it."""
    return min(max(start, min(0, length - size)), max(0, length - size))


def _take_image(
    image: NDArray[np.float32], index: list[NDArray[np.int64]], slice_axis: int | None, context_slices: int
) -> NDArray[np.float32]:
    """Return image `(C, *size)` at indices per axis; of a slice with its neighbours."""
    if slice_axis is None:
        return _take(image, index)
    first = int(index[slice_axis][0]) - context_slices // 2
    index = list(index)
    index[slice_axis] = _repeated_index(first, context_slices, image.shape[1 + slice_axis])
    slices = np.moveaxis(_take(image, index), 1 + slice_axis, 1)
    return slices.reshape(-1, *slices.shape[2:])


def _take_label(
    label: NDArray[np.uint8], index: list[NDArray[np.int64]], slice_axis: int | None
) -> NDArray[np.uint8]:
    """Return label `(1, *size)` at indices per axis."""
    taken = _take(label, index)[None]
    return taken if slice_axis is None else taken.squeeze(1 + slice_axis)


def _take(array: NDArray[Any], index: Sequence[NDArray[np.int64]]) -> NDArray[Any]:
    """Return a copy of the voxels at indices along the last three axes, reading only their bounding box from disk."""
    firsts = [int(places.min()) for places in index]
    box = tuple(slice(first, int(places.max()) + 1) for first, places in zip(firsts, index, strict=True))
    lead = (slice(None),) * (len(array.shape) - 3)
    block = np.array(array[(*lead, *box)])
    for axis, (first, places) in enumerate(zip(firsts, index, strict=True), start=len(lead)):
        if not np.array_equal(places, np.arange(first, first + block.shape[axis])):
            block = block.take(places - first, axis=axis)
    return block
