"""Surface distances in mm between two masks, in two conventions. Outside of the grid is background.

- "area": the surface elements are the marching cubes cells between voxel centres, weighted by their surface area (in
  2D their length), as in google-deepmind/surface-distance, repository head.
- "voxel": the surface elements are the voxels that a 6-connected (2D: 4-connected) erosion removes, all with the same
  weight, as in MONAI, MetricsReloaded and MedPy.

Distances are measured between the centres of cells or voxels, and are exact. Near neighbours are found by looking up
offsets of increasing length in the packed surface of the other mask, all others with a k-d tree.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from medunet.records.scores import HD95Mode, Surface
from medunet.scoring.areas import cell_areas
from medunet.scoring.bits import (
    BitIndices,
    Bits,
    find_cells,
    find_set_bits,
    find_surface_voxels,
    read_patterns,
    unpack,
)

# Relative: rounding of a spacing to float32 must not move a distance of exactly one voxel beyond the tolerance.
_TOLERANCE_SLACK = 1e-6
_ROUNDING = 1e-12  # relative: rounding error of sums of areas
_NUM_NEAR = 160  # offsets looked up for all elements; for more, the tree is faster ...
_NUM_FAR = 2560  # ... unless few elements are left, since building the tree takes long
_FEW_RATIO = 16  # few: the other surface has at least this many times as many elements
_MAX_BRUTE_FORCE = 16  # elements up to which all distances are computed, without a tree
_LOOKUPS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Distances:
    """Distances in mm from one surface to another, ascending, with the weight of the surface at each distance."""

    mm: NDArray[np.float64]
    weight: NDArray[np.float64]  # mm² (2D: mm), or number of voxels in the voxel convention

    @property
    def largest(self) -> float:
        """The directed Hausdorff distance."""
        return float(self.mm[-1])

    @property
    def total(self) -> float:
        """The weight of the whole surface."""
        return float(self.weight.sum())

    @property
    def mean(self) -> float:
        """The mean distance over the surface."""
        return float(self.mm @ self.weight) / self.total

    def share_within(self, limit_mm: float) -> float:
        """Return the weight of the surface within a distance."""
        return float(self.weight[self.mm <= limit_mm].sum())

    def percentile(self, percent: float, surface: Surface) -> float:
        """Return a percentile of the distances.

        With areas it is the smallest distance that includes this percentage of the surface (as surface-distance),
        with voxels it is linearly interpolated (as NumPy and MONAI).
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
    """Return the distances from the surface of the reference to that of the prediction, and vice versa.

    Both masks are packed (see `bits.pack`) and not empty; `spacing_mm` is in their axis order.
    """
    sides = [_Side.of(voxels, spacing_mm, surface) for voxels in (reference, prediction)]
    return _measure(sides[0], sides[1], spacing_mm)[0], _measure(sides[1], sides[0], spacing_mm)[0]


@dataclass(frozen=True)
class WorstDistance:
    """The largest distance between two surfaces, which is the Hausdorff distance, and the elements at its two ends.

    `start` lies on the surface of the reference if `from_reference`, else on that of the prediction; `end` is the
    element of the other surface nearest to it. Element i of an axis is voxel i, or with areas the cell between the
    voxels i - 1 and i.
    """

    mm: float
    start: tuple[int, ...]
    end: tuple[int, ...]
    from_reference: bool


def find_worst_distance(
    reference: Bits, prediction: Bits, spacing_mm: tuple[float, ...], surface: Surface = "area"
) -> WorstDistance:
    """Return where the largest of all distances of `measure_distances` is; the first one if several are equal."""
    sides = [_Side.of(voxels, spacing_mm, surface) for voxels in (reference, prediction)]
    worst: list[WorstDistance] = []
    for own, other in (sides, sides[::-1]):
        distances, farthest = _measure(own, other, spacing_mm)
        start, ends = own.unravel(own.elements[farthest : farthest + 1]), other.unravel(other.elements)
        nearest = ends[np.square((ends - start) * np.asarray(spacing_mm)).sum(axis=1).argmin()]
        index = [tuple(int(step) for step in each) for each in (start[0], nearest)]
        worst.append(WorstDistance(distances.largest, index[0], index[1], own is sides[0]))
    return max(worst, key=lambda found: found.mm)


