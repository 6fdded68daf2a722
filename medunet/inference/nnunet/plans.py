"""What nnU-Net's plans.json and dataset.json say, in medunet's terms: description, plan and rules of prediction.

nnU-Net's arrays have the axes `z y x`, permuted by `transpose_forward`; medunet's have `x y z`, as files do. Axis n
of nnU-Net's network is therefore axis `2 - transpose_forward[n]` here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medunet.base.errors import InputError
from medunet.dataset.layouts.dataset_json import describe_json
from medunet.inference.nnunet.architecture import read_architecture
from medunet.inference.nnunet.preprocessing import nearest_intensity, read_normalisation, read_resampling
from medunet.records.config import InferenceConfig
from medunet.records.description import Description, Layout
from medunet.records.nnunet_rules import NnunetRules, PreviousStage
from medunet.records.plan import Plan
from medunet.transforms.augment import BODY_AXES

READERS = {  # whether each turns scans to RAS+ orientation
    "SimpleITKIO": False,
    "NibabelIO": False,
    "NaturalImage2DIO": False,
    "SimpleITKIOWithReorient": True,
    "NibabelIOWithReorient": True,
}
_PICTURES = "NaturalImage2DIO"


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
        InputError: medunet does not have something that they ask for (the message names all of it), or the files are
            not as nnU-Net v2 writes them.
    """
    where = f"{where} ({configuration})"
    try:
        return _translate(plans, dataset, configuration, trainer, mirror_axes, where)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"plans.json is not as nnU-Net v2 writes it ({type(error).__name__}: {error})",
            where=where,
            hint="Copy the results folder again.",
        ) from error


def _translate(
    plans: Mapping[str, Any],
    dataset: Mapping[str, Any],
    configuration: str,
    trainer: str,
    mirror_axes: Sequence[int],
    where: str,
) -> NnunetPlans:
    faults: list[str] = []
    settings = resolve_configuration(plans, configuration, where)
    reader = str(plans.get("image_reader_writer"))
    if reader not in READERS:
        faults.append(f"image_reader_writer {reader}: medunet has {', '.join(READERS)}")
    for key, own in (("preprocessor_name", "DefaultPreprocessor"), ("label_manager", "LabelManager")):
        given = {**plans, **settings}.get(key, own)
        if given != own:
            faults.append(f"{key} {given}: medunet has {own}")
    layout: Layout = "png" if reader == _PICTURES else "nnunet"
    description = describe_json(dataset, str(plans.get("dataset_name", "nnunet")), layout)
    description = _in_order(description, faults)
    axes = _Axes(tuple(2 - axis for axis in plans["transpose_forward"]), len(settings["patch_size"]))
    network = read_architecture(settings, plans, axes.dimensions, axes.turn, faults)
    statistics = plans.get(
        "foreground_intensity_properties_per_channel",
        plans.get("foreground_intensity_properties_by_modality", {}),
    )
    normalisation = read_normalisation(settings, statistics, len(description.channels), faults)
    resampling = {what: read_resampling(settings, what, faults) for what in ("data", "probabilities", "seg")}
    if resampling["probabilities"].order > 1:
        faults.append(
            f"resampling_fn_probabilities of order {resampling['probabilities'].order}: medunet has 0 and 1"
        )
    if faults:
        raise InputError(
            "; ".join(faults), where=where, hint="medunet cannot run this model; predict with nnU-Net."
        )
    rules = NnunetRules(
        configuration=configuration,
        trainer=trainer,
        reorient=READERS[reader],
        normalisation=tuple(normalisation),
        image=resampling["data"],
        logits=resampling["probabilities"],
    )
    previous = settings.get("previous_stage") or ""
    if previous:
        values = [value for name, value in description.labels.items() if name not in ("background", "ignore")]
        stage = PreviousStage(labels=tuple(sorted(values)), resampling=resampling["seg"], weights_sha256={})
        rules = rules.model_copy(update={"previous": stage})
    plan = _make_plan(plans, settings, description, axes, network, rules, where)
    known = {
        name: {
            key: float(value) for key, value in statistics.get(str(number), {}).items() if value is not None
        }
        for number, name in enumerate(description.channels)
    }
    fingerprint = plan.fingerprint.model_copy(
        update={"num_cases": int(dataset.get("numTraining", 0)), "intensities": known}
    )
    mirrored = sorted(axes.of_patch[number] for number in mirror_axes)
    inference = InferenceConfig(overlap=0.5, mirror=tuple(BODY_AXES[axis] for axis in mirrored))
    endings: dict[str, tuple[str, ...]] = {}
    if layout == "png":  # one file has all colours
        endings = dict.fromkeys(description.channels, ("_0000",))
    plan = plan.model_copy(update={"fingerprint": fingerprint})
    return NnunetPlans(description, plan, rules, inference, axes.permutation, previous, endings)


