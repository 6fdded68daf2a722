"""How another program uses an exported network: preprocessing, windows and labels, in words and numbers."""

from typing import Any

from medunet.inference.nnunet.export_use import describe_nnunet
from medunet.records.description import Description
from medunet.records.model_card import ModelCard
from medunet.records.plan import Intensity, Plan, count_outputs

_AXES = {"R": "left to right", "A": "posterior to anterior", "S": "inferior to superior",
         "L": "right to left", "P": "anterior to posterior", "I": "superior to inferior"}  # fmt: skip


def describe_use(card: ModelCard) -> dict[str, Any]:
    """Return the entries of export.json on axes, preprocessing, windows and labels, as plain data."""
    plan, description = card.plan, card.description
    channels = [] if description.regions else ["background"]
    output = {
        "name": "logits",
        "type": "float32",
        "shape": ["as the input's", count_outputs(description), *plan.output_size],
        "channels": [*channels, *description.targets],
    }
    if card.nnunet is not None:
        return {"output": output, **describe_nnunet(card)}
    return {
        "output": output,
        "axes": _describe_axes(plan, description),
        "preprocessing": _describe_preprocessing(plan),
        "windows": _describe_windows(card),
        "labels": _describe_labels(description),
    }


def _describe_axes(plan: Plan, description: Description) -> list[str]:
    names = ", ".join(description.channels)
    directions = [_AXES[letter] for letter in plan.orientation]
    if plan.dimensions == 3:
        return ["batch", f"channel: {names}", *directions]
    del directions[plan.slice_axis]
    slices = ""
    if plan.context_slices > 1:
        slices = (
            f"; of each channel the {plan.context_slices} neighbouring slices in order, the predicted one in the "
            "middle, border slices repeated"
        )
    return ["batch of slices", f"channel: {names}{slices}", *directions]


def _describe_preprocessing(plan: Plan) -> list[str]:
    steps = [
        f"Bring the scan's voxels into the axis order and directions of {plan.orientation}+ (by its affine)."
    ]
    if plan.crop_nonzero:
        steps.append("Crop to the bounding box of the voxels that are not zero in any channel.")
    steps += [_describe_intensity(name, intensity) for name, intensity in plan.intensities.items()]
    spacing = " × ".join(f"{step:g}" for step in plan.spacing_mm)
    if plan.resize_to is not None:
        size = " × ".join(map(str, plan.resize_to))
        steps.append(
            f"Resize every slice across axis {plan.slice_axis} to {size} (trilinear, smoothed if it shrinks)."
        )
    elif plan.grid == "extent":
        kept = f", axis {plan.slice_axis} excepted, which keeps its own" if plan.dimensions == 2 else ""
        steps.append(
            f"Resample to {spacing} mm{kept}: the number of voxels of an axis is that of its length divided by the "
            "spacing, rounded, at least 1; trilinear, outer borders aligned (align_corners false)."
        )
    else:
        steps.append(
            f"Resample to {spacing} mm, the centre of the first voxel stays; trilinear, border values beyond."
        )
    return steps


def _describe_intensity(name: str, intensity: Intensity) -> str:
    if intensity.scheme == "ct":
        return (
            f"{name}: clip to {intensity.clip_low:g} to {intensity.clip_high:g}, subtract {intensity.mean:g}, "
            f"divide by {intensity.std:g} (exact numbers in model.json)."
        )
    over = (
        "its voxels that are not 0; the others stay 0"
        if intensity.scheme == "zscore_nonzero"
        else "all its voxels"
    )
    return f"{name}: subtract the mean and divide by the standard deviation of {over}."


def _describe_windows(card: ModelCard) -> dict[str, Any]:
    plan, config = card.plan, card.inference
    if not plan.padded:
        return {
            "patch_size": plan.patch_size,
            "output_size": plan.output_size,
            "how": "Output tiles do not overlap; each is computed from a larger input tile, mirrored beyond the "
            "image's borders.",
        }
    return {
        "patch_size": plan.patch_size,
        "overlap": config.overlap,
        "mirror": config.mirror,
        "shifts": config.shifts,
        "how": "An image no larger than the patch is padded to it on both sides with its border values and computed "
        "once. A larger one is covered by windows of the patch size that overlap by this share of it; their logits "
        "are averaged with Gaussian weights, sigma an eighth of the patch. All this is done for each mirror image of "
        "the scan along these axes and for this many shifts of all windows below the network's strides. "
        "Where there are several of these, each window's logits become probabilities before they are averaged.",
    }


def _describe_labels(description: Description) -> dict[str, Any]:
    values = description.written_values
    if description.regions:
        return {
            "written_values": values,
            "how": "Sigmoid of each channel, resampled to the scan's grid (trilinear). In this order, each region's "
            "value is written where its probability is above 0.5, over those before.",
        }
    return {
        "written_values": {"background": 0, **values},
        "how": "Softmax over the channels, resampled to the scan's grid (trilinear); each voxel gets the value of "
        "the channel with the largest probability, the first of equal ones.",
    }
