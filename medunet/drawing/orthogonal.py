"""Axial, coronal and sagittal planes of an RAS+ grid, in radiological orientation.

The patient's right is on the left of the picture, anterior on the left of sagittal planes, and anterior or superior
is up. Horizontally every plane therefore runs against its axis, vertically along it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MARKS = (("L", "R"), ("P", "A"), ("I", "S"))  # at the low and the high end of each axis

Box = tuple[tuple[int, int], ...]  # voxels [first, end) of each axis


@dataclass(frozen=True)
class Plane:
    """A plane: its horizontal axis, its vertical axis, and the axis perpendicular to it."""

    name: str
    across: int
    up: int
    through: int


PLANES = (Plane("axial", 0, 1, 2), Plane("coronal", 0, 2, 1), Plane("sagittal", 1, 2, 0))


def direction_marks(plane: Plane) -> tuple[str, str, str, str]:
    """Return the letters of the directions at the left, right, upper and lower edge of a plane's picture."""
    (right, left), (lower, upper) = _MARKS[plane.across], _MARKS[plane.up]
    return left, right, upper, lower


def depth_text(plane: Plane, position_mm: Sequence[float]) -> str:
    """Return the position of a plane along the axis perpendicular to it, such as "S 12.0 mm"."""
    depth_mm = round(float(position_mm[plane.through]), 1)
    return f"{_MARKS[plane.through][depth_mm >= 0]} {abs(depth_mm):.1f} mm"


def position_text(plane: Plane, position_mm: Sequence[float]) -> str:
    """Return the name and position of a plane through a world position in mm, such as 'axial  S 12.0 mm'."""
    return f"{plane.name}  {depth_text(plane, position_mm)}"


def box_around(mask: NDArray[np.bool_], margin: Sequence[int]) -> Box:
    """Return the bounding box of a mask that is not empty, with a margin in voxels, within the grid."""
    box = []
    for axis, size in enumerate(mask.shape):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append((max(0, int(present[0]) - margin[axis]), min(size, int(present[-1]) + 1 + margin[axis])))
    return tuple(box)
