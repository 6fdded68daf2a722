"""How another program uses an exported network that came from nnU-Net: nnU-Net's rules in words and numbers."""

from typing import Any

from medunet.records.model_card import ModelCard
from medunet.records.nnunet_rules import Normalisation, Resampling

_SCHEMES = {
    "none": "unchanged",
    "rescale_to_0_1": "subtract its minimum, divide by the maximum of what is left",
    "rgb_to_0_1": "divide by 255",
}
_SPLINES = {0: "nearest neighbour", 1: "linear", 3: "cubic spline"}


def describe_nnunet(card: ModelCard) -> dict[str, Any]:
    """Return the entries of export.json on axes, preprocessing, windows and labels that differ from medunet's."""
    rules, plan = card.nnunet, card.plan
    assert rules is not None
    kept_axes = [axis for axis in range(3) if plan.dimensions == 3 or axis != plan.slice_axis]
    axes = [f"axis {axis} of the scan" for axis in kept_axes]
    names = list(card.description.channels)
    order = "in RAS+ order" if rules.reorient else "as NIfTI stores them, fastest first"
    steps = [f"Take the axes {order}."]
    steps.append("Crop to the bounding box of the voxels that are not zero in any channel.")
    steps += [f"{name}: {_describe(rule)}." for name, rule in zip(names, rules.normalisation, strict=True)]
    spacing = " × ".join(f"{step:g}" for step in plan.spacing_mm)
    kept = f", axis {plan.slice_axis} excepted, which keeps its own" if plan.dimensions == 2 else ""
    steps.append(f"Resample to {spacing} mm{kept}: {_describe_resampling(rules.image)}.")
    steps.append("Pad with zeros on both sides to the patch size where it is larger.")
    masks = []
    if rules.previous is not None:
        masks = [f"mask of label {value}" for value in rules.previous.labels]
        steps.append(
            "The masks are those of the earlier stage in the scan's own grid, cropped and resampled as the scan; "
            "each voxel has the label whose linearly interpolated mask is largest."
        )
    regions = bool(card.description.regions)
    decision = (
        "in this order, each region's value is written where its logit is above 0, over those before"
        if regions
        else "each voxel gets the value of the channel with the largest logit, the first of equal ones"
    )
    values = card.description.written_values
    return {
        "axes": ["batch", f"channel: {', '.join([*names, *masks])}", *axes],
        "preprocessing": steps,
        "windows": {
            "patch_size": plan.patch_size,
            "overlap": card.inference.overlap,
            "mirror": card.inference.mirror,
            "shifts": 1,
            "how": "Windows lie evenly spaced from the first voxel to the last and overlap by at least this share of "
            "the patch. The logits of each window and of its mirror images along these axes (left_right is axis 0 of "
            "the scan, posterior_anterior axis 1, inferior_superior axis 2) are averaged, and added up with Gaussian "
            "weights, sigma an eighth of the patch, peak 10 in half precision, where the lowest are the smallest "
            "above 0.",
        },
        "labels": {
            "written_values": values if regions else {"background": 0, **values},
            "how": f"Logits are resampled to the scan's grid ({_describe_resampling(rules.logits)}); {decision}. "
            "Voxels that were cropped away are background.",
        },
    }


def _describe(rule: Normalisation) -> str:
    if rule.scheme == "ct":
        return (
            f"clip to {rule.clip_low:g} to {rule.clip_high:g}, subtract {rule.mean:g}, divide by {rule.std:g} "
            "(exact numbers in model.json)"
        )
    if rule.scheme == "zscore":
        over = "all its voxels"
        if rule.inside_only:
            over = "the nonzero voxels, holes filled; the others are left as they are"
        return f"subtract the mean and divide by the standard deviation of {over}"
    return _SCHEMES[rule.scheme]


def _describe_resampling(rule: Resampling) -> str:
    if rule.kept:
        return "not at all: the grid is kept"
    text = f"{_SPLINES[rule.order]}, outer borders aligned, border values beyond"
    if rule.clipped and rule.order > 1:
        text += ", clipped to the range of the values before"
    if rule.separate == "never":
        return text
    when = "always"
    if rule.separate == "auto":
        when = f"where voxel sizes differ by more than {rule.anisotropy:g} times"
    return f"{text}; along one coarse axis ({when}) slice by slice, and the nearest slice"
