"""Dilation, erosion, opening and closing of a mask by a ball in mm.

A ball holds the voxels whose centres lie within its radius of its own centre: an ellipsoid in voxels where the
spacing differs by axis. A radius below the voxel's size along an axis does nothing along that axis, and a volume
of one slice is treated in its plane. The results equal those of thresholded Euclidean distance maps, for radii of
a few mm at a hundredth of their time: a ball is a bundle of rods along the last axis, so the mask thickened along
that axis is shifted in the plane of the other two, eight voxels in a byte.
"""

from collections.abc import Sequence

import numpy as np

from medunet.postprocessing.boxes import Mask, on_box

SLACK = 1 + 1e-6  # spacings are often stored as 32-bit floats: 3 voxels of "0.7" mm lie within 2.1 mm


def make_ball(radius_mm: float, spacing_mm: Sequence[float], shape: Sequence[int]) -> Mask:
    """Return the ball for a volume of this shape, `(2a + 1, 2b + 1, 2c + 1)` with its centre in the middle."""
    limit_mm = radius_mm * SLACK
    reach = [int(limit_mm // step) if size > 1 else 0 for step, size in zip(spacing_mm, shape, strict=True)]
    offsets = np.ogrid[tuple(slice(-voxels, voxels + 1) for voxels in reach)]
    i_mm, j_mm, k_mm = (axis * step for axis, step in zip(offsets, spacing_mm, strict=True))
    return i_mm**2 + j_mm**2 + k_mm**2 <= limit_mm**2


def ball_reach(ball: Mask) -> tuple[int, ...]:
    """Return how many voxels a ball reaches from its centre along each axis."""
    return tuple(size // 2 for size in ball.shape)


def dilate(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return all voxels of the volume within `radius_mm` of the mask `(I, J, K)`."""
    ball = make_ball(radius_mm, spacing_mm, mask.shape)
    return on_box(mask, lambda frame: _spread(frame, ball), margin_voxels=ball_reach(ball))


def erode(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the voxels of the mask `(I, J, K)` with no background of the volume within `radius_mm`.

    What lies beyond the volume is no background: a mask that its border cuts is not eaten from there.
    """
    ball = make_ball(radius_mm, spacing_mm, mask.shape)
    return on_box(mask, lambda frame: ~_spread(~frame, ball))


def open_mask(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the part of the mask `(I, J, K)` that balls within it cover: thin bridges and spikes go."""
    ball = make_ball(radius_mm, spacing_mm, mask.shape)
    return on_box(mask, lambda frame: _spread(~_spread(~frame, ball), ball), pad_voxels=ball_reach(ball))


def close_mask(mask: Mask, radius_mm: float, spacing_mm: Sequence[float]) -> Mask:
    """Return the mask `(I, J, K)` with all that no ball outside it covers: gaps and notches are filled."""
    ball = make_ball(radius_mm, spacing_mm, mask.shape)
    return on_box(mask, lambda frame: ~_spread(~_spread(frame, ball), ball), pad_voxels=ball_reach(ball))


def _spread(mask: Mask, ball: Mask) -> Mask:
    """Return the union of balls around the voxels of a mask, within its array."""
    reach_i, reach_j, reach_k = ball_reach(ball)
    rods = ball[:, :, reach_k:].sum(axis=2) - 1  # half length of the ball's rod at each (i, j); -1: no rod
    thick = np.ascontiguousarray(mask)
    spread = np.zeros_like(np.packbits(thick, axis=2))
    for half_length in range(reach_k + 1):
        if half_length > 0:
            thinner, thick = thick, thick.copy()
            thick[:, :, 1:] |= thinner[:, :, :-1]
            thick[:, :, :-1] |= thinner[:, :, 1:]
        packed = np.packbits(thick, axis=2)
        for i, j in np.argwhere(rods == half_length) - (reach_i, reach_j):
            to_i, from_i = _shifted(int(i), mask.shape[0])
            to_j, from_j = _shifted(int(j), mask.shape[1])
            spread[to_i, to_j] |= packed[from_i, from_j]
    return np.unpackbits(spread, axis=2, count=mask.shape[2]).astype(bool)


def _shifted(offset: int, size: int) -> tuple[slice, slice]:
    """Return where the voxels of an axis go when shifted, and where they come from."""
    shared = max(size - abs(offset), 0)
    to_start, from_start = max(offset, 0), max(-offset, 0)
    return slice(to_start, to_start + shared), slice(from_start, from_start + shared)
