"""The blocks of a scan that are decided one after another, with the slices of each model's grid around them.

Memory does not grow with the scan or with its number of classes. K logit channels; a, b, c: voxels of a block along
the stream's axis, and along the other two.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.inference.placement import Placement
from medunet.inference.stream import Slab
from medunet.transforms.resampling import Neighbours

_ROWS, _SIDE = 16, 64  # voxels of a block on the scan's grid: along the stream's axis, and along the others
_SIDE_ON_GPU = 512  # or less, with many classes
_BLOCK_BYTES_ON_GPU = 256_000_000  # of interpolated probabilities

Targets = tuple[slice, slice, slice]  # the voxels of a block in `Placement.view`


@dataclass(frozen=True)
class _Block:
    """Voxels of the scan along one axis, those of the network's grid that they lie between, and their weights."""

    target: slice
    source: slice
    weights: torch.Tensor  # (target, source)

    def to(self, device: torch.device) -> "_Block":
        return _Block(self.target, self.source, self.weights.to(device))


@dataclass(frozen=True)
class Source:
    """The slabs of one model, along `axis` of its grid, and where the scan's voxels lie there.

    `weight` is its share of the mean of the probabilities of several sources. With `of_logits`, logits are
    interpolated rather than probabilities, as nnU-Net does.
    """

    slabs: Iterable[Slab]
    axis: int
    placement: Placement
    weight: float = 1.0
    of_logits: bool = False


@dataclass(frozen=True)
class Part:
    """Logits `(K, a, b, c)` of a source around a block of the scan's voxels, `axis` first."""

    logits: torch.Tensor
    blocks: tuple[_Block, _Block, _Block]
    is_same_grid: bool  # whether a, b, c are the scan's voxels themselves
    weight: float = 1.0
    of_logits: bool = False

    def first(self, count: int) -> "Part":
        """Return the part of the first channels."""
        return replace(self, logits=self.logits[:count])

    def only(self, number: int) -> "Part":
        """Return the part of one channel."""
        return replace(self, logits=self.logits[number : number + 1])

    def split(self, size: int) -> "list[Part]":
        """Return the parts of `size` channels each."""
        return [replace(self, logits=logits) for logits in self.logits.split(size)]

    def members(self, size: int) -> "list[Part]":
        """Return the parts of a source's networks with `size` channels each, which follow those of their mean."""
        each = self.split(size)
        return each[len(each) > 1 :]

    def probabilities(self, *, regions: bool) -> torch.Tensor:
        """Return the probabilities `(K, a, b, c)` at the block's voxels of the scan."""
        if self.of_logits:
            return _probabilities(self.interpolate(self.logits), regions)
        return self.interpolate(_probabilities(self.logits, regions))

    def interpolate(self, values: torch.Tensor) -> torch.Tensor:
        """Return values `(n, a, b, c)` of the network's grid interpolated linearly to the scan's voxels."""
        if self.is_same_grid:
            return values
        first, second, third = (block.weights for block in self.blocks)
        values = second @ (values @ third.T)
        return (first @ values.flatten(2)).unflatten(2, values.shape[2:])


def _probabilities(logits: torch.Tensor, regions: bool) -> torch.Tensor:
    return logits.sigmoid() if regions else logits.softmax(0)


def mean_of_parts(values: Sequence[torch.Tensor], parts: Sequence[Part]) -> torch.Tensor:
    """Return the mean of values of several parts by their weights."""
    if len(parts) == 1:
        return values[0]
    total = values[0] * parts[0].weight
    for value, part in zip(values[1:], parts[1:], strict=True):
        total.add_(value, alpha=part.weight)
    return total


def order_of(axis: int) -> tuple[int, int, int]:
    """Return the axes of the network's grid with the one of the stream first."""
    first, second = (other for other in range(3) if other != axis)
    return axis, first, second


def walk_blocks(
    sources: Sequence[Source], most_rows: int | None = None
) -> Iterator[tuple[Targets, list[Part]]]:
    """Yield all blocks of the scan, each with a part of every source; those of the same rows one after another."""
    most_rows = min(most_rows or _ROWS, _ROWS)
    grids = [
        [
            Neighbours.at(source.placement.axes[number].positions, source.placement.lengths[number])
            for number in order_of(source.axis)
        ]
        for source in sources
    ]
    same = [all(map(_are_voxels, grid)) for grid in grids]
    columns: list[list[list[_Block]]] = []
    for rows in _in_blocks([source.slabs for source in sources], [grid[0] for grid in grids], most_rows):
        if not columns:
            side, device = _choose_side(rows[0][1]), rows[0][1].device
            columns = [[[b.to(device) for b in _blocks(axis, side)] for axis in grid[1:]] for grid in grids]
        rows = [(block.to(logits.device), logits) for block, logits in rows]
        for seconds in zip(*(each[0] for each in columns), strict=True):
            for thirds in zip(*(each[1] for each in columns), strict=True):
                parts = [
                    Part(
                        logits[:, :, second.source, third.source],
                        (first, second, third),
                        is_same,
                        source.weight,
                        source.of_logits,
                    )
                    for (first, logits), second, third, is_same, source in zip(
                        rows, seconds, thirds, same, sources, strict=True
                    )
                ]
                yield (rows[0][0].target, seconds[0].target, thirds[0].target), parts


