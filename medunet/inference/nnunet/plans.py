"""What nnU-Net's plans.json and dataset.json say, in medunet's terms: description, plan and rules of prediction.

nnU-Net's arrays have the axes `z y x`, permuted by `transpose_forward`; medunet's have `x y z`, as files do. Axis n of
nnU-Net's network is therefore axis `2 - transpose_forward[n]` here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medunet.base.errors import InputError
from medunet.dataset.layouts.dataset_json import describe_json
from medunet.inference.nnunet.architecture import read_architecture
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.nnunet_rules import NnunetRules, Normalisation, PreviousStage, Resampling
from medunet.records.plan import Fingerprint, Intensity, Plan
from medunet.transforms.augment import BODY_AXES

READERS = {  # whether each turns scans to RAS+ orientation
    "SimpleITKIO": False,
    "NibabelIO": False,
    "NaturalImage2DIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIOWithReorient": True,
}
_PICTURES = "NaturalImage2DIO"
_SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
}
_STATISTICS = ("mean", "std", "percentile_00_5", "percentile_99_5")


@dataclass(frozen=True)
class NnunetPlans:
    """A configuration of nnU-Net's plans in medunet's terms."""

    description: Description
    plan: Plan
    rules: NnunetRules  # without the hashes of an earlier stage's weights
    inference: InferenceConfig
    permutation: tuple[int, ...]  # axis of nnU-Net's network for each axis of ours
    previous: str  # configuration of the earlier stage; "" without one
    endings: dict[str, tuple[str, ...]]  # of file names, where the description has none


def read_plans(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: str,
    *,
    trainer: str,
    mirror_axes: Sequence[int],
    where: str,
) -> NnunetPlans:
    """Translate a configuration of plans.json.

    Args:
        mirror_axes: axes of nnU-Net's patch that prediction mirrors.
        where: the results folder, for messages.

    Raises:
        InputError: medunet does not have something that they ask for; the message names all of it.
    """
    faults: list[str] = []
    settings = resolve_configuration(plans, configuration, where)
    reader = plans.get("image_reader_writer")
    if reader not in READERS:
        faults.append(f"image_reader_writer {reader}: medunet has {', '.join(READERS)}")
    for key, own in (("preprocessor_name", "DefaultPreprocessor"), ("label_manager", "LabelManager")):
        given = {**plans, **settings}.get(key, own)
        if given != own:
            faults.append(f"{key} {given}: medunet has {own}")
    layout = "png" if reader == _PICTURES else "nnunet"
    description = describe_json(dataset, str(plans.get("dataset_name", "nnunet")), layout)
    description = _in_order(description, faults)
    axes = tuple(2 - axis for axis in plans["transpose_forward"])  # of the scan, by nnU-Net's
    dimensions = len(settings["patch_size"])
    slice_axis = axes[0] if dimensions == 2 else 2
    network_axes = axes[3 - dimensions :]
    permutation = tuple(network_axes.index(axis) for axis in sorted(network_axes))

    def turned(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[number] for number in permutation)

    network = read_architecture(settings, plans, dimensions, turned, faults)
    statistics = plans.get(
        "foreground_intensity_properties_per_channel",
        plans.get("foreground_intensity_properties_by_modality", {}),
    )
    normalisation = _read_normalisation(settings, statistics, len(description.channels), faults)
    labels = sorted(
        value for name, value in description.labels.items() if name not in ("background", "ignore")
    )
    resampling = {what: _read_resampling(settings, what, faults) for what in ("data", "probabilities", "seg")}
    if resampling["probabilities"].order > 1:
        faults.append(
            f"resampling_fn_probabilities of order {resampling['probabilities'].order}: medunet has 0 and 1"
        )
    previous = settings.get("previous_stage") or ""
    if faults:
        raise InputError(
            "; ".join(faults),
            where=f"{where} ({configuration})",
            hint="medunet cannot run this model; predict with nnU-Net.",
        )
    spacing = [float(step) for step in settings["spacing"]]
    medians = [float(step) for step in plans["original_median_spacing_after_transp"]]
    shape = [round(n) for n in plans["original_median_shape_after_transp"]]
    spacing = medians[: 3 - dimensions] + spacing
    shape = shape[: 3 - dimensions] + [
        round(n) for n in settings.get("median_image_size_in_voxels", shape[-dimensions:])
    ]
    by_axis = sorted(range(3), key=lambda number: axes[number])
    patch = turned(settings["patch_size"])
    plan = Plan(
        dataset=description.name,
        dimensions=dimensions,  # type: ignore[arg-type]
        slice_axis=slice_axis,
        grid="extent",
        orientation="RAS" if READERS[reader] else "as stored",
        spacing_mm=tuple(spacing[number] for number in by_axis),  # type: ignore[arg-type]
        crop_nonzero=True,
        intensities={
            name: _nearest_intensity(rule)
            for name, rule in zip(description.channels, normalisation, strict=True)
        },
        median_shape=tuple(shape[number] for number in by_axis),  # type: ignore[arg-type]
        patch_size=patch,
        batch_size=settings["batch_size"],
        mask_inputs=len(labels) if previous else 0,
        anisotropic=max(patch) > 3 * min(patch),
        memory_gb=0.0,
        estimated_gb=0.0,
        fingerprint=Fingerprint(
            num_cases=int(dataset.get("numTraining", 0)),
            spacings_mm=(),
            shapes=(),
            nonzero_fraction=1.0,
            intensities={
                name: {key: float(value) for key, value in statistics.get(str(number), {}).items()}
                for number, name in enumerate(description.channels)
            },
        ),
        why={
            "network": f"imported from nnU-Net: {configuration} of {plans.get('plans_name', 'its plans')}",
            "intensities": "of nnU-Net's schemes the nearest of medunet's; `nnunet.normalisation` in the model card "
            "has those that predictions follow",
            "memory_gb": "not planned by medunet",
        },
        **network,
    )
    rules = NnunetRules(
        configuration=configuration,
        trainer=trainer,
        reorient=READERS[reader],
        normalisation=tuple(normalisation),
        image=resampling["data"],
        logits=resampling["probabilities"],
        previous=PreviousStage(labels=tuple(labels), resampling=resampling["seg"], weights_sha256={})
        if previous
        else None,
    )
    mirrored = sorted(network_axes[number] for number in mirror_axes)
    inference = InferenceConfig(overlap=0.5, mirror=tuple(BODY_AXES[axis] for axis in mirrored))  # type: ignore[misc]
    endings = {name: ("_0000",) for name in description.channels} if layout == "png" else {}
    return NnunetPlans(description, plan, rules, inference, permutation, previous, endings)


def resolve_configuration(plans: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """Return a configuration with what it inherits from others.

    Raises:
        InputError: there is no such configuration, or they inherit from each other.
    """
    table = plans.get("configurations")
    settings: dict[str, Any] = {}
    seen: list[str] = []
    wanted: str | None = name
    while wanted is not None:
        if not isinstance(table, dict) or wanted not in table or wanted in seen:
            known = ", ".join(table) if isinstance(table, dict) else "none"
            raise InputError(
                f"plans.json has no usable configuration '{wanted}' (it has {known})",
                where=where,
                hint="Copy the results folder again.",
            )
        seen.append(wanted)
        settings = {**table[wanted], **settings}
        wanted = table[wanted].get("inherits_from")
    keys = ("patch_size", "batch_size", "spacing", "normalization_schemes", "use_mask_for_norm")
    if missing := [key for key in keys if key not in settings]:
        raise InputError(
            f"plans.json says nothing of {', '.join(missing)}",
            where=f"{where} ({name})",
            hint="Models of nnU-Net v2 are read, not of its first version.",
        )
    return settings


def _in_order(description: Description, faults: list[str]) -> Description:
    """Return the description with labels in the order of the network's outputs, which is that of their values."""
    values = sorted(value for name, value in description.labels.items() if name != "ignore")
    if description.stored_values:
        faults.append("labels: medunet writes values up to 255")
    elif not description.regions and values != list(range(len(values))):
        faults.append(f"labels: values {values} are not consecutive")
    ordered = dict(sorted(description.labels.items(), key=lambda item: item[1]))
    return description.model_copy(update={"labels": ordered})


