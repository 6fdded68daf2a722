"""Patches cut from preprocessed cases: forced foreground, borders by repetition, everything from a given seed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LOCATIONS_PER_TARGET = 10_000  # as nnU-Net: bounds the memory, keeps every target in reach


@dataclass(frozen=True)
class PreparedCase:
    """A preprocessed case in memory: image float32 `(C, I, J, K)`, label uint8 `(I, J, K)`."""

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
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut a patch: image `(C, *size)` and label `(1, *size)`.

    With `foreground`, it is centred on a random voxel of a random target, moved inwards at the borders; else it
    lies anywhere in the volume. A side longer than the volume is filled by repeating the border. With a
    `slice_axis`, size has two axes and the patch is cut from one slice across that axis.
    """
    shape = case.label.shape
    full = list(size)
    if slice_axis is not None:
        full.insert(slice_axis, 1)
    if foreground and case.locations:
        names = sorted(case.locations)
        voxels = case.locations[names[rng.integers(len(names))]]
        centre = np.unravel_index(voxels[rng.integers(voxels.size)], shape)
        starts = [int(c) - n // 2 for c, n in zip(centre, full, strict=True)]
        starts = [_inside(start, n, length) for start, n, length in zip(starts, full, shape, strict=True)]
    else:
        starts = [
            int(rng.integers(length - n + 1)) if length >= n else (length - n) // 2
            for n, length in zip(full, shape, strict=True)
        ]
    index = [
        np.arange(start, start + n).clip(0, length - 1)
        for start, n, length in zip(starts, full, shape, strict=True)
    ]
    if all(start >= 0 and start + n <= length for start, n, length in zip(starts, full, shape, strict=True)):
        box = tuple(slice(start, start + n) for start, n in zip(starts, full, strict=True))
        image, label = case.image[(slice(None), *box)], case.label[box][None]
    else:
        image = case.image[:, index[0][:, None, None], index[1][:, None], index[2]]
        label = case.label[np.ix_(*index)][None]
    if slice_axis is not None:
        image, label = image.squeeze(1 + slice_axis), label.squeeze(1 + slice_axis)
    return np.array(image), np.array(label)  # copies: the case may be a read-only mapped file


def _inside(start: int, size: int, length: int) -> int:
    """Move a patch into the volume; one that is longer than the volume is centred on it."""
    if size >= length:
        return (length - size) // 2
    return min(max(start, 0), length - size)
