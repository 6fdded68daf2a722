"""From slabs of logits to the label map on the scan's own grid: probabilities, resampling and decision.

The label of a voxel is that of the largest probability after linear interpolation of all probabilities to the scan's
grid. Blocks are decided one after another, so that memory does not grow with the scan or with its number of classes:
only the classes that can win somewhere in a block are interpolated there.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.inference.placement import Placement
from medunet.inference.stream import Slab
from medunet.records.description import Description
from medunet.transforms.resampling import Neighbours

_ROWS, _SIDE = 16, 64  # voxels of a block on the scan's grid: along the stream's axis, and along the others
_SIDE_ON_GPU = 512  # or less, with many classes
_BLOCK_BYTES_ON_GPU = 256_000_000  # of interpolated probabilities
_ROUNDING = 1e-5  # of sums of probabilities


@dataclass(frozen=True)
class _Block:
    """Voxels of the scan along one axis, those of the network's grid that they lie between, and their weights."""

    target: slice
    source: slice
    weights: torch.Tensor  # (target, source)

    def to(self, device: torch.device) -> "_Block":
        return _Block(self.target, self.source, self.weights.to(device))


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


def restore_labels(
    slabs: Iterable[Slab],
    axis: int,
    placement: Placement,
    description: Description,
    *,
    of_logits: bool = False,
) -> NDArray[np.uint8]:
    """Return the uint8 label map `(I, J, K)` on the scan's grid; voxels that were cropped away are background.

    Labels that exclude each other: the most probable one. Regions: those above 0.5, later ones overwriting earlier
    ones. The result equals `to_label_map` of all probabilities resampled by MONAI's inverse transforms, but for
    rounding where two probabilities are equal.

    Args:
        slabs: consecutive slices of the network's grid along `axis`, from the first to the last.
        of_logits: interpolate logits rather than probabilities, as nnU-Net does.
    """
    order = (axis, *(other for other in range(3) if other != axis))
    mask = np.zeros(placement.shape, np.uint8, order="F")  # as files hold it
    view = placement.view(mask, order)
    along, *across = (
        Neighbours.at(placement.axes[number].positions, placement.lengths[number]) for number in order
    )
    decide = _decide_regions if description.regions else _decide_labels
    is_same_grid = all(map(_are_voxels, (along, *across)))
    columns: list[list[_Block]] = []
    values = (0, *description.written_values.values())
    for rows, logits in _in_blocks(slabs, along):
        if not columns:
            side = _choose_side(logits)
            columns = [[block.to(logits.device) for block in _blocks(each, side)] for each in across]
        rows = rows.to(logits.device)
        for second in columns[0]:
            for third in columns[1]:
                part = logits[:, :, second.source, third.source]
                labels = decide(part, (rows, second, third), values, is_same_grid, of_logits)
                if labels is not None:
                    view[rows.target, second.target, third.target] = labels
    return mask


def _in_blocks(slabs: Iterable[Slab], along: Neighbours) -> Iterator[tuple[_Block, torch.Tensor]]:
    """Yield blocks of rows of the scan with the logits `(K, source, b, c)` between which they lie."""
    done, kept, first_kept = 0, None, 0
    for slab in slabs:
        logits, stop = slab.logits, slab.start + slab.logits.shape[1]
        ready = int(np.searchsorted(along.high, stop))
        while done < ready:
            block = _block(along, done, min(done + _ROWS, ready))
            low, high = block.source.start, block.source.stop
            if low < slab.start:
                # Few rows, so that little is copied.
                block = _block(
                    along, done, max(done + 1, min(block.target.stop, _first(along.low, slab.start)))
                )
                low, high = block.source.start, block.source.stop
                assert kept is not None
                rows = torch.cat([kept[:, low - first_kept :], logits[:, : high - slab.start]], 1)
            else:
                rows = logits[:, low - slab.start : high - slab.start]
            yield block, rows
            done = block.target.stop
        if done < len(along.low) and along.low[done] < stop:
            needed = int(along.low[done])
            if needed < slab.start:
                assert kept is not None
                kept = torch.cat([kept[:, needed - first_kept :], logits], 1)
            else:
                kept = logits[:, needed - slab.start :].clone()
            first_kept = needed


def _first(values: NDArray[np.int64], least: int) -> int:
    """Return the index of the first value that is at least `least`, of ascending values."""
    return int(np.searchsorted(values, least))


