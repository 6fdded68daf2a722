"""The logits of a whole volume as a stream of slabs: overlapping windows with Gaussian weights, or overlap-tiles.

Slices are finished once no later window touches them, so that memory depends on the patch, the volume's cross-section
and the number of classes, and not on the volume's length. K logit channels; b, c the volume's other two axes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import TypeVar

import torch

from medunet.base.errors import DataError
from medunet.inference.backend import Backend
from medunet.inference.windows import (
    Span,
    Window,
    gaussian_weights,
    move_spans,
    overlapping_spans,
    run_windows,
    tile_spans,
)
from medunet.records.config import InferenceConfig
from medunet.records.plan import Plan
from medunet.transforms.augment import BODY_AXES

_BATCH = 4  # windows or slices

Offset = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Slab:
    """Finished slices: float32 logits `(K, n, b, c)`, the stream's axis first, from slice `start` on.

    They are a view (in 3D with the strides of the volume's axes), valid until the next slab is asked for, and may be
    changed in place.
    """

    start: int
    logits: torch.Tensor


def open_stream(
    backend: Backend,
    image: torch.Tensor,
    plan: Plan,
    config: InferenceConfig,
    *,
    batch: int = _BATCH,
    accumulate_on: torch.device | None = None,
) -> "WindowStream":
    """Return the stream of a preprocessed float32 image `(C, I, J, K)` on the CPU.

    Windows have the plan's patch size; they are blended with Gaussian weights as MONAI's `sliding_window_inference`
    does. A volume that fits one window is predicted once. Unpadded networks are applied to tiles without overlap, 2D
    networks to the slices across `plan.slice_axis`, each with its `plan.context_slices`.

    Args:
        config: `overlap` of neighbouring windows, as a share of the patch; `mirror`: body axes by name, of which each
            window's logits are averaged over all its mirror images, as in nnU-Net (the network must have been trained
            with the same mirroring); `shifts`: all windows are laid that many times, at offsets below the network's
            stride (see `make_offsets`), which reduces the dependence on the pooling grid.
        batch: windows that are computed together.
        accumulate_on: where logits are added up; None: on the backend's device.
    """
    return WindowStream(backend, image, plan, config, batch, accumulate_on or backend.device)


class WindowStream:
    """The windows of a volume, and the slabs that they finish; made by `open_stream`.

    `axis` is the axis of the volume along which slabs come: the longest one, or `plan.slice_axis` in 2D.
    `num_windows` is the number of all windows; `num_done` and `num_reused` count those that are added up so far, and
    those among them that were not computed because an earlier one holds the same constant values.
    """

    def __init__(
        self,
        backend: Backend,
        image: torch.Tensor,
        plan: Plan,
        config: InferenceConfig,
        batch: int,
        accumulate_on: torch.device,
    ) -> None:
        self._backend, self._image, self._plan = backend, image, plan
        self._batch, self._device = batch, accumulate_on
        self.shape = tuple(image.shape[1:])
        self.axis = plan.slice_axis if plan.dimensions == 2 else self.shape.index(max(self.shape))
        self._grids = [
            _lay_windows(self.shape, offset, plan, config.overlap)
            for offset in make_offsets(plan, config.shifts)
        ]
        self._place = 0 if plan.dimensions == 2 else self.axis  # of the stream's axis in the running sums
        self._flips = _choose_flips(plan, config.mirror)
        self.num_windows = sum(math.prod(len(spans) for spans in grid) for grid in self._grids)
        self.num_done = self.num_reused = 0

    @torch.no_grad()
    def slabs(self) -> Iterator[Slab]:
        """Yield the finished slices from the first to the last.

        Raises:
            DataError: logits are NaN or infinite.
        """
        self.num_done = self.num_reused = 0
        size = self._plan.output_size
        weights = gaussian_weights(size) if self._plan.padded else torch.ones(size)
        weights = self._with_slices(weights).to(self._device)
        total: _RunningTotal | None = None
        for found in run_windows(
            self._predict, self._image.numpy(), self._in_order(), self._plan, self._batch
        ):
            box, inner = self._ordered(found.window.box), self._ordered(found.window.inner)
            logits = self._with_slices(found.logits)[:, *inner].to(self._device)
            if total is None:
                total = _RunningTotal(len(logits), self._section(), self._place, self._device)
            if not total.has_room(box[self._place].stop):
                yield from self._finish(total, box[self._place].start)
            total.add(logits, weights[inner], box)
            self.num_done += 1
            self.num_reused += found.is_reused
            del found, logits  # so that a batch is freed before the next one is computed
        assert total is not None
        yield from self._finish(total, self.shape[self.axis])

    def _finish(self, total: "_RunningTotal", stop: int) -> Iterator[Slab]:
        for slab in total.finish(stop):
            if not math.isfinite(float(slab.logits.sum())):
                raise self._overflow(slab)
            yield slab

    def _overflow(self, slab: Slab) -> DataError:
        last = slab.start + slab.logits.shape[1] - 1
        precision = self._backend.precision
        hint = (
            "The model's weights or the scan hold values that are far too large."
            if precision == "fp32"
            else f"{precision} may have overflowed: use --precision fp32."
        )
        return DataError(
            f"the network's output is NaN or infinite in slices {slab.start} to {last} across axis {self.axis}",
            hint=hint,
        )

    def _in_order(self) -> Iterator[Window]:
        """Yield all windows by their first slice."""
        firsts = [(span, grid) for grid in self._grids for span in grid[self.axis]]
        for span, grid in sorted(firsts, key=lambda each: (each[0].low, each[0].start)):
            first, second, third = ([span] if axis == self.axis else spans for axis, spans in enumerate(grid))
            for spans in product(first, second, third):
                yield Window(spans)

    def _section(self) -> tuple[int, ...]:
        """Return the size of what is held: along the stream a window, or in 2D a batch of slices."""
        longest = max(span.high - span.low for grid in self._grids for span in grid[self.axis])
        depth = max(longest, self._batch) if self._plan.dimensions == 2 else longest
        section = list(self._ordered(self.shape))
        section[self._place] = min(depth, section[self._place])
        return tuple(section)

    def _with_slices(self, window: torch.Tensor) -> torch.Tensor:
        """Return what is given for each voxel of a network's output, as a slice of a volume if it is 2D."""
        return window.unsqueeze(-3) if self._plan.dimensions == 2 else window

    def _ordered(self, each: tuple[T, ...]) -> tuple[T, ...]:
        """Return what is given for axes I, J, K in the order of the sums: in 2D with the slice axis first."""
        if self._plan.dimensions == 3:
            return each
        return each[self.axis], *each[: self.axis], *each[self.axis + 1 :]

    @torch.inference_mode()
    def _predict(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of a batch on the CPU, averaged over its mirror images."""
        device = self._backend.device
        if device.type == "cuda":
            images = images.pin_memory()
        images = images.to(device, non_blocking=True)
        total = self._backend.forward(images)
        for axes in self._flips:
            total += self._flip(self._backend.forward(self._flip(images, axes, is_image=True)), axes)
        return total.div_(1 + len(self._flips)) if self._flips else total

    def _flip(self, batch: torch.Tensor, axes: tuple[int, ...], *, is_image: bool = False) -> torch.Tensor:
        """Return images or logits mirrored along axes `(I, J, K)`; a slice's neighbours change places."""
        if self._plan.dimensions == 3:
            return batch.flip([2 + axis for axis in axes])
        inside = [2 + axis - (axis > self.axis) for axis in axes if axis != self.axis]
        if is_image and self.axis in axes:
            batch = batch.unflatten(1, (-1, self._plan.context_slices)).flip(2).flatten(1, 2)
        return batch.flip(inside)


class _RunningTotal:
    """Weighted sums of logits in the slices that are not finished, in a ring: slice `i` at place `i % depth`.

    The sums keep the order of the network's axes, so that a window is added in one contiguous pass.
    """

    def __init__(self, num_channels: int, section: tuple[int, ...], axis: int, device: torch.device) -> None:
        """Make sums of voxels of size `section`, in which `axis` is the one along which slices are finished."""
        self.axis, self.depth, self.first = axis, section[axis], 0  # first slice that is not finished
        self.logits = torch.zeros((num_channels, *section), device=device)
        self.weights = torch.zeros(section, device=device)

    def has_room(self, stop: int) -> bool:
        """Return whether a window that ends before slice `stop` can be added."""
        return stop <= self.first + self.depth

    def add(self, logits: torch.Tensor, weights: torch.Tensor, box: tuple[slice, ...]) -> None:
        """Add a window's logits `(K, *size)` with their weights `size` in a box of the volume."""
        start = box[self.axis].start
        for low, place, count in self._pieces(start, box[self.axis].stop):
            places = (*box[: self.axis], slice(place, place + count), *box[self.axis + 1 :])
            part = weights.narrow(self.axis, low - start, count)
            self.logits[:, *places].addcmul_(logits.narrow(1 + self.axis, low - start, count), part)
            self.weights[places].add_(part)

    def finish(self, stop: int) -> Iterator[Slab]:
        """Yield the slices before `stop`, and make their places free."""
        for low, place, count in self._pieces(self.first, stop):
            logits = self.logits.narrow(1 + self.axis, place, count)
            weights = self.weights.narrow(self.axis, place, count)
            yield Slab(low, logits.div_(weights).movedim(1 + self.axis, 1))
            logits.zero_()
            weights.zero_()
            self.first = low + count

    def _pieces(self, low: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield first slice, place and number of the parts of a range of slices: one, or two around the end."""
        while low < stop:
            place = low % self.depth
            count = min(stop - low, self.depth - place)
            yield low, place, count
            low += count


def make_offsets(plan: Plan, count: int) -> list[Offset]:
    """Return `count` offsets `(I, J, K)` in voxels, evenly spaced within the total stride of each axis.

    Cycle spinning (Coifman and Donoho, 1995) along the diagonal: 8 shifts of a network that halves three times cover
    each position along an axis once. A 2D network's volume is not shifted along the slice axis.
    """
    if count == 1:
        return [(0, 0, 0)]
    first, second, third = _per_axis([math.prod(each) for each in zip(*plan.strides, strict=True)], plan)
    return [(n * first // count, n * second // count, n * third // count) for n in range(count)]


def _per_axis(numbers: Sequence[int], plan: Plan) -> list[int]:
    """Return a number for each axis of the volume; 1 for the slice axis."""
    result = list(numbers)
    if plan.dimensions == 2:
        result.insert(plan.slice_axis, 1)
    return result


def _lay_windows(shape: Sequence[int], offset: Offset, plan: Plan, overlap: float) -> list[list[Span]]:
    """Return the spans along each axis of a volume that is padded by `offset` at its low sides."""
    sizes = _per_axis(plan.output_size, plan)
    divisors = _per_axis([math.prod(each) for each in zip(*plan.strides, strict=True)], plan)
    grid = []
    for length, size, divisor, low in zip(shape, sizes, divisors, offset, strict=True):
        padded = length + low
        spans = overlapping_spans(padded, size, overlap) if plan.padded else tile_spans(padded, size, divisor)
        grid.append(move_spans(spans, low))
    return grid


def _choose_flips(plan: Plan, mirror: Sequence[str]) -> list[tuple[int, ...]]:
    """Return all combinations of the axes `(I, J, K)` to mirror, without none."""
    axes = [BODY_AXES.index(name) for name in mirror]
    if plan.dimensions == 2 and plan.context_slices == 1:
        axes = [
            axis for axis in axes if axis != plan.slice_axis
        ]  # a slice is its own mirror image across itself
    return list(chain.from_iterable(combinations(axes, count) for count in range(1, len(axes) + 1)))
