"""From slabs of logits to the label map on the scan's own grid: probabilities, resampling and decision.

The label of a voxel is that of the largest probability after linear interpolation of all probabilities to the scan's
grid. Blocks are decided one after another, so that memory does not grow with the scan or with its number of classes:
only the classes that can win somewhere in a block are interpolated there.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.inference.placement import Placement
from medunet.inference.scan_blocks import Part, Source, Targets, mean_of_parts, order_of, walk_blocks
from medunet.inference.stream import Slab, to_logits
from medunet.records.description import Description

_ROUNDING = 1e-5  # of sums of probabilities

# Called with a block's voxels in `Placement.view`, its parts, and its labels `(a, b, c)` or None for background.
OnBlock = Callable[[Targets, Sequence[Part], NDArray[np.uint8] | None], None]


def restore_labels(
    sources: Sequence[Source],
    description: Description,
    on_block: OnBlock | None = None,
    *,
    most_rows: int | None = None,
) -> NDArray[np.uint8]:
    """Return the uint8 label map `(I, J, K)` on the scan's grid; voxels that were cropped away are background.

    Labels that exclude each other: the most probable one. Regions: those above 0.5, later ones overwriting earlier
    ones. Probabilities are those of the mean over the sources, each resampled by itself. The result equals
    `to_label_map` of all probabilities resampled by MONAI's inverse transforms, but for rounding where two
    probabilities are equal.

    Args:
        sources: with the same part of the scan in their grids, and the same axis. Slabs are consecutive slices from
            the first to the last. Channels after those of the description's labels are not decided on.
        on_block: called with each block.
        most_rows: of a block; None: as is usual.
    """
    placement, axis = sources[0].placement, sources[0].axis
    mask = np.zeros(placement.shape, np.uint8, order="F")  # as files hold it
    view = placement.view(mask, order_of(axis))
    values = (0, *description.written_values.values())
    for targets, parts in walk_blocks(sources, most_rows):
        labels = decide(parts, bool(description.regions), values)
        if labels is not None:
            view[targets] = labels
        if on_block is not None:
            on_block(targets, parts, labels)
    return mask


def restore_whole(source: Source, description: Description) -> Source:
    """Return a source in the scan's own grid, with all logits of the resampled probabilities in memory."""
    regions, shape = bool(description.regions), source.placement.shape
    size = len(description.written_values) + (not regions)
    found: NDArray[np.float32] = np.zeros((0, *shape), np.float32)
    for targets, (part,) in walk_blocks([source]):
        if not len(found):
            found = np.zeros((len(part.logits), *shape), np.float32)
            views = [source.placement.view(each, order_of(source.axis)) for each in found]
        each = [own.probabilities(regions=regions) for own in part.split(size)]
        for view, probabilities in zip(views, torch.cat(each).cpu().numpy(), strict=True):
            view[targets] = probabilities
    groups = torch.from_numpy(found).split(size)
    logits = torch.cat([to_logits(with_background(each, regions), regions=regions) for each in groups])
    return Source([Slab(0, logits)], 0, Placement.of_whole(shape), source.weight)


def with_background(probabilities: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return probabilities `(K, I, J, K)` of which the background has what is left, such as what was cropped away."""
    if not regions:
        probabilities[0] = 1 - probabilities[1:].sum(0)
    return probabilities


def decide(parts: Sequence[Part], regions: bool, values: Sequence[int]) -> NDArray[np.uint8] | None:
    """Return the labels `(a, b, c)` of a block, or None if all are background.

    Args:
        values: of the labels, background first.
    """
    count = len(values) - regions
    parts = [part.first(count) for part in parts]
    return _decide_regions(parts, values) if regions else _decide_labels(parts, values)


def _decide_labels(parts: Sequence[Part], values: Sequence[int]) -> NDArray[np.uint8] | None:
    """Return the labels `(a, b, c)` of a block, or None if all are background."""
    first = parts[0]
    if len(parts) == 1 and first.is_same_grid:
        best, candidates = first.logits.max(0).indices, list(range(len(values)))
    elif len(parts) == 1 and first.of_logits:
        low, high = first.logits.flatten(1).aminmax(dim=1)
        candidates = (high >= low.max()).nonzero().flatten().tolist()  # interpolation stays between both
        best = first.interpolate(first.logits[candidates]).max(0).indices
    elif any(part.of_logits for part in parts):
        candidates = list(range(len(values)))
        best = mean_of_parts([part.probabilities(regions=False) for part in parts], parts).max(0).indices
    else:
        probabilities = [part.logits.softmax(0) for part in parts]
        largest = mean_of_parts([each.flatten(1).amax(1) for each in probabilities], parts)
        candidates = _possible(largest.cpu().numpy())
        if len(candidates) == 1:
            label = values[candidates[0]]
            return None if label == 0 else np.full(_shape(parts), label, np.uint8)
        chosen = [part.interpolate(each[candidates]) for part, each in zip(parts, probabilities, strict=True)]
        best = mean_of_parts(chosen, parts).max(0).indices  # far faster than argmax on a CPU
    lookup = np.array([values[number] for number in candidates], np.uint8)
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


def _decide_regions(parts: Sequence[Part], values: Sequence[int]) -> NDArray[np.uint8] | None:
    """Return the labels `(a, b, c)` of a block, or None if it is in no region."""
    bounds = [part.logits.flatten(1).aminmax(dim=1) for part in parts]
    low = mean_of_parts([each.min.double().sigmoid() for each in bounds], parts).cpu().numpy()
    high = mean_of_parts([each.max.double().sigmoid() for each in bounds], parts).cpu().numpy()
    labels: NDArray[np.uint8] | None = None
    for number, value in enumerate(values[1:]):
        if high[number] <= 0.5:
            continue
        if labels is None:
            labels = np.zeros(_shape(parts), np.uint8)
        if low[number] > 0.5:
            labels[:] = value
            continue
        chosen = [part.only(number).probabilities(regions=True) for part in parts]
        labels[(mean_of_parts(chosen, parts)[0] > 0.5).cpu().numpy()] = value
    return labels


def _shape(parts: Sequence[Part]) -> tuple[int, ...]:
    return tuple(len(block.weights) for block in parts[0].blocks)


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
