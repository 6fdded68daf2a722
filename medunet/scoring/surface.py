"""Distances in mm between the surfaces of two masks, in either convention; outside the grid is background.

- "area": the surface lies in the cells between voxel centres that marching cubes cuts, and each counts with its area
  (in 2D its length): google-deepmind/surface-distance, repository head.
- "voxel": the surface is the mask's voxels that a 6-connected (2D: 4-connected) erosion removes, each counted once:
  MONAI, MetricsReloaded, MedPy.

Distances run between centres, of cells or of voxels. They are exact: offsets are walked in growing length through
the other surface's bits, and what is further away is left to a k-d tree.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from medunet.case_scores import HD95Mode, Surface
from medunet.scoring.areas import measure_cells
from medunet.scoring.bits import (
    Bits,
    Places,
    find_cells,
    find_surface_voxels,
    list_places,
    read_patterns,
    unpack,
)

# Relative: a spacing stored in float32 must not push a shift of exactly one voxel beyond its tolerance.
_TOLERANCE_SLACK = 1e-6
_ROUNDING = 1e-12  # relative: sums of areas that should be equal differ by so much
_NUM_OFFSETS = 160  # about how many are walked: then the tree is quicker


@dataclass(frozen=True)
class Distances:
    """Distances in mm from one surface to another, ascending, each with how much of the surface is so far away."""

    mm: NDArray[np.float64]
    weight: NDArray[np.float64]  # mm² or, in 2D, mm; a number of voxels in the voxel convention

    @property
    def largest(self) -> float:
        """The directed Hausdorff distance."""
        return float(self.mm[-1])

    @property
    def total(self) -> float:
        """The whole surface."""
        return float(self.weight.sum())

    @property
    def mean(self) -> float:
        """The mean over the surface."""
        return float(self.mm @ self.weight) / self.total

    def share_within(self, limit_mm: float) -> float:
        """Return how much of the surface is no further away, as weight."""
        return float(self.weight[self.mm <= limit_mm].sum())

    def percentile(self, percent: float, surface: Surface) -> float:
        """Return the distance that a percentage of the surface does not exceed.

        With areas the smallest such distance (surface-distance), with voxels linearly interpolated between
        neighbouring ones (NumPy, MONAI).
        """
        reached = self.weight.cumsum()
        if surface == "area":
            return float(self.mm[np.searchsorted(reached, reached[-1] * percent / 100 * (1 - _ROUNDING))])
        rank = (round(reached[-1]) - 1) * percent / 100
        low, high = self.mm[np.searchsorted(reached, [np.floor(rank), np.ceil(rank)], side="right")]
        return float(low + (high - low) * (rank - np.floor(rank)))


def measure_distances(
    reference: Bits, prediction: Bits, spacing_mm: tuple[float, ...], surface: Surface = "area"
) -> tuple[Distances, Distances]:
    """Return the distances from the reference's surface to the prediction's, and those back.

    Both masks are packed (see `bits.pack`) and not empty; `spacing_mm` is in their axis order.
    """
    sides = [_Side.of(voxels, spacing_mm, surface) for voxels in (reference, prediction)]
    return _measure(sides[0], sides[1], spacing_mm), _measure(sides[1], sides[0], spacing_mm)


def compute_hausdorff(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the largest distance of either direction: HD."""
    return max(from_reference.largest, from_prediction.largest)


def compute_robust_hausdorff(
    from_reference: Distances,
    from_prediction: Distances,
    percentile: float,
    mode: HD95Mode = "max",
    surface: Surface = "area",
) -> float:
    """Return HD95 or another percentile.

    "max" is the larger of the two directed percentiles (surface-distance, MONAI, MetricsReloaded), "pooled" the
    percentile of both directions together (MedPy, panoptica).
    """
    if mode == "pooled":
        return _pool(from_reference, from_prediction).percentile(percentile, surface)
    return max(side.percentile(percentile, surface) for side in (from_reference, from_prediction))


