"""Postprocessing of a predicted label map, target by target, as configured by `inference.postprocess`.

Voxels that are removed from a target become the enclosing region (removed tumour becomes liver), or background if
there is none; removing part of an outer region also removes the inner regions there. Voxels that are added to a
target (dilation, closing, filling, smoothing) are taken only from the enclosing region or background, never from
another target; if two targets grow into the same gap, the one that is processed first gets it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medunet.postprocessing.boxes import Mask, bounding_box
from medunet.postprocessing.morphology import ball_reach, make_ball
from medunet.postprocessing.steps import apply_step, check_steps, keep_touching
from medunet.records.config import PostprocessStep

LabelMap = NDArray[np.uint8]  # (I, J, K)
Targets = Mapping[str, tuple[int, ...]]


def tidy_labels(
    label_map: LabelMap,
    targets: Targets,
    written_values: Mapping[str, int],
    postprocess: Mapping[str, Sequence[PostprocessStep]],
    spacing_mm: Sequence[float],
) -> LabelMap:
    """Return a label map `(I, J, K)` after each target's postprocessing steps; the input is not modified.

    `targets` maps each target to its label values, `written_values` to the value that is written for it, both with
    outer regions before inner ones. Targets are processed in that order, each on the result of the one before.

    `inside: other` removes the part outside the other target if both can contain the same voxel (overlapping
    regions). If they exclude each other, it removes the 26-connected components that do not touch the other target.

    Raises:
        InputError: steps name targets that do not exist; lists them all.
    """
    check_steps(postprocess, targets)
    result = label_map.copy(order="K")
    for name in written_values:
        if steps := postprocess.get(name, ()):
            _process_target(result, name, targets, written_values, steps, spacing_mm)
    return result


def _process_target(
    label_map: LabelMap,
    name: str,
    targets: Targets,
    written_values: Mapping[str, int],
    steps: Sequence[PostprocessStep],
    spacing_mm: Sequence[float],
) -> None:
    """Apply one target's steps to the label map in place, within the box that they can affect."""
    margin = _growth_voxels(steps, spacing_mm, label_map.shape)
    box = bounding_box(_has_label(label_map, targets[name]), margin)
    if box is None:
        return
    window = label_map[box]
    before = _has_label(window, targets[name])
    allowed = before | _has_label(window, _free_values(name, targets))
    mask = before
    for step in steps:
        if step.inside is None:
            mask = apply_step(mask, step, spacing_mm) & allowed
        else:
            other = _has_label(window, targets[step.inside])
            overlap = set(targets[name]) & set(targets[step.inside])
            mask = mask & other if overlap else keep_touching(mask, other)
    lost = before & ~mask
    window[lost] = _replacement_values(name, targets, written_values)[window[lost]]
    window[mask & ~before] = written_values[name]


def _growth_voxels(
    steps: Sequence[PostprocessStep], spacing_mm: Sequence[float], shape: Sequence[int]
) -> tuple[int, ...]:
    """Return by how many voxels the steps can extend a mask (only dilation does), plus one, along each axis."""
    radii_mm = [step.dilation_mm for step in steps if step.dilation_mm is not None]
    reaches = [ball_reach(make_ball(radius, spacing_mm, shape)) for radius in radii_mm]
    return tuple(1 + sum(along_axis) for along_axis in zip((0, 0, 0), *reaches, strict=True))


def _has_label(label_map: LabelMap, values: Sequence[int]) -> Mask:
    table = np.zeros(256, dtype=bool)
    table[list(values)] = True
    return table[label_map]


def _free_values(name: str, targets: Targets) -> list[int]:
    """Return the values that a target may grow into: those of its enclosing regions and of no other target."""
    outer = {other for other in targets if set(targets[other]) > set(targets[name])}
    values = {0}.union(*targets.values())
    return [value for value in values if {other for other in targets if value in targets[other]} == outer]


def _replacement_values(name: str, targets: Targets, written_values: Mapping[str, int]) -> LabelMap:
    """Return a lookup table of the value that replaces each label value when a voxel is removed from a target."""
    replacement = np.zeros(256, dtype=np.uint8)
    for other, written in written_values.items():
        if not set(targets[other]) <= set(targets[name]):
            replacement[list(targets[other])] = written
    return replacement