def _decide_labels(
    logits: torch.Tensor, blocks: Sequence[_Block], values: Sequence[int], is_same_grid: bool, of_logits: bool
) -> NDArray[np.uint8] | None:
    """Return the labels `(a, b, c)` of a block, or None if all are background."""
    if is_same_grid:
        chosen, candidates = logits, list(range(len(values)))
    elif of_logits:
        low, high = logits.flatten(1).aminmax(dim=1)
        candidates = (high >= low.max()).nonzero().flatten().tolist()  # interpolation stays between both
        chosen = logits[candidates]
    else:
        probabilities = logits.softmax(0)
        candidates = _possible(probabilities.flatten(1).amax(1).cpu().numpy())
        chosen = probabilities[candidates] if len(candidates) > 1 else probabilities[:0]
    lookup = np.array([values[number] for number in candidates], np.uint8)
    if len(candidates) == 1:
        return None if lookup[0] == 0 else np.broadcast_to(lookup[:1, None, None], _shape(blocks))
    best = _interpolate(chosen, blocks, is_same_grid).max(0).indices  # far faster than argmax on a CPU
    return lookup[best.cpu().numpy()]


def _possible(largest: NDArray[np.float32]) -> list[int]:
    """Return the classes that can be the most probable one somewhere in a block, ascending.

    `largest` holds the largest probability of each class at the block's voxels, which interpolation cannot exceed.
    The n classes of the largest ones together have at least 1 minus the sum of the others' everywhere, so that the
    most probable of them has at least an n-th of that. A class that never reaches this cannot win.
    """
    order = np.argsort(-largest, kind="stable")
    ranked = largest[order].astype(np.float64)
    others = ranked.sum() - np.cumsum(ranked)
    least = (1 - others) / np.arange(1, len(ranked) + 1)
    loses = least[:-1] > ranked[1:] + _ROUNDING
    count = int(np.argmax(loses)) + 1 if loses.any() else len(ranked)
    return sorted(order[:count].tolist())


def _decide_regions(
    logits: torch.Tensor, blocks: Sequence[_Block], values: Sequence[int], is_same_grid: bool, of_logits: bool
) -> NDArray[np.uint8] | None:
    """Return the labels `(a, b, c)` of a block, or None if it is in no region."""
    low, high = (each.cpu().numpy() for each in logits.flatten(1).aminmax(dim=1))
    labels: NDArray[np.uint8] | None = None
    for number, value in enumerate(values[1:]):
        if high[number] <= 0:
            continue
        if labels is None:
            labels = np.zeros(_shape(blocks), np.uint8)
        if low[number] > 0:
            labels[:] = value
            continue
        part = logits[number : number + 1]
        if of_logits:
            inside = _interpolate(part, blocks, is_same_grid)[0] > 0
        else:
            inside = _interpolate(part.sigmoid(), blocks, is_same_grid)[0] > 0.5
        labels[inside.cpu().numpy()] = value
    return labels


def _interpolate(parts: torch.Tensor, blocks: Sequence[_Block], is_same_grid: bool) -> torch.Tensor:
    """Return parts `(K, a, b, c)` of the network's grid interpolated linearly to the scan's voxels of the blocks."""
    if is_same_grid:
        return parts
    first, second, third = (block.weights for block in blocks)
    parts = second @ (parts @ third.T)
    return (first @ parts.flatten(2)).unflatten(2, parts.shape[2:])


def _shape(blocks: Sequence[_Block]) -> tuple[int, ...]:
    return tuple(len(block.weights) for block in blocks)


def to_label_map(probabilities: Iterable[torch.Tensor], description: Description) -> torch.Tensor:
    """Return the uint8 label map: the most probable label, or regions above 0.5, later ones overwriting earlier ones.

    `probabilities` yields the channels one by one, or is a tensor of all of them; only one channel and the maximum
    are in memory at a time. The result is on the same device.
    """
    channels = iter(probabilities)
    best = torch.tensor(0.5) if description.regions else next(channels)
    labels: torch.Tensor | None = None
    for channel, value in zip(channels, description.written_values.values(), strict=True):
        wins = channel > best
        labels = torch.zeros_like(channel, dtype=torch.uint8) if labels is None else labels
        labels[wins] = value
        if not description.regions:
            best = torch.where(wins, channel, best)
    assert labels is not None
    return labels