def compute_average_symmetric_distance(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the mean over both surfaces pooled: ASSD."""
    sides = (from_reference, from_prediction)
    return sum(side.mean * side.total for side in sides) / sum(side.total for side in sides)


def compute_mean_average_distance(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the mean of the two directed means: MASD."""
    return (from_reference.mean + from_prediction.mean) / 2


def compute_surface_dice(from_reference: Distances, from_prediction: Distances, tolerance_mm: float) -> float:
    """Return the share of both surfaces that lies within the tolerance of the other: NSD."""
    limit_mm = tolerance_mm * (1 + _TOLERANCE_SLACK)
    within = from_reference.share_within(limit_mm) + from_prediction.share_within(limit_mm)
    return within / (from_reference.total + from_prediction.total)


@dataclass(frozen=True)
class _Side:
    """One mask's surface: the bits of its cells or voxels, their places and how much surface each holds."""

    bits: Bits
    places: Places
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, voxels: Bits, spacing_mm: tuple[float, ...], surface: Surface) -> "_Side":
        if surface == "voxel":
            bits = find_surface_voxels(voxels)
            places = list_places(bits)
            return cls(bits, places, np.ones(places.size))
        bits = find_cells(voxels)
        places, patterns = read_patterns(voxels, bits)
        return cls(bits, places, measure_cells(spacing_mm)[patterns])

    def indices(self, places: Places) -> NDArray[np.int64]:
        """Return places as indices `(N, axes)`."""
        shape = (*self.bits.shape[:-1], 64 * self.bits.shape[-1])
        return np.stack(np.unravel_index(places, shape), axis=1)


def _measure(own: _Side, other: _Side, spacing_mm: tuple[float, ...]) -> Distances:
    """Return the distance from every place of one surface to the nearest of the other."""
    shared = unpack(other.bits & own.bits)[own.places]
    mm, weights = [np.zeros(1)], [own.weight[shared].sum(keepdims=True)]
    index, weight = own.indices(own.places[~shared]), own.weight[~shared]

    shells = _shells_within_reach(spacing_mm)
    reach = np.abs(np.concatenate([offsets for _, offsets in shells])).max(axis=0)
    taken, shape = _pad(other.bits, reach)
    at = np.ravel_multi_index(tuple((index + np.append(reach[:-1], 0)).T), shape)
    origin = np.ravel_multi_index(tuple(reach), shape)
    left = np.arange(at.size)
    for length_mm, offsets in shells:
        if not left.size:
            break
        first, *others = (np.ravel_multi_index(tuple((offsets + reach).T), shape) - origin).tolist()
        found = taken[at + first]
        for step in others:
            found |= taken[at + step]
        mm.append(np.array([length_mm]))
        weights.append(weight[left[found]].sum(keepdims=True))
        at, left = at[~found], left[~found]
    if left.size:
        points = other.indices(other.places) * spacing_mm
        # The quickest of the trees that were tried.
        tree = KDTree(points, leafsize=64, compact_nodes=False, balanced_tree=False)
        mm.append(np.asarray(tree.query(index[left] * spacing_mm)[0]))
        weights.append(weight[left])
    return _sort(np.concatenate(mm), np.concatenate(weights))


@lru_cache(maxsize=64)
def _shells_within_reach(spacing: tuple[float, ...]) -> list[tuple[float, NDArray[np.int64]]]:
    """Return every offset within a distance: each length in mm, the shortest first, with its offsets `(N, axes)`."""
    num_axes, spacing_mm = len(spacing), np.array(spacing)
    ball = {2: np.pi, 3: 4 / 3 * np.pi}[num_axes]
    reach_mm = (_NUM_OFFSETS * np.prod(spacing_mm) / ball) ** (1 / num_axes)
    sides = [np.arange(-n, n + 1) for n in np.minimum(reach_mm // spacing_mm, 62).astype(int)]
    offsets = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, num_axes)
    lengths_mm = np.linalg.norm(offsets * spacing_mm, axis=1)
    complete_mm = min([reach_mm, *((np.abs(offsets).max(axis=0) + 1) * spacing_mm * (1 - _ROUNDING))])
    order = np.argsort(lengths_mm, kind="stable")
    order = order[lengths_mm[order] <= complete_mm][1:]  # the first is that to the place itself
    sorted_mm = lengths_mm[order]
    ends = np.flatnonzero(np.diff(sorted_mm) > _ROUNDING * sorted_mm[1:]) + 1
    return [(float(lengths_mm[shell[0]]), offsets[shell]) for shell in np.split(order, ends)]


def _pad(bits: Bits, reach: NDArray[np.int64]) -> tuple[NDArray[np.bool_], tuple[int, ...]]:
    """Return a flag for every place, with empty ones around so that no offset runs out, and their shape.

    A word behind each row is room for the last axis both ways: what runs out in front lands behind the row before.
    """
    padded = np.pad(bits, [*((int(n), int(n)) for n in reach[:-1]), (0, 1)])
    return unpack(padded), (*padded.shape[:-1], 64 * padded.shape[-1])


def _pool(first: Distances, second: Distances) -> Distances:
    return _sort(np.concatenate([first.mm, second.mm]), np.concatenate([first.weight, second.weight]))


def _sort(mm: NDArray[np.float64], weight: NDArray[np.float64]) -> Distances:
    order = np.argsort(mm, kind="stable")
    keep = order[weight[order] > 0]
    return Distances(mm[keep], weight[keep])
