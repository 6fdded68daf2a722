"""Stacks of DICOM slices along the normal of their plane: distances, in-plane drift (tilt), and the resulting grid.

Positions are LPS+ mm as in DICOM; only the affine is RAS+.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.dicom import Slice
from medunet.imaging.geometry import Affine

Vector = NDArray[np.float64]

JITTER = 1e-4  # largest difference between orientations that count as the same

_SAME_HEIGHT = 0.01  # largest distance of slices at the same height, as a fraction of the median distance
_SMALLEST_DISTANCE_MM = 1e-4
_GAP_SHARE, _GAP_MM = 0.01, 0.1  # tolerance of distances: the larger of this fraction and this length
_GAP_MOST_SHARE = 0.4  # upper limit of the tolerance, for distances below a millimetre
_SHIFT_MM = 0.1  # tolerance of in-plane positions
_TILT_MM_PER_MM = 2e-4  # the largest tilt that rounding of direction cosines can cause


@dataclass(frozen=True)
class Stack:
    """Two or more slices of one orientation, matrix and pixel spacing, sorted by height along the normal."""

    slices: tuple[Slice, ...]

    @cached_property
    def orientation(self) -> Vector:
        """Mean direction along a row and along a column, (2, 3)."""
        return np.array([one.frame.orientation for one in self.slices]).mean(axis=0).reshape(2, 3)

    @cached_property
    def normal(self) -> Vector:
        """Unit vector perpendicular to the slices."""
        return normal_of(self.orientation)

    @cached_property
    def positions_mm(self) -> Vector:
        """Centre of each slice's first voxel, (K, 3)."""
        return np.array([one.frame.position_mm for one in self.slices])

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
        """Median distance between neighbouring slices."""
        return float(np.median(self.distances_mm))

    @property
    def tolerance_mm(self) -> float:
        """Largest deviation of a distance from the slice spacing that is not a gap."""
        spacing = self.slice_spacing_mm
        return min(max(_GAP_SHARE * spacing, _GAP_MM), _GAP_MOST_SHARE * spacing) + 1e-6

    @cached_property
    def drift(self) -> Vector:
        """In-plane displacement of the slices per mm of height, (3,); 0 without a tilt."""
        steps = np.diff(self.positions_mm, axis=0) - self.distances_mm[:, None] * self.normal
        return np.median(steps / self.distances_mm[:, None], axis=0)

    @property
    def drift_mm(self) -> float:
        """Distance of the last slice from the normal through the first, in mm."""
        return float(np.linalg.norm(self.drift) * (self.heights_mm[-1] - self.heights_mm[0]))

    @property
    def is_tilted(self) -> bool:
        """Whether the slices drift by more than the rounding of headers explains."""
        return self.drift_mm > _SHIFT_MM and float(np.linalg.norm(self.drift)) > _TILT_MM_PER_MM

    @property
    def pixel_spacing_mm(self) -> tuple[float, float]:
        """Distance between rows and distance between columns."""
        spacing = self.slices[0].frame.spacing_mm
        assert spacing is not None, "slices without spacing were refused before"
        return spacing[0], spacing[1]

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
            1 + round(height / self.slice_spacing_mm),
        )

    def gaps(self) -> list[int]:
        """Return the indices of the slices whose distance to the next one is not the slice spacing."""
        return [
            int(place)
            for place in np.flatnonzero(np.abs(self.distances_mm - self.slice_spacing_mm) > self.tolerance_mm)
        ]

    def uneven_slices(self) -> list[int]:
        """Return the indices of the slices that are not at evenly spaced heights between the first and the last."""
        even = np.linspace(self.heights_mm[0], self.heights_mm[-1], len(self.slices))
        return [int(place) for place in np.flatnonzero(np.abs(self.heights_mm - even) > self.tolerance_mm)]

    def in_plane_shifts(self) -> dict[int, float]:
        """Return the slices that are shifted in their plane relative to the others: index -> shift in mm."""
        in_plane = self.positions_mm - self.heights_mm[:, None] * (self.normal + self.drift)
        off_mm = np.linalg.norm(in_plane - np.median(in_plane, axis=0), axis=1)
        return {int(place): float(off_mm[place]) for place in np.flatnonzero(off_mm > _SHIFT_MM)}

    def affine(self) -> Affine:
        """Return the affine from voxel index to RAS+ mm for evenly spaced slices; exact for the first and last."""
        step = (self.positions_mm[-1] - self.positions_mm[0]) / (len(self.slices) - 1)
        return self.affine_of(self.positions_mm[0], step)

    def affine_of(self, origin_mm: Vector, step_mm: Vector) -> Affine:
        """Return the affine to RAS+ mm of a grid parallel to the slices, from its origin and slice step in LPS+."""
        between_rows, between_columns = self.pixel_spacing_mm
        affine = np.eye(4)
        affine[:3, 0] = self.orientation[0] * between_columns
        affine[:3, 1] = self.orientation[1] * between_rows
        affine[:3, 2] = step_mm
        affine[:3, 3] = origin_mm
        return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def normal_of(orientation: Vector) -> Vector:
    """Return the unit vector perpendicular to a row and a column direction, (2, 3)."""
    normal = np.cross(orientation[0], orientation[1])
    return normal / np.linalg.norm(normal)


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Sort slices by height along the normal, and slices at one height by InstanceNumber.

    If the slices have different orientations, the normal of the first one is used.
    """
    heights = _heights(slices)

    def rank(index: int) -> tuple[float, int, str]:
        return heights[index], slices[index].frame.number or 0, slices[index].file.instance_uid

    return [slices[index] for index in sorted(range(len(slices)), key=rank)]


def group_by_height(slices: Sequence[Slice]) -> list[list[int]]:
    """Group sorted slices by height; return the indices of the slices at each height."""
    distances = np.diff(_heights(slices))
    apart = distances[distances > _SMALLEST_DISTANCE_MM]
    same_mm = max(_SMALLEST_DISTANCE_MM, _SAME_HEIGHT * float(np.median(apart))) if apart.size else np.inf
    groups = [[0]]
    for index, distance in enumerate(distances, start=1):
        if distance > same_mm:
            groups.append([])
        groups[-1].append(index)
    return groups


def _heights(slices: Sequence[Slice]) -> Vector:
    orientations = np.array([one.frame.orientation for one in slices])
    differ = np.abs(orientations - orientations[0]).max() > 2 * JITTER
    orientation = orientations[0] if differ else orientations.mean(axis=0)
    return np.array([one.frame.position_mm for one in slices]) @ normal_of(orientation.reshape(2, 3))
