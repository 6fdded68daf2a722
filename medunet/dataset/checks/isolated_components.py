"""Detect small isolated pieces of a label (L006), such as accidental brush strokes far from the structure."""

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.checks.fault_codes import make_fault
from medunet.imaging.components import label_components
from medunet.imaging.geometry import Affine, spacing_of
from medunet.records.fault import Fault

_MAX_VOXELS = 8
_MAX_SHARE = 0.001  # of the label
_MIN_DISTANCE_MM = 20.0
_MAX_PIECES = 20  # more small pieces are taken as intended


def find_isolated_components(
    case_id: str,
    labels: NDArray[np.integer],
    box: tuple[slice, slice, slice],
    counts: dict[int, int],
    names: dict[int, str],
    affine: Affine,
) -> list[Fault]:
    """Return a fault for each label with small isolated pieces.

    Such a piece is a connected component of the whole foreground with at most 8 voxels, which are less than a
    thousandth of their label, and no voxel of the label's larger pieces within 20 mm. Lesions within an organ or near
    each other are therefore not reported, nor is a label made of many small pieces. Components are 26-connected
    blocks of 2×2×2 voxels, so that nearby voxels count as connected.

    Args:
        labels: `(I, J, K)`, the map within `box`.
        box: position of `labels` in the whole grid.
        counts: number of voxels by label value.
        names: label name by value.
    """
    large = [value for value, count in counts.items() if count * _MAX_SHARE > 1 and value != 0]
    if not large:
        return []
    pieces, sizes = label_components(_halve(labels != 0))
    small = 1 + np.flatnonzero(sizes <= _MAX_VOXELS)
    if not 0 < small.size <= _MAX_PIECES or small.size == sizes.size:
        return []
    is_small = np.zeros(sizes.size + 1, bool)
    is_small[small] = True
    places = np.argwhere(is_small[pieces])
    of_piece = pieces[tuple(places.T)]
    isolated: dict[int, list[tuple[int, NDArray[np.int64]]]] = {}
    for piece in small:
        voxels = _voxels_in(labels, places[of_piece == piece])
        if len(voxels) > _MAX_VOXELS:
            continue
        for value in np.unique(labels[tuple(voxels.T)]).tolist():
            own = voxels[labels[tuple(voxels.T)] == value]
            if (
                value in large
                and len(own) < _MAX_SHARE * counts[value]
                and _is_far(own[0], value, labels, pieces, is_small, affine)
            ):
                isolated.setdefault(value, []).append((len(own), own[0]))
    start = np.array([side.start for side in box])
    faults = []
    for value, found in sorted(isolated.items()):
        voxel_counts = [count for count, _ in found]
        where = ", ".join(str(tuple((start + place).tolist())) for _, place in found[:3])
        more = ", …" if len(found) > 3 else ""
        measured = (
            f"{names.get(value, value)}: {len(found)} with {sum(voxel_counts)} voxels in total, more than "
            f"{_MIN_DISTANCE_MM:g} mm from its other {counts[value] - sum(voxel_counts)}, at {where}{more}"
        )
        faults.append(make_fault("L006", case_id, "label", measured))
    return faults


def _halve(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Downsample a mask by 2: each block of 2×2×2 voxels, smaller at odd ends, is set if any voxel is."""
    for axis in range(3):
        even, odd = (mask[(slice(None),) * axis + (slice(start, None, 2),)] for start in (0, 1))
        mask = even.copy(order="K")
        mask[(slice(None),) * axis + (slice(0, odd.shape[axis]),)] |= odd
    return mask


def _voxels_in(labels: NDArray[np.integer], blocks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices `(voxels, 3)` of the labelled voxels in blocks of 2×2×2."""
    corners = np.array(list(np.ndindex(2, 2, 2)))
    places = (2 * blocks[:, None] + corners).reshape(-1, 3)
    places = places[(places < labels.shape).all(axis=1)]
    return places[labels[tuple(places.T)] != 0]


def _is_far(
    place: NDArray[np.int64],
    value: int,
    labels: NDArray[np.integer],
    pieces: NDArray[np.integer],
    is_small: NDArray[np.bool_],
    affine: Affine,
) -> bool:
    """Return whether no voxel of the label's larger pieces is within 20 mm of a voxel."""
    spacing_mm = np.array(spacing_of(affine))
    reach = np.ceil(_MIN_DISTANCE_MM / spacing_mm).astype(int)
    low = np.maximum(place - reach, 0)
    window = tuple(slice(int(a), int(b)) for a, b in zip(low, place + reach + 1, strict=True))
    near = np.argwhere(labels[window] == value) + low
    near = near[~is_small[pieces[tuple(near.T // 2)]]]
    steps = (near - place) @ affine[:3, :3].T
    lengths_mm = np.linalg.norm(steps, axis=1)
    return bool((lengths_mm > _MIN_DISTANCE_MM).all())
