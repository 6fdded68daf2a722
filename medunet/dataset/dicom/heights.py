"""Heights of DICOM slices along the normal of their plane: order, slices at one height, and the usual distance."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.dicom.rounding import written_unit
from medunet.imaging.dicom import Slice

Vector = NDArray[np.float64]

MOST_SHARE = 0.4  # upper limit of every tolerance, as a fraction of the distance between slices

_SAME_HEIGHT = 0.01  # largest distance of slices at the same height, as a fraction of the median distance
_SMALLEST_DISTANCE_MM = 1e-4
_GAP_SHARE, _GAP_MM = 0.01, 0.1  # tolerance of exact distances: the larger of this fraction and this length
_SAME_NORMAL = math.radians(2)
_MOST_OF_ONE_STEP = 0.7  # largest deviation of a distance that rounding may explain, as a fraction of it
_FIT_ERRORS = 1.4  # rounding errors by which a slice may be off a line fitted to rounded heights
_EXACT_MM = 1e-3
_USUAL_SHARE = 0.1  # fewest distances, as a fraction, that make a slice spacing


def fit_orientation(orientations: Vector) -> Vector:
    """Return the perpendicular unit vectors, (2, 3), nearest to the mean of directions `(K, 6)` of any length."""
    directions = orientations.reshape(-1, 2, 3)
    return nearest_pair((directions / np.linalg.norm(directions, axis=2, keepdims=True)).mean(axis=0))


def nearest_pair(directions: Vector) -> Vector:
    """Return the perpendicular unit vectors nearest to two directions, (2, 3)."""
    left, _, right = np.linalg.svd(directions, full_matrices=False)
    return left @ right


def normal_of(orientation: Vector) -> Vector:
    """Return the unit vector perpendicular to a row and a column direction, (2, 3)."""
    normal = np.cross(orientation[0], orientation[1])
    return normal / np.linalg.norm(normal)


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """Sort slices by height along the normal, and slices at one height by InstanceNumber.

    If the slices have different orientations, the normal of the first one is used.
    """
    heights, _ = _heights(slices)

    def rank(index: int) -> tuple[float, int, str]:
        return heights[index], slices[index].frame.number or 0, slices[index].file.instance_uid

    return [slices[index] for index in sorted(range(len(slices)), key=rank)]


def group_by_height(slices: Sequence[Slice]) -> list[list[int]]:
    """Group sorted slices by height; return the indices of the slices at each height."""
    heights, error_mm = _heights(slices)
    distances = np.diff(heights)
    apart = distances[distances > _SMALLEST_DISTANCE_MM]
    same_mm = np.inf
    if apart.size:
        rounded_mm = min(2.002 * error_mm, MOST_SHARE * float(apart.mean()))
        same_mm = max(_SMALLEST_DISTANCE_MM, _SAME_HEIGHT * float(np.median(apart)), rounded_mm)
    groups = [[0]]
    for index, distance in enumerate(distances, start=1):
        if distance > same_mm:
            groups.append([])
        groups[-1].append(index)
    return groups


def _heights(slices: Sequence[Slice]) -> tuple[Vector, float]:
    """Return the height of each slice, and how far rounding of positions may change it."""
    orientations = np.array([one.frame.orientation for one in slices])
    positions = np.array([one.frame.position_mm for one in slices])
    normals = np.cross(orientations[:, :3], orientations[:, 3:])
    cosines = normals @ normals[0] / np.linalg.norm(normals, axis=1) / np.linalg.norm(normals[0])
    one_plane = cosines.min() > math.cos(_SAME_NORMAL)
    normal = normal_of(fit_orientation(orientations if one_plane else orientations[:1]))
    return positions @ normal, float(np.abs(normal).sum()) * written_unit(positions) / 2


def distance_tolerance_mm(step_mm: float, error_mm: float = 0.0) -> float:
    """Return how far a distance may be from `step_mm` if rounding may move each slice by `error_mm`."""
    return min(max(_GAP_SHARE * step_mm, _GAP_MM, 2 * error_mm), MOST_SHARE * step_mm) + 1e-6


def count_steps(distances_mm: Vector, step_mm: float) -> Vector:
    """Return how many steps each distance is, at least 1."""
    return np.maximum(1, np.rint(distances_mm / step_mm))


def usual_distance(distances_mm: Vector, error_mm: float) -> float:
    """Return the smallest distance that is usual, or of which all others are multiples.

    `error_mm` is how far rounding may move each slice.
    """
    ordered = np.sort(distances_mm[distances_mm > _SMALLEST_DISTANCE_MM])
    if not ordered.size:
        return _SMALLEST_DISTANCE_MM
    fewest = max(2, _USUAL_SHARE * len(ordered))
    start = 0
    while start < len(ordered):
        width = min(max(_GAP_SHARE * ordered[start], _GAP_MM, 4 * error_mm), MOST_SHARE * ordered[start])
        end = int(np.searchsorted(ordered, ordered[start] + width, side="right"))
        step = float(ordered[start:end].mean())
        off_mm = np.abs(ordered - count_steps(ordered, step) * step)
        if end - start >= fewest or (off_mm <= distance_tolerance_mm(step, error_mm)).all():
            return step
        start = end
    return float(ordered[(len(ordered) - 1) // 2])


def fit_steps(heights_mm: Vector, error_mm: float) -> tuple[float, Vector, bool]:
    """Return the slice spacing of increasing heights `(K,)`, of which rounding may move each by `error_mm`.

    Also returns how many steps each distance is, (K-1,), and whether all slices are on the grid of these steps. No
    slice is missing if rounding alone explains the distances, except where a single gap explains them exactly;
    otherwise the spacing is the usual distance.
    """
    distances_mm = np.diff(heights_mm)
    usual_mm = usual_distance(distances_mm, error_mm)
    counts = count_steps(distances_mm, usual_mm)
    if np.count_nonzero(counts > 1) == 1 and np.allclose(
        distances_mm, counts * usual_mm, rtol=0, atol=_EXACT_MM
    ):
        return usual_mm, counts, True
    one_each = np.ones_like(distances_mm)
    step = float(np.polyfit(places_of(one_each), heights_mm, 1)[0])
    rounded_mm = min(2 * error_mm, _MOST_OF_ONE_STEP * step)
    tolerance_mm = max(distance_tolerance_mm(step), rounded_mm)
    if _is_even(heights_mm, one_each, step, tolerance_mm, error_mm):
        return step, one_each, True
    for step in (usual_mm, float(np.median(distances_mm))):
        for _ in range(3):
            counts = count_steps(distances_mm, step)
            step = float(np.polyfit(places_of(counts), heights_mm, 1)[0])
            if step <= 0:
                break
        if _is_even(heights_mm, counts, step, distance_tolerance_mm(step, error_mm), error_mm):
            return step, counts, True
    counts = count_steps(distances_mm, usual_mm)
    regular = np.abs(distances_mm - counts * usual_mm) <= distance_tolerance_mm(usual_mm, error_mm)
    step = float(distances_mm[regular].sum() / counts[regular].sum()) if regular.any() else usual_mm
    return step, counts, False


def places_of(counts: Vector) -> Vector:
    """Return the place of each slice on a grid, (K,), from 0, given the steps from each slice to the next, (K-1,)."""
    return np.concatenate([[0.0], np.cumsum(counts)])


def height_tolerance_mm(step_mm: float, error_mm: float) -> float:
    """Return how far a height may be off the line fitted to all heights."""
    return max(distance_tolerance_mm(step_mm), _FIT_ERRORS * error_mm)


def _is_even(heights_mm: Vector, counts: Vector, step: float, tolerance_mm: float, error_mm: float) -> bool:
    if step <= 0 or (np.abs(np.diff(heights_mm) - counts * step) > tolerance_mm).any():
        return False
    off_mm = np.abs(off_fit(places_of(counts), heights_mm))
    return bool(off_mm.max() <= height_tolerance_mm(step, error_mm))


def off_fit(places: Vector, heights_mm: Vector) -> Vector:
    """Return how far heights are off the straight line fitted to them by least squares."""
    return heights_mm - np.polyval(np.polyfit(places, heights_mm, 1), places)