@dataclass(frozen=True)
class _Axes:
    """The axis of the scan for each of nnU-Net's, of which a 2D patch has the last two."""

    of_scan: tuple[int, ...]
    dimensions: int

    @property
    def of_patch(self) -> tuple[int, ...]:
        """The axis of the scan for each of nnU-Net's patch."""
        return self.of_scan[3 - self.dimensions :]

    @property
    def permutation(self) -> tuple[int, ...]:
        """The axis of nnU-Net's patch for each of ours."""
        return tuple(self.of_patch.index(axis) for axis in sorted(self.of_patch))

    def turn(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return values by nnU-Net's axes of the patch, by ours."""
        return tuple(values[number] for number in self.permutation)

    def turn_all(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return values by nnU-Net's three axes, by those of the scan."""
        return tuple(values[self.of_scan.index(axis)] for axis in range(3))


def _make_plan(
    plans: Mapping[str, Any],
    settings: Mapping[str, Any],
    description: Description,
    axes: _Axes,
    network: Mapping[str, Any],
    rules: NnunetRules,
    where: str,
) -> Plan:
    """Return the plan of a configuration, without what is known of the training cases."""
    first = 3 - axes.dimensions  # of nnU-Net's axes that the patch has
    spacing = [float(step) for step in settings["spacing"]]
    medians = [float(step) for step in plans["original_median_spacing_after_transp"]]
    shape = list(plans["original_median_shape_after_transp"])
    shape[first:] = settings.get("median_image_size_in_voxels", shape[first:])[-axes.dimensions :]
    patch = axes.turn(settings["patch_size"])
    why = {
        "network": f"imported from nnU-Net: {rules.configuration} of {plans.get('plans_name', 'its plans')}",
        "intensities": "of nnU-Net's schemes the nearest of medunet's; `nnunet.normalisation` in the model card has "
        "those that predictions follow",
        "memory_gb": "not planned by medunet",
    }
    unknown = {"num_cases": 0, "spacings_mm": (), "shapes": (), "nonzero_fraction": 1.0, "intensities": {}}
    return Plan.parse(
        {
            "dataset": description.name,
            "dimensions": axes.dimensions,
            "slice_axis": axes.of_scan[0] if axes.dimensions == 2 else 2,
            "grid": "extent",
            "orientation": "RAS" if rules.reorient else "as stored",
            "spacing_mm": axes.turn_all([*medians[:first], *spacing]),
            "crop_nonzero": True,
            "intensities": dict(
                zip(description.channels, map(nearest_intensity, rules.normalisation), strict=True)
            ),
            "median_shape": tuple(round(n) for n in axes.turn_all(shape)),
            "patch_size": patch,
            "batch_size": settings["batch_size"],
            "mask_inputs": len(rules.previous.labels) if rules.previous else 0,
            "anisotropic": max(patch) > 3 * min(patch),
            "memory_gb": 0.0,
            "estimated_gb": 0.0,
            "fingerprint": unknown,
            "why": why,
            **network,
        },
        where,
    )


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