def compute_hausdorff(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the Hausdorff distance HD: the largest distance of both directions."""
    return max(from_reference.largest, from_prediction.largest)


def compute_robust_hausdorff(
    from_reference: Distances,
    from_prediction: Distances,
    percentile: float,
    mode: HD95Mode = "max",
    surface: Surface = "area",
) -> float:
    """Return the robust Hausdorff distance: HD95 or another percentile.

    "max" is the larger of the two directed percentiles (surface-distance, MONAI, MetricsReloaded), "pooled" the
    percentile of both directions together (MedPy, panoptica).
    """
    if mode == "pooled":
        return _pool(from_reference, from_prediction).percentile(percentile, surface)
    return max(side.percentile(percentile, surface) for side in (from_reference, from_prediction))


def compute_average_symmetric_distance(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the average symmetric surface distance ASSD: the mean over both surfaces pooled."""
    sides = (from_reference, from_prediction)
    return sum(side.mean * side.total for side in sides) / sum(side.total for side in sides)


def compute_mean_average_distance(from_reference: Distances, from_prediction: Distances) -> float:
    """Return the mean average surface distance MASD: the mean of the two directed means."""
    return (from_reference.mean + from_prediction.mean) / 2


def compute_surface_dice(from_reference: Distances, from_prediction: Distances, tolerance_mm: float) -> float:
    """Return the normalised surface Dice NSD: the share of both surfaces within the tolerance of the other."""
    limit_mm = tolerance_mm * (1 + _TOLERANCE_SLACK)
    within = from_reference.share_within(limit_mm) + from_prediction.share_within(limit_mm)
    return within / (from_reference.total + from_prediction.total)


@dataclass(frozen=True)
class _Side:
    """The surface of one mask: its cells or voxels as bits, their bit indices and their weights."""

    bits: Bits
    elements: BitIndices
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, voxels: Bits, spacing_mm: tuple[float, ...], surface: Surface) -> "_Side":
        if surface == "voxel":
            bits = find_surface_voxels(voxels)
            elements = find_set_bits(bits)
            return cls(bits, elements, np.ones(elements.size))
        bits = find_cells(voxels)
        elements, patterns = read_patterns(voxels, bits)
        return cls(bits, elements, cell_areas(spacing_mm)[patterns])

    def unravel(self, elements: BitIndices) -> NDArray[np.int64]:
        """Return bit indices as array indices `(N, axes)`."""
        index = np.empty((elements.size, self.bits.ndim), dtype=np.int64)
        sizes = (*self.bits.shape[1:-1], 64 * self.bits.shape[-1])
        for axis in range(self.bits.ndim - 1, 0, -1):
            rest = elements // sizes[axis - 1]
            index[:, axis] = elements - rest * sizes[axis - 1]
            elements = rest
        index[:, 0] = elements
        return index


def _measure(own: _Side, other: _Side, spacing_mm: tuple[float, ...]) -> tuple[Distances, int]:
    """Return the distance from every element of one surface to the nearest of the other, and the farthest element."""
    shared = unpack(other.bits & own.bits)[own.elements]
    mm, weights = [np.zeros(1)], [own.weight[shared].sum(keepdims=True)]
    index, weight = own.unravel(own.elements[~shared]), own.weight[~shared]
    farthest = 0  # among the elements that are not shared; those found last are the farthest

    near_mm, offsets = _list_offsets(spacing_mm, _NUM_NEAR)
    lookup = _Lookup.of(other.bits, offsets)
    at, left = lookup.ravel(index), np.arange(len(index))
    shell_ends = np.flatnonzero(np.diff(near_mm) > _ROUNDING * near_mm[1:]) + 1
    for steps, length_mm in zip(
        np.split(lookup.steps(offsets), shell_ends), near_mm[np.append(0, shell_ends)], strict=True
    ):
        if not left.size:
            break
        first, *others = steps.tolist()
        found = lookup.is_surface[at + first]
        for step in others:
            found |= lookup.is_surface[at + step]
        mm.append(np.array([length_mm]))
        weights.append(weight[left[found]].sum(keepdims=True))
        if found.any():
            farthest = int(left[found.argmax()])
        at, left = at[~found], left[~found]
    if left.size and left.size * _FEW_RATIO <= other.elements.size:
        far_mm, offsets = _list_offsets(spacing_mm, _NUM_FAR)
        beyond = far_mm > near_mm[-1] * (1 + _ROUNDING)
        lengths_mm, found = _search_offsets(other.bits, index[left], far_mm[beyond], offsets[beyond])
        mm.append(lengths_mm)
        weights.append(weight[left[found]])
        if found.any():
            farthest = int(left[found][lengths_mm.argmax()])
        left = left[~found]
    if left.size:
        step_mm = np.asarray(spacing_mm, dtype=np.float64)
        points = other.unravel(other.elements) * step_mm
        mm.append(_nearest_mm(points, index[left] * step_mm))
        weights.append(weight[left])
        farthest = int(left[mm[-1].argmax()])
    distances = _sort(np.concatenate(mm), np.concatenate(weights))
    return distances, int(np.flatnonzero(~shared)[farthest]) if len(index) else 0


