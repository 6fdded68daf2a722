"""A predicted label map tidied target by target, as the configuration's `inference.postprocess` says.

What a target loses becomes the region around it (a piece taken from the tumour becomes liver), else background;
an outer region takes along what lies within it. What a target gains (dilation, closing, filling, smoothing) it
takes from that same region or background alone, never from another target; of two targets that grow into the
same gap, the one painted first gets it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from medunet.postprocessing.boxes import Mask, mask_box
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
    """Return a label map `(I, J, K)` after each target's steps, in their order; the input stays as it is.

    `targets` are the label values that each target unites and `written_values` the value that stands for it,
    both in the order in which they are painted: outer regions before inner ones. Targets are tidied in that
    order, too, each on the map that the ones before it left.

    `inside: other` takes away what lies outside the other target where both may hold the same voxel (regions).
    Where they exclude one another, no voxel could be left: there, the 26-connected pieces go that do not touch
    the other target.

    Raises:
        InputError: a step names a target that does not exist; names each.
    """
    check_steps(postprocess, targets)
    tidied = label_map.copy(order="K")
    for name in written_values:
        if steps := postprocess.get(name, ()):
            _tidy_target(tidied, name, targets, written_values, steps, spacing_mm)
    return tidied


def _tidy_target(
    label_map: LabelMap,
    name: str,
    targets: Targets,
    written_values: Mapping[str, int],
    steps: Sequence[PostprocessStep],
    spacing_mm: Sequence[float],
) -> None:
    """Do the steps of one target on the label map itself, within the box that they can reach."""
    margin = _growth_voxels(steps, spacing_mm, label_map.shape)
    box = mask_box(_has_label(label_map, targets[name]), margin)
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
    window[lost] = _values_beneath(name, targets, written_values)[window[lost]]
    window[mask & ~before] = written_values[name]


def _growth_voxels(
    steps: Sequence[PostprocessStep], spacing_mm: Sequence[float], shape: Sequence[int]
) -> tuple[int, ...]:
    """Return how far the steps can carry a mask along each axis, and one voxel more; only dilation does."""
    radii_mm = [step.dilation_mm for step in steps if step.dilation_mm is not None]
    reaches = [ball_reach(make_ball(radius, spacing_mm, shape)) for radius in radii_mm]
    return tuple(1 + sum(along_axis) for along_axis in zip((0, 0, 0), *reaches, strict=True))


def _has_label(label_map: LabelMap, values: Sequence[int]) -> Mask:
    table = np.zeros(256, dtype=bool)
    table[list(values)] = True
    return table[label_map]


def _free_values(name: str, targets: Targets) -> list[int]:
    """Return the values that a target may grow into: those that belong to the regions around it and no other."""
    outer = {other for other in targets if set(targets[other]) > set(targets[name])}
    values = {0}.union(*targets.values())
    return [value for value in values if {other for other in targets if value in targets[other]} == outer]


def _values_beneath(name: str, targets: Targets, written_values: Mapping[str, int]) -> LabelMap:
    """Return, by value, what a voxel becomes when it is taken from a target: the last painted one that is left."""
    beneath = np.zeros(256, dtype=np.uint8)
    for other, written in written_values.items():
        if not set(targets[other]) <= set(targets[name]):
            beneath[list(targets[other])] = written
    return beneath
