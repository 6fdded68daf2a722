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
from scipy.spatial.distance import cdist

from medunet.records.scores import HD95Mode, Surface
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
_NUM_NEAR = 160  # offsets walked from all places: beyond, the tree is quicker ...
_NUM_FAR = 2560  # ... but for few places a longer walk is, since a tree is built of all points
_PLACES_PER_FAR = 16  # few: one in so many of the other surface's
_FEWEST = 16  # places for which no tree is worth building
_AT_ONCE = 65_536  # flags looked up in one go


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
        index = np.empty((places.size, self.bits.ndim), dtype=np.int64)
        sizes = (*self.bits.shape[1:-1], 64 * self.bits.shape[-1])
        for axis in range(self.bits.ndim - 1, 0, -1):
            rest = places // sizes[axis - 1]
            index[:, axis] = places - rest * sizes[axis - 1]
            places = rest
        index[:, 0] = places
        return index


def _measure(own: _Side, other: _Side, spacing_mm: tuple[float, ...]) -> Distances:
    """Return the distance from every place of one surface to the nearest of the other."""
    shared = unpack(other.bits & own.bits)[own.places]
    mm, weights = [np.zeros(1)], [own.weight[shared].sum(keepdims=True)]
    index, weight = own.indices(own.places[~shared]), own.weight[~shared]

    near_mm, offsets = _list_offsets(spacing_mm, _NUM_NEAR)
    field = _Field.of(other.bits, offsets)
    at, left = field.find(index), np.arange(len(index))
    shell_ends = np.flatnonzero(np.diff(near_mm) > _ROUNDING * near_mm[1:]) + 1
    for steps, length_mm in zip(
        np.split(field.steps(offsets), shell_ends), near_mm[np.append(0, shell_ends)], strict=True
    ):
        if not left.size:
            break
        first, *others = steps.tolist()
        found = field.taken[at + first]
        for step in others:
            found |= field.taken[at + step]
        mm.append(np.array([length_mm]))
        weights.append(weight[left[found]].sum(keepdims=True))
        at, left = at[~found], left[~found]
    if left.size and left.size * _PLACES_PER_FAR <= other.places.size:
        far_mm, offsets = _list_offsets(spacing_mm, _NUM_FAR)
        beyond = far_mm > near_mm[-1] * (1 + _ROUNDING)
        lengths_mm, found = _walk_far(other.bits, index[left], far_mm[beyond], offsets[beyond])
        mm.append(lengths_mm)
        weights.append(weight[left[found]])
        left = left[~found]
    if left.size:
        step_mm = np.asarray(spacing_mm, dtype=np.float64)
        points = other.indices(other.places) * step_mm
        mm.append(_search(points, index[left] * step_mm))
        weights.append(weight[left])
    return _sort(np.concatenate(mm), np.concatenate(weights))


def _walk_far(
    bits: Bits, index: NDArray[np.int64], lengths_mm: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Walk the offsets from few places: return the lengths of those that arrive, and which do."""
    reach = np.abs(offsets).max(axis=0)
    size = np.array([1] * (bits.ndim - 1) + [64])  # of a word
    first_word = np.maximum(index.min(axis=0) - reach, 0) // size
    last_word = (index.max(axis=0) + reach) // size
    around = bits[tuple(slice(low, high + 1) for low, high in zip(first_word, last_word, strict=True))]
    field = _Field.of(around, offsets)
    steps, at, left = field.steps(offsets), field.find(index - first_word * size), np.arange(len(index))
    nearest_mm = np.full(len(index), np.inf)
    begin = 0
    while left.size and begin < steps.size:
        end = begin + max(1, _AT_ONCE // left.size)
        hits = field.taken.take(at[:, None] + steps[begin:end])
        first = hits.argmax(axis=1)
        found = hits[np.arange(left.size), first]
        nearest_mm[left[found]] = lengths_mm[begin:end][first[found]]
        at, left, begin = at[~found], left[~found], end
    found = np.isfinite(nearest_mm)
    return nearest_mm[found], found


def _search(points: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from each place `(N, axes)` to the nearest of the points."""
    if len(places) <= _FEWEST:
        return cdist(places, points).min(axis=1)
    # The quickest of the trees that were tried.
    tree = KDTree(points, leafsize=64, compact_nodes=False, balanced_tree=False)
    return np.asarray(tree.query(places)[0])


@lru_cache(maxsize=64)
def _list_offsets(spacing: tuple[float, ...], number: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return about so many offsets, all within a distance: their lengths in mm, ascending, and `(N, axes)`."""
    num_axes, spacing_mm = len(spacing), np.array(spacing)
    ball = {2: np.pi, 3: 4 / 3 * np.pi}[num_axes]
    reach_mm = (number * np.prod(spacing_mm) / ball) ** (1 / num_axes)
    sides = [np.arange(-n, n + 1) for n in np.minimum(reach_mm // spacing_mm, 62).astype(int)]
    offsets = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, num_axes)
    lengths_mm = np.linalg.norm(offsets * spacing_mm, axis=1)
    complete_mm = min([reach_mm, *((np.abs(offsets).max(axis=0) + 1) * spacing_mm * (1 - _ROUNDING))])
    order = np.argsort(lengths_mm, kind="stable")
    order = order[lengths_mm[order] <= complete_mm][1:]  # the first is that to the place itself
    return lengths_mm[order], offsets[order]


@dataclass(frozen=True)
class _Field:
    """A flag for every place of a surface, with empty ones around so that no offset runs out."""

    taken: NDArray[np.bool_]  # flat
    shape: tuple[int, ...]
    reach: NDArray[np.int64]

    @classmethod
    def of(cls, bits: Bits, offsets: NDArray[np.int64]) -> "_Field":
        """Make room for these offsets.

        A word behind each row is room for the last axis both ways: what runs out in front lands behind the row
        before.
        """
        reach = np.abs(offsets).max(axis=0, initial=0)
        padded = np.pad(bits, [*((int(n), int(n)) for n in reach[:-1]), (0, 1)])
        return cls(unpack(padded), (*padded.shape[:-1], 64 * padded.shape[-1]), reach)

    def find(self, index: NDArray[np.int64]) -> Places:
        """Return where indices `(N, axes)` of the surface's own grid lie."""
        return np.ravel_multi_index(tuple((index + np.append(self.reach[:-1], 0)).T), self.shape)

    def steps(self, offsets: NDArray[np.int64]) -> Places:
        """Return by how much a place moves for each offset `(N, axes)`."""
        origin = np.ravel_multi_index(tuple(self.reach), self.shape)
        return np.ravel_multi_index(tuple((offsets + self.reach).T), self.shape) - origin


def _pool(first: Distances, second: Distances) -> Distances:
    return _sort(np.concatenate([first.mm, second.mm]), np.concatenate([first.weight, second.weight]))


def _sort(mm: NDArray[np.float64], weight: NDArray[np.float64]) -> Distances:
    order = np.argsort(mm, kind="stable")
    keep = order[weight[order] > 0]
    return Distances(mm[keep], weight[keep])
