"""The windows of a volume: where they lie along each axis, how they are cut and run through a network.

B batch, C image channels, K logit channels; volumes are `(I, J, K)`. Prediction and the validation of training share
this file.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.records.plan import Plan
from medunet.transforms.patches import cut_image, cut_label

_KEPT_CONSTANTS = 2  # values whose logits are kept: air, and what surrounds a cropped or skull-stripped organ

Box = tuple[slice, slice, slice]
Offset = tuple[int, int, int]
Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Span:
    """A window along one axis, in voxels: start of the network's output, and the range that is used of it."""

    start: int  # negative if the window begins before the volume
    low: int
    high: int


Grid = tuple[list[Span], list[Span], list[Span]]  # along each axis; every combination is a window


@dataclass(frozen=True)
class Window:
    """A window: a span for each axis `(I, J, K)`; of a 2D network one voxel long along the slice axis."""

    spans: tuple[Span, Span, Span]
    grid: int = 0  # number of the grid of windows, of which there is one for each shift and mirror image
    flipped: tuple[int, ...] = ()  # axes of the volume along which the network sees it mirrored

    @property
    def starts(self) -> tuple[int, int, int]:
        """Start of the network's output."""
        first, second, third = self.spans
        return first.start, second.start, third.start

    @property
    def box(self) -> Box:
        """Voxels of the volume that belong to this window."""
        first, second, third = (slice(span.low, span.high) for span in self.spans)
        return first, second, third

    @property
    def inner(self) -> Box:
        """Voxels of the network's output that belong to this window."""
        first, second, third = (slice(span.low - span.start, span.high - span.start) for span in self.spans)
        return first, second, third


@dataclass(frozen=True)
class WindowLogits:
    """Float32 logits `(K, *output)` of a window, and whether they are those of an earlier one that is equal."""

    window: Window
    logits: torch.Tensor
    is_reused: bool


