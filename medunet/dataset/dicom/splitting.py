"""Splitting of a series into several acquisitions by orientation, echo, b-value, time point or similar tags.

Overlapping acquisitions, such as chest and abdomen of one CT, are split by acquisition number.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.dicom.heights import group_by_height
from medunet.dataset.dicom.rounding import cosine_unit
from medunet.dataset.dicom.stacks import Stack
from medunet.imaging.dicom import Slice

_IN_ORDER = ("echo time", "b-value", "time point", "trigger time", "inversion time")
_IN_ORDER_AT_LAST = ("acquisition number", "echo number")
_FEWEST_OF_AN_ACQUISITION = 3  # fewest slices from which a slice spacing can be determined
_TIMES = ("acquisition time", "content time")
_CORNER_MM = 0.1  # corners that differ by no more are at the same place
_ROUNDINGS = 2.5  # units by which rounded directions may differ from the middle one
_Key = tuple[float | str | None, ...]
Vector = NDArray[np.float64]


def split_orientations(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group slices by orientation, the largest group first.

    Differences are ignored if they move the corner opposite the first voxel by no more than one pixel or 0.1 mm,
    or if they can be due to rounding of the directions.
    """
    directions = np.array([one.frame.orientation for one in slices])
    extent_mm = max(_extent_mm(one) for one in slices)
    tolerance_mm, unit = _tolerance_mm(slices), cosine_unit(directions)

    def is_like(other: Vector, among: NDArray[np.intp]) -> NDArray[np.bool_]:
        is_near = corner_shifts_mm(directions[among], other, extent_mm) <= tolerance_mm
        return is_near | (np.abs(directions[among] - other).max(axis=1) <= _ROUNDINGS * unit)

    groups: list[list[Slice]] = []
    left = np.arange(len(slices))
    while left.size:
        together = is_like(np.median(directions[left], axis=0), left)
        if 2 * np.count_nonzero(together) < left.size:
            together = is_like(directions[left[0]], left)
        groups.append([slices[index] for index in left[together]])
        left = left[~together]
    return sorted(groups, key=len, reverse=True)


def corner_shifts_mm(directions: Vector, other: Vector, extent_mm: tuple[float, float]) -> Vector:
    """Return how far the corner opposite the first voxel moves from directions `(K, 6)` to `other`, (6,)."""
    off = directions - other
    return np.linalg.norm(off[:, :3] * extent_mm[0] + off[:, 3:] * extent_mm[1], axis=1)


def corner_shift_mm(one: Slice, other: Slice) -> float:
    """Return how far the corner opposite the first voxel moves from one slice's directions to another's."""
    directions = np.array([one.frame.orientation])
    return float(corner_shifts_mm(directions, np.array(other.frame.orientation), _extent_mm(one))[0])


