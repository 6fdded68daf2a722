"""Connected components of a 3D mask or label map, with face (6), face and edge (18) or full (26) connectivity.

They are stored as runs: stretches of equal voxels along the axis that is contiguous in memory. Runs are found in
slabs and connected as a graph, which takes much less time and memory than a map of component numbers.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from medunet.base.threads import map_threads, slices

Connectivity = Literal[6, 18, 26]
Mask = NDArray[np.bool_]

_RANKS = {6: 1, 18: 2, 26: 3}  # number of axes along which a neighbour may differ
_ROWS_AFTER = ((0, 1), (1, -1), (1, 0), (1, 1))  # neighbours of a row that come after it in memory
_SLAB_VOXELS = 1 << 22


@dataclass(frozen=True)
class Components:
    """The components of a mask or label map `(I, J, K)`, numbered from 0.

    `sizes[n]` is the number of voxels of component n, `values[n]` their value. The runs are in the order of memory:
    run r is `starts[r]:stops[r]` of the flattened mask, and belongs to component `numbers[r]`.
    """

    shape: tuple[int, ...]  # of the mask in the order of memory: transposed if `is_transposed`
    is_transposed: bool  # whether the runs are along the first axis of the mask
    starts: NDArray[np.integer]
    stops: NDArray[np.integer]
    numbers: NDArray[np.integer]
    sizes: NDArray[np.integer]
    values: NDArray[np.uint8]

    def select(self, chosen: NDArray[np.bool_]) -> Mask:
        """Return the mask of the components n for which `chosen[n]` is true."""
        runs = chosen[self.numbers]
        steps = np.zeros(math.prod(self.shape) + 1, np.int8)
        steps[self.starts[runs]] += 1
        steps[self.stops[runs]] -= 1  # where another run may start, in the next row
        np.cumsum(steps, dtype=np.int8, out=steps)
        mask = steps[:-1].view(bool).reshape(self.shape)
        return mask.T if self.is_transposed else mask

    def largest(self) -> NDArray[np.bool_]:
        """Choose the largest component of each value, the first in array order if several are equally large."""
        most = np.zeros(256, np.int64)
        np.maximum.at(most, self.values, self.sizes)
        largest = self.sizes == most[self.values]
        (shared,) = np.nonzero(np.bincount(self.values[largest], minlength=256) > 1)
        for value in shared:
            equal = largest & (self.values == value)
            largest &= ~equal
            largest[self._first(equal)] = True
        return largest

    def _first(self, chosen: NDArray[np.bool_]) -> int:
        """Return the chosen component with the first voxel in array order."""
        runs = np.flatnonzero(chosen[self.numbers])
        places = np.unravel_index(self.starts[runs], self.shape)
        shape = self.shape
        if self.is_transposed:
            places, shape = places[::-1], shape[::-1]
        return int(self.numbers[runs[np.argmin(np.ravel_multi_index(places, shape))]])

    def touching(self, other: Mask) -> NDArray[np.bool_]:
        """Choose the components that have a voxel in common with another mask of the same shape."""
        chosen = np.zeros(self.sizes.size, bool)
        frame = other.T if self.is_transposed else other
        depth = _depth(self.shape)
        for part in slices(self.shape[0], depth):
            start, stop = (edge * math.prod(self.shape[1:]) for edge in (part.start, part.stop))
            runs = slice(*np.searchsorted(self.starts, (start, stop)))
            # Number of the other's voxels before each voxel of the slab.
            counts = np.zeros(stop - start + 1, np.int32)
            np.cumsum(frame[part].ravel(), dtype=np.int32, out=counts[1:])
            common = counts[self.stops[runs] - start] > counts[self.starts[runs] - start]
            chosen[self.numbers[runs][common]] = True
        return chosen


def find_components(mask: Mask | NDArray[np.uint8], connectivity: Connectivity = 26) -> Components:
    """Find the connected components of a mask, or of each value above 0 of a label map `(I, J, K)`."""
    frame, is_transposed = _in_memory_order(mask)
    shape = frame.shape
    starts, stops, found = _find_runs(frame)
    numbers = _connect(starts, stops, found, shape, _RANKS[connectivity])
    starts, stops = (_unpad(places, shape) for places in (starts, stops))
    sizes = np.bincount(numbers, weights=stops - starts).astype(np.int64)  # float64 counts them exactly
    values = np.zeros(sizes.size, np.uint8)
    values[numbers] = found
    return Components(shape, is_transposed, starts, stops, numbers, sizes, values)


def count_changes(label_map: NDArray[np.uint8]) -> int:
    """Return how often the value changes along the axis that is contiguous in memory: about the number of runs."""
    frame, _ = _in_memory_order(label_map)

    def count(part: slice) -> int:
        return int(np.count_nonzero(frame[part, :, 1:] != frame[part, :, :-1]))

    return sum(map_threads(count, slices(frame.shape[0], _depth(frame.shape))))


def _in_memory_order(array: NDArray) -> tuple[NDArray, bool]:
    """Return an array with the axis last that is contiguous in memory, and whether it is transposed for this."""
    is_transposed = abs(array.strides[0]) < abs(array.strides[2])
    return (array.T if is_transposed else array), is_transposed


def _depth(shape: tuple[int, ...]) -> int:
    """Return the number of slices along the first axis that are processed together."""
    return max(1, _SLAB_VOXELS // max(1, math.prod(shape[1:])))


def _find_runs(frame: NDArray) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.uint8]]:
    """Return start, stop and value of each run in the flattened array, padded by a voxel behind each row and column.

    Padding keeps runs of neighbouring rows apart, and rows of neighbouring slices.
    """
    padded = (frame.shape[1] + 1, frame.shape[2] + 1)
    dtype = np.int32 if (frame.shape[0] + 2) * math.prod(padded) < 2**31 else np.int64

    def find(part: slice) -> tuple[NDArray[np.integer], NDArray[np.integer], NDArray[np.uint8]]:
        depth = part.stop - part.start
        flat = np.zeros(depth * math.prod(padded) + 1, frame.dtype)
        flat[1:].reshape(depth, *padded)[:, :-1, :-1] = frame[part]
        places = np.flatnonzero(flat[1:] != flat[:-1])
        values = flat[1:][places].astype(np.uint8)
        edges = (places + part.start * math.prod(padded)).astype(dtype)
        begins = np.flatnonzero(values)
        return edges[begins], edges[begins + 1], values[begins]

    found = map_threads(find, slices(frame.shape[0], _depth(frame.shape)))
    if not found:
        return np.zeros(0, dtype), np.zeros(0, dtype), np.zeros(0, np.uint8)
    starts, stops, values = zip(*found, strict=True)
    return np.concatenate(starts), np.concatenate(stops), np.concatenate(values)


def _unpad(places: NDArray[np.integer], shape: tuple[int, ...]) -> NDArray[np.integer]:
    """Return the places in the flattened mask of places in the padded one."""
    rows, along = np.divmod(places, shape[2] + 1)
    rows -= rows // (shape[1] + 1)
    return rows.astype(np.int64) * shape[2] + along


def _connect(
    starts: NDArray[np.integer],
    stops: NDArray[np.integer],
    values: NDArray[np.uint8],
    shape: tuple[int, ...],
    rank: int,
) -> NDArray[np.integer]:
    """Return the component of each run, numbered from 0."""
    is_mask = not values.size or values.min() == values.max()
    numbers: NDArray[np.integer] = np.arange(starts.size, dtype=np.int32)
    for steps in _ROWS_AFTER:
        num_steps = sum(map(abs, steps))
        if num_steps > rank:
            continue
        slack = 1 if num_steps < rank else 0  # whether a neighbour may also differ along the rows
        shift = (steps[0] * (shape[1] + 1) + steps[1]) * (shape[2] + 1)
        first = np.searchsorted(stops, starts + starts.dtype.type(shift - slack), side="right")
        counts = np.searchsorted(starts, stops + stops.dtype.type(shift + slack), side="left") - first
        total = int(counts.sum())
        if not total:
            continue
        runs = np.repeat(np.arange(starts.size, dtype=np.int32), counts)
        others = np.repeat((first - np.cumsum(counts) + counts).astype(np.int32), counts)
        others += np.arange(total, dtype=np.int32)
        if not is_mask:
            equal = values[runs] == values[others]
            runs, others = runs[equal], others[equal]
        numbers = _merge(numbers, runs, others)
    return numbers


def _merge(
    numbers: NDArray[np.integer], runs: NDArray[np.integer], others: NDArray[np.integer]
) -> NDArray[np.integer]:
    """Return the components of runs after each of `runs` is connected with that of `others`."""
    size = int(numbers.max()) + 1
    pairs = numbers[runs], numbers[others]
    graph = sparse.coo_matrix((np.ones(runs.size, bool), pairs), shape=(size, size))
    _, merged = sparse.csgraph.connected_components(graph, directed=False)
    return merged[numbers]


def label_components(
    mask: Mask, connectivity: Connectivity = 26
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Label the connected components of a mask `(I, J, K)`, numbered from 1 in array order.

    Returns the map of component numbers, 0 outside, as uint16 where they fit, otherwise int32; and the components'
    sizes in voxels: `sizes[n - 1]` is the size of component n.
    """
    structure = ndimage.generate_binary_structure(3, _RANKS[connectivity])
    try:
        labels, count = ndimage.label(mask, structure=structure, output=np.uint16)
    except RuntimeError:  # SciPy has found more than 65,535
        labels, count = ndimage.label(mask, structure=structure)
    sizes = np.zeros(count + 1, np.int64)
    for part in slices(labels.shape[0], _depth(labels.shape)):
        found = np.bincount(labels[part].ravel())
        sizes[: found.size] += found
    return labels, sizes[1:]


def largest_component(mask: Mask, connectivity: Connectivity = 26) -> Mask:
    """Return the mask of the largest component, the first in array order if several are equally large."""
    components = find_components(mask, connectivity)
    return components.select(components.largest())


def remove_small_components(mask: Mask, min_voxels: int, connectivity: Connectivity = 26) -> Mask:
    """Return the mask without the components of fewer than `min_voxels` voxels."""
    components = find_components(mask, connectivity)
    return components.select(components.sizes >= min_voxels)
