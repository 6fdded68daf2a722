"""Images of a series that are no part of its volume, such as a localizer that is not marked as one.

They are left out only if the other slices are complete without them.
"""

from collections.abc import Sequence

import numpy as np

from medunet.dataset.dicom.heights import group_by_height, sort_slices
from medunet.dataset.dicom.splitting import split_orientations, split_repeats, split_spacings
from medunet.dataset.dicom.stacks import Stack
from medunet.imaging.dicom import Slice

_FEWEST_OF_A_STACK = 3
_SAME_PLACE = 0.2  # of the distance between slices


def split_strays(slices: Sequence[Slice]) -> tuple[list[Slice], list[tuple[str, list[Slice]]]]:
    """Separate images of another matrix, pixel spacing or orientation from slices that are complete without them.

    Returns the slices of the volume, and groups of images to leave out with what is different about each. If the
    rest is not complete, or the images are of another patient or study or at the place of a further slice, all
    slices are kept.
    """
    same, *others = split_spacings(slices)
    groups = split_orientations(same)
    strays = [(_difference(group[0], groups[0][0]), group) for group in others]
    strays += [
        (_difference(group[0], groups[0][0]), group)
        for group in groups[1:]
        if len(group) < _FEWEST_OF_A_STACK
    ]
    kept = [groups[0], *(group for group in groups[1:] if len(group) >= _FEWEST_OF_A_STACK)]
    num_strays = sum(len(group) for _, group in strays)
    if not strays or 2 * num_strays > len(groups[0]) or len(groups[0]) < _FEWEST_OF_A_STACK:
        return list(slices), []
    if any(_source(one) != _source(groups[0][0]) for _, group in strays for one in group):
        return list(slices), []
    if not all(_is_complete(group) for group in kept):
        return list(slices), []
    if any(_continues(one, groups[0]) for _, group in strays for one in group):
        return list(slices), []
    foreign = {id(one) for _, group in strays for one in group}
    return [one for one in slices if id(one) not in foreign], strays


def _source(one: Slice) -> tuple[str, str, str]:
    return one.file.patient_id, one.file.study_uid, one.file.modality


def _difference(one: Slice, usual: Slice) -> str:
    what = []
    if degrees := degrees_between(one, usual):
        what.append(f"orientation ({degrees:.3g}°)")
    if one.file.shape != usual.file.shape:
        what.append("matrix")
    if one.frame.spacing_mm != usual.frame.spacing_mm:
        what.append("pixel spacing")
    return " and ".join(what)


def degrees_between(one: Slice, other: Slice) -> float:
    """Return the largest angle between the directions of two slices along rows and along columns, 0 below 0.01°."""
    first, second = (np.reshape(each.frame.orientation or (), (2, 3)) for each in (one, other))
    sines, cosines = np.linalg.norm(np.cross(first, second), axis=1), np.sum(first * second, axis=1)
    degrees = float(np.rad2deg(np.arctan2(sines, cosines)).max())
    return degrees if degrees >= 0.01 else 0.0


def _continues(one: Slice, group: Sequence[Slice]) -> bool:
    """Return whether an image is where the slice before the first or after the last would be."""
    ordered = sort_slices(group)
    stack = Stack(tuple(ordered[places[0]] for places in group_by_height(ordered)))
    (origin, step), num_slices = stack.line, round(float(stack.places[-1])) + 1
    off = np.array(one.frame.position_mm) - origin
    distances_mm = [np.linalg.norm(off - place * step) for place in (-1, num_slices)]
    return bool(min(distances_mm) <= _SAME_PLACE * np.linalg.norm(step))


def _is_complete(group: Sequence[Slice]) -> bool:
    stacks, _ = split_repeats(sort_slices(group))
    made = [Stack(tuple(stack)) for stack in stacks]
    return bool(made) and not any(stack.gaps() or stack.uneven_slices() for stack in made)
