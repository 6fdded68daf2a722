"""Stacks of DICOM slices along the normal of their plane: the line and plane fitted to all slices, and their grid.

Distances and directions are judged by how precisely the headers are written (rounding.py). Positions are LPS+ mm as
in DICOM; only the affine is RAS+.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.dicom.heights import (
    distance_tolerance_mm,
    fit_orientation,
    fit_steps,
    height_tolerance_mm,
    nearest_pair,
    normal_of,
    off_fit,
    places_of,
)
from medunet.dataset.dicom.rounding import (
    angle_error,
    cosine_unit,
    fit_line,
    line_is_surer,
    slope_error_mm,
    written_unit,
)
from medunet.imaging.dicom import Slice
from medunet.imaging.geometry import LPS_TO_RAS, Affine

Vector = NDArray[np.float64]

_SHIFT_MM = 0.1  # tolerance of exact in-plane positions
_TILT_MM_PER_MM = 2e-4  # smaller tilts are written to the volume as they are
_LIKE_EXACT = 0.02  # residuals below this fraction of the written unit show that nothing was rounded
_FEWEST_LIKE_EXACT = 8
_HIDDEN = 0.75  # of the written unit: a drift that rounding may hide altogether, as if nothing was rounded
_COARSE = 2.01  # units of rounding between slices from which a missing slice can be told


@dataclass(frozen=True)
class Stack:
    """Two or more slices of one orientation, matrix and pixel spacing, sorted by height along the normal."""

    slices: tuple[Slice, ...]

    @cached_property
    def orientations(self) -> Vector:
        """Directions as the headers have them, (K, 6)."""
        return np.array([one.frame.orientation for one in self.slices])

    @cached_property
    def orientation(self) -> Vector:
        """Perpendicular unit vectors along a row and along a column, (2, 3), nearest to all slices' directions."""
        return fit_orientation(self.orientations)

    @cached_property
    def normal(self) -> Vector:
        """Unit vector perpendicular to the slices."""
        return normal_of(self.orientation)

    @cached_property
    def positions_mm(self) -> Vector:
        """Centre of each slice's first voxel, (K, 3)."""
        return np.array([one.frame.position_mm for one in self.slices])

    @cached_property
    def unit_mm(self) -> float:
        """Unit in which positions are written, such as 0.1 mm."""
        return written_unit(self.positions_mm)

    @cached_property
    def heights_mm(self) -> Vector:
        """Height of each slice along the normal, (K,), increasing."""
        return self.positions_mm @ self.normal

    @cached_property
    def distances_mm(self) -> Vector:
        """Distance from each slice to the next along the normal, (K-1,)."""
        return np.diff(self.heights_mm)

    @property
    def slice_spacing_mm(self) -> float:
        """Smallest usual distance between neighbouring slices, fitted to all slices."""
        return self._steps[0]

    @property
    def tolerance_mm(self) -> float:
        """Largest deviation of a distance from the slice spacing that is not a gap."""
        return distance_tolerance_mm(self.slice_spacing_mm, self._height_error_mm)

    @cached_property
    def places(self) -> Vector:
        """Place of each slice on a grid of the slice spacing, (K,), from 0; whole numbers for slices on it.

        If slices are not on it, the grid is stretched so that the last slice is.
        """
        step, counts, is_even = self._steps
        if is_even:
            return places_of(counts)
        above_mm = self.heights_mm - self.heights_mm[0]
        return above_mm / above_mm[-1] * max(1, round(float(above_mm[-1]) / step))

    @cached_property
    def line(self) -> tuple[Vector, Vector]:
        """Position of the grid's first voxel, and the step from each slice of the grid to the next, LPS+ mm."""
        return fit_line(self.places, self.positions_mm, self._shift_tolerance_mm)

    @cached_property
    def drift(self) -> Vector:
        """In-plane displacement of the slices per mm of height, (3,); 0 without a tilt."""
        step = self.line[1]
        height = step @ self.normal
        return (step - height * self.normal) / height

    @property
    def drift_mm(self) -> float:
        """Distance of the last slice from the normal through the first, in mm."""
        return self.steepness * float(self.heights_mm[-1] - self.heights_mm[0])

    @property
    def steepness(self) -> float:
        """Tangent of the tilt."""
        return float(np.linalg.norm(self.drift))

    @property
    def is_tilted(self) -> bool:
        """Whether the slices drift by more than the rounding of headers explains."""
        length_mm = float(self.heights_mm[-1] - self.heights_mm[0])
        explained_mm = length_mm * angle_error(self.direction_unit, self.orientations) + self._line_error_mm
        return self.drift_mm > max(_SHIFT_MM, explained_mm) and self.steepness > _TILT_MM_PER_MM

    @property
    def is_too_coarse(self) -> bool:
        """Whether positions are rounded so coarsely that a missing slice could not be told from rounding."""
        mean_mm = float(self.heights_mm[-1] - self.heights_mm[0]) / (len(self.slices) - 1)
        exact_mm = min(_SHIFT_MM, self.unit_mm / 4)
        has_one_gap = len(self.gaps()) == 1 and self._steps[2]
        is_rounded = exact_mm < self.off_even_mm <= 1.3 * self._height_error_mm + exact_mm
        return is_rounded and not has_one_gap and mean_mm <= _COARSE * self.unit_mm

    @property
    def residual_mm(self) -> float:
        """Largest distance of a slice's corner from the grid, or of the last slice from the normal, in mm."""
        columns, rows, _ = self.shape
        origin, step, along_rows, along_columns = self._grid()
        worst = self.drift_mm
        for one, place, position in zip(self.slices, self.places, self.positions_mm, strict=True):
            own = np.reshape(one.frame.orientation or (), (2, 3))
            own = own / np.linalg.norm(own, axis=1, keepdims=True)
            between_rows, between_columns = one.frame.spacing_mm or self.pixel_spacing_mm
            off = position - origin - place * step
            for column in (0, columns - 1):
                for row in (0, rows - 1):
                    moved = column * (own[0] * between_columns - along_rows)
                    moved = moved + row * (own[1] * between_rows - along_columns)
                    worst = max(worst, float(np.linalg.norm(off + moved)))
        return worst

    @cached_property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """Distance between rows and distance between columns: the slices' median."""
        rows, columns = np.median([one.frame.spacing_mm or (0.0, 0.0) for one in self.slices], axis=0)
        return float(rows), float(columns)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along a row, along a column, and number of slices."""
        rows, columns = self.slices[0].file.shape
        return columns, rows, len(self.slices)

    @property
    def upright_shape(self) -> tuple[int, int, int]:
        """Shape of the repaired grid: evenly spaced slices without tilt that contain all voxels."""
        columns, rows, _ = self.shape
        height = self.heights_mm[-1] - self.heights_mm[0]
        between_rows, between_columns = self.pixel_spacing_mm
        along_rows, along_columns = (
            np.abs(self.orientation @ self.drift) * height if self.is_tilted else (0, 0)
        )
        return (
            columns + math.ceil(along_rows / between_columns),
            rows + math.ceil(along_columns / between_rows),
            1 + round(float(self.places[-1])),
        )

    def gaps(self) -> list[int]:
        """Return the indices of the slices whose distance to the next one is not the slice spacing."""
        step, counts, is_even = self._steps
        off = counts > 1 if is_even else np.abs(self.distances_mm - step) > self.tolerance_mm
        return [int(place) for place in np.flatnonzero(off)]

    def uneven_slices(self) -> list[int]:
        """Return the indices of the slices that are not at evenly spaced heights."""
        if self._steps[2]:
            return []
        most_mm = height_tolerance_mm(self.slice_spacing_mm, self._height_error_mm)
        return [int(place) for place in np.flatnonzero(np.abs(self.off_line_mm) > most_mm)]

    def in_plane_shifts(self) -> dict[int, float]:
        """Return the slices that are shifted in their plane relative to the others: index -> shift in mm."""
        origin, step = self.line
        off = self.positions_mm - origin - self.places[:, None] * step
        off_mm = np.linalg.norm(off - (off @ self.normal)[:, None] * self.normal, axis=1)
        return {
            int(place): float(off_mm[place]) for place in np.flatnonzero(off_mm > self._shift_tolerance_mm)
        }

    def affine(self) -> Affine:
        """Return the affine from voxel index to RAS+ mm of the grid, whose axes header rounding does not shear."""
        return _affine(*self._grid())

    def affine_of(self, origin_mm: Vector, step_mm: Vector) -> Affine:
        """Return the affine to RAS+ mm of a grid parallel to the slices, from its origin and slice step in LPS+."""
        between_rows, between_columns = self.pixel_spacing_mm
        directions = self.orientation
        return _affine(origin_mm, step_mm, directions[0] * between_columns, directions[1] * between_rows)

    def _grid(self) -> tuple[Vector, Vector, Vector, Vector]:
        """Return the origin of the grid and its steps between slices, along a row and along a column, LPS+ mm.

        Where the line of the positions is not along the normal, but rounding explains it, the less precise of both
        follows the other.
        """
        origin, step = self.line
        directions = self.orientation
        if self.steepness > _TILT_MM_PER_MM and not self.is_tilted:
            length_mm = float(self.heights_mm[-1] - self.heights_mm[0])
            if line_is_surer(self.unit_mm, self.places, length_mm, self.direction_unit):
                upright = step / np.linalg.norm(step)
                directions = nearest_pair(directions - (directions @ upright)[:, None] * upright)
            else:
                step = (step @ self.normal) * self.normal
        between_rows, between_columns = self.pixel_spacing_mm
        return origin, step, directions[0] * between_columns, directions[1] * between_rows

    def is_on_grid(self) -> NDArray[np.bool_]:
        """Return for each slice whether it is at a height of the grid of the slice spacing, (K,)."""
        off_mm = np.abs(self.places - np.rint(self.places)) * self.slice_spacing_mm
        return off_mm <= self.tolerance_mm

    @cached_property
    def off_line_mm(self) -> Vector:
        """How far each slice is above or below its even height, (K,), next to gaps of whole slices."""
        return off_fit(places_of(self._steps[1]), self.heights_mm)

    @property
    def most_uneven_mm(self) -> float:
        """Largest of `off_line_mm`."""
        return float(np.abs(self.off_line_mm).max())

    @cached_property
    def off_even_mm(self) -> float:
        """How far slices are from evenly spaced heights, if none is missing."""
        return float(np.abs(off_fit(np.arange(float(len(self.slices))), self.heights_mm)).max())

    @property
    def _height_error_mm(self) -> float:
        return float(np.abs(self.normal).sum()) * self.unit_mm / 2

    @cached_property
    def _steps(self) -> tuple[float, Vector, bool]:
        return fit_steps(self.heights_mm, self._height_error_mm)

    @property
    def _shift_tolerance_mm(self) -> float:
        return max(_SHIFT_MM, float(np.sqrt(3)) * self.unit_mm)

    @cached_property
    def direction_unit(self) -> float:
        """Unit in which directions are written, such as 0.001."""
        return cosine_unit(self.orientations)

    @cached_property
    def _line_error_mm(self) -> float:
        """Largest drift from first to last slice that rounding of positions explains."""
        origin, step = self.line
        off_mm = np.linalg.norm(self.positions_mm - origin - self.places[:, None] * step, axis=1)
        is_exact = len(self.slices) >= _FEWEST_LIKE_EXACT and off_mm.max() <= _LIKE_EXACT * self.unit_mm
        rounded_mm = slope_error_mm(self.unit_mm, self.places)
        return min(rounded_mm, _HIDDEN * self.unit_mm) if is_exact else rounded_mm


def _affine(origin_mm: Vector, step_mm: Vector, along_rows: Vector, along_columns: Vector) -> Affine:
    affine = np.eye(4)
    affine[:3] = np.column_stack([along_rows, along_columns, step_mm, origin_mm])
    return LPS_TO_RAS @ affine
