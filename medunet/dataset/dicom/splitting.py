"""Splitting of a series into several acquisitions by orientation, echo, b-value, time point or similar tags.

Overlapping acquisitions, such as chest and abdomen of one CT, are split by acquisition number.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np

from medunet.dataset.dicom.stacks import JITTER, Stack, group_by_height
from medunet.imaging.dicom import Slice

_IN_ORDER = ("echo time", "b-value", "time point", "trigger time", "inversion time")
_IN_ORDER_AT_LAST = ("acquisition number", "echo number")
_FEWEST_OF_AN_ACQUISITION = 3  # fewest slices from which a slice spacing can be determined
_TIMES = ("acquisition time", "content time")
_Key = tuple[float | str | None, ...]


def split_orientations(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Group slices by orientation, the largest group first; differences up to 1e-4 are ignored."""
    groups: list[list[Slice]] = []
    firsts: list[np.ndarray] = []
    for one in slices:
        directions = np.array(one.frame.orientation)
        for group, first in zip(groups, firsts, strict=True):
            if np.abs(directions - first).max() <= JITTER:
                group.append(one)
                break
        else:
            groups.append([one])
            firsts.append(directions)
    return sorted(groups, key=len, reverse=True)


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

    The slice spacing of each acquisition must also be that of all slices together, so that interleaved slices of one
    scan that are stored as two acquisitions are not split.
    """
    groups = _group(slices, [(one.frame.acquisition.get("acquisition number"),) for one in slices])
    fewest = min(len(places), *(len(group) for group in groups))
    if len(groups) == 1 or fewest < _FEWEST_OF_AN_ACQUISITION:
        return []
    together = Stack(tuple(slices[place[0]] for place in places))
    stacks = [Stack(tuple(group)) for group in groups]
    if any(stack.gaps() or stack.uneven_slices() for stack in stacks):
        return []
    if any(
        abs(stack.slice_spacing_mm - together.slice_spacing_mm) > together.tolerance_mm for stack in stacks
    ):
        return []
    stacks.sort(key=lambda stack: stack.heights_mm[0])
    if any(upper.heights_mm[0] > lower.heights_mm[-1] for lower, upper in pairwise(stacks)):
        return []
    return [list(stack.slices) for stack in stacks]
