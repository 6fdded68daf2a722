"""The logits of a whole volume as a stream of slabs: overlapping windows with Gaussian weights, or overlap-tiles.

Slices are finished once no later window touches them, so that memory depends on the patch, the volume's cross-section
and the number of classes, and not on the volume's length. K logit channels; b, c the volume's other two axes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, combinations, product

import torch

from medunet.base.errors import DataError, InputError
from medunet.compute.devices import one_torch_thread
from medunet.inference.backend import Backend, window_probabilities
from medunet.inference.blending import RunningSums
from medunet.inference.nnunet.windows import nnunet_grid, nnunet_weights
from medunet.inference.window_count import WindowCounts
from medunet.inference.windows import (
    Window,
    WindowLogits,
    lay_windows,
    make_offsets,
    reflect_windows,
    run_windows,
)
from medunet.records.config import InferenceConfig
from medunet.records.plan import Plan
from medunet.transforms.augment import BODY_AXES

_BATCH = 4  # windows or slices
_SMALLEST = 1e-7  # probability that is told from 0, and from 1


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
    regions: bool = False,
    batch: int = _BATCH,
    accumulate_on: torch.device | None = None,
    axis: int | None = None,
    as_nnunet: bool = False,
) -> "WindowStream":
    """Return the stream of a preprocessed float32 image `(C, I, J, K)` on the CPU.

    Windows have the plan's patch size; they are blended with Gaussian weights as MONAI's `sliding_window_inference`
    does. A volume that fits one window is predicted once. Unpadded networks are applied to tiles without overlap, 2D
    networks to the slices across `plan.slice_axis`, each with its `plan.context_slices`.

    Args:
        config: `overlap` of neighbouring windows, as a share of the patch; `mirror`: body axes by name, along all
            combinations of which the volume is mirrored, with windows laid in each mirror image from its own first
            voxel (the network must have been trained with the same mirroring); `shifts`: all windows are laid that
            many times, at offsets below the network's stride (see `make_offsets`), which reduces the dependence on
            the pooling grid. Over all of these, and over the networks of a backend, each window's probabilities are
            averaged; slabs hold the logits of the mean.
        regions: whether each channel has a probability of its own (sigmoid), or they exclude each other (softmax).
        batch: windows that are computed together.
        accumulate_on: where logits are added up; None: on the backend's device.
        axis: along which slabs come; None: see `choose_axis`, as always for a 2D network.
        as_nnunet: windows lie and are weighted as nnU-Net's, each mirrored in itself, and their logits are averaged
            rather than probabilities; the image is at least as large as the patch.
    """
    device = accumulate_on or backend.device
    return WindowStream(backend, image, plan, config, regions, batch, device, axis, as_nnunet)


class WindowStream:
    """The windows of a volume, and the slabs that they finish; made by `open_stream`.

    `axis` is the axis of the volume along which slabs come, see `choose_axis`.
    `num_windows` is the number of all windows; `num_done` and `num_reused` count those that are added up so far, and
    those among them that were not computed because an earlier one holds the same constant values.
    """

    def __init__(
        self,
        backend: Backend,
        image: torch.Tensor,
        plan: Plan,
        config: InferenceConfig,
        regions: bool,
        batch: int,
        accumulate_on: torch.device,
        axis: int | None,
        as_nnunet: bool,
    ) -> None:
        self._backend, self._image, self._plan = backend, image, plan
        self._regions, self._batch, self._device = regions, batch, accumulate_on
        self.shape = tuple(image.shape[1:])
        self.axis = choose_axis(plan, self.shape) if axis is None else axis
        layouts = list(product(make_offsets(plan, config.shifts), _choose_flips(plan, config.mirror)))
        self._flips = [axes for _, axes in layouts]
        self._as_nnunet = as_nnunet
        if as_nnunet:
            if config.shifts > 1:
                raise InputError(
                    "models of nnU-Net have no shifts of their windows", where="inference.shifts"
                )
            self._grids = [nnunet_grid(self.shape, plan, config.overlap)] * len(layouts)
        else:
            self._grids = [
                reflect_windows(lay_windows(self.shape, offset, plan, config.overlap), axes, self.shape, plan)
                for offset, axes in layouts
            ]
        self.num_windows = sum(math.prod(len(spans) for spans in grid) for grid in self._grids)
        self.num_done = self.num_reused = 0

    @torch.no_grad()
    def slabs(self, on_window: Callable[[WindowCounts], None] | None = None) -> Iterator[Slab]:
        """Yield the finished slices from the first to the last; call `on_window` after each window.

        Raises:
            DataError: logits are NaN or infinite.
        """
        self.num_done = self.num_reused = 0
        weights = nnunet_weights(self._plan.patch_size) if self._as_nnunet else None
        sums = RunningSums(self._plan, self._grids, self.shape, self.axis, self._device, weights)
        windows = run_windows(self._predict, self._image.numpy(), self._in_order(), self._plan, self._batch)
        while (found := self._next(windows)) is not None:
            window = found.window
            if not sums.has_room(window):
                yield from self._finish(sums, window.box[self.axis].start)
            with self._few_threads():
                sums.add(window, found.logits)
            self.num_done += 1
            self.num_reused += found.is_reused
            if on_window:
                on_window(self)
            del found  # so that a batch is freed before the next one is computed
        yield from self._finish(sums, self.shape[self.axis])

    def _next(self, windows: Iterator[WindowLogits]) -> WindowLogits | None:
        with self._few_threads():
            return next(windows, None)

    def _few_threads(self) -> AbstractContextManager[None]:
        """Compute between windows in one thread where OpenVINO computes the windows with threads of its own."""
        return one_torch_thread() if self._backend.name == "openvino" else nullcontext()

    def _finish(self, sums: RunningSums, stop: int) -> Iterator[Slab]:
        for start, logits in sums.finish(stop):
            if not math.isfinite(float(logits.sum())):
                raise self._overflow(start, start + logits.shape[1] - 1)
            if self._averages_probabilities:
                to_logits(logits, regions=self._regions)
            yield Slab(start, logits)

    def _overflow(self, first: int, last: int) -> DataError:
        precision = self._backend.precision
        hint = (
            "The model's weights or the scan hold values that are far too large."
            if precision == "fp32"
            else f"{precision} may have overflowed: use --precision fp32."
        )
        return DataError(
            f"the network's output is NaN or infinite in slices {first} to {last} across axis {self.axis}",
            hint=hint,
        )

    def _in_order(self) -> Iterator[Window]:
        """Yield all windows by their first slice."""
        firsts = [(span, number) for number, grid in enumerate(self._grids) for span in grid[self.axis]]
        for span, number in sorted(firsts, key=lambda each: (each[0].low, each[0].start)):
            grid = self._grids[number]
            first, second, third = ([span] if axis == self.axis else spans for axis, spans in enumerate(grid))
            for spans in product(first, second, third):
                yield Window(spans, number, self._flips[number])

    @property
    def _averages_probabilities(self) -> bool:
        return (len(self._grids) > 1 or self._backend.num_members > 1) and not self._as_nnunet

    @torch.inference_mode()
    def _predict(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits, or probabilities to be averaged, of a batch of images on the CPU."""
        if self._backend.device.type == "cuda":
            images = images.pin_memory()
        output = self._backend.forward(images.to(self._backend.device, non_blocking=True))
        if self._backend.num_members > 1 or not self._averages_probabilities:
            return output
        return window_probabilities(output, regions=self._regions)


def choose_axis(plan: Plan, shape: Sequence[int]) -> int:
    """Return the axis along which a volume is streamed: the longest one, or `plan.slice_axis` in 2D."""
    return plan.slice_axis if plan.dimensions == 2 else max(range(3), key=lambda axis: shape[axis])


def to_logits(probabilities: torch.Tensor, *, regions: bool) -> torch.Tensor:
    """Turn probabilities into finite logits, in place, and return them."""
    return probabilities.logit_(eps=_SMALLEST) if regions else probabilities.clamp_min_(_SMALLEST).log_()


def _choose_flips(plan: Plan, mirror: Sequence[str]) -> list[tuple[int, ...]]:
    """Return all combinations of the axes `(I, J, K)` to mirror, none of them first."""
    axes = [BODY_AXES.index(name) for name in dict.fromkeys(mirror)]
    if plan.dimensions == 2 and plan.context_slices == 1:
        # A slice alone is its own mirror image there.
        axes = [axis for axis in axes if axis != plan.slice_axis]
    return list(chain.from_iterable(combinations(axes, count) for count in range(len(axes) + 1)))
