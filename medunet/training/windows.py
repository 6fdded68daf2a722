"""Windows for the validation of a case: a grid that covers it, and a selection of some of them.

Every voxel belongs to exactly one window, so that no voxel is counted twice.
"""

import math
from itertools import pairwise, product

import numpy as np
from numpy.typing import NDArray

from medunet.inference.windows import Span, Window, tile_spans
from medunet.records.plan import Plan
from medunet.transforms.patches import PreparedCase


def tile_axes(shape: tuple[int, ...], plan: Plan) -> tuple[list[Span], list[Span], list[Span]]:
    """Return the windows' spans along each axis of a volume `(I, J, K)`; every combination is a window.

    Padded networks: the smallest number of evenly spaced patches that cover the axis; an overlap of two windows is
    split in the middle. A volume that fits one window is centred in it as in prediction. Unpadded networks: the tiles
    of prediction (`tile_spans`). 2D plans: every slice.
    """
    sizes = list(plan.output_size)
    divisors = [math.prod(strides) for strides in zip(*plan.strides, strict=True)]
    tile = _even_spans if plan.padded else tile_spans
    if plan.dimensions == 2:
        sizes.insert(plan.slice_axis, 1)
        divisors.insert(plan.slice_axis, 1)
    first, second, third = (tile(*given) for given in zip(shape, sizes, divisors, strict=True))
    return first, second, third


def count_windows(shape: tuple[int, ...], plan: Plan) -> int:
    """Return the number of windows that cover a volume `(I, J, K)`."""
    return math.prod(len(spans) for spans in tile_axes(shape, plan))


def choose_windows(case: PreparedCase, plan: Plan, count: int | None, seed: int) -> list[Window]:
    """Return `count` of a case's windows, or all of them if there are no more or `count` is None.

    If possible, half of the chosen windows contain foreground, with every target in turn, and the others contain none
    of the voxels in the case's `locations`. The choice depends only on the case and the seed.
    """
    axes = tile_axes(case.label.shape, plan)
    windows = [Window(spans) for spans in product(*axes)]
    if count is None or len(windows) <= count:
        return windows
    rng = np.random.default_rng((seed, *case.id.encode()))
    holding = {
        name: [int(number) for number in rng.permutation(_windows_of(voxels, case.label.shape, axes))]
        for name, voxels in sorted(case.locations.items())
    }
    foreground = {number for numbers in holding.values() for number in numbers}
    queues = [holding[name] for name in rng.permutation(sorted(holding))]
    in_turn = [queue[place] for place in range(len(windows)) for queue in queues if place < len(queue)]
    first = list(dict.fromkeys(in_turn))
    empty = [int(number) for number in rng.permutation(len(windows)) if number not in foreground]
    half = min((count + 1) // 2, len(first))
    chosen = first[:half] + empty[: count - half]
    chosen += first[half : half + count - len(chosen)]
    return [windows[number] for number in sorted(chosen)]


def _even_spans(length: int, size: int, _: int) -> list[Span]:
    if length <= size:
        return [Span(-((size - length) // 2), 0, length)]
    count = -(-length // size)
    starts = [round(number * (length - size) / (count - 1)) for number in range(count)]
    middles = [(before + size + after) // 2 for before, after in pairwise(starts)]
    bounds = [0, *middles, length]
    return [Span(*given) for given in zip(starts, bounds, bounds[1:], strict=False)]


def _windows_of(
    voxels: NDArray[np.int64], shape: tuple[int, ...], axes: tuple[list[Span], ...]
) -> NDArray[np.int64]:
    """Return the numbers of the windows that contain at least one of the voxels, given by flat indices."""
    places = [
        np.searchsorted([span.low for span in spans], index, side="right") - 1
        for spans, index in zip(axes, np.unravel_index(voxels, shape), strict=True)
    ]
    return np.unique(np.ravel_multi_index(places, [len(spans) for spans in axes]))
