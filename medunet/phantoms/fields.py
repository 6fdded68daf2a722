"""Building blocks of phantoms: points in mm, depths below simple surfaces, and smooth random fields.

All are functions of a position, not of a grid, so that a shape is the same in every scan. A depth is the distance to
the surface in mm, positive inside and exact to first order near the surface.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.geometry import Affine

Array = NDArray[np.floating]  # float32 throughout
Points = tuple[Array, Array, Array]  # x, y and z in mm, each (I, J, K)
Point = tuple[float, float, float]

_LATTICE = 32  # knots along each axis; the field is periodic
_SPLINE_VARIANCE = (151 / 315) ** 3  # of a cubic B-spline with coefficients of variance 1, over all positions


@dataclass(frozen=True)
class SmoothField:
    """A random field of mean 0 and variance 1: a cubic B-spline over a periodic lattice of white noise."""

    coefficients: Array  # (32, 32, 32)
    grain_mm: float  # spacing of the lattice; bumps are about twice as wide

    def at(self, points: Points) -> Array:
        """Return the value of the field at every point, `(I, J, K)`."""
        knots = np.stack([axis / self.grain_mm for axis in points])
        value = ndimage.map_coordinates(
            self.coefficients, knots, order=3, mode="grid-wrap", prefilter=False, output=np.float32
        )
        return value / _SPLINE_VARIANCE**0.5


def draw_field(rng: np.random.Generator, grain_mm: float) -> SmoothField:
    """Draw a random field."""
    return SmoothField(rng.standard_normal((_LATTICE,) * 3, dtype=np.float32), grain_mm)


def grid_points(shape: tuple[int, int, int], affine: Affine) -> Points:
    """Return the world coordinates x, y and z in mm of every voxel of a grid."""
    i, j, k = (axis.astype(np.float32) for axis in np.ogrid[tuple(slice(n) for n in shape)])
    x, y, z = (
        np.float32(row[0]) * i + np.float32(row[1]) * j + np.float32(row[2]) * k + np.float32(row[3])
        for row in affine[:3]
    )
    return x, y, z


def ellipsoid_depth(points: Points, centre_mm: Point, half_axes_mm: Point) -> Array:
    """Return the depth in mm below the surface of an ellipsoid."""
    squared = np.zeros(1, np.float32)  # squared radius, 1 on the surface
    slope = np.full(1, 1e-6, np.float32)  # a quarter of its squared gradient
    for axis, centre, half_axis in zip(points, centre_mm, half_axes_mm, strict=True):
        offset = (axis - centre) / half_axis
        squared = squared + offset**2
        slope = slope + (offset / half_axis) ** 2
    radius = np.sqrt(squared)
    return (1 - radius) * np.maximum(radius, 0.05) / np.sqrt(slope)


def tube_depth(points: Points, start_mm: Point, end_mm: Point, radii_mm: tuple[float, float]) -> Array:
    """Return the depth in mm within a cone with round ends, whose radius changes from the first to the second."""
    along = np.subtract(end_mm, start_mm)
    offsets = [axis - start for axis, start in zip(points, start_mm, strict=True)]
    projected = sum(offset * np.float32(step) for offset, step in zip(offsets, along, strict=True))
    share = np.clip(projected / np.float32(along @ along), 0, 1)
    squares = [(offset - share * np.float32(step)) ** 2 for offset, step in zip(offsets, along, strict=True)]
    radius = radii_mm[0] + share * (radii_mm[1] - radii_mm[0])
    return radius - np.sqrt(squares[0] + squares[1] + squares[2])


def smooth_union(*depths: Array, blend_mm: float) -> Array:
    """Return the depth in mm within the union of shapes, with their junctions smoothed over `blend_mm`."""
    union: Array = depths[0]
    for depth in depths[1:]:
        union = blend_mm * np.logaddexp(union / blend_mm, depth / blend_mm)
    return union