def _read_normalisation(
    settings: Mapping[str, Any], statistics: Mapping[str, Any], num_channels: int, faults: list[str]
) -> list[Normalisation]:
    names, masked = settings["normalization_schemes"], settings["use_mask_for_norm"]
    if not len(names) == len(masked) == num_channels:
        faults.append(f"normalization_schemes: {len(names)} for {num_channels} channels")
        return []
    found = []
    for number, (name, inside_only) in enumerate(zip(names, masked, strict=True)):
        scheme = _SCHEMES.get(name)
        known = statistics.get(str(number), {})
        if scheme is None:
            faults.append(f"normalisation {name}: medunet has {', '.join(_SCHEMES)}")
        elif scheme != "ct":
            found.append(Normalisation(scheme=scheme, inside_only=bool(inside_only) and scheme == "zscore"))  # type: ignore[arg-type]
        elif any(not math.isfinite(known.get(key, math.nan)) for key in _STATISTICS):
            faults.append(f"foreground_intensity_properties_per_channel.{number}: {name} needs {_STATISTICS}")
        else:
            mean, std, low, high = (float(known[key]) for key in _STATISTICS)
            found.append(Normalisation(scheme="ct", clip_low=low, clip_high=high, mean=mean, std=std))
    return found


def _nearest_intensity(rule: Normalisation) -> Intensity:
    """Return the intensity scheme of medunet that comes nearest, which a plan has to have."""
    if rule.scheme == "ct":
        numbers = {key: getattr(rule, key) for key in ("clip_low", "clip_high", "mean", "std")}
        return Intensity(scheme="ct", **numbers)
    return Intensity(scheme="zscore_nonzero" if rule.inside_only else "zscore")


