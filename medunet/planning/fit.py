"""Choose patch size, stages and batch size of a network within a memory budget, with a reason for each."""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from medunet.base.errors import InputError
from medunet.planning.architectures import Architecture
from medunet.planning.memory import NetworkShape, planned_gb, training_gb
from medunet.planning.topology import (
    Topology,
    initial_patch,
    plan_topology,
    stage_features,
    uniform_topology,
)
from medunet.records.config import NetworkConfig, PlanningConfig
from medunet.records.unpadded import UNPADDED_NETWORKS, unpadded_margin, unpadded_size

_SMALLEST_SIDE = 8  # voxels: a shorter side is never halved, so that shrinking further saves nothing


@dataclass(frozen=True)
class Fit:
    """Inputs of the choice of patch and batch; `spacing_mm` and `median_shape` (voxels) along the network's axes."""

    config: PlanningConfig
    architecture: Architecture
    spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]  # the median of an even number of cases may be fractional
    memory_gb: float
    num_inputs: int
    num_outputs: int
    dataset: str

    @property
    def axes_by_rank(self) -> list[int]:
        """Axes in the order in which they are shrunk in a tie: the coarsest last, as in nnU-Net."""
        coarsest = max(range(len(self.spacing_mm)), key=lambda axis: (self.spacing_mm[axis], axis))
        last = [coarsest] if len(self.spacing_mm) == 3 else []
        return [axis for axis in range(len(self.spacing_mm)) if axis not in last] + last

    @property
    def padded(self) -> bool:
        """Whether the network's output has the size of its input."""
        return self.config.network.name not in UNPADDED_NETWORKS

    @property
    def base_features(self) -> int:
        """Number of channels of the first stage."""
        multiple, base = self.architecture.features_multiple, self.config.base_features
        return -(-(base or self.architecture.base_features) // multiple) * multiple

    @property
    def max_features(self) -> int | None:
        """Maximum number of channels of a stage; None if the width doubles without limit."""
        if self.config.max_features is not None:
            return self.config.max_features
        usual = 320 if self.config.dimensions == 3 else 512
        return max(usual, self.base_features) if self.architecture.features_capped else None

    @property
    def convolutions(self) -> int:
        """Number of convolutions per stage; in a residual network per decoder stage."""
        fixed = self.architecture.encoder_blocks or not self.architecture.own
        return self.architecture.convolutions if fixed else self.config.convolutions_per_stage

    def topology(self, patch: tuple[int, ...]) -> Topology:
        """Return the stages for a patch, which is rounded up to a size that they can process."""
        wanted = self.config.network.num_stages
        if not self.architecture.uniform:
            return plan_topology(patch, self.spacing_mm, wanted)
        stages = wanted or cast(int, self.architecture.num_stages)
        return uniform_topology(
            patch, stages, unpadded_convolutions=None if self.padded else self.convolutions
        )

    def shape(self, topology: Topology) -> NetworkShape:
        """Return the numbers that determine the network's weights and memory."""
        num_stages = len(topology.strides)
        if self.config.network.name == "swin_unetr":  # the first two stages have the same width
            features = (self.base_features, *stage_features(num_stages - 1, self.base_features, None))
        else:
            features = stage_features(num_stages, self.base_features, self.max_features)
        return NetworkShape(
            network=self._network(num_stages),
            topology=topology,
            features=features,
            convolutions=self.convolutions,
            num_inputs=self.num_inputs,
            num_outputs=self.num_outputs,
            deep_supervision=self._deep_supervision(num_stages),
            padded=self.padded,
        )

    def _network(self, num_stages: int) -> NetworkConfig:
        """Return the configured network with every "auto" replaced by its value."""
        given = self.config.network
        return given.model_copy(
            update={
                "num_stages": num_stages,
                "norm": self.architecture.norms[0] if given.norm == "auto" else given.norm,
                "upsampling": self.architecture.upsamplings[0]
                if given.upsampling == "auto"
                else given.upsampling,
                "deep_supervision": self._deep_supervision(num_stages) > 1,
            }
        )

    def _deep_supervision(self, num_stages: int) -> int:
        if not (self.architecture.deep_supervision and self.config.network.deep_supervision):
            return 1
        return num_stages if self.architecture.supervises_all else max(1, num_stages - 2)

    # ---- patch --------------------------------------------------------------------------------------------------

    def choose_patch(self, why: dict[str, str]) -> Topology:
        """Return stages and patch: as configured, as published, or shrunk until the smallest batch fits the memory.

        Raises:
            InputError: the patch cannot be halved as often as needed, or no patch fits the memory.
        """
        config, published = self.config, self.architecture.published_patch
        if config.patch_size is not None:
            topology = self._require_usable(self.topology(config.patch_size), "planning.patch_size")
            if not self.padded and topology.patch_size != config.patch_size:
                self._refuse_unpadded(topology, config.patch_size)
            why["patch_size"] = "given as planning.patch_size, padded to be divisible by the strides"
            return topology
        if config.resize_to is not None:
            patch = config.resize_to
            if not self.padded:
                kernels, strides = self.topology(patch).kernel_sizes, self.topology(patch).strides
                margin = unpadded_margin(kernels, strides, self.convolutions)
                patch = (patch[0] + 2 * margin[0], patch[1] + 2 * margin[1])
            why["patch_size"] = (
                "the whole slice, resized to planning.resize_to, in a size that the network can take"
            )
            return self._require_usable(self.topology(patch), "planning.resize_to")
        start = published or initial_patch(self.spacing_mm, self.median_shape)
        topology = self._require_usable(self.topology(start), f"dataset {self.dataset}")
        while planned_gb(self.shape(topology), self.architecture.min_batch) > self.memory_gb:
            smaller = self._shrink(topology)
            if smaller is None:
                raise InputError(
                    f"no patch fits {self.memory_gb} GB with {self.base_features} base features",
                    where="planning.memory_gb",
                    hint="Raise planning.memory_gb or lower planning.base_features.",
                )
            topology = smaller
        why["patch_size"] = (
            f"{start} as published" if published else self._start_reason(start, topology)
        ) + f", shrunk until a batch of {self.architecture.min_batch} fits {self.memory_gb} GB"
        return topology

    def _start_reason(self, start: tuple[int, ...], topology: Topology) -> str:
        rounded = "" if start == topology.patch_size else f", {start} made divisible"
        median = "×".join(f"{n:g}" for n in self.median_shape)
        return f"aspect of the spacing within the median shape {median}{rounded}"

    def _shrink(self, topology: Topology) -> Topology | None:
        """Shrink the axis that is largest relative to the median shape; None if that leaves no usable patch.

        As in nnU-Net, the axis shrinks by the divisor of the shorter axis: from 256 voxels halved six times the next
        size is 224, not 192. A network that halves all axes at every stage may pad thin scans: if their axis cannot
        shrink, the next axis does.
        """
        patch = np.array(topology.patch_size)
        order = sorted(self.axes_by_rank, key=lambda axis: -patch[axis] / self.median_shape[axis])
        for axis in order if self.architecture.uniform else order[:1]:
            smaller = patch.copy()
            smaller[axis] -= topology.divisors[axis]
            divisor = self.topology(_sizes(smaller)).divisors[axis]
            smaller[axis] = patch[axis] - divisor
            shrunk = self.topology(_sizes(smaller))
            too_short = smaller[axis] < min(_SMALLEST_SIDE, divisor)
            if not too_short and shrunk.patch_size != topology.patch_size and self._fault(shrunk) is None:
                return shrunk
        return None

    def _require_usable(self, topology: Topology, where: str) -> Topology:
        if (fault := self._fault(topology)) is None:
            return topology
        size = "×".join(map(str, topology.patch_size))
        raise InputError(f"a patch of {size} voxels is too small {fault[0]}", where=where, hint=fault[1])

    def _fault(self, topology: Topology) -> tuple[str, str] | None:
        """Return what a patch is too small for and a hint; None if it is large enough."""
        wanted = self.config.network.num_stages or self.architecture.min_stages
        if len(topology.strides) < wanted or min(topology.patch_size) < 1:
            if wanted > 2:
                hint = "Lower planning.network.num_stages or give a larger planning.patch_size."
                return f"for {wanted} stages", hint
            hint = (
                "Give planning.patch_size with 8 voxels or more along two axes of similar spacing, "
                "or a finer planning.spacing_mm."
            )
            return "to be halved even once", hint
        deepest = math.prod(n // d for n, d in zip(topology.patch_size, topology.divisors, strict=True))
        if self.padded and deepest < 2:
            hint = f"Give planning.patch_size with {2 * topology.divisors[0]} voxels or more along an axis."
            return f"for {len(topology.strides)} stages, the last of which would be a single voxel", hint
        return None

    def _refuse_unpadded(self, topology: Topology, given: tuple[int, ...]) -> None:
        stages = topology.kernel_sizes, topology.strides
        nearest = [unpadded_size(given, *stages, self.convolutions, up=up) for up in (False, True)]
        raise InputError(
            f"a patch of {list(given)} does not fit the unpadded network",
            where="planning.patch_size",
            hint="The nearest sizes that fit are "
            + " and ".join(str(list(size)) for size in dict.fromkeys(nearest))
            + ".",
        )

    # ---- batch --------------------------------------------------------------------------------------------------

    def choose_batch(self, topology: Topology, dataset_voxels: float, why: dict[str, str]) -> int:
        """Return the batch size: as many patches as fit the memory, limited to a share of the dataset's voxels."""
        if self.config.batch_size is not None:
            why["batch_size"] = "given as planning.batch_size"
            return self.config.batch_size
        least, share = self.architecture.min_batch, self.architecture.dataset_share
        one, two = (training_gb(self.shape(topology), batch) for batch in (1, 2))
        fitting = max(0, 1 + math.floor((self.memory_gb - one) / (two - one)))
        sharing = round(dataset_voxels * share / math.prod(topology.patch_size))
        why["batch_size"] = (
            f"{fitting} fit {self.memory_gb} GB; {sharing} hold {share:.0%} of the dataset's voxels; at least {least}"
        )
        return max(least, min(fitting, sharing))


def _sizes(patch: np.ndarray) -> tuple[int, ...]:
    return tuple(int(size) for size in patch)
