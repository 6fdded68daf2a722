"""From a fingerprint to a plan: every number by rule or by the user's word, each with its reason."""

import numpy as np

from medunet.config import PlanningConfig
from medunet.errors import InputError
from medunet.planning.topology import (
    ANISOTROPY,
    Topology,
    initial_patch,
    plan_topology,
    stage_features,
    target_spacing,
    training_gb,
)
from medunet.plans import Fingerprint, Intensity, Plan
from medunet.records import Description

DEFAULT_GB = {"cuda": 8.0, "cpu": 1.0}
_MIN_BATCH = 2
_DATASET_SHARE = 0.05  # a batch holds at most this share of the dataset's voxels


def memory_budget(device: str, free_gb: float, given_gb: float | None) -> tuple[float, str]:
    """Return the memory in GB that a training step may use, and why."""
    if given_gb is not None:
        return given_gb, "given as planning.memory_gb"
    budget = round(min(DEFAULT_GB[device], 0.8 * free_gb), 1)
    reason = (
        "nnU-Net's reference of 8 GB; give planning.memory_gb for larger patches"
        if device == "cuda"
        else "on a CPU time is short before memory is: a step that fills 1 GB takes seconds"
    )
    return budget, f"{reason} ({free_gb:.1f} GB measured free)"


def make_plan(
    fingerprint: Fingerprint,
    description: Description,
    config: PlanningConfig,
    *,
    memory_gb: float,
    memory_why: str,
) -> Plan:
    """Return the plan for a dataset within a memory budget.

    Raises:
        InputError: no patch fits the budget, or the patch, given or the scans' own, cannot be pooled.
    """
    why: dict[str, str] = {"memory_gb": memory_why}
    shapes, spacings = np.array(fingerprint.shapes), np.array(fingerprint.spacings_mm)
    spacing, coarse_rule = target_spacing(spacings, shapes)
    why["spacing_mm"] = (
        "median per axis; the coarse axis its 10th percentile, since it is over 3 times coarser with few slices"
        if coarse_rule
        else "median per axis over the training cases"
    )
    if config.spacing_mm is not None:
        spacing, why["spacing_mm"] = np.array(config.spacing_mm), "given as planning.spacing_mm"
    spacing = np.round(spacing, 4)
    median_shape = np.median(np.round(shapes * spacings / spacing), axis=0).astype(int)
    median_shape = np.maximum(median_shape, 1)
    why["median_shape"] = "median over cases of the nonzero box at the target spacing"
    slice_axis = int(2 - np.argmax(spacing[::-1]))
    why["slice_axis"] = f"the coarsest axis, {spacing[slice_axis]:g} mm; the last where axes tie"
    why["orientation"] = "one orientation for all cases, so that mirrored or turned scans look alike"
    axes = [axis for axis in range(3) if config.dimensions == 3 or axis != slice_axis]

    num_outputs = len(description.targets) + (0 if description.regions else 1)
    fit = _Fit(
        spacing_mm=tuple(spacing[axes]),
        median_shape=tuple(int(n) for n in median_shape[axes]),
        config=config,
        memory_gb=memory_gb,
        num_inputs=len(description.channels),
        num_outputs=num_outputs,
    )
    topology = fit.patch(why)
    if len(topology.strides) < 2 or min(topology.patch_size) < 1:
        given = config.patch_size is not None
        raise InputError(
            f"a patch of {'×'.join(map(str, topology.patch_size))} voxels is too small to be halved even once",
            where="planning.patch_size" if given else f"dataset {description.name}",
            mend="Give planning.patch_size with 8 voxels or more along two axes of like spacing"
            + ("." if given else ", or a finer planning.spacing_mm."),
        )
    features = fit.features(topology)
    batch = fit.batch(topology, float(fingerprint.num_cases * median_shape.prod()), why)
    why["features"] = f"{config.base_features} doubled at each stage, at most {fit.max_features}, as nnU-Net"
    why["strides"] = (
        "an axis is halved while it has 8 voxels and lies within a factor 2 of the finest spacing"
    )
    why["kernel_sizes"] = "1 along an axis until it is within a factor 2 of the finest spacing, then 3"
    why["convolutions_per_stage"] = "two, as nnU-Net" if config.convolutions_per_stage == 2 else "given"
    why["deep_supervision"] = "an output at each decoder stage but the coarsest, weights 1, 1/2, 1/4, ..."
    why["estimated_gb"] = (
        "feature maps of a batch at nnU-Net's 14.3 bytes each, and weights with their moments"
    )
    patch = topology.patch_size
    anisotropic = config.dimensions == 3 and max(patch) > ANISOTROPY * patch[slice_axis]
    why["anisotropic"] = (
        "the patch has over 3 times fewer slices than rows: augment in-plane only"
        if anisotropic
        else "the patch's sides are within a factor 3: augment along every axis"
    )
    crop = fingerprint.nonzero_fraction < 0.75
    why["crop_nonzero"] = (
        f"the nonzero box is {fingerprint.nonzero_fraction:.0%} of a scan; below 75% it is cut to"
    )
    why["intensities"] = (
        "CT: clipped to the foreground's 0.5 and 99.5 percentiles, then its mean and standard deviation; "
        "else z-score per scan" + (", inside the nonzero voxels, since scans are cut to them" if crop else "")
    )
    i, j, k = (float(mm) for mm in spacing)
    return Plan(
        dataset=description.name,
        dimensions=config.dimensions,
        orientation="RAS",
        spacing_mm=(i, j, k),
        slice_axis=slice_axis,
        crop_nonzero=crop,
        intensities={
            name: _intensity(channel.modality, fingerprint.intensities[name], crop)
            for name, channel in description.channels.items()
        },
        median_shape=(int(median_shape[0]), int(median_shape[1]), int(median_shape[2])),
        patch_size=topology.patch_size,
        batch_size=batch,
        features=features,
        kernel_sizes=topology.kernel_sizes,
        strides=topology.strides,
        convolutions_per_stage=config.convolutions_per_stage,
        deep_supervision=max(1, len(features) - 2),
        anisotropic=anisotropic,
        memory_gb=memory_gb,
        estimated_gb=round(fit.gb(topology, batch), 2),
        fingerprint=fingerprint,
        why=why,
    )


