"""Distances in mm between the surfaces of two masks, in the voxel convention.

The surface is the mask's voxels that its 6-connected (in 2D 4-connected) erosion removes; outside the grid is
background. Distances run between voxel centres. MONAI and MetricsReloaded define them so.

Functions take the two directed distance arrays that `measure_distances` gives. Masks must not be empty: the
caller decides what an empty one means.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Distances = NDArray[np.float64]
HD95Mode = Literal["max", "pooled"]

# Relative: a spacing stored in float32 must not push a shift of exactly one voxel beyond its tolerance.
_TOLERANCE_SLACK = 1e-6


def find_surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of a boolean mask that have a background neighbour across a face."""
    return mask & ~ndimage.binary_erosion(mask)


def measure_distances(
    reference: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: tuple[float, ...]
) -> tuple[Distances, Distances]:
    """Return, for each surface voxel of one mask, the distance in mm to the other's surface.

    First those of the reference's surface, then those of the prediction's. Nearest neighbours come from a
    k-d tree of the surface voxels: exact as a distance transform, without its dense arrays, and without its
    wrong answer where an array has no background.
    """
    points_reference = np.argwhere(find_surface(reference)) * np.asarray(spacing_mm)
    points_prediction = np.argwhere(find_surface(prediction)) * np.asarray(spacing_mm)
    from_reference, _ = KDTree(points_prediction).query(points_reference)
    from_prediction, _ = KDTree(points_reference).query(points_prediction)
    return np.asarray(from_reference), np.asarray(from_prediction)


def compute_hausdorff(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the largest distance of either direction: HD."""
    return float(max(from_reference.max(), from_prediction.max()))


def compute_robust_hausdorff(
    from_reference: Distances, from_prediction: Distances, percentile: float, mode: HD95Mode = "max"
) -> float:
    """Return HD95 or another percentile, linearly interpolated.

    "max" is the larger of the two directed percentiles (MONAI, MetricsReloaded), "pooled" the percentile of
    both directions together (MedPy, panoptica).
    """
    if mode == "pooled":
        return float(np.percentile(np.concatenate([from_reference, from_prediction]), percentile))
    return float(max(np.percentile(from_reference, percentile), np.percentile(from_prediction, percentile)))


def compute_average_symmetric_distance(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the mean over both surfaces pooled: ASSD."""
    num_voxels = from_reference.size + from_prediction.size
    return float((from_reference.sum() + from_prediction.sum()) / num_voxels)


def compute_mean_average_distance(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the mean of the two directed means: MASD."""
    return float((from_reference.mean() + from_prediction.mean()) / 2)


def compute_surface_dice(from_reference: Distances, from_prediction: Distances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within the tolerance of the other: NSD."""
    limit_mm = tolerance_mm * (1 + _TOLERANCE_SLACK)
    num_within = np.count_nonzero(from_reference <= limit_mm) + np.count_nonzero(from_prediction <= limit_mm)
    return float(num_within / (from_reference.size + from_prediction.size))
