"""Blending of overlapping windows: Gaussian weights, each window's share of a voxel, and running sums of logits.

K logit channels; volumes are `(I, J, K)`.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import torch

from medunet.inference.windows import Grid, Span, Window
from medunet.records.plan import Plan

_SIGMA = 0.125  # of the Gaussian, as a share of the window
_LEAST_WEIGHT = 1e-3
_HELD_SLICES = 4  # of a 2D network, that are finished together


def gaussian_weights(size: Sequence[int]) -> torch.Tensor:
    """Return float32 weights `size` of a window's voxels, as MONAI's `compute_importance_map` does.

    A Gaussian with a sigma of an eighth of the window along each axis, and 0.001 where it is lower.
    """
    weights = torch.ones(())
    for n in size:
        distance = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weights = weights[..., None] * torch.exp(distance**2 / (-2 * (n * _SIGMA) ** 2))
    return weights.clamp_min(max(float(weights.min()), _LEAST_WEIGHT))


class WindowShares:
    """The share that each window has of its voxels: its Gaussian weight, divided by the sum of those of its grid.

    Of several grids each has the same share. An unpadded network's tiles have their voxels to themselves.
    """

    def __init__(
        self,
        plan: Plan,
        grids: Sequence[Grid],
        shape: tuple[int, ...],
        axis: int,
        device: torch.device,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Blend the windows of grids that lie in a volume `shape`, which come by their place along `axis`.

        `weights` are those of a window's voxels; None: `gaussian_weights`.
        """
        self._grids, self._shape, self._axis = grids, shape, axis
        self._is_blended, self._num_kept = plan.padded, len(grids) if plan.dimensions == 2 else 1
        size = list(plan.output_size)
        if weights is None:
            weights = gaussian_weights(size) if plan.padded else torch.full(size, 1 / len(grids))
        self._weights = (weights.unsqueeze(axis) if plan.dimensions == 2 else weights).to(device)
        self._sums: dict[tuple[int, ...], torch.Tensor] = {}  # of the weights of a grid, by grid and place

    def of(self, window: Window) -> torch.Tensor:
        """Return the share `(I, J, K)` of each voxel of a window's box."""
        weights = self._weights[window.inner]
        if not self._is_blended:
            return weights
        within = list(window.box)
        within[self._axis] = slice(None)
        return weights / self._sum_weights(window)[tuple(within)]

    def _sum_weights(self, window: Window) -> torch.Tensor:
        """Return the sums of the weights of a window's grid in all slices that the window lies in.

        They are kept for the windows in the same slices, and for others with the same neighbours.
        """
        own, grid = window.spans[self._axis], self._grids[window.grid]
        near = [span for span in grid[self._axis] if span.low < own.high and span.high > own.low]
        key = (window.grid, own.high - own.low, *(span.start - own.low for span in near))
        if key not in self._sums:
            while len(self._sums) >= self._num_kept:
                del self._sums[next(iter(self._sums))]
            self._sums[key] = self._add_weights(own, near, grid).mul_(len(self._grids))
        return self._sums[key]

    def _add_weights(self, own: Span, near: list[Span], grid: Grid) -> torch.Tensor:
        size = list(self._shape)
        size[self._axis] = own.high - own.low
        sums = self._weights.new_zeros(size)
        for spans in product(*(near if axis == self._axis else each for axis, each in enumerate(grid))):
            places, inner = [], []
            for axis, span in enumerate(spans):
                low, high, first = span.low, span.high, 0
                if axis == self._axis:
                    low, high, first = max(low, own.low), min(high, own.high), own.low
                places.append(slice(low - first, high - first))
                inner.append(slice(low - span.start, high - span.start))
            sums[tuple(places)] += self._weights[tuple(inner)]
        return sums


class RunningSums:
    """Weighted sums of logits in the slices that are not finished, in a ring: slice `i` at place `i % depth`.

    In memory they have the order of the network's output, so that a window is added in one contiguous pass.
    """

    def __init__(
        self,
        plan: Plan,
        grids: Sequence[Grid],
        shape: tuple[int, ...],
        axis: int,
        device: torch.device,
        weights: torch.Tensor | None = None,
    ) -> None:
        """Add windows of grids in a volume `shape`, of which slices along `axis` are finished one after the other.

        For `weights`, see `WindowShares`.
        """
        self._shares = WindowShares(plan, grids, shape, axis, device, weights)
        self._dimensions, self._axis, self._device = plan.dimensions, axis, device
        longest = max(span.high - span.low for grid in grids for span in grid[axis])
        self._depth = longest if plan.dimensions == 3 else min(_HELD_SLICES, shape[axis])
        self._section = (*shape[:axis], self._depth, *shape[axis + 1 :])
        self._first = 0  # slice that is not finished
        self._sums = torch.zeros(())

    def has_room(self, window: Window) -> bool:
        """Return whether a window can be added before slices are finished."""
        return window.box[self._axis].stop <= self._first + self._depth

    def add(self, window: Window, logits: torch.Tensor) -> None:
        """Add a window's logits `(K, *output)`."""
        if self._sums.ndim == 0:
            self._sums = self._make_sums(len(logits))
        if self._dimensions == 2:
            logits = logits.unsqueeze(1 + self._axis)
        logits, shares = logits[:, *window.inner].to(self._device), self._shares.of(window)
        box = list(window.box)
        start, stop = box[self._axis].start, box[self._axis].stop
        for low, place, count in self._pieces(start, stop):
            box[self._axis] = slice(place, place + count)
            part, share = (each.narrow(self._axis - 3, low - start, count) for each in (logits, shares))
            self._sums[:, *box].addcmul_(part, share)

    def finish(self, stop: int) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield the slices before `stop`, and free their places: first slice, logits `(K, n, b, c)`, `axis` first."""
        for low, place, count in self._pieces(self._first, stop):
            logits = self._sums.narrow(1 + self._axis, place, count).movedim(1 + self._axis, 1)
            yield low, logits
            logits.zero_()
            self._first = low + count

    def _make_sums(self, num_channels: int) -> torch.Tensor:
        if self._dimensions == 3:
            return torch.zeros((num_channels, *self._section), device=self._device)
        section = list(self._section)
        section.insert(0, section.pop(self._axis))
        return torch.zeros((num_channels, *section), device=self._device).movedim(1, 1 + self._axis)

    def _pieces(self, low: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield first slice, place and number of a range of slices, in two parts around the end of the ring."""
        while low < stop:
            place = low % self._depth
            count = min(stop - low, self._depth - place)
            yield low, place, count
            low += count