def split_spacings(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group slices by matrix and pixel spacing, the largest group first; all must have a spacing.

    Differences of spacing are ignored if they move the corner opposite the first voxel by no more than one pixel
    or 0.1 mm.
    """
    groups: list[list[Slice]] = []
    for one in slices:
        for group in groups:
            first = group[0]
            off_mm = np.linalg.norm(np.subtract(_extent_mm(one), _extent_mm(first)))
            if one.file.shape == first.file.shape and off_mm <= _tolerance_mm([one, first]):
                group.append(one)
                break
        else:
            groups.append([one])
    return sorted(groups, key=len, reverse=True)


def _extent_mm(one: Slice) -> tuple[float, float]:
    """Return the distance of the first voxel to the last along a row and along a column."""
    rows, columns = one.file.shape
    between_rows, between_columns = one.frame.spacing_mm or (0.0, 0.0)
    return (columns - 1) * between_columns, (rows - 1) * between_rows


def _tolerance_mm(slices: Sequence[Slice]) -> float:
    smallest = min(min(one.frame.spacing_mm or (0.0,)) for one in slices)
    return max(_CORNER_MM, smallest)


def split_repeats(slices: Sequence[Slice]) -> tuple[list[list[Slice]], str]:
    """Split slices, sorted by height, into stacks without repeated heights; also return the name of the tags used.

    The tags must give as many stacks as there are slices at one height, each with at least half of the heights, or
    overlapping acquisitions. If no tags do, no stacks are returned.
    """
    places = group_by_height(slices)
    most = max(len(place) for place in places)
    if most == 1:
        together = Stack(tuple(slices))
        if (together.gaps() or together.uneven_slices()) and (found := _split_overlaps(slices, places)):
            return found, "acquisition number"
        return [list(slices)], ""
    names = [*_IN_ORDER, *_IN_ORDER_AT_LAST]
    ways: list[tuple[str, ...]] = [(name,) for name in names]
    ways += list(combinations(names, 2))
    for way in ways:
        groups = _group(slices, [tuple(one.frame.acquisition.get(name) for name in way) for one in slices])
        if len(groups) == most and _are_stacks(groups, places, slices):
            return groups, " and ".join(way)
    image_types = _group(slices, [tuple(sorted(one.frame.image_type)) for one in slices])
    if len(image_types) == most and _are_stacks(image_types, places, slices):
        return image_types, "image type"
    for name in _TIMES:
        if groups := _split_by_time(slices, places, most, name):
            return groups, name
    found = _split_overlaps(slices, places)
    return found, "acquisition number" if found else ""


def _group(slices: Sequence[Slice], keys: Sequence[_Key]) -> list[list[Slice]]:
    groups: dict[_Key, list[Slice]] = {}
    for one, key in zip(slices, keys, strict=True):
        groups.setdefault(key, []).append(one)
    order = sorted(groups, key=lambda values: [_sortable(value) for value in values])
    return [groups[values] for values in order]


def _sortable(value: float | str | None) -> tuple[int, float, str]:
    if isinstance(value, float):
        return 0, value, ""
    return (2, 0.0, "") if value is None else (1, 0.0, value)


def _are_stacks(groups: list[list[Slice]], places: list[list[int]], slices: Sequence[Slice]) -> bool:
    place_of = {id(slices[index]): number for number, place in enumerate(places) for index in place}
    for group in groups:
        found = {place_of[id(one)] for one in group}
        if len(found) < len(group) or 2 * len(found) < len(places) or len(found) < 2:
            return False
    return True


def _split_by_time(
    slices: Sequence[Slice], places: list[list[int]], most: int, name: str
) -> list[list[Slice]]:
    """Group the first, second, ... slice in time at each height, if each group ends before the next one starts."""
    if len(places) < 2 or any(len(place) != most for place in places):
        return []
    times = [one.frame.acquisition.get(name) for one in slices]
    if any(time is None for time in times):
        return []
    ordered = [sorted(place, key=lambda index: _sortable(times[index])) for place in places]
    rounds = [[place[number] for place in ordered] for number in range(most)]
    for earlier, later in pairwise(rounds):
        last = max(_sortable(times[index]) for index in earlier)
        if last >= min(_sortable(times[index]) for index in later):
            return []
    return [[slices[index] for index in one_round] for one_round in rounds]


def _split_overlaps(slices: Sequence[Slice], places: list[list[int]]) -> list[list[Slice]]:
    """Split slices into overlapping acquisitions, from the lowest; each must have evenly spaced slices.

    Interleaved slices of one scan that are stored as several acquisitions are not split: the slice spacing of each
    acquisition must be that of all slices together, or the acquisitions must not continue one another's grid.
    """
    groups = _group(slices, [(one.frame.acquisition.get("acquisition number"),) for one in slices])
    fewest = min(len(places), *(len(group) for group in groups))
    if len(groups) == 1 or fewest < _FEWEST_OF_AN_ACQUISITION:
        return []
    if any(len(group_by_height(group)) < len(group) for group in groups):
        return []
    together = Stack(tuple(slices[place[0]] for place in places))
    stacks = [Stack(tuple(group)) for group in groups]
    if any(stack.gaps() or stack.uneven_slices() for stack in stacks):
        return []
    usual_mm = float(np.median(together.distances_mm))
    is_usual = all(abs(stack.slice_spacing_mm - usual_mm) <= stack.tolerance_mm for stack in stacks)
    if not is_usual and _interleave(stacks):
        return []
    stacks.sort(key=lambda stack: stack.heights_mm[0])
    if any(upper.heights_mm[0] > lower.heights_mm[-1] for lower, upper in pairwise(stacks)):
        return []
    return [list(stack.slices) for stack in stacks]


def _interleave(stacks: Sequence[Stack]) -> bool:
    """Return whether stacks are every second, third, ... slice of one evenly spaced grid."""
    first = stacks[0]
    step_mm = first.slice_spacing_mm / len(stacks)
    for stack in stacks[1:]:
        offset_mm = float(stack.heights_mm[0] - first.heights_mm[0])
        off_mm = abs(offset_mm - round(offset_mm / step_mm) * step_mm)
        if (
            abs(stack.slice_spacing_mm - first.slice_spacing_mm) > first.tolerance_mm
            or off_mm > first.tolerance_mm
        ):
            return False
    return True