def _in_blocks(
    sources: Sequence[Iterable[Slab]], along: Sequence[Neighbours], most_rows: int
) -> Iterator[list[tuple[_Block, torch.Tensor]]]:
    """Yield blocks of rows of the scan, for each source with the logits `(K, rows, b, c)` that they lie between."""
    every = [_Rows(slabs, axis) for slabs, axis in zip(sources, along, strict=True)]
    done = 0
    while done < len(along[0].low):
        for rows in every:
            while rows.ready <= done:
                rows.go_on(done)
        stop = min(done + most_rows, *(rows.ready for rows in every))
        stop = min(rows.limit(done, stop) for rows in every)
        yield [rows.between(done, stop) for rows in every]
        done = stop
    for rows in every:
        rows.end()


class _Rows:
    """The rows of one source: its current slab, and those of earlier ones that are still needed."""

    def __init__(self, slabs: Iterable[Slab], along: Neighbours) -> None:
        self._slabs, self._along = iter(slabs), along
        self._slab: Slab | None = None
        self._kept = torch.zeros(())
        self._first_kept = 0
        self.ready = 0  # rows of the scan that lie between slices so far

    def go_on(self, done: int) -> None:
        """Take the next slab; rows of the scan before `done` are decided."""
        if self._slab is not None:
            needed = int(self._along.low[done])
            logits, start = self._slab.logits, self._slab.start
            if needed < start:
                self._kept = torch.cat([self._kept[:, needed - self._first_kept :], logits], 1)
            else:
                self._kept = logits[:, needed - start :].clone()
            self._first_kept = needed
        self._slab = next(self._slabs)
        self.ready = _first(self._along.high, self._slab.start + self._slab.logits.shape[1])

    def limit(self, start: int, stop: int) -> int:
        """Return where a block from `start` ends: few rows before the current slab, so that little is copied."""
        assert self._slab is not None
        if int(self._along.low[start]) >= self._slab.start:
            return stop
        return max(start + 1, min(stop, _first(self._along.low, self._slab.start)))

    def between(self, start: int, stop: int) -> tuple[_Block, torch.Tensor]:
        """Return a block of rows with its logits `(K, source, b, c)`."""
        assert self._slab is not None
        block, logits, first = _block(self._along, start, stop), self._slab.logits, self._slab.start
        low, high = block.source.start, block.source.stop
        if low >= first:
            return block, logits[:, low - first : high - first]
        kept = self._kept[:, low - self._first_kept :]
        return block, torch.cat([kept, logits[:, : high - first]], 1)

    def end(self) -> None:
        """Compute what is left, which no row of the scan needs."""
        for _ in self._slabs:
            pass


def _first(values: NDArray[np.int64], least: int) -> int:
    """Return the index of the first value that is at least `least`, of ascending values."""
    return int(np.searchsorted(values, least))


def _block(axis: Neighbours, start: int, stop: int) -> _Block:
    """Return the block of the scan's voxels `start .. stop - 1` along an axis."""
    first, last = int(axis.low[start]), int(axis.high[stop - 1])
    part, rows = axis.part(start, stop, first), np.arange(stop - start)
    matrix = np.zeros((stop - start, last + 1 - first), np.float32)
    matrix[rows, part.high] = part.weight
    matrix[rows, part.low] += 1 - part.weight
    return _Block(slice(start, stop), slice(first, last + 1), torch.from_numpy(matrix))


def _blocks(axis: Neighbours, size: int) -> list[_Block]:
    """Return blocks of at most `size` voxels that cover an axis."""
    length = len(axis.low)
    return [_block(axis, start, min(start + size, length)) for start in range(0, length, size)]


def _choose_side(logits: torch.Tensor) -> int:
    """Return the length of blocks across the stream's axis."""
    if logits.device.type == "cpu":
        return _SIDE
    side = math.isqrt(_BLOCK_BYTES_ON_GPU // (4 * _ROWS * len(logits)))
    return min(max(side, _SIDE), _SIDE_ON_GPU)


def _are_voxels(axis: Neighbours) -> bool:
    """Return whether each voxel of the scan is a voxel of the network's grid of its own, without any left out."""
    return not axis.weight.any() and bool((np.diff(axis.low) == 1).all())
