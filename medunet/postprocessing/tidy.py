"""Postprocessing of a predicted label map, target by target, as configured by `inference.postprocess`.

Voxels that are removed from a target become the enclosing region (removed tumour becomes liver), or background if
there is none; removing part of an outer region also removes the inner regions there. Voxels that are added to a
target (dilation, closing, filling, smoothing) are taken only from the enclosing region or background, never from
another target; if two targets grow into the same gap, the one that is processed first gets it.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.threads import map_threads, slices
from medunet.imaging.components import count_changes, find_components
from medunet.postprocessing.boxes import Box, Mask, bounding_box
from medunet.postprocessing.morphology import ball_reach, make_ball
from medunet.postprocessing.steps import apply_step, can_grow, check_steps, keep_touching, min_voxels
from medunet.records.config import PostprocessStep

LabelMap = NDArray[np.uint8]  # (I, J, K)
Targets = Mapping[str, tuple[int, ...]]

_SLAB_VOXELS = 1 << 22
_VOXELS_PER_RUN = 24  # or more, where components of all values are found at once: a run takes about 100 bytes
_FEW = 8  # values, for which comparing takes less time than a lookup table


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
    boxes = _find_boxes(result)
    named = [name for name in written_values if postprocess.get(name)]
    for together, group in groupby(named, lambda name: _is_alone(name, targets, postprocess[name])):
        names = list(group)
        if together and _keep_components(result, boxes, names, targets, postprocess, spacing_mm):
            continue
        for name in names:
            _process_target(result, boxes, name, targets, written_values, postprocess[name], spacing_mm)
    return result


def _is_alone(name: str, targets: Targets, steps: Sequence[PostprocessStep]) -> bool:
    """Return whether a target has one value, which is no other target's, and one step, which chooses components."""
    (value, *more), (step, *later) = targets[name], steps
    shared = any(value in targets[other] for other in targets if other != name)
    chooses = step.keep_largest is not None or step.min_volume_ml is not None
    return chooses and not (more or later or shared)


def _keep_components(
    label_map: LabelMap,
    boxes: dict[int, Box],
    names: Sequence[str],
    targets: Targets,
    postprocess: Mapping[str, Sequence[PostprocessStep]],
    spacing_mm: Sequence[float],
) -> bool:
    """Remove components of several targets that are alone (`_is_alone`) in one pass, in place.

    Done only if it takes less time and memory than one target after the other: returns whether it was.
    """
    values = {targets[name][0]: postprocess[name][0] for name in names}
    sizes = [math.prod(side.stop - side.start for side in boxes[value]) for value in values if value in boxes]
    if len(sizes) < 2:
        return False
    box = _join([boxes[value] for value in values if value in boxes])
    window = label_map[box]
    if window.size > sum(sizes) or count_changes(window) > window.size // _VOXELS_PER_RUN:
        return False
    if set(boxes) - set(values):
        table = np.zeros(256, np.uint8)
        table[list(values)] = list(values)
        window = table[window]
    components = find_components(window)
    largest, least, by_size = components.largest(), np.zeros(256), np.zeros(256, bool)
    for value, step in values.items():
        if step.min_volume_ml is not None:
            least[value], by_size[value] = min_voxels(step.min_volume_ml, spacing_mm), True
    is_large = components.sizes >= least[components.values]
    kept = np.where(by_size[components.values], is_large, largest)
    if not kept.all():
        np.copyto(label_map[box], np.uint8(0), where=components.select(~kept))
    return True


def _process_target(
    label_map: LabelMap,
    boxes: dict[int, Box],
    name: str,
    targets: Targets,
    written_values: Mapping[str, int],
    steps: Sequence[PostprocessStep],
    spacing_mm: Sequence[float],
) -> None:
    """Apply one target's steps to the label map in place, within the box that they can affect.

    `boxes` has a box around all voxels of each value, and is kept up to date.
    """
    around = _join([boxes[value] for value in targets[name] if value in boxes])
    if not around:
        return
    margin = _growth_voxels(steps, spacing_mm, label_map.shape)
    inner = bounding_box(_has_label(label_map[around], targets[name]))
    if inner is None:
        return
    box = tuple(
        slice(max(whole.start + part.start - voxels, 0), min(whole.start + part.stop + voxels, size))
        for whole, part, voxels, size in zip(around, inner, margin, label_map.shape, strict=True)
    )
    window = label_map[box]
    before = _has_label(window, targets[name])
    grows = any(map(can_grow, steps))
    allowed = before | _has_label(window, _free_values(name, targets)) if grows else before
    mask = before
    for step in steps:
        if step.inside is None:
            mask = apply_step(mask, step, spacing_mm)
            if can_grow(step):
                mask &= allowed
        else:
            other = _has_label(window, targets[step.inside])
            overlap = set(targets[name]) & set(targets[step.inside])
            mask = mask & other if overlap else keep_touching(mask, other)
    replacement = _replacement_values(name, targets, written_values)
    written = {written_values[name], *replacement[list(targets[name])].tolist()}
    _replace(window, before & ~mask, replacement)
    if grows:
        np.copyto(window, np.uint8(written_values[name]), where=mask & ~before)
    for value in written:
        boxes[value] = _join([box, boxes.get(value, box)])


def _find_boxes(label_map: LabelMap) -> dict[int, Box]:
    """Return the bounding box of each value above 0."""
    # SciPy goes along the last axis, which should be contiguous.
    is_transposed = label_map.strides[0] < label_map.strides[-1]
    frame = label_map.T if is_transposed else label_map
    length = max(1, _SLAB_VOXELS // max(1, frame[:1].size))

    def find(part: slice) -> dict[int, Box]:
        found = enumerate(ndimage.find_objects(frame[part]), start=1)
        return {
            value: (slice(part.start + box[0].start, part.start + box[0].stop), *box[1:])
            for value, box in found
            if box is not None
        }

    boxes: dict[int, Box] = {}
    for found in map_threads(find, slices(frame.shape[0], length)):
        for value, box in found.items():
            boxes[value] = _join([box, boxes.get(value, box)])
    return {value: box[::-1] if is_transposed else box for value, box in boxes.items()}


def _join(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around all boxes; none around no box."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _replace(label_map: LabelMap, mask: Mask, replacement: LabelMap) -> None:
    """Replace the values of a mask's voxels by those of a lookup table, in place."""
    if (box := bounding_box(mask)) is not None:
        part, lost = label_map[box], mask[box]
        if part.strides[0] < part.strides[-1]:
            # Choosing voxels by a mask is fast in the order of memory alone.
            part, lost = part.T, lost.T
        part[lost] = replacement[part[lost]]


def _growth_voxels(
    steps: Sequence[PostprocessStep], spacing_mm: Sequence[float], shape: Sequence[int]
) -> tuple[int, ...]:
    """Return by how many voxels the steps can extend a mask (only dilation does), plus one, along each axis."""
    radii_mm = [step.dilation_mm for step in steps if step.dilation_mm is not None]
    reaches = [ball_reach(make_ball(radius, spacing_mm, shape)) for radius in radii_mm]
    return tuple(1 + sum(along_axis) for along_axis in zip((0, 0, 0), *reaches, strict=True))


def _has_label(label_map: LabelMap, values: Sequence[int]) -> Mask:
    if len(values) <= _FEW:
        mask = np.zeros_like(label_map, dtype=bool)
        for value in values:
            mask |= label_map == value
        return mask
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
