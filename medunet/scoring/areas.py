"""Surface area of marching cubes cells: the area within each pattern of 2×2×2 voxels, in 2D the length of 2×2.

The corners of a cell are neighbouring voxel centres. Its pattern says which corners are inside the mask. The areas
equal those of google-deepmind/surface-distance (repository head). Rotating or mirroring a pattern, or swapping inside
and outside, does not change its area, so 14 of the 256 patterns are enough.
"""

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

# The triangles of each pattern (see `cell_areas`): the absolute components of their normals, in eighths.
_TRIANGLES: dict[int, tuple[tuple[int, int, int], ...]] = {
    0b00000000: (),
    0b00000001: ((1, 1, 1),),
    0b00000011: ((2, 2, 0), (2, 2, 0)),
    0b00000110: ((1, 1, 1), (1, 1, 1)),
    0b00000111: ((1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00001111: ((4, 0, 0), (4, 0, 0)),
    0b00010110: ((1, 1, 1), (1, 1, 1), (1, 1, 1)),
    0b00010111: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (2, 2, 2)),
    0b00011000: ((1, 1, 1), (1, 1, 1)),
    0b00011001: ((0, 2, 2), (0, 2, 2), (1, 1, 1)),
    0b00011011: ((0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)),
    0b00011110: ((1, 1, 1), (1, 1, 1), (2, 2, 2), (4, 0, 0)),
    0b00111100: ((2, 2, 0), (2, 2, 0), (2, 2, 0), (2, 2, 0)),
    0b01101001: ((1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
}
# The line segments of each 2×2 pattern in 2D: their lengths along both axes, in half voxels.
_LINES: dict[int, tuple[tuple[int, int], ...]] = {
    0b0000: (),
    0b0001: ((1, 1),),
    0b0011: ((0, 2),),
    0b0110: ((1, 1), (1, 1)),
}


def cell_areas(spacing_mm: Sequence[float]) -> NDArray[np.float64]:
    """Return the surface area in mm² (2D: length in mm) within a cell, indexed by its pattern: `(256,)` or `(16,)`.

    The corner at offset (a, b, c) from the cell's first voxel is bit 7 - (4a + 2b + c) of the pattern, in 2D the one
    at (a, b) bit 3 - (2a + b).
    """
    spacing = np.asarray(spacing_mm, dtype=np.float64)
    # The components of a line scale with the spacing of their own axis, those of a normal with the other two.
    scale = spacing / 2 if spacing.size == 2 else np.prod(spacing) / spacing / 8
    return np.linalg.norm(_all_patterns(spacing.size) * scale, axis=2).sum(axis=1)


@cache
def _all_patterns(num_axes: int) -> NDArray[np.int64]:
    """Return the parts of all patterns `(patterns, parts, axes)`, by rotation, mirroring and complement."""
    shape, num_corners = (2,) * num_axes, 2**num_axes
    spread = np.zeros((2**num_corners, 4, num_axes), dtype=np.int64)  # a pattern has at most four parts
    for pattern, parts in (_LINES if num_axes == 2 else _TRIANGLES).items():
        corners = np.array([pattern >> (num_corners - 1 - n) & 1 for n in range(num_corners)]).reshape(shape)
        for axes, steps in product(permutations(range(num_axes)), product((1, -1), repeat=num_axes)):
            turned = corners.transpose(axes)[tuple(slice(None, None, step) for step in steps)].ravel()
            code = int("".join(map(str, turned)), 2)
            turned_parts = np.array(parts, dtype=np.int64).reshape(-1, num_axes)[:, axes]
            spread[[code, 2**num_corners - 1 - code], : len(parts)] = turned_parts
    spread.flags.writeable = False
    return spread
