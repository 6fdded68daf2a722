"""Memory of a prediction, estimated from headers and plan, and the ways to predict a scan in less of it.

Reading, computing and finishing a scan come one after the other: the step that takes most decides.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import nibabel as nib
import numpy as np
import torch

from medunet.base.errors import DataError, is_out_of_memory
from medunet.compute.device_memory import free_memory_gb, return_freed_memory
from medunet.compute.live_memory import LiveBytes, count_live_bytes
from medunet.imaging.volume import Header
from medunet.inference.backend import Backend
from medunet.inference.memory_budget import MemoryBudget
from medunet.inference.stream import choose_axis
from medunet.networks.builder import build_network
from medunet.planning.memory import NetworkShape, num_features
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.plan import Plan, count_outputs, plan_inputs

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")
Other = tuple[
    "CaseMemory", Sequence[int], InferenceConfig
]  # another model of the same scan, with its image's grid
Step = Literal["read", "predict", "finish"]
_DOING: dict[Step, str] = {"read": "reading it", "predict": "predicting it", "finish": "finishing its mask"}

_FLOAT = 4  # bytes
_BATCHES = (4, 2, 1)
_BATCH_VOXELS = 2**18  # of the windows that a CPU computes together: more are not faster
_OTHER_BYTES = 50_000_000  # of libraries' own, and of small arrays
_KEPT_LOGITS = 2  # windows of one value throughout, such as air
# Peak memory of feature maps. On a CPU relative to the tensors alive and oneDNN's copies, as measured for PyTorch
# (the C library's heap has gaps) and OpenVINO (without logits); on a card with cuDNN's workspaces.
_ON_CPU, _IN_OPENVINO, _ON_CARD = 1.6, 0.9, 2.0
_LITTLE = 0.05  # of the free memory: a smaller estimate need not be better
_HALF = 0.6  # of half precision relative to float32
_BLOCK_BYTES, _BLOCK_BYTES_ON_CARD = 1_000_000, 12_000_000  # of each class where a block of labels is decided
_MOST_BLOCK_BYTES_ON_CARD = 600_000_000
_COPIES, _SMOOTHED = 2, 26  # of a scan in MONAI's Spacing and its Resize, for plans up to 0.4
_SLICES_OF_2D = 8  # that the stream of a 2D network holds
_LONGEST = 200_000  # voxels of a preprocessed image along an axis: with more, the spacing is wrong
_NAMED = 3  # parts in a message
_TIDYING = 7  # bytes a voxel of a mask that postprocessing takes beside it
_TRIMMED_BYTES = 50_000_000  # of reading, after which freed memory is worth returning


@dataclass(frozen=True)
class Part:
    """What a step holds in main memory or, `on_card`, in the memory of the device that computes."""

    step: Step
    name: str
    num_bytes: int
    on_card: bool = False


@dataclass(frozen=True)
class Estimate:
    """The memory that a scan takes in addition to what the process already holds."""

    parts: tuple[Part, ...]

    @property
    def main_bytes(self) -> int:
        """Main memory of the step that takes most."""
        return sum(part.num_bytes for part in self._largest(on_card=False))

    @property
    def card_bytes(self) -> int:
        """Memory of the card that computes; 0 on a CPU."""
        return sum(part.num_bytes for part in self._largest(on_card=True))

    def describe(self, *, on_card: bool = False) -> str:
        """Return the largest step with its total and its largest parts, in words."""
        parts = self._largest(on_card=on_card)
        named = ", ".join(f"{part.name} {part.num_bytes / 1e9:.2g}" for part in parts[:_NAMED])
        total = sum(part.num_bytes for part in parts)
        return f"{_DOING[parts[0].step]} takes about {total / 1e9:.2g} GB ({named})"

    def _largest(self, *, on_card: bool) -> list[Part]:
        """Return the parts of the step that takes most, the largest first."""
        steps: dict[Step, list[Part]] = {}
        for part in self.parts:
            if part.on_card is on_card:
                steps.setdefault(part.step, []).append(part)
        largest = max(steps.values(), key=lambda parts: sum(part.num_bytes for part in parts), default=[])
        return sorted(largest, key=lambda part: -part.num_bytes)


@dataclass(frozen=True)
class Way:
    """How the windows of a scan are computed: how many together, and whether a card adds up their logits."""

    batch: int
    sums_on_card: bool = False

    def __str__(self) -> str:
        windows = "1 window" if self.batch == 1 else f"{self.batch} windows"
        return f"{windows} at a time" + (", summed on the card" if self.sums_on_card else "")


@dataclass(frozen=True)
class CaseMemory:
    """The memory of predicting scans with a model."""

    plan: Plan
    description: Description
    backend: Backend
    budget: MemoryBudget
    # Whether the logits of each of several networks are added up beside those of the mean.
    apart: bool = False
    preparing_copies: int = 1  # of a scan in float32

    @cached_property
    def ways(self) -> list[Way]:
        """The ways to compute a scan, the usual one first; later ones need less main memory or less of a card's.

        OpenVINO computes windows one by one, and a CPU gains nothing from more windows than keep its cores busy.
        """
        if self.backend.device.type != "cpu":
            return [Way(batch, on_card) for on_card in (True, False) for batch in _BATCHES]
        most = 1 if self.backend.name == "openvino" else _BATCH_VOXELS // math.prod(self.plan.patch_size)
        return [Way(batch) for batch in _BATCHES if batch <= max(1, most)]

    @contextmanager
    def room_for(
        self, headers: Sequence[Header], config: InferenceConfig, others: Sequence[Other] = ()
    ) -> Iterator[None]:
        """Hold the memory for a scan while it is read, from its headers alone; wait for that which others hold.

        Args:
            others: see `predicting`; their images are held as well.

        Raises:
            DataError: the way with the least memory does not fit; names the estimated and the free memory and the
                largest parts.
        """
        with self.room(self.estimate(headers, config, self.ways[-1], others)):
            yield

    @contextmanager
    def room(self, estimate: Estimate) -> Iterator[None]:
        """Hold the main memory of an estimate; wait for that which others hold.

        Raises:
            DataError: it does not fit; see `room_for`.
        """
        with self.budget.claim_first([estimate.main_bytes]) as place:
            if place is None:
                raise self._too_large(estimate)
            yield

    @contextmanager
    def room_to_tidy(self, num_voxels: int) -> Iterator[None]:
        """Hold the memory for the postprocessing of a mask, once others leave it; if they never do, try."""
        with self.budget.claim_first([_TIDYING * num_voxels]):
            yield

    def estimate(
        self, headers: Sequence[Header], config: InferenceConfig, way: Way, others: Sequence[Other] = ()
    ) -> Estimate:
        """Estimate the memory of reading, predicting and finishing a scan from the headers of its files."""
        first, num_channels = headers[0], len(self.description.channels)
        voxels, grid = math.prod(first.shape[:3]), network_grid(first, self.plan)
        image = num_channels * math.prod(grid) * _FLOAT
        copies = _COPIES if self.plan.resize_to is None else _SMOOTHED
        if self.plan.grid == "extent":
            copies = self.preparing_copies
        parts = [
            Part("read", "voxels as stored", max(header.num_bytes for header in headers)),
            Part("read", "float32 voxels", copies * num_channels * voxels * _FLOAT),
            Part("read", "preprocessed image", image),
            Part("read", "other", _OTHER_BYTES),
            Part("predict", "preprocessed image", image),
            Part("finish", "preprocessed image", image),
            Part("finish", "mask and copies", (1 + _TIDYING if config.postprocess else 2) * voxels),
        ]
        steps: tuple[Step, ...] = ("read", "predict", "finish")
        for _, other, _ in others:
            size = num_channels * math.prod(other) * _FLOAT
            parts += [Part(step, "another model's image", size) for step in steps]
        if others:
            parts.append(Part("read", "a copy of the voxels", num_channels * voxels * _FLOAT))
        return Estimate((*parts, *self.predicting(first.shape, grid, config, way, others=others).parts))

    def predicting(
        self,
        shape: Sequence[int],
        grid: Sequence[int],
        config: InferenceConfig,
        way: Way,
        *,
        in_slabs: bool = True,
        axis: int | None = None,
        others: Sequence[Other] = (),
    ) -> Estimate:
        """Estimate the memory of predicting an image that is in memory.

        Args:
            shape: of the scan, `(I, J, K)`.
            grid: of the preprocessed image, `(I, J, K)`.
            in_slabs: whether labels are decided slab by slab, or once all probabilities are known.
            axis: along which slabs come; None: see `choose_axis`.
            others: models that predict the scan at the same time, along the same axis.
        """
        plan, on_card = self.plan, self.backend.device.type != "cpu"
        num_inputs = plan_inputs(plan, self.description)
        num_outputs = count_outputs(self.description)
        if self.apart:
            num_outputs *= 1 + self.backend.num_members
        axis = choose_axis(plan, grid) if axis is None else axis
        length, section = grid[axis], math.prod(grid) // grid[axis]
        depth = min(length, _SLICES_OF_2D if plan.dimensions == 2 else plan.output_size[axis])
        pairs = zip(sorted(grid), sorted(shape[:3]), strict=True)
        kept = 2 + max(math.ceil(fine / coarse) for fine, coarse in pairs)  # slices between two of the scan
        output = num_outputs * math.prod(plan.output_size) * _FLOAT
        num_logits = _KEPT_LOGITS + (self.backend.name == "openvino") + config.averages + bool(config.mirror)
        num_logits += self.backend.num_members > 1
        windows = num_logits * output + way.batch * num_inputs * math.prod(plan.patch_size) * _FLOAT
        blocks = num_outputs * _BLOCK_BYTES
        if way.sums_on_card:
            blocks = min(num_outputs * _BLOCK_BYTES_ON_CARD, _MOST_BLOCK_BYTES_ON_CARD)
        sums = (num_outputs * (depth + min(kept, length)) + 2 * depth) * section * _FLOAT + blocks
        parts = [
            Part("predict", "feature maps", self._features(way.batch), on_card),
            Part("predict", "windows and their logits", windows, on_card),
            Part("predict", f"sums of {num_outputs} classes", sums, way.sums_on_card),
            Part("predict", "mask", math.prod(shape[:3])),
            Part("predict", "other", _OTHER_BYTES + (way.batch * output if on_card else 0)),
        ]
        if not in_slabs:
            everything = 3 * num_outputs * math.prod(grid) * _FLOAT
            parts.append(Part("predict", f"probabilities of {num_outputs} classes", everything))
        for memory, size, options in others:
            parts += memory.predicting(shape, size, options, way, in_slabs=in_slabs, axis=axis).parts
        return Estimate(tuple(parts))

    def compute(
        self,
        shape: Sequence[int],
        grid: Sequence[int],
        config: InferenceConfig,
        run: Callable[[Way], _Result],
        *,
        in_slabs: bool = True,
        axis: int | None = None,
        others: Sequence[Other] = (),
    ) -> _Result:
        """Return what `run` computes in the first way that fits; if memory runs out, in the next smaller one.

        A card's memory is only estimated: if no way fits, the smallest is tried. For the other arguments, see
        `predicting`.

        Raises:
            DataError: no way fits into main memory; names the estimated and the free memory and the largest parts.
        """
        if len(self.description.channels) * math.prod(shape) * _FLOAT > _TRIMMED_BYTES:
            return_freed_memory()  # of reading
        ways = list(self.ways)
        estimates = {
            way: self.predicting(shape, grid, config, way, in_slabs=in_slabs, axis=axis, others=others)
            for way in ways
        }
        while True:
            fitting = [way for way in ways if self._fits_on_card(estimates[way])] or ways[-1:]
            with self.budget.claim_first([estimates[way].main_bytes for way in fitting]) as place:
                if place is None:
                    raise self._too_large(estimates[fitting[-1]])
                way = fitting[place]
                if way != ways[0]:
                    usual = estimates[ways[0]]
                    text = usual.describe(on_card=not self._fits_on_card(usual))
                    _log.info(f"Predicting {way}: otherwise {text}, more than is free.")
                try:
                    return run(way)
                except Exception as error:
                    ways = ways[ways.index(way) + 1 :]
                    if not ways or not is_out_of_memory(error):
                        raise
            _log.warning(f"Memory ran out. The scan is predicted again, {ways[0]}.")
            return_freed_memory()
            if self.backend.device.type == "cuda":
                torch.cuda.empty_cache()

    def _fits_on_card(self, estimate: Estimate) -> bool:
        device = self.backend.device
        return device.type == "cpu" or estimate.card_bytes <= free_memory_gb(device) * 1e9

    def _too_large(self, estimate: Estimate) -> DataError:
        limit_gb = self.budget.limit_gb
        hint = "Free memory, predict fewer scans at once, or use a computer with more memory."
        if limit_gb is not None:
            hint = f"Raise --ram-gb, now {limit_gb:g}, or use a computer with more memory."
        return DataError(
            f"{estimate.describe()}, but {self.budget.free_bytes() / 1e9:.2g} GB of memory are left",
            hint=hint,
        )

    def _features(self, batch: int) -> int:
        """Return the peak of the feature maps of a batch, its logits among them; without those for OpenVINO."""
        half = _HALF if self.backend.precision in ("bf16", "fp16") else 1.0
        if self.backend.device.type != "cpu":
            return int(batch * self._live.tensors * _ON_CARD * half)
        if self.backend.name == "openvino":
            return int(self._live.with_copies * _IN_OPENVINO * half)
        return int(batch * self._live.with_copies * _ON_CPU * half)

    @cached_property
    def _live(self) -> LiveBytes:
        """The tensors of the network for one window.

        Counting them takes two seconds. It is left out where all feature maps together, as if none were freed, take
        little of the memory that is free.
        """
        shape = NetworkShape.of_plan(self.plan, self.description)
        all_maps = int(num_features(shape) * _FLOAT)
        if shape.architecture.own and all_maps < _LITTLE * self.budget.free_bytes():
            return LiveBytes(all_maps, all_maps)
        try:
            with torch.device("meta"):
                network = build_network(self.plan, self.description).eval()
        except RuntimeError:  # SwinUNETR computes with values while it is built
            network = build_network(self.plan, self.description).eval().to("meta")
        return count_live_bytes(network, (1, plan_inputs(self.plan, self.description), *self.plan.patch_size))


def network_grid(header: Header, plan: Plan) -> tuple[int, int, int]:
    """Return the shape `(I, J, K)` of a scan's preprocessed image by its header, as if nothing were cropped.

    Raises:
        DataError: it has less than three axes, or no spacing from which a grid follows.
    """
    if len(header.shape) < 3 or not np.isfinite(header.affine).all():
        raise DataError("its header describes no volume", where=header.path.name)
    axes = nib.io_orientation(header.affine)[:, 0]
    order = np.argsort(axes) if np.isfinite(axes).all() else np.arange(3)
    across = iter(plan.resize_to or ())
    grid = []
    for axis, number in enumerate(order):
        length, spacing_mm = header.shape[number], header.spacing_mm[number]
        is_slices = plan.dimensions == 2 and axis == plan.slice_axis
        if plan.resize_to is not None and not is_slices:
            length = next(across)
        elif not is_slices:
            length = math.ceil(length * spacing_mm / plan.spacing_mm[axis])
        grid.append(max(1, length))
    if max(grid) > _LONGEST:
        raise DataError(f"its spacing of {header.spacing_mm} mm is none of a scan", where=header.path.name)
    first, second, third = grid
    return first, second, third
