"""Make a plan from a dataset fingerprint: every value by rule or as configured, with its reason."""

import math

import numpy as np

from medunet.base.errors import InputError
from medunet.planning.architectures import ARCHITECTURES, Architecture, choose_architecture
from medunet.planning.fit import Fit
from medunet.planning.memory import NetworkShape, training_gb
from medunet.planning.topology import ANISOTROPY, target_spacing
from medunet.records.config import NetworkName, PlanningConfig
from medunet.records.description import Description
from medunet.records.plan import Fingerprint, Intensity, Plan, count_inputs, count_outputs

_CPU_GB = 1.0


def memory_budget(
    device: str, free_gb: float, given_gb: float | None, network: NetworkName = "plain"
) -> tuple[float, str]:
    """Return the memory budget of a training step in GB, and its reason; on a GPU it is the network's default."""
    if given_gb is not None:
        return given_gb, "given as planning.memory_gb"
    architecture = ARCHITECTURES[network]
    if device == "cuda":
        usual = architecture.gpu_gb
        reason = f"the reference of {usual:g} GB for {architecture.title}; give planning.memory_gb for larger patches"
    else:
        usual = _CPU_GB
        reason = "on a CPU time is short before memory is: a step that fills 1 GB takes seconds"
    return round(min(usual, 0.8 * free_gb), 1), f"{reason} ({free_gb:.1f} GB measured free)"


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
        InputError: no patch fits the budget, the configured or initial patch is too small to be pooled, or the
            configured spacing is too small for the modality.
    """
    architecture = choose_architecture(config)
    why: dict[str, str] = {"memory_gb": memory_why}
    shapes, spacings = np.array(fingerprint.shapes), np.array(fingerprint.spacings_mm)
    spacing, coarse_rule = target_spacing(spacings, shapes)
    why["spacing_mm"] = (
        "median per axis; the coarse axis its 10th percentile, since it is over 3 times coarser with few slices"
        if coarse_rule
        else "median per axis over the training cases"
    )
    if config.spacing_mm is not None:
        smallest, _ = description.spacing_range_mm()
        if min(config.spacing_mm) < smallest and description.unit == "mm":
            kinds = ", ".join(dict.fromkeys(each.modality for each in description.channels.values()))
            raise InputError(
                f"{min(config.spacing_mm):g} mm is too small for {kinds}",
                where="planning.spacing_mm",
                hint=f"Give {smallest:g} mm or more, or correct the channels' modality in the description.",
            )
        spacing, why["spacing_mm"] = np.array(config.spacing_mm), "given as planning.spacing_mm"
    spacing = np.round(spacing, 4 if spacing.min() >= 0.1 else 7)
    resampled = np.maximum(np.round(spacings / spacing * shapes), 1)
    middle_shape = np.median(resampled, axis=0)
    median_shape = middle_shape.astype(int)
    why["median_shape"] = "median over cases of the nonzero box at the target spacing"
    sides = sorted(np.median(shapes, axis=0).astype(int).tolist())
    if config.dimensions == 3 and sides[0] == 1 < sides[1]:
        raise InputError(
            f"images of {'×'.join(map(str, reversed(sides)))} voxels have a single slice",
            where="planning.dimensions",
            hint="Set planning.dimensions: 2.",
        )
    slice_axis = int(2 - np.argmax(spacing[::-1]))
    why["slice_axis"] = f"the coarsest axis, {spacing[slice_axis]:g} mm; the last where axes tie"
    why["orientation"] = "one orientation for all cases, so that mirrored or turned scans look alike"
    axes = [axis for axis in range(3) if config.dimensions == 3 or axis != slice_axis]

    fit = Fit(
        config=config,
        architecture=architecture,
        # Resized slices have no common spacing: pixels are treated as square.
        spacing_mm=(1.0, 1.0) if config.resize_to else tuple(float(spacing[axis]) for axis in axes),
        median_shape=config.resize_to or tuple(float(middle_shape[axis]) for axis in axes),
        memory_gb=memory_gb,
        num_inputs=count_inputs(description, config.context_slices),
        num_outputs=count_outputs(description),
        dataset=description.name,
    )
    topology = fit.choose_patch(why)
    shape = fit.shape(topology)
    dataset_voxels = fingerprint.num_cases * math.prod(fit.median_shape)
    if config.dimensions == 2:
        dataset_voxels *= int(median_shape[slice_axis])
    batch = fit.choose_batch(topology, dataset_voxels, why)
    why |= _network_reasons(architecture, shape, fit, config)
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
    why["grid"] = "both ends of a scan's extent stay in place, so that nothing is shifted or cut off"
    i, j, k = (float(mm) for mm in spacing)
    return Plan(
        dataset=description.name,
        dimensions=config.dimensions,
        network=shape.network,
        context_slices=config.context_slices,
        resize_to=config.resize_to,
        grid="extent",
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
        features=shape.features,
        kernel_sizes=topology.kernel_sizes,
        strides=topology.strides,
        convolutions_per_stage=shape.convolutions,
        encoder_blocks=shape.encoder_blocks,
        deep_supervision=shape.deep_supervision,
        anisotropic=anisotropic,
        memory_gb=memory_gb,
        estimated_gb=round(training_gb(shape, batch), 2),
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


def _network_reasons(
    architecture: Architecture, shape: NetworkShape, fit: Fit, config: PlanningConfig
) -> dict[str, str]:
    """Return the reason for each value that describes the network."""
    base, most = fit.base_features, fit.max_features
    why = {"network": f"planning.network.name {shape.network.name}: {architecture.title}"}
    if fit.config.network.name == "swin_unetr":
        why["features"] = (
            f"{base}, a multiple of 12, for the image and its first halving, then doubled at each stage"
        )
    else:
        why["features"] = f"{base} doubled at each stage" + (
            "" if most is None else f", at most {most}, as nnU-Net"
        )
    if architecture.uniform:
        why["strides"] = f"every axis is halved at each of {len(shape.features) - 1} stages, as published"
        why["kernel_sizes"] = "3 throughout, as published"
    else:
        why["strides"] = (
            "an axis is halved while it has 8 voxels and lies within a factor 2 of the finest spacing"
        )
        if config.network.num_stages is not None:
            why["strides"] += f"; planning.network.num_stages ends it at {config.network.num_stages}"
        why["kernel_sizes"] = "1 along an axis until it is within a factor 2 of the finest spacing, then 3"
    if architecture.encoder_blocks:
        why["convolutions_per_stage"] = "of the decoder, as its authors built it"
        why["encoder_blocks"] = "residual blocks of each stage, as its authors built it"
    else:
        why["convolutions_per_stage"] = "two, as published" if shape.convolutions == 2 else "given"
        why["encoder_blocks"] = "none: the encoder is made of plain convolutions"
    if shape.deep_supervision > 1:
        left_out = "" if architecture.supervises_all else " but the coarsest"
        why["deep_supervision"] = f"an output at each decoder stage{left_out}, weights 1, 1/2, 1/4, ..."
    else:
        asked = architecture.deep_supervision and config.network.deep_supervision
        why["deep_supervision"] = (
            "the finest output alone: too few stages for more" if asked else "the finest output alone"
        )
    why["context_slices"] = (
        "each slice with its neighbours as channels, as planning.context_slices asks"
        if config.context_slices > 1
        else "each patch alone"
    )
    why["resize_to"] = (
        "given: slices are resized, whatever their spacing"
        if config.resize_to
        else "scans are brought to one spacing, not to one size"
    )
    why["estimated_gb"] = (
        f"feature maps of a batch at {architecture.bytes_per_feature:g} bytes an element, as on a card in half "
        "precision, and weights with their moments"
    )
    if architecture.features_per_gb is not None:
        why["estimated_gb"] += "; the patch is chosen by the feature maps alone, as nnU-Net does"
    return why
