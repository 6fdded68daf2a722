"""Postprocessing steps of the configuration: checked against the dataset's targets, and applied to one mask."""

import math
from collections.abc import Mapping, Sequence

from medunet.base.errors import InputError
from medunet.imaging.components import find_components, largest_component, remove_small_components
from medunet.postprocessing.boxes import Mask, apply_in_box
from medunet.postprocessing.holes import fill_holes
from medunet.postprocessing.morphology import SLACK, close_mask, dilate, erode, open_mask
from medunet.postprocessing.smoothing import smooth_gaussian, smooth_median
from medunet.records.config import PostprocessStep

_BY_SIZE_MM = {
    "opening_mm": open_mask,
    "closing_mm": close_mask,
    "dilation_mm": dilate,
    "erosion_mm": erode,
    "median_mm": smooth_median,
    "gaussian_mm": smooth_gaussian,
}
_GROWING = ("closing_mm", "dilation_mm", "fill_holes", "median_mm", "gaussian_mm")


def can_grow(step: PostprocessStep) -> bool:
    """Return whether a step can add voxels to a mask."""
    return any(getattr(step, key) is not None for key in _GROWING)


def check_steps(
    postprocess: Mapping[str, Sequence[PostprocessStep]], targets: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that all targets named by the postprocessing steps exist.

    Raises:
        InputError: a target does not exist or should be inside itself; lists every fault.
    """
    faults = [f"there is no target '{name}'" for name in postprocess if name not in targets]
    for name, steps in postprocess.items():
        for number, step in enumerate(steps, start=1):
            if step.inside is not None and step.inside not in targets:
                faults.append(f"{name}, step {number}: inside: there is no target '{step.inside}'")
            elif step.inside is not None and step.inside == name:
                faults.append(f"{name}, step {number}: inside: a target cannot be inside itself")
    if faults:
        raise InputError(
            "; ".join(faults), where="inference.postprocess", hint=f"Choose from {list(targets)}."
        )


def apply_step(mask: Mask, step: PostprocessStep, spacing_mm: Sequence[float]) -> Mask:
    """Return a mask `(I, J, K)` after one step other than `inside`; the input is not modified."""
    ((key, value),) = step.model_dump().items()
    match key:
        case "keep_largest":
            return apply_in_box(mask, largest_component)
        case "min_volume_ml":
            least = min_voxels(value, spacing_mm)
            return apply_in_box(mask, lambda frame: remove_small_components(frame, least))
        case "fill_holes":
            return fill_holes(mask)
        case _:
            return _BY_SIZE_MM[key](mask, value, spacing_mm)


def min_voxels(volume_ml: float, spacing_mm: Sequence[float]) -> int:
    """Return the number of voxels of a volume.

    With the tolerance, a component of exactly this volume is kept although spacings are rounded.
    """
    return math.ceil(volume_ml * 1000 / math.prod(spacing_mm) / SLACK)


def keep_touching(mask: Mask, other: Mask) -> Mask:
    """Return the components of a mask `(I, J, K)` that touch another mask by a face, edge or corner."""
    components = find_components(mask | other)
    return mask & components.select(components.touching(other))