def overlapping_spans(length: int, size: int, overlap: float) -> list[Span]:
    """Return windows along an axis at constant steps, the last one moved inwards; one, centred, if it fits.

    The steps are those of MONAI's `sliding_window_inference`.
    """
    if length <= size:
        return [Span(-((size - length) // 2), 0, length)]
    step = max(1, int(size * (1 - overlap)))
    starts = [min(start, length - size) for start in range(0, length - size + step, step)]
    return [Span(start, start, start + size) for start in starts]


def tile_spans(length: int, size: int, divisor: int) -> list[Span]:
    """Return an unpadded network's output tiles along an axis, which do not overlap.

    Ronneberger et al., "U-Net" (2015), figure 2. If a tile is at least as long as the network's total stride
    `divisor`, tiles start at multiples of it, so that pooling uses the same grid in every tile: without instance or
    group norm they equal one pass over the whole mirrored image.
    """
    step = size // divisor * divisor or size
    starts = range(0, max(length - size, 0) + step, step)
    return [Span(start, start, min(start + step, length)) for start in starts[:-1]] + [
        Span(starts[-1], starts[-1], length)
    ]


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


def lay_windows(shape: Sequence[int], offset: Offset, plan: Plan, overlap: float) -> Grid:
    """Return the windows of a volume `shape` that is padded by `offset` at its low sides."""
    sizes = _per_axis(plan.output_size, plan)
    divisors = _per_axis([math.prod(each) for each in zip(*plan.strides, strict=True)], plan)
    grid = []
    for length, size, divisor, low in zip(shape, sizes, divisors, offset, strict=True):
        padded = length + low
        spans = overlapping_spans(padded, size, overlap) if plan.padded else tile_spans(padded, size, divisor)
        grid.append(_move_spans(spans, low))
    first, second, third = grid
    return first, second, third


def _move_spans(spans: Sequence[Span], offset: int) -> list[Span]:
    """Return the spans of a volume padded by `offset` voxels at its low side as spans of the volume itself."""
    return [
        Span(span.start - offset, max(span.low - offset, 0), span.high - offset)
        for span in spans
        if span.high > offset
    ]


def reflect_windows(grid: Grid, axes: Sequence[int], shape: Sequence[int], plan: Plan) -> Grid:
    """Return where the windows of a volume that is mirrored along `axes` lie in the volume `shape` itself."""
    sizes = _per_axis(plan.output_size, plan)
    first, second, third = (
        [Span(n - span.start - size, n - span.high, n - span.low) for span in reversed(spans)]
        if axis in axes
        else spans
        for axis, (spans, n, size) in enumerate(zip(grid, shape, sizes, strict=True))
    )
    return first, second, third


def cut_window(image: NDArray[np.float32], window: Window, plan: Plan) -> NDArray[np.float32]:
    """Return the network's input `(C, *patch)` for a window of an image `(C, I, J, K)`, mirrored if the window is.

    Beyond the volume border voxels are repeated or, for an unpadded network, the volume is mirrored. 2D networks get
    `plan.context_slices` slices as channels.
    """
    slice_axis = plan.slice_axis if plan.dimensions == 2 else None
    cut = cut_image(
        image,
        window.starts,
        plan.patch_size,
        slice_axis=slice_axis,
        context_slices=plan.context_slices,
        valid_margin=plan.valid_margin,
    )
    if slice_axis in window.flipped:  # a slice's neighbours change places
        cut = cut.reshape(-1, plan.context_slices, *plan.patch_size)[:, ::-1].reshape(cut.shape)
    return np.flip(cut, _patch_axes(window, plan))


def _patch_axes(window: Window, plan: Plan) -> tuple[int, ...]:
    """Return the axes of a window's `(C, *patch)` along which it is mirrored."""
    if plan.dimensions == 3:
        return tuple(1 + axis for axis in window.flipped)
    return tuple(1 + axis - (axis > plan.slice_axis) for axis in window.flipped if axis != plan.slice_axis)


def cut_window_label(label: NDArray[np.uint8], window: Window, plan: Plan) -> NDArray[np.uint8]:
    """Return the label `(1, *output)` of a window, padded as the image is."""
    slice_axis = plan.slice_axis if plan.dimensions == 2 else None
    inside = (slice(margin, n - margin) for margin, n in zip(plan.valid_margin, plan.patch_size, strict=True))
    cut = cut_label(
        label, window.starts, plan.patch_size, slice_axis=slice_axis, valid_margin=plan.valid_margin
    )
    return cut[:, *inside]


def run_windows(
    forward: Forward, image: NDArray[np.float32], windows: Iterable[Window], plan: Plan, batch: int
) -> Iterator[WindowLogits]:
    """Yield the logits of windows of an image `(C, I, J, K)`, in the order of the windows and turned as the image is.

    Windows that hold one value throughout in each channel, such as air, are computed once for these values. A batch
    holds only windows that have to be computed; logits are views of a batch's, which is freed with the last of them.

    Args:
        forward: maps images `(B, C, *patch)` on the CPU to float32 logits `(B, K, *output)`.
        batch: the largest number of windows that are computed together.
    """
    constants: dict[bytes, torch.Tensor] = {}
    images: list[NDArray[np.float32]] = []
    waiting: list[tuple[Window, int | torch.Tensor, bool]] = []  # logits, or their place in the next batch
    places: dict[bytes, int] = {}  # of constant windows in the next batch

    def compute() -> deque[WindowLogits]:
        found = list(forward(torch.from_numpy(np.stack(images)))) if images else []
        for values, place in places.items():
            constants[values] = found[place].clone()
        for values in list(constants)[:-_KEPT_CONSTANTS]:
            del constants[values]
        ready = deque(
            WindowLogits(window, found[place] if isinstance(place, int) else place, is_reused)
            for window, place, is_reused in waiting
        )
        for each in (images, waiting, places):
            each.clear()
        return ready

    for window in windows:
        cut = cut_window(image, window, plan)
        values = _constant_values(cut)
        if values is not None and values in constants:
            constants[values] = constants.pop(values)  # the latest values are kept
            waiting.append((window, constants[values], True))
        elif values is not None and values in places:
            waiting.append((window, places[values], True))
        else:
            if values is not None:
                places[values] = len(images)
            waiting.append((window, len(images), False))
            images.append(cut)
        if len(images) in (0, batch):
            ready = compute()
            while ready:
                yield _turn_back(ready.popleft(), plan)
    ready = compute()
    while ready:
        yield _turn_back(ready.popleft(), plan)


def _turn_back(found: WindowLogits, plan: Plan) -> WindowLogits:
    """Return the logits of a window as if the network had not seen it mirrored."""
    axes = _patch_axes(found.window, plan)
    return replace(found, logits=found.logits.flip(axes)) if axes else found


def _constant_values(image: NDArray[np.float32]) -> bytes | None:
    """Return the value of each channel of an image `(C, *size)` if each has one throughout; None otherwise."""
    voxels = image.reshape(len(image), -1)
    first, middle = voxels[:, :1], voxels.shape[1] // 2
    if (voxels[:, middle : middle + 1] != first).any() or (voxels != first).any():
        return None
    return first.tobytes()