def _search_offsets(
    bits: Bits, index: NDArray[np.int64], lengths_mm: NDArray[np.float64], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Look up the offsets from few elements: return the distances found, and which elements have one."""
    reach = np.abs(offsets).max(axis=0)
    size = np.array([1] * (bits.ndim - 1) + [64])  # voxels of a word
    first_word = np.maximum(index.min(axis=0) - reach, 0) // size
    last_word = (index.max(axis=0) + reach) // size
    around = bits[tuple(slice(low, high + 1) for low, high in zip(first_word, last_word, strict=True))]
    lookup = _Lookup.of(around, offsets)
    steps, at, left = lookup.steps(offsets), lookup.ravel(index - first_word * size), np.arange(len(index))
    nearest_mm = np.full(len(index), np.inf)
    start = 0
    while left.size and start < steps.size:
        end = start + max(1, _LOOKUPS_AT_ONCE // left.size)
        hits = lookup.is_surface.take(at[:, None] + steps[start:end])
        first = hits.argmax(axis=1)
        found = hits[np.arange(left.size), first]
        nearest_mm[left[found]] = lengths_mm[start:end][first[found]]
        at, left, start = at[~found], left[~found], end
    found = np.isfinite(nearest_mm)
    return nearest_mm[found], found


def _nearest_mm(points: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the distance from each position `(N, axes)` to the nearest of the points, all in mm."""
    if len(positions) <= _MAX_BRUTE_FORCE:
        return cdist(positions, points).min(axis=1)
    # These options were the fastest of those tried.
    tree = KDTree(points, leafsize=64, compact_nodes=False, balanced_tree=False)
    return np.asarray(tree.query(positions)[0])


@lru_cache(maxsize=64)
def _list_offsets(spacing: tuple[float, ...], number: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return about `number` offsets, all within a distance: lengths in mm, ascending, and offsets `(N, axes)`."""
    num_axes, spacing_mm = len(spacing), np.array(spacing)
    ball = {2: np.pi, 3: 4 / 3 * np.pi}[num_axes]
    reach_mm = (number * np.prod(spacing_mm) / ball) ** (1 / num_axes)
    sides = [np.arange(-n, n + 1) for n in np.minimum(reach_mm // spacing_mm, 62).astype(int)]
    offsets = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, num_axes)
    lengths_mm = np.linalg.norm(offsets * spacing_mm, axis=1)
    complete_mm = min([reach_mm, *((np.abs(offsets).max(axis=0) + 1) * spacing_mm * (1 - _ROUNDING))])
    order = np.argsort(lengths_mm, kind="stable")
    order = order[lengths_mm[order] <= complete_mm][1:]  # without the zero offset
    return lengths_mm[order], offsets[order]


@dataclass(frozen=True)
class _Lookup:
    """A surface as flat boolean array, padded so that offsets stay within the array."""

    is_surface: NDArray[np.bool_]  # flat
    shape: tuple[int, ...]
    reach: NDArray[np.int64]

    @classmethod
    def of(cls, bits: Bits, offsets: NDArray[np.int64]) -> "_Lookup":
        """Pad a surface for these offsets.

        One word after each row is enough for both directions of the last axis: an index before the start of a row
        falls into the padding of the previous row.
        """
        reach = np.abs(offsets).max(axis=0, initial=0)
        padded = np.pad(bits, [*((int(n), int(n)) for n in reach[:-1]), (0, 1)])
        return cls(unpack(padded), (*padded.shape[:-1], 64 * padded.shape[-1]), reach)

    def ravel(self, index: NDArray[np.int64]) -> BitIndices:
        """Return the flat indices of array indices `(N, axes)` of the unpadded surface."""
        return np.ravel_multi_index(tuple((index + np.append(self.reach[:-1], 0)).T), self.shape)

    def steps(self, offsets: NDArray[np.int64]) -> BitIndices:
        """Return the change of the flat index for each offset `(N, axes)`."""
        origin = np.ravel_multi_index(tuple(self.reach), self.shape)
        return np.ravel_multi_index(tuple((offsets + self.reach).T), self.shape) - origin


def _pool(first: Distances, second: Distances) -> Distances:
    return _sort(np.concatenate([first.mm, second.mm]), np.concatenate([first.weight, second.weight]))


def _sort(mm: NDArray[np.float64], weight: NDArray[np.float64]) -> Distances:
    order = np.argsort(mm, kind="stable")
    keep = order[weight[order] > 0]
    return Distances(mm[keep], weight[keep])