def _read_resampling(settings: Mapping[str, Any], what: str, faults: list[str]) -> Resampling:
    """Return the rule of a resampling function by its name and arguments; nnU-Net's defaults for what is missing."""
    key = f"resampling_fn_{what}"
    name, given = settings.get(key, "none"), dict(settings.get(f"{key}_kwargs") or {})
    given.pop("is_seg", None)
    separate = {None: "auto", True: "always", False: "never"}.get(
        given.pop("force_separate_z", _default(name))
    )
    anisotropy = float(given.pop("separate_z_anisotropy_threshold", 3))
    shared = {"separate": separate or "auto", "anisotropy": anisotropy}
    if name == "resample_data_or_seg_to_shape":
        order, across = given.pop("order", 3), given.pop("order_z", 0)
        if order not in (0, 1, 3) or across != 0:
            faults.append(
                f"{key} of order {order}, across slices {across}: medunet has 0, 1 and 3, across slices 0"
            )
        rule = Resampling(order=order, **shared)
    elif name == "resample_torch_fornnunet":
        for ignored in ("num_threads", "device", "memefficient_seg_resampling"):
            given.pop(ignored, None)
        if (
            given.pop("mode", "linear") != "linear"
            or given.pop("aniso_axis_mode", "nearest-exact") != "nearest-exact"
        ):
            faults.append(f"{key} with another mode: medunet has linear, and nearest-exact across slices")
        rule = Resampling(order=1, clipped=False, **shared)
    elif name == "no_resampling_hack":
        rule = Resampling(order=0, kept=True, **shared)
    else:
        faults.append(
            f"{key} {name}: medunet has resample_data_or_seg_to_shape, resample_torch_fornnunet, no_resampling_hack"
        )
        return Resampling(order=0)
    if given:
        faults.append(f"{key}_kwargs {sorted(given)}: unknown to medunet")
    return rule


def _default(name: str) -> bool | None:
    """Return nnU-Net's default of `force_separate_z`, which differs between its functions."""
    return None if name == "resample_torch_fornnunet" else False