def _intensity(modality: str, statistics: dict[str, float], crop: bool) -> Intensity:
    if modality != "CT":
        return Intensity(scheme="zscore_nonzero" if crop else "zscore")
    return Intensity(
        scheme="ct",
        clip_low=statistics["percentile_00_5"],
        clip_high=statistics["percentile_99_5"],
        mean=statistics["mean"],
        std=statistics["std"],
    )


class _Fit:
    """Patch and batch within the memory budget; what the rules need, gathered once."""

    def __init__(
        self,
        *,
        spacing_mm: tuple[float, ...],
        median_shape: tuple[int, ...],
        config: PlanningConfig,
        memory_gb: float,
        num_inputs: int,
        num_outputs: int,
    ) -> None:
        self.spacing_mm, self.median_shape = spacing_mm, median_shape
        self.config, self.memory_gb = config, memory_gb
        self.num_inputs, self.num_outputs = num_inputs, num_outputs
        usual = 320 if config.dimensions == 3 else 512
        self.max_features = config.max_features or max(usual, config.base_features)

    def features(self, topology: Topology) -> tuple[int, ...]:
        return stage_features(len(topology.strides), self.config.base_features, self.max_features)

    def gb(self, topology: Topology, batch: int) -> float:
        return training_gb(
            topology,
            self.features(topology),
            self.config.convolutions_per_stage,
            batch,
            self.num_inputs,
            self.num_outputs,
        )

    def patch(self, why: dict[str, str]) -> Topology:
        """Shrink the axis that is largest against the median shape until a batch of two fits."""
        if self.config.patch_size is not None:
            why["patch_size"] = "given as planning.patch_size, padded to be divisible by the strides"
            return plan_topology(self.config.patch_size, self.spacing_mm)
        start = initial_patch(self.spacing_mm, self.median_shape)
        topology = plan_topology(start, self.spacing_mm)
        while self.gb(topology, _MIN_BATCH) > self.memory_gb:
            patch = np.array(topology.patch_size)
            axis = int(np.argmax(patch / self.median_shape))
            patch[axis] -= plan_topology(patch.tolist(), self.spacing_mm).divisors[axis]
            shrunk = plan_topology(patch.tolist(), self.spacing_mm)
            if shrunk.patch_size == topology.patch_size:  # padding gave back what was taken
                patch[axis] -= shrunk.divisors[axis]
                shrunk = plan_topology(patch.tolist(), self.spacing_mm)
            if patch[axis] < 8 or (len(topology.strides) > 1 and len(shrunk.strides) < 2):
                raise InputError(
                    f"no patch fits {self.memory_gb} GB with {self.config.base_features} base features",
                    where="planning.memory_gb",
                    mend="Raise planning.memory_gb or lower planning.base_features.",
                )
            topology = shrunk
        why["patch_size"] = (
            f"aspect of the spacing within the median shape {self.median_shape}"
            + ("" if start == topology.patch_size else f", {start} made divisible")
            + f", shrunk until a batch of {_MIN_BATCH} fits {self.memory_gb} GB"
        )
        return topology

    def batch(self, topology: Topology, dataset_voxels: float, why: dict[str, str]) -> int:
        """Return as many patches as fit the memory, at most 5% of the dataset's voxels, at least two."""
        if self.config.batch_size is not None:
            why["batch_size"] = "given as planning.batch_size"
            return self.config.batch_size
        per_patch = self.gb(topology, 2) - self.gb(topology, 1)
        fitting = 1 + int((self.memory_gb - self.gb(topology, 1)) / per_patch)
        sharing = round(dataset_voxels * _DATASET_SHARE / float(np.prod(topology.patch_size)))
        batch = max(_MIN_BATCH, min(fitting, sharing))
        why["batch_size"] = (
            f"{fitting} fit {self.memory_gb} GB; {sharing} hold 5% of the dataset's voxels; at least {_MIN_BATCH}"
        )
        return batch
