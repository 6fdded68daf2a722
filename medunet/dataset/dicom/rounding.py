"""How precisely the positions and directions of DICOM slices are written, and what this rounding can explain.

The precision is the number of decimals of the values in the files: of all slices together, since zeros at the end of
a number are mostly not written. All bounds are worst cases of rounding to the nearest.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

FINEST = 1e-6  # finer units do not matter
_COARSEST_COSINE = 0.01
_FLOAT32 = 1.2e-7  # relative error of a number that was once a float32
_EXACT = 2e-6  # of lengths and angles of directions that were not rounded


def written_unit(values: Vector) -> float:
    """Return the largest of 1, 0.1, ..., 1e-6 of which all values are multiples, as far as float32 can tell."""
    allowed = _FLOAT32 * np.abs(values) + 1e-9
    for decimals in range(6):
        if (np.abs(values - np.round(values, decimals)) <= allowed).all():
            return float(10.0**-decimals)
    return FINEST


def cosine_unit(orientations: Vector) -> float:
    """Return the unit in which direction cosines `(K, 6)` are written, at most 0.01.

    Cosines of exactly perpendicular unit vectors were not rounded, however few decimals they have, such as 1, 0, 0.
    """
    if direction_error(orientations) <= _EXACT:
        return FINEST
    return min(written_unit(orientations), _COARSEST_COSINE)


def direction_error(orientations: Vector) -> float:
    """Return how far directions `(K, 6)` are from perpendicular unit vectors: of squared lengths and cosines."""
    directions = orientations.reshape(-1, 2, 3)
    return float(np.abs(directions @ directions.transpose(0, 2, 1) - np.eye(2)).max())


def angle_error(unit: float, orientations: Vector) -> float:
    """Return the error in radians that the mean normal of directions `(K, 6)`, written in this unit, may have.

    It is the largest error of rounding, and three standard errors of directions that vary.
    """
    varying = float(orientations.std(axis=0).max()) / np.sqrt(len(orientations))
    return float(np.sqrt(2) * (np.sqrt(3) / 2 * unit + 3 * varying))


def slope_error_mm(unit_mm: float, places: Vector) -> float:
    """Return the largest error over its whole length of a line fitted to positions `(K,)` along it."""
    centred = places - places.mean()
    weight = np.abs(centred).sum() / np.square(centred).sum() * np.ptp(places)
    return float(weight * np.sqrt(3) / 2 * unit_mm)


def line_is_surer(unit_mm: float, places: Vector, length_mm: float, direction_unit: float) -> bool:
    """Return whether the line through positions gives the normal more precisely than the directions do."""
    spread = np.ptp(places) / np.sqrt(np.square(places - places.mean()).sum())
    return bool(spread * unit_mm < length_mm * direction_unit)


def fit_line(places: Vector, points: Vector, tolerance_mm: float) -> tuple[Vector, Vector]:
    """Fit `origin + place * step` to points `(K, 3)` by least squares, without points that are off the others' line.

    The fit starts from the median slope of points half a stack apart, which few foreign points do not change.
    """
    half = len(places) // 2
    slopes = (points[half:] - points[: len(points) - half]) / (places[half:] - places[: len(places) - half])[
        :, None
    ]
    step = np.median(slopes, axis=0)
    origin = np.median(points - places[:, None] * step, axis=0)
    for _ in range(4):
        off_mm = np.linalg.norm(points - origin - places[:, None] * step, axis=1)
        used = off_mm <= max(tolerance_mm, 3 * float(np.median(off_mm)))
        if used.sum() < 2:
            break
        centre, middle = places[used].mean(), points[used].mean(axis=0)
        along = places[used] - centre
        step = along @ (points[used] - middle) / np.square(along).sum()
        origin = middle - centre * step
    return origin, step
